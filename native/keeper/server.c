// The server: one at a time, the next one waits until the last one is gone. All that it has not answered is told again to the next one.
#include "keeper.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int server = -1;
static bool greeted, behind;
static uint64_t told[MAX_OPEN]; // serials
static _Alignas(8) char packet[MAX_PACKET];

bool server_is_behind(void) { return behind; }

static bool send_rows(const void *rows, size_t length, const int *fds, int count) {
  if (packet_send(server, rows, length, fds, count) == (ssize_t)length) return true;
  if (errno == EAGAIN) behind = true;
  else shutdown(server, SHUT_RDWR); // heard of as its end
  return false;
}

void server_accept(int listener) {
  server = descriptor_raise(accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
  greeted = behind = false;
  memset(told, 0, sizeof told);
}

static void gone(void) {
  close(server);
  server = -1;
}

void server_tell(void) {
  Row rows[MAX_ROWS];
  behind = false;
  for (uint32_t from = 0; greeted && from < journal->open_end;) {
    size_t count = 0;
    for (; from < journal->open_end && count < MAX_ROWS; from++) {
      const Open *open = &journal->open[from];
      if (open->file == 0 || told[from] == open->serial) continue;
      rows[count++] = (Row){.kind = EVENT, .file = open->file - 1, .event = from, .offset = open->offset, .length = open->length, .serial = open->serial};
    }
    if (count == 0) return;
    if (!send_rows(rows, count * sizeof(Row), NULL, 0)) return;
    for (size_t i = 0; i < count; i++) told[rows[i].event] = rows[i].serial;
  }
}

static void greet(void) {
  journal->said_bye = false;
  Row row = {.kind = WELCOME, .error = journal->alone};
  const int fds[2] = {questions, state};
  if (!send_rows(&row, sizeof row, fds, state < 0 ? 1 : 2)) return;
  for (uint32_t file = 0; file < journal->files_end; file++) {
    if (!journal->files[file].kept) continue;
    row = (Row){.kind = FILE_KEPT, .file = file};
    if (!send_rows(&row, sizeof row, &kept[file], 1)) {
      shutdown(server, SHUT_RDWR); // it must know all of them: it comes again
      return;
    }
  }
  row = (Row){.kind = FILE_KEPT, .file = MAX_FILES}; // that was all
  greeted = send_rows(&row, sizeof row, NULL, 0);
  server_tell();
}

// Known to both holders before the server hears of it: from its next step on it counts on them.
static void keep(int *fd) {
  Row row = {.kind = KEPT};
  *fd = descriptor_raise(*fd);
  if (journal->alone || *fd < 0) row.error = EPERM;
  else row.error = (uint32_t)file_add(*fd, &row.file);
  if (row.error == 0) {
    *fd = -1;
    guardian_tell(KEEP, row.file, kept[row.file]);
    row.error = journal->alone ? EPERM : (uint32_t)questions_mark((int)row.file);
    if (row.error != 0) {
      guardian_tell(RELEASE, row.file, -1);
      file_drop(row.file);
    }
  } else if (row.error == EEXIST) {
    // the server before has left it, or it was complete for the images there were
    row.error = (uint32_t)questions_mark((int)row.file);
    if (row.error == 0) journal->files[row.file].complete = false;
  }
  send_rows(&row, sizeof row, NULL, 0);
}

static void answer_all(uint32_t file, uint32_t error) {
  for (uint32_t event = 0; event < journal->open_end; event++)
    if (journal->open[event].file == file + 1) questions_answer(event, error);
}

static void release(uint32_t file) {
  if (file < MAX_FILES && journal->files[file].kept) {
    questions_unmark((int)file);
    answer_all(file, EIO);
    guardian_tell(RELEASE, file, -1);
    file_drop(file);
  }
  const Row row = {.kind = RELEASED, .file = file};
  send_rows(&row, sizeof row, NULL, 0);
}

// From now on everybody may read. The file stays in our care: whoever has just asked gets an answer, and nobody takes it away.
static void complete(uint32_t file) {
  if (file < MAX_FILES && journal->files[file].kept && !journal->alone) {
    journal->files[file].complete = true;
    questions_unmark((int)file);
    answer_all(file, 0);
  }
  const Row row = {.kind = COMPLETED, .file = file};
  send_rows(&row, sizeof row, NULL, 0);
}

static void keep_state(int *fd) {
  if (state >= 0) close(state);
  state = descriptor_raise(*fd);
  *fd = -1;
  guardian_tell(STATE, 0, state);
  const Row row = {.kind = STATED};
  send_rows(&row, sizeof row, NULL, 0);
}

static void obey(const Row *row, int *fd) {
  switch (row->kind) {
    case HELLO: greet(); break;
    case KEEP: if (*fd >= 0) keep(fd); break;
    case RELEASE: release(row->file); break;
    case ANSWER:
      if (row->event >= MAX_OPEN || journal->open[row->event].serial != row->serial) break;
      questions_answer(row->event, row->error);
      break;
    case COMPLETE: complete(row->file); break;
    case STATE: if (*fd >= 0) keep_state(fd); break;
    case BYE: journal->said_bye = true; break;
  }
}

void server_hear(void) {
  for (;;) {
    int fds[2];
    ssize_t length = packet_receive(server, packet, sizeof packet, fds, 2);
    if (length < 0 && errno == EAGAIN) return;
    if (length <= 0) {
      gone();
      return;
    }
    for (size_t at = 0; at + sizeof(Row) <= (size_t)length; at += sizeof(Row)) {
      Row row;
      memcpy(&row, packet + at, sizeof row);
      obey(&row, &fds[0]);
    }
    for (int i = 0; i < 2; i++)
      if (fds[i] >= 0) close(fds[i]);
  }
}
