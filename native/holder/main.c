// nydusd-holder PROGRAM ARGUMENT…: see holder.h.
#include "holder.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

// A server of many holders takes some milliseconds to appear.
enum { CONNECT_RETRY_MS = 10 };
// Readers wait, so the next server is started at once; where it dies before it serves, the following ones more and more slowly: from 50 ms to 5 s.
enum { FIRST_DELAY_MS = 50, LAST_DELAY_MS = 5000 };
// A shared server that dies before it has mounted anything is tried so often.
enum { START_ATTEMPTS = 3 };
// A server that is told to end and does not: the holder then ends by itself.
enum { STOP_MS = 20000 };

static Server server = {.channel = -1, .lock = -1};
static Descriptors kept; // none: no server has begun yet
static int listener = -1;
static char *mountpoint, *device, *socket_path;
static int argument_count;
static char **arguments;
static bool running, stopping;
static int64_t retry_at, stop_at;
static int failures;
static Message message;

int64_t now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

void say(const char *text) { dprintf(2, "nydusd: %s\n", text); }

static void replace_text(char **target, const char *text) {
  free(*target);
  *target = strdup(text);
}

static void replace_fd(int *target, int fd) {
  if (*target >= 0) close(*target);
  *target = fd;
}

static _Noreturn void end(int code) {
  if (listener >= 0 && socket_path != NULL) unlink(socket_path);
  guest_end();
  exit(code);
}

// Only our own mount: somebody may have unmounted it, or mounted something else there.
static bool is_mounted(void) {
  char line[8192], found[64];
  bool result = false;
  FILE *file = fopen("/proc/self/mountinfo", "re");
  while (file != NULL && !result && fgets(line, sizeof line, file) != NULL)
    result = sscanf(line, "%*s %*s %63s", found) == 1 && device != NULL && *device != 0 && strcmp(found, device) == 0;
  if (file != NULL) fclose(file);
  return result;
}

static _Noreturn void end_alone(void) {
  if (mountpoint != NULL && is_mounted() && umount2(mountpoint, MNT_DETACH) < 0) say("cannot unmount");
  if (server.pid != 0) server_wait(&server);
  end(0);
}

static void greet(void) {
  static char text[MAX_MESSAGE];
  char directory[4096];
  const char *auth = getenv("IMAGE_PULL_AUTH");
  if (getcwd(directory, sizeof directory) == NULL) strcpy(directory, "/");
  const char *verb = kept.count > 0 ? "restore" : "start";
  size_t length = (size_t)snprintf(text, sizeof text, "%s%c%d%c%d%c%s%c%s", verb, 0, listener >= 0, 0, guest_is_listening(), 0, directory, 0, auth == NULL ? "" : auth) + 1;
  for (int i = 0; i < argument_count; i++) {
    size_t size = strlen(arguments[i]) + 1;
    if (length + size > sizeof text) {
      say("the arguments are too long");
      exit(2);
    }
    memcpy(text + length, arguments[i], size);
    length += size;
  }
  Descriptors all = kept;
  for (int i = 0; i < guest_kept()->count && all.count < MAX_DESCRIPTORS; i++) all.fds[all.count++] = guest_kept()->fds[i];
  message_send(server.channel, text, length, all.fds, kept.count > 0 ? all.count : 0); // a server that is gone already is heard of in a moment
  if (stopping) message_send(server.channel, "stop", 5, NULL, 0);
}

static void try_server(void) {
  if (server_connect(&server)) {
    retry_at = 0;
    greet();
  } else {
    retry_at = now_ms() + CONNECT_RETRY_MS;
  }
}

static void server_died(void) {
  server_disconnect(&server);
  clients_server_died();
  guest_server_died();
  if (running) failures = 0;
  running = false;
  const bool own = server.pid != 0;
  const int status = own ? server_wait(&server) : 1;
  if (stopping) end_alone();
  failures++;
  if (kept.count == 0 && (own || failures >= START_ATTEMPTS)) {
    if (!own) say("the server ends before it has begun; its log is beside its socket");
    end(status == 0 ? 1 : status);
  }
  int64_t delay = failures == 1 ? 0 : FIRST_DELAY_MS << (failures < 9 ? failures - 2 : 7);
  retry_at = now_ms() + (delay < LAST_DELAY_MS ? delay : LAST_DELAY_MS);
  if (kept.count > 0) dprintf(2, "nydusd: the server died (status %d), the next one continues\n", status);
}

static void obey(void) {
  const char *verb = message_word(&message, 0);
  if (strcmp(verb, "keep") == 0 && message.got.count > 0) {
    replace_text(&device, message_word(&message, 1));
    replace_text(&mountpoint, message_word(&message, 2));
    descriptors_take(&kept, &message, MAX_DESCRIPTORS);
  } else if (strcmp(verb, "listen") == 0 && message.got.count > 0) {
    replace_text(&socket_path, message_word(&message, 1));
    replace_fd(&listener, message_take(&message, 0));
  } else if (strcmp(verb, "guest") == 0 && message.got.count > 0) {
    guest_serve(message_word(&message, 1), message_take(&message, 0), message_take(&message, 1));
  } else if (strcmp(verb, "running") == 0) {
    running = true;
  } else if (strcmp(verb, "closed") == 0) {
    clients_closed(atoi(message_word(&message, 1)));
  } else if (strcmp(verb, "exit") == 0) {
    const char *text = message_word(&message, 2);
    if (*text != 0) dprintf(2, "%s\n", text);
    end(atoi(message_word(&message, 1)));
  }
}

static void hear_server(void) {
  for (;;) {
    int result = message_receive(server.channel, &message);
    if (result == 0) return;
    if (result < 0) {
      server_died();
      return;
    }
    obey();
  }
}

static void hear_signal(int signals) {
  struct signalfd_siginfo signal;
  if (read(signals, &signal, sizeof signal) != sizeof signal) return;
  if (signal.ssi_signo == SIGHUP && server.channel >= 0) message_send(server.channel, "reopen", 7, NULL, 0);
  if (signal.ssi_signo != SIGTERM && signal.ssi_signo != SIGINT) return; // SIGCHLD: the channel's end says it too
  if (server.channel < 0) end_alone();
  if (!stopping) stop_at = now_ms() + STOP_MS;
  stopping = true;
  if (!message_send(server.channel, "stop", 5, NULL, 0)) end_alone();
}

static int timeout_of(void) {
  int64_t next = retry_at == 0 || (stop_at != 0 && stop_at < retry_at) ? stop_at : retry_at;
  if (next == 0) return -1;
  int64_t left = next - now_ms();
  return left < 0 ? 0 : (int)left;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    say("nydusd-holder is started by nydusd");
    return 2;
  }
  server.program = argv[1];
  argument_count = argc - 2;
  arguments = argv + 2;
  for (int i = 0; i < argument_count; i++) {
    if (strncmp(arguments[i], "--server=", 9) == 0) server.shared = arguments[i] + 9;
    else if (strcmp(arguments[i], "--server") == 0 && i + 1 < argument_count) server.shared = arguments[i + 1];
  }
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGTERM);
  sigaddset(&watched, SIGINT);
  sigaddset(&watched, SIGHUP);
  sigprocmask(SIG_BLOCK, &watched, NULL);
  int signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  try_server();
  for (;;) {
    enum { GUEST = 3, CLIENTS = GUEST + GUEST_POLLS };
    static struct pollfd set[CLIENTS + MAX_CLIENTS];
    set[0] = (struct pollfd){.fd = signals, .events = POLLIN};
    set[1] = (struct pollfd){.fd = server.channel, .events = POLLIN};
    set[2] = (struct pollfd){.fd = clients_full() ? -1 : listener, .events = POLLIN};
    guest_poll(set + GUEST);
    // Without a server nobody reads what clients say: they are not looked at then, else poll would return at once for ever.
    const int idle = running ? clients_poll(set + CLIENTS) : 0;
    if (poll(set, (nfds_t)(CLIENTS + idle), timeout_of()) < 0 && errno != EINTR) return 1;
    if (set[0].revents != 0) hear_signal(signals);
    if (set[2].revents != 0) clients_accept(listener);
    if (running) clients_ready(set + CLIENTS, idle, server.channel);
    guest_ready(set + GUEST);
    if (server.channel >= 0 && set[1].revents != 0) hear_server();
    if (stop_at != 0 && now_ms() >= stop_at) end_alone();
    if (server.channel < 0 && retry_at != 0 && now_ms() >= retry_at) try_server();
  }
}
