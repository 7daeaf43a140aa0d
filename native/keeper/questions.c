// What the kernel asks: each question has a range, and waits for its answer.
#include "keeper.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

// Newer than the headers of this compiler. SPEC: linux/fanotify.h.
#ifndef FAN_PRE_ACCESS
#define FAN_PRE_ACCESS 0x00100000
#endif
#ifndef FAN_EVENT_INFO_TYPE_RANGE
#define FAN_EVENT_INFO_TYPE_RANGE 6
#endif
typedef struct {
  struct fanotify_event_info_header header;
  uint32_t padding;
  uint64_t offset, count;
} Range;
enum { DENY_EIO = FAN_DENY | EIO << 24 };

int questions = -1;

bool questions_begin(void) {
  questions = descriptor_raise(fanotify_init(FAN_CLASS_PRE_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS, O_RDONLY | O_LARGEFILE | O_CLOEXEC));
  return questions >= 0;
}

int questions_mark(int file) { return fanotify_mark(questions, FAN_MARK_ADD, FAN_PRE_ACCESS, kept[file], NULL) < 0 ? errno : 0; }

void questions_unmark(int file) { fanotify_mark(questions, FAN_MARK_REMOVE, FAN_PRE_ACCESS, kept[file], NULL); }

static bool respond(int fd, uint32_t response) {
  struct fanotify_response answer = {.fd = fd, .response = response};
  ssize_t written;
  do written = write(questions, &answer, sizeof answer);
  while (written < 0 && errno == EINTR);
  return written == sizeof answer; // else whoever died has answered already
}

int descriptor_raise(int fd) {
  if (fd < 0) return fd;
  const int raised = fcntl(fd, F_DUPFD_CLOEXEC, MAX_OPEN);
  close(fd);
  return raised;
}

void questions_answer(uint32_t event, uint32_t error) {
  if (event >= MAX_OPEN || journal->open[event].file == 0) return;
  respond((int)event, error == 0 && !journal->alone ? FAN_ALLOW : DENY_EIO);
  journal->open[event].file = 0; // after the answer: a survivor rather answers twice than never
  close((int)event);
}

void questions_sweep(void) {
  for (int number = 0; number < MAX_OPEN; number++)
    while (respond(number, DENY_EIO)) {}
}

static uint32_t file_of(int fd) {
  struct stat status;
  if (fstat(fd, &status) < 0) return MAX_FILES;
  for (uint32_t file = 0; file < journal->files_end; file++)
    if (journal->files[file].kept && journal->files[file].inode == status.st_ino && journal->files[file].device == status.st_dev) return file;
  return MAX_FILES;
}

static void note(const struct fanotify_event_metadata *event, const char *end) {
  if (event->fd < 0) return; // the kernel had no descriptor for it, and has failed the read
  if (event->pid == getpid()) { // we never read these files: it is the cutting
    respond(event->fd, FAN_ALLOW);
    close(event->fd);
    return;
  }
  const Range *range = NULL;
  for (const char *at = (const char *)event + event->metadata_len; at + sizeof(struct fanotify_event_info_header) <= end;) {
    const struct fanotify_event_info_header *info = (const void *)at;
    if (info->info_type == FAN_EVENT_INFO_TYPE_RANGE && info->len >= sizeof(Range)) range = (const void *)at;
    if (info->len == 0) break;
    at += info->len;
  }
  const uint32_t file = file_of(event->fd);
  if (range == NULL || file == MAX_FILES || event->fd >= MAX_OPEN) {
    respond(event->fd, DENY_EIO); // nobody could fill it
    close(event->fd);
    return;
  }
  if (journal->files[file].complete && !journal->alone) {
    respond(event->fd, FAN_ALLOW); // it was on its way when the mark went
    close(event->fd);
    return;
  }
  Open *open = &journal->open[event->fd];
  open->offset = range->offset;
  open->length = range->count;
  open->serial = ++journal->last_serial;
  open->file = file + 1;
  if (journal->open_end <= (uint32_t)event->fd) journal->open_end = (uint32_t)event->fd + 1;
}

static void take(size_t length, bool ours) {
  const struct fanotify_event_metadata *event = (const void *)journal->inbox;
  for (size_t left = length; left >= FAN_EVENT_METADATA_LEN && event->event_len >= FAN_EVENT_METADATA_LEN && event->event_len <= left;) {
    const char *end = (const char *)event + event->event_len;
    if (ours) {
      note(event, end);
    } else if (event->fd >= 0 && (event->fd >= MAX_OPEN || journal->open[event->fd].file == 0)) {
      // its descriptor is gone with its process: which file it was of is not known any more
      respond(event->fd, DENY_EIO);
    }
    left -= event->event_len;
    event = (const void *)end;
  }
  memset(journal->inbox, 0, length);
}

void questions_read(void) {
  for (;;) {
    ssize_t length = read(questions, journal->inbox, INBOX_SIZE);
    if (length > 0) take((size_t)length, true);
    else if (length == 0 || (errno != EINTR && errno != EMFILE)) return;
  }
}

void questions_recall(void) {
  take(INBOX_SIZE, false);
  // numbers of questions that are open stay taken in this process too, else the kernel would give them to others
  for (uint32_t number = 0; number < journal->open_end; number++)
    if (journal->open[number].file != 0 && fcntl((int)number, F_GETFD) < 0) dup3(questions, (int)number, O_CLOEXEC);
}
