// Connections to the API socket. Those that say nothing (somebody waits for their end, which would mean the daemon's death) stay here for ever; one with
// something to read goes to the server, and is finished when the server says so or dies.
#include "holder.h"
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
  int fd; // 0: free
  bool lent;
} clients[MAX_CLIENTS];
static int count;

bool clients_full(void) { return count == MAX_CLIENTS; }

void clients_accept(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0) return;
  for (int i = 0; i < MAX_CLIENTS; i++) {
    if (clients[i].fd != 0) continue;
    clients[i].fd = fd;
    clients[i].lent = false;
    count++;
    return;
  }
  close(fd);
}

static void drop(int number) {
  close(clients[number].fd);
  clients[number].fd = 0;
  count--;
}

int clients_poll(struct pollfd *set) {
  int used = 0;
  for (int i = 0; i < MAX_CLIENTS; i++)
    if (clients[i].fd != 0 && !clients[i].lent) set[used++] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
  return used;
}

void clients_ready(const struct pollfd *set, int used, int channel) {
  for (int i = 0; i < used; i++) {
    if (set[i].revents == 0) continue;
    for (int number = 0; number < MAX_CLIENTS; number++) {
      if (clients[number].fd != set[i].fd) continue;
      char byte;
      if (recv(set[i].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) {
        drop(number);
      } else if (channel >= 0) {
        char text[32];
        int length = snprintf(text, sizeof text, "connection%c%d", 0, number);
        clients[number].lent = message_send(channel, text, (size_t)length + 1, &set[i].fd, 1);
      }
      break;
    }
  }
}

void clients_closed(int number) {
  if (number >= 0 && number < MAX_CLIENTS && clients[number].fd != 0 && clients[number].lent) drop(number);
}

static bool begins_request(int fd) {
  char bytes[4];
  if (recv(fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT) != sizeof bytes) return false;
  return memcmp(bytes, "GET ", 4) == 0 || memcmp(bytes, "PUT ", 4) == 0 || memcmp(bytes, "POST", 4) == 0 || memcmp(bytes, "DELE", 4) == 0;
}

// What the server that died has read has no answer: the client hears the end of its connection. What it has not is for the next one.
void clients_server_died(void) {
  for (int i = 0; i < MAX_CLIENTS; i++) {
    if (clients[i].fd == 0 || !clients[i].lent) continue;
    if (begins_request(clients[i].fd)) clients[i].lent = false;
    else drop(i);
  }
}
