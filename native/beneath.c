// System calls below a directory: everything is named by a descriptor and one name, so that no path can lead out of the tree that the first
// descriptor came from. Links are never followed; what a descriptor refers to is used through the descriptor, never looked up again.
#include "addon.h"
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <linux/stat.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

enum { NAME_SIZE = NAME_MAX + 1, LINK_SIZE = 32 };

// One component of a path. 0 or -errno: what could name anything but an entry of the directory is refused here, for every caller.
static int call_name(Call *call, int index, char name[NAME_SIZE]) {
  size_t length = 0;
  if (call->failed) return -EINVAL;
  if (napi_get_value_string_latin1(call->env, call->argument[index], NULL, 0, &length) != napi_ok) {
    call_fail(call, index, "a string");
    return -EINVAL;
  }
  if (length >= NAME_SIZE) return -ENAMETOOLONG;
  napi_get_value_string_latin1(call->env, call->argument[index], name, NAME_SIZE, &length);
  const bool dots = name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
  return length == 0 || dots || strlen(name) != length || memchr(name, '/', length) != NULL ? -EINVAL : 0;
}

// `length` bytes at `at` of a buffer; NULL, and -EINVAL in *error, when they leave it.
static uint8_t *call_slice(Call *call, int buffer, int at, int length, size_t *size, int *error) {
  const Bytes bytes = call_bytes(call, buffer);
  const int64_t from = call_int64(call, at), count = call_int64(call, length);
  *size = 0;
  if (call->failed || from < 0 || count < 0 || (uint64_t)from > bytes.length || (uint64_t)count > bytes.length - (uint64_t)from) {
    *error = -EINVAL;
    return NULL;
  }
  *size = (size_t)count;
  return bytes.data + from;
}

// The magic link that leads to exactly what `fd` refers to, even to a symbolic link itself.
static const char *link_of(int fd, char link[LINK_SIZE]) {
  snprintf(link, LINK_SIZE, "/proc/self/fd/%d", fd);
  return link;
}

// --- status ---------------------------------------------------------------------------------------------------------------------------

enum { HANDLE_SIZE = 128 };
// What is known of a file: its attributes as FUSE tells them, and what names it for good.
typedef struct {
  struct fuse_attr attributes;
  uint32_t device_major, device_minor;
  uint32_t mount_low, mount_high;
  int32_t handle_type;
  uint32_t handle_length; // 0: the file system has none, or it was not asked for
  uint8_t handle[HANDLE_SIZE];
} Status;
_Static_assert(sizeof(struct fuse_attr) == 88 && offsetof(Status, device_major) == 88 && offsetof(Status, mount_low) == 96 &&
  offsetof(Status, handle_type) == 104 && offsetof(Status, handle) == 112 && sizeof(Status) == 240, "src/native/beneath.ts has the same table");

// SPEC: linux/kdev_t.h new_encode_dev.
static uint32_t encode_device(uint32_t major, uint32_t minor) {
  return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

static int status_of(int fd, Status *status, bool with_handle) {
  struct statx found;
  if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_MNT_ID, &found) < 0) return -errno;
  *status = (Status){
    .attributes = {
      .ino = found.stx_ino, .size = found.stx_size, .blocks = found.stx_blocks,
      .atime = (uint64_t)found.stx_atime.tv_sec, .mtime = (uint64_t)found.stx_mtime.tv_sec, .ctime = (uint64_t)found.stx_ctime.tv_sec,
      .atimensec = found.stx_atime.tv_nsec, .mtimensec = found.stx_mtime.tv_nsec, .ctimensec = found.stx_ctime.tv_nsec,
      .mode = found.stx_mode, .nlink = found.stx_nlink, .uid = found.stx_uid, .gid = found.stx_gid,
      .rdev = encode_device(found.stx_rdev_major, found.stx_rdev_minor), .blksize = found.stx_blksize,
    },
    .device_major = found.stx_dev_major, .device_minor = found.stx_dev_minor,
    .mount_low = (uint32_t)found.stx_mnt_id, .mount_high = (uint32_t)(found.stx_mnt_id >> 32),
  };
  if (!with_handle) return 0;
  struct { struct file_handle head; uint8_t bytes[HANDLE_SIZE]; } handle = {.head.handle_bytes = HANDLE_SIZE};
  int mount;
  if (name_to_handle_at(fd, "", &handle.head, &mount, AT_EMPTY_PATH) == 0 && handle.head.handle_bytes <= HANDLE_SIZE) {
    status->handle_type = handle.head.handle_type;
    status->handle_length = handle.head.handle_bytes;
    memcpy(status->handle, handle.head.f_handle, handle.head.handle_bytes);
  }
  return 0;
}

static Status *call_status(Call *call, int index) {
  const Bytes bytes = call_bytes(call, index);
  if (!call->failed && (bytes.length < sizeof(Status) || (uintptr_t)bytes.data % _Alignof(Status) != 0)) call_fail(call, index, "an aligned buffer for a status");
  return call->failed ? NULL : (Status *)bytes.data;
}

static napi_value status_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "statusOf");
  const int fd = call_int32(&call, 0);
  Status *status = call_status(&call, 1);
  const bool with_handle = call_bool(&call, 2);
  return call.failed ? NULL : number(env, status_of(fd, status, with_handle));
}

// --- opening --------------------------------------------------------------------------------------------------------------------------

static napi_value root_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "beneathRoot");
  char path[PATH_MAX];
  const int error = call_path(&call, 0, path);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
}

static napi_value beneath_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "beneathOpen");
  char path[PATH_MAX];
  const int directory = call_int32(&call, 0);
  const int error = call_path(&call, 1, path);
  const int64_t flags = call_int64(&call, 2), mode = call_int64(&call, 3), resolve = call_int64(&call, 4);
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  struct open_how how = {.flags = (uint64_t)flags | O_CLOEXEC, .mode = (uint64_t)mode, .resolve = (uint64_t)resolve | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
  return result_of(env, syscall(SYS_openat2, directory, path, &how, sizeof how));
}

static napi_value open_child(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "openChild");
  char name[NAME_SIZE];
  const int directory = call_int32(&call, 0), error = call_name(&call, 1, name), flags = call_int32(&call, 2), mode = call_int32(&call, 3);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, openat(directory, name, flags | O_NOFOLLOW | O_CLOEXEC, (mode_t)mode));
}

static napi_value lookup_child(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "lookupChild");
  char name[NAME_SIZE];
  const int directory = call_int32(&call, 0);
  int error = call_name(&call, 1, name);
  Status *status = call_status(&call, 2);
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  const int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return result_of(env, fd);
  error = status_of(fd, status, true);
  if (error == 0) return number(env, fd);
  close(fd);
  return number(env, error);
}

static napi_value reopen_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "reopen");
  const int fd = call_int32(&call, 0), flags = call_int32(&call, 1), mode = call_int32(&call, 2);
  if (call.failed) return NULL;
  char link[LINK_SIZE];
  struct stat status;
  if (stat_at(fd, "", &status, AT_EMPTY_PATH) < 0) return number(env, -errno);
  if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return number(env, -ENXIO); // to open a device is to use it
  // O_NONBLOCK: a lease that somebody holds must not stop this thread
  return result_of(env, open(link_of(fd, link), (flags & ~(O_NOFOLLOW | O_CREAT | O_EXCL)) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, (mode_t)mode));
}

static napi_value open_handle(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "openHandle");
  const int mount = call_int32(&call, 0), type = call_int32(&call, 1);
  const Bytes bytes = call_bytes(&call, 2);
  const int flags = call_int32(&call, 3);
  if (call.failed) return NULL;
  struct { struct file_handle head; uint8_t bytes[HANDLE_SIZE]; } handle = {.head = {.handle_type = type, .handle_bytes = (unsigned)bytes.length}};
  if (bytes.length == 0 || bytes.length > HANDLE_SIZE) return number(env, -EINVAL);
  memcpy(handle.head.f_handle, bytes.data, bytes.length);
  return result_of(env, open_by_handle_at(mount, &handle.head, flags | O_CLOEXEC));
}

static napi_value duplicate_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "duplicate");
  const int fd = call_int32(&call, 0);
  return call.failed ? NULL : result_of(env, fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

// --- directories ----------------------------------------------------------------------------------------------------------------------

static napi_value read_directory(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "readDirectory");
  const int fd = call_int32(&call, 0);
  const int64_t low = call_int64(&call, 1), high = call_int64(&call, 2); // 63 bits: more than a number holds
  size_t size;
  int error = 0;
  uint8_t *buffer = call_slice(&call, 3, 4, 5, &size, &error);
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  if (lseek(fd, (off_t)((uint64_t)(uint32_t)high << 32 | (uint32_t)low), SEEK_SET) < 0) return number(env, -errno);
  return result_of(env, syscall(SYS_getdents64, fd, buffer, size));
}

static napi_value make_directory(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "makeDirectory");
  char name[NAME_SIZE];
  const int directory = call_int32(&call, 0), error = call_name(&call, 1, name), mode = call_int32(&call, 2);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, mkdirat(directory, name, (mode_t)mode));
}

static napi_value make_node(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "makeNodeAt");
  char name[NAME_SIZE];
  const int directory = call_int32(&call, 0), error = call_name(&call, 1, name);
  const int64_t mode = call_int64(&call, 2), device = call_int64(&call, 3);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, syscall(SYS_mknodat, directory, name, (mode_t)mode, (unsigned int)device));
}

static napi_value make_link(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "makeLink");
  char name[NAME_SIZE], target[PATH_MAX];
  const int directory = call_int32(&call, 0);
  int error = call_name(&call, 1, name);
  if (error == 0) error = call_path(&call, 2, target);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, symlinkat(target, directory, name));
}

static napi_value hard_link(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "hardLink");
  char name[NAME_SIZE], link[LINK_SIZE];
  const int fd = call_int32(&call, 0), directory = call_int32(&call, 1), error = call_name(&call, 2, name);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, linkat(AT_FDCWD, link_of(fd, link), directory, name, AT_SYMLINK_FOLLOW));
}

static napi_value rename_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "renameAt");
  char from[NAME_SIZE], to[NAME_SIZE];
  const int directory = call_int32(&call, 0);
  int error = call_name(&call, 1, from);
  const int target = call_int32(&call, 2);
  if (error == 0) error = call_name(&call, 3, to);
  const int64_t flags = call_int64(&call, 4);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, syscall(SYS_renameat2, directory, from, target, to, (unsigned int)flags));
}

static napi_value remove_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "removeAt");
  char name[NAME_SIZE];
  const int directory = call_int32(&call, 0), error = call_name(&call, 1, name);
  const bool is_directory = call_bool(&call, 2);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, unlinkat(directory, name, is_directory ? AT_REMOVEDIR : 0));
}

static napi_value read_link(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "readLinkOf");
  size_t size;
  int error = 0;
  const int fd = call_int32(&call, 0);
  uint8_t *buffer = call_slice(&call, 1, 2, 3, &size, &error);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, readlinkat(fd, "", (char *)buffer, size));
}

void beneath_register(napi_env env, napi_value exports) {
  export_function(env, exports, "beneathRoot", root_call);
  export_function(env, exports, "beneathOpen", beneath_call);
  export_function(env, exports, "openChild", open_child);
  export_function(env, exports, "lookupChild", lookup_child);
  export_function(env, exports, "reopen", reopen_call);
  export_function(env, exports, "openHandle", open_handle);
  export_function(env, exports, "duplicate", duplicate_call);
  export_function(env, exports, "statusOf", status_call);
  export_function(env, exports, "readDirectory", read_directory);
  export_function(env, exports, "makeDirectory", make_directory);
  export_function(env, exports, "makeNodeAt", make_node);
  export_function(env, exports, "makeLink", make_link);
  export_function(env, exports, "hardLink", hard_link);
  export_function(env, exports, "renameAt", rename_call);
  export_function(env, exports, "removeAt", remove_call);
  export_function(env, exports, "readLinkOf", read_link);
}
