// File operations that Node lacks: extended attributes of links, special files, times of links, holes, locks, synchronous positioned reads.
#include "addon.h"
#include <sys/mman.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/uio.h>
#include <sys/xattr.h>

enum { XATTR_NAME_SIZE = 256, XATTR_BUFFER_SIZE = 65536 }; // the kernel's XATTR_NAME_MAX + NUL, XATTR_LIST_MAX = XATTR_SIZE_MAX

static int call_xattr_name(Call *call, char name[XATTR_NAME_SIZE]) {
  char path[PATH_MAX];
  int error = call_path(call, 1, path);
  if (error < 0) return error;
  for (size_t i = 0; i < XATTR_NAME_SIZE; i++) {
    if ((name[i] = path[i]) == 0) return 0;
  }
  return -ERANGE; // as the kernel answers
}

static napi_value list_xattr(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "listXattr");
  char path[PATH_MAX], names[XATTR_BUFFER_SIZE];
  int error = call_path(&call, 0, path);
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  ssize_t size = llistxattr(path, names, sizeof names);
  return size < 0 ? result_of(env, size) : copy_of(env, names, (size_t)size);
}

static napi_value get_xattr(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "getXattr");
  char path[PATH_MAX], name[XATTR_NAME_SIZE], value[XATTR_BUFFER_SIZE];
  int error = call_path(&call, 0, path);
  if (error == 0) error = call_xattr_name(&call, name);
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  ssize_t size = lgetxattr(path, name, value, sizeof value);
  return size < 0 ? result_of(env, size) : copy_of(env, value, (size_t)size);
}

static napi_value set_xattr(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "setXattr");
  char path[PATH_MAX], name[XATTR_NAME_SIZE];
  int error = call_path(&call, 0, path);
  if (error == 0) error = call_xattr_name(&call, name);
  Bytes value = call_bytes(&call, 2);
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  return result_of(env, lsetxattr(path, name, value.data, value.length, 0));
}

static napi_value mknod_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "mknod");
  char path[PATH_MAX];
  int error = call_path(&call, 0, path);
  int64_t mode = call_int64(&call, 1), device = call_int64(&call, 2);
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  // The system call, not mknod(3): glibc gave that a new symbol version (2.33). Device numbers have the same 32-bit form in both.
  return result_of(env, syscall(SYS_mknodat, AT_FDCWD, path, (mode_t)mode, (unsigned int)device));
}

static napi_value utimens_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "utimens");
  char path[PATH_MAX];
  int error = call_path(&call, 0, path);
  int64_t seconds = call_int64(&call, 1);
  int32_t nanoseconds = call_int32(&call, 2);
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  struct timespec time = {.tv_sec = seconds, .tv_nsec = nanoseconds};
  return result_of(env, utimensat(AT_FDCWD, path, (struct timespec[]){time, time}, AT_SYMLINK_NOFOLLOW));
}

static napi_value fdatasync_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "fdatasync");
  int fd = call_int32(&call, 0);
  return call.failed ? NULL : result_of(env, fdatasync(fd));
}

static napi_value fallocate_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "fallocate");
  int fd = call_int32(&call, 0), mode = call_int32(&call, 1);
  int64_t offset = call_int64(&call, 2), length = call_int64(&call, 3);
  if (call.failed) return NULL;
  int result;
  do result = fallocate(fd, mode, offset, length);
  while (result < 0 && errno == EINTR);
  return result_of(env, result);
}

static napi_value lseek_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "lseek");
  int fd = call_int32(&call, 0);
  int64_t offset = call_int64(&call, 1);
  int whence = call_int32(&call, 2);
  return call.failed ? NULL : result_of(env, lseek(fd, offset, whence));
}

static napi_value flock_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "flock");
  int fd = call_int32(&call, 0), operation = call_int32(&call, 1);
  if (call.failed) return NULL;
  int result;
  do result = flock(fd, operation);
  while (result < 0 && errno == EINTR);
  return result_of(env, result);
}

static napi_value pread_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "pread");
  int fd = call_int32(&call, 0);
  Bytes buffer = call_bytes(&call, 1);
  int64_t at = call_int64(&call, 2), length = call_int64(&call, 3), offset = call_int64(&call, 4);
  if (call.failed) return NULL;
  if (at < 0 || length < 0 || (uint64_t)at > buffer.length || (uint64_t)length > buffer.length - (uint64_t)at) return number(env, -EINVAL);
  ssize_t size;
  do size = pread(fd, buffer.data + at, (size_t)length, offset);
  while (size < 0 && errno == EINTR);
  return result_of(env, size);
}

// preadv2(2) with RWF_NOWAIT: only what is in memory already. glibc has the function from 2.26 on, the kernel since 4.14.
static napi_value pread_now(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "preadNow");
  int fd = call_int32(&call, 0);
  Bytes buffer = call_bytes(&call, 1);
  int64_t offset = call_int64(&call, 2);
  if (call.failed) return NULL;
  if (offset < 0) return number(env, -EINVAL); // -1 would be the file's own position
  const struct iovec part = {.iov_base = buffer.data, .iov_len = buffer.length};
  long size;
  do size = syscall(SYS_preadv2, fd, &part, 1, (unsigned long)offset, (unsigned long)((uint64_t)offset >> 32), RWF_NOWAIT);
  while (size < 0 && errno == EINTR);
  return result_of(env, size);
}

static napi_value umask_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "umask");
  int mask = call_int32(&call, 0);
  return call.failed ? NULL : number(env, umask((mode_t)mask));
}

static napi_value memfd(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "memfdCreate");
  char name[64];
  int error = call_text(&call, 0, name, sizeof name);
  if (call.failed) return NULL;
  // The system call: glibc has had a function for it since 2.27 only.
  return error < 0 ? number(env, error) : result_of(env, syscall(SYS_memfd_create, name, MFD_CLOEXEC));
}

static napi_value duplicate(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "duplicateFd");
  int fd = call_int32(&call, 0);
  return call.failed ? NULL : result_of(env, fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

void file_register(napi_env env, napi_value exports) {
  export_function(env, exports, "duplicateFd", duplicate);
  export_function(env, exports, "memfdCreate", memfd);
  export_function(env, exports, "listXattr", list_xattr);
  export_function(env, exports, "getXattr", get_xattr);
  export_function(env, exports, "setXattr", set_xattr);
  export_function(env, exports, "mknod", mknod_call);
  export_function(env, exports, "utimens", utimens_call);
  export_function(env, exports, "fdatasync", fdatasync_call);
  export_function(env, exports, "fallocate", fallocate_call);
  export_function(env, exports, "lseek", lseek_call);
  export_function(env, exports, "flock", flock_call);
  export_function(env, exports, "pread", pread_call);
  export_function(env, exports, "preadNow", pread_now);
  export_function(env, exports, "umask", umask_call);
}
