// What is done to a file that a descriptor names (native/beneath.c): attributes, extended attributes, data, and in whose name.
#include "addon.h"
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>

enum { XATTR_NAME_SIZE = 256, LINK_SIZE = 32 };

// The name of an extended attribute. 0 or -errno.
static int call_attribute(Call *call, int index, char name[XATTR_NAME_SIZE]) {
  size_t length = 0;
  if (call->failed) return -EINVAL;
  if (napi_get_value_string_latin1(call->env, call->argument[index], NULL, 0, &length) != napi_ok) {
    call_fail(call, index, "a string");
    return -EINVAL;
  }
  if (length >= XATTR_NAME_SIZE) return -ERANGE; // as the kernel answers
  napi_get_value_string_latin1(call->env, call->argument[index], name, XATTR_NAME_SIZE, &length);
  return strlen(name) == length ? 0 : -EINVAL;
}

// The magic link that leads to exactly what `fd` refers to, even to a symbolic link itself.
static const char *link_of(int fd, char link[LINK_SIZE]) {
  snprintf(link, LINK_SIZE, "/proc/self/fd/%d", fd);
  return link;
}

// --- attributes -------------------------------------------------------------------------------------------------------------------------

static napi_value change_mode(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "changeMode");
  char link[LINK_SIZE];
  const int fd = call_int32(&call, 0), mode = call_int32(&call, 1);
  return call.failed ? NULL : result_of(env, chmod(link_of(fd, link), (mode_t)mode));
}

static napi_value change_owner(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "changeOwner");
  const int fd = call_int32(&call, 0);
  const int64_t uid = call_int64(&call, 1), gid = call_int64(&call, 2);
  return call.failed ? NULL : result_of(env, fchownat(fd, "", (uid_t)uid, (gid_t)gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
}

static napi_value change_times(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "changeTimes");
  char link[LINK_SIZE];
  const int fd = call_int32(&call, 0);
  struct timespec times[2];
  for (int i = 0; i < 2; i++) {
    times[i].tv_sec = call_int64(&call, 1 + 2 * i);
    times[i].tv_nsec = call_int64(&call, 2 + 2 * i);
  }
  return call.failed ? NULL : result_of(env, utimensat(AT_FDCWD, link_of(fd, link), times, 0));
}

static napi_value change_size(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "changeSize");
  const int fd = call_int32(&call, 0);
  const int64_t size = call_int64(&call, 1);
  return call.failed ? NULL : result_of(env, ftruncate(fd, size));
}

static napi_value statfs_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "statfsOf");
  const int fd = call_int32(&call, 0);
  const Bytes bytes = call_bytes(&call, 1);
  const int64_t at = call_int64(&call, 2);
  if (call.failed) return NULL;
  if (at < 0 || (uint64_t)at > bytes.length || bytes.length - (uint64_t)at < sizeof(struct fuse_kstatfs)) return number(env, -EINVAL);
  struct statfs found;
  if (fstatfs(fd, &found) < 0) return number(env, -errno);
  const struct fuse_kstatfs told = {
    .blocks = found.f_blocks, .bfree = found.f_bfree, .bavail = found.f_bavail, .files = found.f_files, .ffree = found.f_ffree,
    .bsize = (uint32_t)found.f_bsize, .namelen = (uint32_t)found.f_namelen, .frsize = (uint32_t)found.f_frsize,
  };
  memcpy(bytes.data + at, &told, sizeof told);
  return number(env, 0);
}

// --- extended attributes ------------------------------------------------------------------------------------------------------------------

// `length` bytes at `at` of a buffer; false when they leave it.
static bool call_slice(Call *call, int index, uint8_t **data, size_t *size) {
  const Bytes bytes = call_bytes(call, index);
  const int64_t at = call_int64(call, index + 1), length = call_int64(call, index + 2);
  if (call->failed || at < 0 || length < 0 || (uint64_t)at > bytes.length || (uint64_t)length > bytes.length - (uint64_t)at) return false;
  *data = bytes.data + at;
  *size = (size_t)length;
  return true;
}

static napi_value get_xattr(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "getXattrOf");
  char link[LINK_SIZE], name[XATTR_NAME_SIZE];
  uint8_t *data = NULL;
  size_t size = 0;
  const int fd = call_int32(&call, 0), error = call_attribute(&call, 1, name);
  const bool fits = call_slice(&call, 2, &data, &size);
  if (call.failed) return NULL;
  if (error < 0 || !fits) return number(env, error < 0 ? error : -EINVAL);
  return result_of(env, getxattr(link_of(fd, link), name, data, size));
}

static napi_value list_xattr(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "listXattrOf");
  char link[LINK_SIZE];
  uint8_t *data = NULL;
  size_t size = 0;
  const int fd = call_int32(&call, 0);
  const bool fits = call_slice(&call, 1, &data, &size);
  if (call.failed) return NULL;
  return fits ? result_of(env, listxattr(link_of(fd, link), (char *)data, size)) : number(env, -EINVAL);
}

static napi_value set_xattr(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "setXattrOf");
  char link[LINK_SIZE], name[XATTR_NAME_SIZE];
  const int fd = call_int32(&call, 0), error = call_attribute(&call, 1, name);
  const Bytes value = call_bytes(&call, 2);
  const int flags = call_int32(&call, 3);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, setxattr(link_of(fd, link), name, value.data, value.length, flags));
}

static napi_value remove_xattr(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "removeXattrOf");
  char link[LINK_SIZE], name[XATTR_NAME_SIZE];
  const int fd = call_int32(&call, 0), error = call_attribute(&call, 1, name);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, removexattr(link_of(fd, link), name));
}

// --- data -------------------------------------------------------------------------------------------------------------------------------------

static napi_value transfer(napi_env env, napi_callback_info info, const char *function, long number_of_call) {
  Call call = call_begin(env, info, function);
  uint8_t *data = NULL;
  size_t size = 0;
  const int fd = call_int32(&call, 0);
  const bool fits = call_slice(&call, 1, &data, &size);
  const int64_t offset = call_int64(&call, 4);
  const int flags = call_int32(&call, 5);
  if (call.failed) return NULL;
  if (!fits || offset < 0) return number(env, -EINVAL);
  const struct iovec part = {.iov_base = data, .iov_len = size};
  long done;
  do done = syscall(number_of_call, fd, &part, 1, (unsigned long)offset, (unsigned long)((uint64_t)offset >> 32), flags);
  while (done < 0 && errno == EINTR);
  return result_of(env, done);
}

static napi_value read_at(napi_env env, napi_callback_info info) {
  return transfer(env, info, "readAt", SYS_preadv2);
}

static napi_value write_at(napi_env env, napi_callback_info info) {
  return transfer(env, info, "writeAt", SYS_pwritev2);
}

static napi_value copy_range(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "copyRange");
  const int from = call_int32(&call, 0);
  int64_t from_offset = call_int64(&call, 1);
  const int to = call_int32(&call, 2);
  int64_t to_offset = call_int64(&call, 3);
  const int64_t length = call_int64(&call, 4);
  if (call.failed) return NULL;
  if (from_offset < 0 || to_offset < 0 || length < 0) return number(env, -EINVAL);
  // The system call: glibc has had a function for it since 2.27 only.
  return result_of(env, syscall(SYS_copy_file_range, from, &from_offset, to, &to_offset, (size_t)length, 0));
}

static napi_value sync_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "syncFd");
  const int fd = call_int32(&call, 0);
  const bool data_only = call_bool(&call, 1);
  return call.failed ? NULL : result_of(env, data_only ? fdatasync(fd) : fsync(fd));
}

// --- in whose name ------------------------------------------------------------------------------------------------------------------------

typedef struct { struct __user_cap_header_struct head; struct __user_cap_data_struct data[2]; } Capabilities;

// Owners of what this thread makes from now on. The kernel takes the capabilities over files away from a thread that is not root for files any
// more; they come back at once: who may do what was decided by the kernel that the request came from.
static napi_value act_as(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "actAs");
  const int64_t uid = call_int64(&call, 0), gid = call_int64(&call, 1);
  if (call.failed) return NULL;
  Capabilities own = {.head = {.version = _LINUX_CAPABILITY_VERSION_3}};
  if (syscall(SYS_capget, &own.head, own.data) < 0) return number(env, -errno);
  setfsgid((gid_t)gid);
  setfsuid((uid_t)uid);
  // these calls tell of no failure, but of the identity before: an impossible one changes nothing
  if ((uid_t)setfsuid((uid_t)-1) != (uid_t)uid || (gid_t)setfsgid((gid_t)-1) != (gid_t)gid) return number(env, -EPERM);
  return result_of(env, uid == 0 ? 0 : syscall(SYS_capset, &own.head, own.data));
}

static napi_value own_umask(napi_env env, napi_callback_info info) {
  (void)info;
  return result_of(env, unshare(CLONE_FS));
}

void beneath_file_register(napi_env env, napi_value exports) {
  export_function(env, exports, "changeMode", change_mode);
  export_function(env, exports, "changeOwner", change_owner);
  export_function(env, exports, "changeTimes", change_times);
  export_function(env, exports, "changeSize", change_size);
  export_function(env, exports, "statfsOf", statfs_call);
  export_function(env, exports, "getXattrOf", get_xattr);
  export_function(env, exports, "listXattrOf", list_xattr);
  export_function(env, exports, "setXattrOf", set_xattr);
  export_function(env, exports, "removeXattrOf", remove_xattr);
  export_function(env, exports, "readAt", read_at);
  export_function(env, exports, "writeAt", write_at);
  export_function(env, exports, "copyRange", copy_range);
  export_function(env, exports, "syncFd", sync_call);
  export_function(env, exports, "actAs", act_as);
  export_function(env, exports, "ownUmask", own_umask);
}
