// FUSE sessions: mounting, and one call that writes replies, waits on a set of sessions and delivers requests.
#include "addon.h"
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <time.h>

enum { KIND_SESSION = 0, KIND_WAKE_UP = 1 };
enum { REPLY_COLUMNS = 7, REQUEST_COLUMNS = 4, MAX_EVENTS = 64 };
// Of this many exchanges one asks the whole set instead of reading the session just answered: a busy session must not starve the others,
// or a wake-up.
enum { FAIRNESS = 16 };
// After a reply the client mostly asks again within microseconds. Sleeping and being woken takes longer than that, many times longer in a virtual machine
// whose other processor is idle (bench/serve/fuse-metadata): so the thread looks for so long before it sleeps. Where that was of no use so many times in
// a row (the client thinks, or waits for this very processor) it rests from it for so many replies, and then tries once.
enum { LOOK_US = 40, LOOK_TRIES = 4, LOOK_REST = 64, PAUSES = 16 };
enum { MAX_HEADER = 4096 };

// --- one reply ----------------------------------------------------------------------------------------------------------------

// Grows with the largest reply (1 MiB reads at most, so it stays small) and is reused.
static _Thread_local uint8_t *reply_buffer;
static _Thread_local size_t reply_capacity;

static bool reserve_reply(size_t size) {
  if (size <= reply_capacity) return true;
  uint8_t *grown = realloc(reply_buffer, size);
  if (grown == NULL) return false;
  reply_buffer = grown;
  reply_capacity = size;
  return true;
}

static int write_all(int fd, const void *bytes, size_t length) {
  ssize_t written;
  do written = write(fd, bytes, length); // /dev/fuse takes a reply whole or not at all
  while (written < 0 && errno == EINTR);
  return written < 0 ? -errno : 0;
}

// preadv2(2): glibc has it from 2.26 on, the kernel since 4.6.
static ssize_t read_at(int file, const struct iovec *part, int64_t offset, int flags) {
  return syscall(SYS_preadv2, file, part, 1, (unsigned long)offset, (unsigned long)((uint64_t)offset >> 32), flags);
}

// What a reply may do when its file does not give the bytes at once. Never a short reply, never other bytes.
typedef enum {
  ANSWER_EIO,  // a file that lacks the bytes is an EIO
  TELL_LOSS,   // that is no reply but -ENODATA
  NEVER_WAIT,  // so too; and bytes that are not in memory are not waited for: -EAGAIN
} Manner;

static int write_file_reply(int fd, const uint8_t *header, size_t header_length, int file, int64_t offset, size_t length, Manner manner) {
  if (header_length < sizeof(struct fuse_out_header) || header_length > MAX_HEADER || offset < 0) return -EINVAL;
  bool complete = reserve_reply(header_length + length);
  if (complete) memcpy(reply_buffer, header, header_length);
  for (size_t done = 0; complete && done < length;) {
    struct iovec part = {.iov_base = reply_buffer + header_length + done, .iov_len = length - done};
    // a file system that cannot tell (EOPNOTSUPP) is taken for one that waits
    ssize_t size = read_at(file, &part, offset + (int64_t)done, manner == NEVER_WAIT ? RWF_NOWAIT : 0);
    if (size > 0) done += (size_t)size;
    else if (size < 0 && manner == NEVER_WAIT && (errno == EAGAIN || errno == EOPNOTSUPP)) return -EAGAIN;
    else if (size == 0 || errno != EINTR) complete = false;
  }
  if (complete) return write_all(fd, reply_buffer, header_length + length);
  if (manner != ANSWER_EIO) return -ENODATA;
  struct fuse_out_header failure;
  memcpy(&failure, header, sizeof failure);
  failure.len = sizeof failure;
  failure.error = -EIO;
  return write_all(fd, &failure, sizeof failure);
}

static int write_reply(int fd, const uint8_t *header, size_t header_length, int file, int64_t offset, int64_t length, Manner manner) {
  int result = file < 0 ? write_all(fd, header, header_length)
    : length < 0 || length > INT_MAX ? -EINVAL
    : write_file_reply(fd, header, header_length, file, offset, (size_t)length, manner);
  return result == -ENOENT ? 0 : result; // the request was interrupted: nobody waits for this reply
}

void fuse_release_thread(void) {
  free(reply_buffer);
  reply_buffer = NULL;
  reply_capacity = 0;
}

// --- wait sets ----------------------------------------------------------------------------------------------------------------

// What an event brings back: cookie in 31 bits, kind in one, descriptor in 32.
static uint64_t event_data(int fd, int32_t cookie, int kind) {
  return (uint64_t)(uint32_t)cookie << 33 | (uint64_t)kind << 32 | (uint32_t)fd;
}
static int event_fd(uint64_t data) { return (int)(uint32_t)data; }
static int event_kind(uint64_t data) { return (int)(data >> 32 & 1); }
static int32_t event_cookie(uint64_t data) { return (int32_t)(data >> 33); }

typedef struct {
  int32_t *rows;
  int32_t count, capacity;
  uint8_t *input;
  size_t slot;
} Delivery;

// The session this thread read last: a reply to it is followed by a direct read, without asking epoll first.
static _Thread_local struct {
  int set;
  uint64_t data;
  int turns;
  int idle_looks, rest;
} latest = {.set = -1};

// True when a row was added.
static bool deliver(Delivery *delivery, uint64_t data) {
  int32_t *row = delivery->rows + REQUEST_COLUMNS * delivery->count;
  size_t at = delivery->slot * (size_t)delivery->count;
  ssize_t size;
  uint64_t signals;
  if (event_kind(data) == KIND_WAKE_UP) {
    size = read(event_fd(data), &signals, sizeof signals) < 0 ? -errno : 0;
  } else {
    do size = read(event_fd(data), delivery->input + at, delivery->slot);
    while (size < 0 && (errno == EINTR || errno == ENOENT)); // ENOENT: the request was interrupted before it was read
    if (size < 0) size = -errno;
  }
  if (size == -EAGAIN) return false; // another thread was quicker
  row[0] = event_cookie(data);
  row[1] = event_fd(data);
  row[2] = (int32_t)at;
  row[3] = (int32_t)size;
  delivery->count++;
  return true;
}

// All that waits in one session.
static void drain(Delivery *delivery, uint64_t data) {
  while (delivery->count < delivery->capacity && deliver(delivery, data)) {
    if (delivery->rows[REQUEST_COLUMNS * delivery->count - 1] < 0) break; // it ended: it would say so for ever
  }
}

static int64_t now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static int64_t now_us(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

// Looks for the next request of the session just answered for a while.
static void look(Delivery *delivery) {
  if (latest.rest > 0) {
    latest.rest--;
    return;
  }
  for (const int64_t end = now_us() + LOOK_US; delivery->count == 0 && now_us() < end; drain(delivery, latest.data)) {
#if defined(__x86_64__)
    for (int i = 0; i < PAUSES; i++) __builtin_ia32_pause();
#endif
  }
  if (delivery->count > 0) {
    latest.idle_looks = 0;
  } else if (++latest.idle_looks >= LOOK_TRIES) {
    latest.idle_looks = LOOK_TRIES - 1;
    latest.rest = LOOK_REST;
  }
}

static int wait_and_deliver(int set, Delivery *delivery, int timeout_ms) {
  const int64_t deadline = timeout_ms > 0 ? now_ms() + timeout_ms : 0;
  while (delivery->count < delivery->capacity) {
    struct epoll_event events[MAX_EVENTS];
    const int32_t room = delivery->capacity - delivery->count;
    const int count = epoll_wait(set, events, room < MAX_EVENTS ? room : MAX_EVENTS, timeout_ms);
    if (count < 0 && errno != EINTR) return -errno;
    for (int i = 0; i < count; i++) {
      if (deliver(delivery, events[i].data.u64) && event_kind(events[i].data.u64) == KIND_SESSION) {
        latest.set = set;
        latest.data = events[i].data.u64;
      }
    }
    if (delivery->count > 0 || count == 0) break;
    if (timeout_ms > 0 && (timeout_ms = (int)(deadline - now_ms())) <= 0) break;
  }
  return 0;
}

static napi_value exchange(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "exchange");
  const int set = call_int32(&call, 0);
  const Bytes out = call_bytes(&call, 1);
  const Int32s replies = call_int32s(&call, 2);
  const int32_t reply_count = call_int32(&call, 3);
  const Bytes input = call_bytes(&call, 4);
  const int64_t slot = call_int64(&call, 5);
  const Int32s requests = call_int32s(&call, 6);
  const int32_t timeout_ms = call_int32(&call, 7);
  const Int32s errors = call_int32s(&call, 8);
  if (call.failed) return NULL;
  if (reply_count < 0 || (size_t)reply_count > replies.length / REPLY_COLUMNS || slot < FUSE_MIN_READ_BUFFER ||
      (uint64_t)slot > input.length || input.length > INT32_MAX || requests.length < REQUEST_COLUMNS || errors.length < 1) {
    return number(env, -EINVAL);
  }

  const Manner manner = errors.length > 2 ? NEVER_WAIT : errors.length > 1 ? TELL_LOSS : ANSWER_EIO;
  int answered = -1;
  bool lost = false;
  for (int32_t i = 0; i < reply_count; i++) {
    int32_t *row = replies.data + REPLY_COLUMNS * i;
    const size_t at = (uint32_t)row[1], length = (uint32_t)row[2];
    const int64_t file_offset = (int64_t)((uint64_t)(uint32_t)row[5] << 32 | (uint32_t)row[4]);
    const int sent = at > out.length || length > out.length - at ? -EINVAL : write_reply(row[0], out.data + at, length, row[3], file_offset, row[6], manner);
    if (sent == -EAGAIN && manner == NEVER_WAIT && row[3] >= 0) {
      errors.data[2] = reply_count - i;
      return number(env, 0);
    }
    if (sent == -ENODATA && manner != ANSWER_EIO) {
      row[2] = 0;
      errors.data[1]++;
      lost = true;
    } else if (sent < 0) {
      errors.data[0]++;
    }
    answered = row[0];
  }
  if (lost) return number(env, 0); // the caller answers them in another way, before anything else

  const size_t slots = input.length / (size_t)slot, rows = requests.length / REQUEST_COLUMNS;
  Delivery delivery = {.rows = requests.data, .capacity = (int32_t)(slots < rows ? slots : rows), .input = input.data, .slot = (size_t)slot};
  int result = 0;
  const bool again = answered >= 0 && latest.set == set && event_fd(latest.data) == answered;
  if (again && ++latest.turns % FAIRNESS != 0) drain(&delivery, latest.data);
  else if (again) result = wait_and_deliver(set, &delivery, 0);
  if (again && delivery.count == 0 && result == 0 && timeout_ms != 0) look(&delivery);
  if (delivery.count == 0 && result == 0) result = wait_and_deliver(set, &delivery, timeout_ms);
  return number(env, delivery.count > 0 ? delivery.count : result);
}

static napi_value wait_set_create(napi_env env, napi_callback_info info) {
  (void)info;
  return result_of(env, epoll_create1(EPOLL_CLOEXEC));
}

static napi_value wait_set_add(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "waitSetAdd");
  int set = call_int32(&call, 0), fd = call_int32(&call, 1), cookie = call_int32(&call, 2), kind = call_int32(&call, 3);
  if (call.failed) return NULL;
  if (cookie < 0 || (kind != KIND_SESSION && kind != KIND_WAKE_UP)) return number(env, -EINVAL);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = event_data(fd, cookie, kind)};
  return result_of(env, epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

static napi_value wait_set_remove(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "waitSetRemove");
  int set = call_int32(&call, 0), fd = call_int32(&call, 1);
  return call.failed ? NULL : result_of(env, epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL));
}

static napi_value event_create(napi_env env, napi_callback_info info) {
  (void)info;
  return result_of(env, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

static napi_value event_signal(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "eventSignal");
  int fd = call_int32(&call, 0);
  if (call.failed) return NULL;
  const uint64_t one = 1;
  return number(env, write_all(fd, &one, sizeof one));
}

static napi_value fuse_reply(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "fuseReply");
  int fd = call_int32(&call, 0);
  Bytes header = call_bytes(&call, 1);
  int file = call_int32(&call, 2);
  int64_t offset = call_int64(&call, 3), length = call_int64(&call, 4);
  return call.failed ? NULL : number(env, write_reply(fd, header.data, header.length, file, offset, length, ANSWER_EIO));
}

static napi_value fuse_mount(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "fuseMount");
  char name[1024], type[64], target[PATH_MAX], options[3072], data[4096];
  int error = call_text(&call, 0, name, sizeof name);
  if (error == 0) error = call_text(&call, 1, type, sizeof type);
  if (error == 0) error = call_path(&call, 2, target);
  int64_t flags = call_int64(&call, 3);
  if (error == 0) error = call_text(&call, 4, options, sizeof options);
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return result_of(env, fd);
  snprintf(data, sizeof data, "fd=%d%s%s", fd, options[0] == 0 ? "" : ",", options);
  if (mount(name, target, type, (unsigned long)flags, data) == 0) return number(env, fd);
  error = errno;
  close(fd);
  return number(env, -error);
}

static napi_value close_fd(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "closeFd");
  int fd = call_int32(&call, 0);
  return call.failed ? NULL : result_of(env, close(fd));
}

void fuse_register(napi_env env, napi_value exports) {
  export_function(env, exports, "fuseMount", fuse_mount);
  export_function(env, exports, "waitSetCreate", wait_set_create);
  export_function(env, exports, "waitSetAdd", wait_set_add);
  export_function(env, exports, "waitSetRemove", wait_set_remove);
  export_function(env, exports, "eventCreate", event_create);
  export_function(env, exports, "eventSignal", event_signal);
  export_function(env, exports, "exchange", exchange);
  export_function(env, exports, "fuseReply", fuse_reply);
  export_function(env, exports, "closeFd", close_fd);
}
