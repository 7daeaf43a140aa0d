// The second holder: the same program, forked, in a control group of its own. It waits for one thing, the end of the keeper, and is the keeper then.
#include "keeper.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "group.h"

// LIMIT: it takes a fraction of a millisecond; a machine that swaps takes longer.
enum { ANSWER_MS = 2000 };

static int channel = -1; // to the other one

int guardian_channel(void) { return channel; }

// Waits for one row from the other side. False when it is gone, or silent.
static bool acknowledged(void) {
  struct pollfd waiting = {.fd = channel, .events = POLLIN};
  Row row;
  int none[2];
  int ready;
  do ready = poll(&waiting, 1, ANSWER_MS);
  while (ready < 0 && errno == EINTR);
  return ready == 1 && packet_receive(channel, &row, sizeof row, none, 2) == sizeof row;
}

static void watch(void) {
  for (;;) {
    struct pollfd waiting = {.fd = channel, .events = POLLIN};
    if (poll(&waiting, 1, -1) < 0 && errno != EINTR) return;
    Row row;
    int fds[2];
    ssize_t length = packet_receive(channel, &row, sizeof row, fds, 2);
    if (length < 0 && errno == EAGAIN) continue;
    if (length != sizeof row) return;
    if (row.kind == BYE) group_leave_and_exit();
    const int fd = descriptor_raise(fds[0]);
    if (row.kind == KEEP && row.file < MAX_FILES) kept[row.file] = fd;
    if (row.kind == RELEASE && row.file < MAX_FILES) close(kept[row.file]);
    if (row.kind == STATE) {
      if (state >= 0) close(state);
      state = fd;
    }
    if (packet_send(channel, &row, sizeof row, NULL, 0) < 0) return;
  }
}

bool guardian_begin(void) {
  int pair[2];
  if (channel >= 0) close(channel);
  channel = -1;
  while (waitpid(-1, NULL, WNOHANG) > 0) {}
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) return false;
  const pid_t child = fork();
  if (child == 0) {
    close(pair[0]);
    channel = descriptor_raise(pair[1]);
    if (server >= 0) close(server); // its end must be the keeper's alone
    server = -1;
    close_range(3, MAX_OPEN - 1, 0); // questions that the keeper has read: their numbers are in the journal
    setsid();
    prctl(PR_SET_NAME, "nydusd-guardian");
    group_enter("nydusd-guardian");
    if (!files_prepare()) _exit(1);
    const Row row = {.kind = HELLO};
    if (packet_send(channel, &row, sizeof row, NULL, 0) == sizeof row) watch();
    close(channel); // the keeper is gone
    channel = -1;
    prctl(PR_SET_NAME, "nydusd-keeper");
    group_enter("nydusd-keeper");
    questions_recall();
    keeper_run();
  }
  close(pair[1]);
  if (child < 0) {
    close(pair[0]);
    return false;
  }
  channel = descriptor_raise(pair[0]);
  return acknowledged();
}

bool guardian_tell(uint32_t kind, uint32_t file, int fd) {
  const Row row = {.kind = kind, .file = file};
  if (channel < 0) return false;
  return packet_send(channel, &row, sizeof row, &fd, fd >= 0 ? 1 : 0) == sizeof row && acknowledged();
}
