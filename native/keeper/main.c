// nydusd-keeper SOCKET [REPLACEMENTS]: see keeper.h.
// nydusd-keeper --cut COUNT: for a server whose holders are lost, with fanotify's descriptor as 3 and those of COUNT devices after it: cuts them. Says "ready" on stdout when it listens, or on stderr why it cannot. REPLACEMENTS: tries to replace
// the other holder before it counts as lost.
#include "keeper.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "group.h"

// LIMIT: whether somebody still uses what a server has left is looked at so often; nothing tells us.
enum { LOOK_MS = 1000 };
// LIMIT: without a server, and without anything to keep, the next one is waited for so long.
enum { IDLE_MS = 2000 };

Journal *journal;
int state = -1;
static int listener = -1;
static int replacements = 3;
static char *socket_path;

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static void listen_on(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    fail(path);
  }
  strcpy(address.sun_path, path);
  listener = descriptor_raise(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  unlink(path);
  const mode_t before = umask(0177);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 16) < 0) fail(path);
  umask(before);
}

static bool keeps_something(void) {
  for (uint32_t file = 0; file < journal->files_end; file++)
    if (journal->files[file].kept) return true;
  return false;
}

static _Noreturn void finish(void) {
  if (!journal->alone) unlink(socket_path); // another keeper may have it by now
  const Row row = {.kind = BYE};
  struct pollfd other = {.fd = guardian_channel(), .events = 0};
  if (other.fd >= 0 && packet_send(other.fd, &row, sizeof row, NULL, 0) == sizeof row) poll(&other, 1, IDLE_MS);
  group_leave_and_exit();
}

static void deny_all(void) {
  for (uint32_t event = 0; event < journal->open_end; event++) questions_answer(event, EIO);
}

// One holder alone is one accident away from zeros: what is not complete is made unreadable for good. This process stays, and says no, for as long as somebody has such a file open.
static void give_up(void) {
  journal->alone = true;
  files_cut();
  unlink(socket_path);
  if (server >= 0) shutdown(server, SHUT_RDWR);
}

static void hold_together(void) {
  for (int i = 0; i < replacements; i++)
    if (guardian_begin()) return;
  give_up();
}

// Nobody is going to answer, so nobody is to wait; what nobody uses any more needs no keeper.
static void look_after(void) {
  deny_all();
  for (uint32_t file = 0; file < journal->files_end; file++) {
    if (!journal->files[file].kept || file_is_used(file)) continue;
    questions_unmark((int)file);
    guardian_tell(RELEASE, file, -1);
    file_drop(file);
  }
}

_Noreturn void keeper_run(void) {
  if (guardian_channel() < 0 && !journal->alone) hold_together();
  for (;;) {
    const bool orphaned = journal->alone || (server < 0 && journal->said_bye);
    const bool idle = server < 0 && !keeps_something();
    struct pollfd set[4] = {
      {.fd = questions, .events = POLLIN},
      {.fd = journal->alone ? -1 : guardian_channel(), .events = POLLIN}, // who is alone stays so
      {.fd = server < 0 && !journal->alone ? listener : -1, .events = POLLIN},
      {.fd = server, .events = server_is_behind() ? POLLIN | POLLOUT : POLLIN},
    };
    const int ready = poll(set, 4, orphaned ? LOOK_MS : idle ? IDLE_MS : -1);
    if (ready < 0) {
      if (errno != EINTR) fail("poll");
      continue;
    }
    if (set[0].revents != 0) questions_read();
    if (set[1].revents != 0) hold_together();
    if (set[2].revents != 0) server_accept(listener);
    if (server >= 0 && set[3].revents != 0) server_hear();
    if (orphaned && server < 0) look_after();
    if (server >= 0 && !journal->alone) server_tell();
    if (!keeps_something() && ((server < 0 && ready == 0) || journal->said_bye)) finish();
  }
}

static int cut(int count) {
  questions = descriptor_raise(3);
  for (int i = 0; i < count; i++) {
    uint32_t file;
    file_add(descriptor_raise(4 + i), &file);
  }
  journal->alone = true;
  questions_sweep(); // before any is read
  if (!files_prepare()) fail("thread");
  files_cut();
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fputs("nydusd-keeper is started by nydusd\n", stderr);
    return 2;
  }
  const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGIO}; // they end with the last device, whatever a service manager thinks
  for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) signal(ignored[i], SIG_IGN);
  const struct rlimit limit = {MAX_OPEN + MAX_FILES + 64, MAX_OPEN + MAX_FILES + 64};
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) fail("descriptors");
  journal = mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (journal == MAP_FAILED) fail("memory");
  memset(kept, -1, sizeof kept);
  if (strcmp(argv[1], "--cut") == 0) return argc == 3 ? cut(atoi(argv[2])) : 2;
  socket_path = argv[1];
  if (argc > 2) replacements = atoi(argv[2]);
  if (!questions_begin()) fail("fanotify_init");
  listen_on(socket_path);
  setsid();
  group_enter("nydusd-keeper");
  int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (oom >= 0) {
    if (write(oom, "-1000", 5) < 0) {} // as far as it is allowed
    close(oom);
  }
  if (!files_prepare()) fail("thread");
  if (!guardian_begin()) fail("guardian");
  if (write(1, "ready\n", 6) < 0) {}
  int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  if (null > 2) close(null);
  keeper_run();
}
