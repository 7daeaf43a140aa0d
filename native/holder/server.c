// Where a server comes from: a child of ours, or the one that listens on a socket for many holders and is started by whoever needs it first.
#include "holder.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

// In a child: signals as a program expects them.
static void reset_signals(void) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void run_node(const char *program, const char *option, const char *value) {
  unsetenv("IMAGE_PULL_AUTH"); // it is told: what it runs is to inherit nothing
  execlp("node", "node", program, option, value, (char *)NULL);
  say("cannot run node");
  _exit(127);
}

static bool start_own(Server *server) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return false;
  pid_t parent = getpid();
  server->pid = fork();
  if (server->pid == 0) {
    reset_signals();
    setpgid(0, 0);                    // Ctrl-C is for the holder
    prctl(PR_SET_PDEATHSIG, SIGKILL); // a holder that is killed leaves no server behind: who sees it die takes all for dead
    if (getppid() != parent) _exit(1);
    if (dup2(pair[1], 3) == 3) fcntl(3, F_SETFD, 0);
    run_node(server->program, "--held", "3");
  }
  close(pair[1]);
  if (server->pid < 0) {
    server->pid = 0;
    close(pair[0]);
    return false;
  }
  server->channel = pair[0];
  return true;
}

// Not our child: it lives as long as it has holders, whichever of them started it.
static void start_shared(const char *program, const char *path) {
  pid_t child = fork();
  if (child == 0) {
    reset_signals();
    setsid();
    if (fork() != 0) _exit(0);
    char log[256];
    snprintf(log, sizeof log, "%s.log", path);
    int null = open("/dev/null", O_RDWR), file = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(null, 0);
    dup2(file < 0 ? null : file, 1);
    dup2(file < 0 ? null : file, 2);
    for (int fd = 3; fd < 1024; fd++) close(fd);
    if (chdir("/") < 0) _exit(1);
    run_node(program, "--holders", path);
  }
  if (child > 0) waitpid(child, NULL, 0);
}

// A server in another mount name space would mount where nobody looks. 1 beside us, 0 elsewhere, -1 when it is just dying.
static int is_beside_us(int channel) {
  struct ucred peer;
  socklen_t size = sizeof peer;
  struct stat theirs, ours;
  char path[64];
  if (getsockopt(channel, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return -1;
  snprintf(path, sizeof path, "/proc/%d/ns/mnt", peer.pid);
  if (stat(path, &theirs) < 0 || stat("/proc/self/ns/mnt", &ours) < 0) return -1;
  return theirs.st_ino == ours.st_ino;
}

static bool connect_shared(Server *server) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(server->shared) >= sizeof address.sun_path) {
    say("the path of --server is too long for a socket");
    exit(1);
  }
  strcpy(address.sun_path, server->shared);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
    const int beside = is_beside_us(fd);
    if (beside == 0) {
      say("the server of --server is in another mount name space");
      exit(1);
    }
    if (beside < 0) {
      close(fd);
      return false;
    }
    server->channel = fd;
    if (server->lock >= 0) close(server->lock);
    server->lock = -1;
    return true;
  }
  if (fd >= 0) close(fd);
  return false;
}

bool server_connect(Server *server) {
  if (server->shared == NULL) return start_own(server);
  if (connect_shared(server)) return true;
  if (server->lock >= 0) return false; // we have started it and wait for its socket
  char path[256];
  snprintf(path, sizeof path, "%s.lock", server->shared);
  server->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (server->lock < 0) {
    static bool said;
    if (!said) say("cannot make the lock beside the socket of --server");
    said = true;
    return false;
  }
  if (flock(server->lock, LOCK_EX | LOCK_NB) < 0) { // somebody else starts it
    close(server->lock);
    server->lock = -1;
    return false;
  }
  if (connect_shared(server)) return true; // somebody else has started it
  start_shared(server->program, server->shared);
  return false;
}

void server_disconnect(Server *server) {
  if (server->channel >= 0) close(server->channel);
  server->channel = -1;
}

int server_wait(Server *server) {
  int status = 0;
  if (server->pid == 0) return 1;
  kill(server->pid, SIGKILL); // one that closed its end and does not end is of no use
  while (waitpid(server->pid, &status, 0) < 0 && errno == EINTR) {}
  server->pid = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
