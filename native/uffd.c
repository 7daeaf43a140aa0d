// Page faults of another process, through a userfaultfd that it has sent: hearing of them, and filling, zeroing or poisoning pages.
#include "addon.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <fcntl.h>

#ifndef UFFDIO_POISON // Linux 6.6; Debian 12's headers are older
struct uffdio_poison {
  struct uffdio_range range;
  __u64 mode;
  __s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

// The address of the next fault, 0 for an event of another kind, or -errno (EAGAIN: there is none).
static napi_value uffd_read(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "uffdRead");
  int fd = call_int32(&call, 0);
  if (call.failed) return NULL;
  struct uffd_msg message;
  ssize_t size;
  do size = read(fd, &message, sizeof message);
  while (size < 0 && errno == EINTR);
  if (size < 0) return result_of(env, size);
  if (size != (ssize_t)sizeof message) return number(env, -EIO);
  return number(env, message.event == UFFD_EVENT_PAGEFAULT ? (int64_t)message.arg.pagefault.address : 0);
}

// A stranger's descriptor may block: it is made not to.
static napi_value uffd_prepare(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "uffdPrepare");
  int fd = call_int32(&call, 0);
  if (call.failed) return NULL;
  int flags = fcntl(fd, F_GETFL);
  return result_of(env, flags < 0 ? flags : fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

// Bytes copied, or -errno.
static napi_value uffd_copy(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "uffdCopy");
  int fd = call_int32(&call, 0);
  int64_t address = call_int64(&call, 1);
  Bytes bytes = call_bytes(&call, 2);
  if (call.failed) return NULL;
  struct uffdio_copy copy = {.dst = (uint64_t)address, .src = (uint64_t)(uintptr_t)bytes.data, .len = bytes.length};
  int result = ioctl(fd, UFFDIO_COPY, &copy);
  return result < 0 ? result_of(env, result) : number(env, copy.copy);
}

static napi_value uffd_zero(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "uffdZero");
  int fd = call_int32(&call, 0);
  int64_t address = call_int64(&call, 1), length = call_int64(&call, 2);
  if (call.failed) return NULL;
  struct uffdio_zeropage zero = {.range = {.start = (uint64_t)address, .len = (uint64_t)length}};
  return result_of(env, ioctl(fd, UFFDIO_ZEROPAGE, &zero));
}

static napi_value uffd_poison(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "uffdPoison");
  int fd = call_int32(&call, 0);
  int64_t address = call_int64(&call, 1), length = call_int64(&call, 2);
  if (call.failed) return NULL;
  struct uffdio_poison poison = {.range = {.start = (uint64_t)address, .len = (uint64_t)length}};
  return result_of(env, ioctl(fd, UFFDIO_POISON, &poison));
}

static napi_value uffd_wake(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "uffdWake");
  int fd = call_int32(&call, 0);
  int64_t address = call_int64(&call, 1), length = call_int64(&call, 2);
  if (call.failed) return NULL;
  struct uffdio_range range = {.start = (uint64_t)address, .len = (uint64_t)length};
  return result_of(env, ioctl(fd, UFFDIO_WAKE, &range));
}

void uffd_register(napi_env env, napi_value exports) {
  export_function(env, exports, "uffdPrepare", uffd_prepare);
  export_function(env, exports, "uffdRead", uffd_read);
  export_function(env, exports, "uffdCopy", uffd_copy);
  export_function(env, exports, "uffdZero", uffd_zero);
  export_function(env, exports, "uffdPoison", uffd_poison);
  export_function(env, exports, "uffdWake", uffd_wake);
}
