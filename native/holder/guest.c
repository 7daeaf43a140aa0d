// The connection of a virtual machine's monitor: a monitor that cannot reconnect notices nothing of a server's death, because its connection is here. Its
// messages go to the server one by one. Until one is answered it is kept, and the next server gets it again; answer and state come in one packet, so that
// each message is carried out and answered once, whenever a server dies.
#include "holder.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// SPEC: QEMU docs/interop/vhost-user.rst: request, flags and size of the payload, 4 bytes each; 8 descriptors at most go with a message.
enum { HEADER = 12, SIZE_AT = 8, MAX_PAYLOAD = 4096, MAX_MONITOR_FDS = 8 };
#define PREFIX "message"

static int listener = -1, channel = -1, monitor = -1;
static char *socket_path;
static Descriptors kept;

// The message that is being read, or that has no answer yet. `gone` counts as one: the monitor's end.
static struct {
  char bytes[sizeof PREFIX + HEADER + MAX_PAYLOAD];
  size_t have, want; // behind the prefix
  Descriptors fds;
  bool whole, gone;
} next = {.bytes = PREFIX, .want = HEADER};

static Message answer;

static void begin_message(void) {
  descriptors_close(&next.fds);
  next.have = 0;
  next.want = HEADER;
  next.whole = next.gone = false;
}

// A server that does not take it is dead, which is heard of in a moment.
static void offer(void) {
  if (!next.whole || channel < 0) return;
  if (next.gone) message_send(channel, "gone", sizeof "gone", NULL, 0);
  else message_send(channel, next.bytes, sizeof PREFIX + next.have, next.fds.fds, next.fds.count);
}

static void monitor_gone(void) {
  descriptors_close(&next.fds);
  next.gone = next.whole = true;
}

// Exactly what is missing of the message at hand: a larger read would join messages, and descriptors would go to the wrong one. 1: something came.
static int read_monitor(void) {
  union {
    char bytes[CMSG_SPACE(MAX_MONITOR_FDS * sizeof(int))];
    struct cmsghdr aligned;
  } control;
  struct iovec vector = {.iov_base = next.bytes + sizeof PREFIX + next.have, .iov_len = next.want - next.have};
  struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t size = recvmsg(monitor, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (size <= 0) return -1;
  for (struct cmsghdr *rights = CMSG_FIRSTHDR(&header); rights != NULL; rights = CMSG_NXTHDR(&header, rights)) {
    if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
    const int count = (int)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(next.fds.fds + next.fds.count, CMSG_DATA(rights), (size_t)count * sizeof(int));
    next.fds.count += count;
    if (next.fds.count > MAX_MONITOR_FDS) return -1;
  }
  next.have += (size_t)size;
  return (header.msg_flags & MSG_CTRUNC) != 0 ? -1 : 1;
}

static void hear_monitor(void) {
  while (!next.whole) {
    const int result = read_monitor();
    if (result == 0) return;
    if (result < 0) {
      monitor_gone();
    } else if (next.have == next.want && next.want == HEADER) {
      uint32_t payload;
      memcpy(&payload, next.bytes + sizeof PREFIX + SIZE_AT, sizeof payload);
      if (payload > MAX_PAYLOAD) monitor_gone();
      else next.want += payload;
    }
    if (next.have == next.want) next.whole = true;
  }
  offer();
}

static void drop_channel(void) {
  if (channel >= 0) close(channel);
  channel = -1;
}

// A monitor that does not read its answers has its connection ended.
static void hear_server(void) {
  while (channel >= 0) {
    const int result = message_receive(channel, &answer);
    if (result == 0) return;
    if (result < 0) {
      drop_channel();
      return;
    }
    if (strcmp(message_word(&answer, 0), "answer") != 0) continue;
    const int count = atoi(message_word(&answer, 1));
    const bool ends = next.gone || *message_word(&answer, 2) == '1';
    descriptors_take(&kept, &answer, count);
    const size_t from = message_after(&answer, 3);
    const int lent = answer.got.count > count ? answer.got.count - count : 0;
    const bool sent = ends || from == answer.length || message_send(monitor, answer.bytes + from, answer.length - from, answer.got.fds + count, lent);
    begin_message();
    if (ends) {
      close(monitor);
      monitor = -1;
    } else if (!sent) {
      monitor_gone();
      offer();
    }
  }
}

void guest_serve(const char *path, int new_channel, int new_listener) {
  drop_channel();
  channel = new_channel;
  if (new_listener >= 0) {
    free(socket_path);
    socket_path = strdup(path);
    if (listener >= 0) close(listener);
    listener = new_listener;
  }
  offer();
}

bool guest_is_listening(void) { return listener >= 0; }

const Descriptors *guest_kept(void) { return &kept; }

// One machine at a time: the next one waits in the listener's queue. A message without an answer is the last that is read.
void guest_poll(struct pollfd set[GUEST_POLLS]) {
  set[0] = (struct pollfd){.fd = channel, .events = POLLIN};
  set[1] = (struct pollfd){.fd = next.whole ? -1 : monitor, .events = POLLIN};
  set[2] = (struct pollfd){.fd = monitor < 0 ? listener : -1, .events = POLLIN};
}

void guest_ready(const struct pollfd set[GUEST_POLLS]) {
  if (set[0].revents != 0) hear_server();
  if (set[1].revents != 0 && monitor >= 0 && !next.whole) hear_monitor();
  if (set[2].revents != 0 && monitor < 0) monitor = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

void guest_server_died(void) {
  hear_server(); // what it has answered counts
  drop_channel();
}

void guest_end(void) {
  if (listener >= 0 && socket_path != NULL) unlink(socket_path);
}
