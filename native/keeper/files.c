// The cache files that are devices: kept by a descriptor that was opened before the mark, so that writing through it asks nobody.
#include "keeper.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int kept[MAX_FILES];

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
void files_cut(void) {
  for (uint32_t file = 0; file < journal->files_end; file++) {
    if (!journal->files[file].kept || journal->files[file].complete) continue;
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
}
