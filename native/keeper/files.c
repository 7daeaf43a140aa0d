// The cache files that are devices: kept by a descriptor that was opened before the mark, so that writing through it asks nobody.
#include "keeper.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STACK_SIZE = 64 * 1024 };

int kept[MAX_FILES];
static int begin = -1, done = -1;

int file_add(int fd, uint32_t *file) {
  struct stat status;
  if (fstat(fd, &status) < 0) return errno;
  uint32_t place = MAX_FILES;
  for (uint32_t i = MAX_FILES; i-- > 0;) {
    if (!journal->files[i].kept) place = i;
    else if (journal->files[i].inode == status.st_ino && journal->files[i].device == status.st_dev) {
      *file = i;
      return EEXIST;
    }
  }
  if (place == MAX_FILES) return ENOSPC;
  kept[place] = fd;
  journal->files[place].complete = false;
  journal->files[place].device = status.st_dev;
  journal->files[place].inode = status.st_ino;
  journal->files[place].kept = true;
  if (journal->files_end <= place) journal->files_end = place + 1;
  *file = place;
  return 0;
}

void file_drop(uint32_t file) {
  journal->files[file].kept = false;
  close(kept[file]);
  kept[file] = -1;
}

// A write lease is given only to the one who alone has a file open.
bool file_is_used(uint32_t file) {
  if (fcntl(kept[file], F_SETLEASE, F_WRLCK) < 0) return true;
  fcntl(kept[file], F_SETLEASE, F_UNLCK);
  return false;
}

// First the name, then the bytes: a server that finds its file cut and without a name does not write to it any more.
static void cut(uint32_t file) {
  char link[64], path[4097];
  snprintf(link, sizeof link, "/proc/self/fd/%d", kept[file]);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length > 0) {
    struct stat named, ours;
    path[length] = 0;
    if (stat(path, &named) == 0 && fstat(kept[file], &ours) == 0 && named.st_ino == ours.st_ino && named.st_dev == ours.st_dev) unlink(path);
  }
  if (ftruncate(kept[file], 0) < 0) fprintf(stderr, "nydusd-keeper: cannot cut a device: %s\n", strerror(errno));
}

// Cutting a marked file asks us, through whatever descriptor, so another thread does it. It is there from the beginning: what made it impossible to
// replace a holder may make it impossible to start a thread.
static void *cutter(void *unused) {
  (void)unused;
  uint64_t count;
  while (read(begin, &count, sizeof count) != sizeof count) {}
  for (uint32_t file = 0; file < journal->files_end; file++)
    if (journal->files[file].kept && !journal->files[file].complete) cut(file);
  count = 1;
  while (write(done, &count, sizeof count) != sizeof count) {}
  return NULL;
}

bool files_prepare(void) {
  pthread_t thread;
  pthread_attr_t small;
  begin = descriptor_raise(eventfd(0, EFD_CLOEXEC));
  done = descriptor_raise(eventfd(0, EFD_CLOEXEC));
  return begin >= 0 && done >= 0 && pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, STACK_SIZE) == 0 && pthread_create(&thread, &small, cutter, NULL) == 0;
}

void files_cut(void) {
  const uint64_t count = 1;
  if (write(begin, &count, sizeof count) != sizeof count) return;
  for (;;) {
    struct pollfd set[2] = {{.fd = questions, .events = POLLIN}, {.fd = done, .events = POLLIN}};
    if (poll(set, 2, -1) < 0) continue;
    if (set[0].revents != 0) questions_read();
    for (uint32_t event = 0; event < journal->open_end; event++) questions_answer(event, EIO);
    if (set[1].revents != 0) return;
  }
}
