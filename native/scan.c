// One directory in one crossing: lstat, link target and extended attributes of each entry, packed for src/native/scan-directory.ts.
#include "addon.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

// Followed by the name, the link target, the attributes (ScanXattr, name, value) and padding to 8 bytes.
typedef struct {
  uint32_t record_size, mode, uid, gid;
  uint64_t size;
  int64_t mtime;
  uint64_t ino, dev, rdev, nlink;
  uint32_t mtime_nsec, name_length, link_length, xattr_count;
} ScanRecord;

typedef struct {
  uint32_t name_length, value_length;
} ScanXattr;

// The table in src/native/scan-directory.ts is little endian and has these sizes.
_Static_assert(sizeof(ScanRecord) == 80 && sizeof(ScanXattr) == 8 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "scan record");

typedef struct {
  Task task;
  char directory[PATH_MAX], path[PATH_MAX + NAME_MAX + 1]; // path: the entry at hand, for messages
  uint8_t *data;
  size_t length, capacity;
} ScanTask;

enum { XATTR_BUFFER_SIZE = 65536 };

static bool fail(ScanTask *scan, int error) {
  scan->task.error = error;
  scan->task.error_path = scan->path;
  return false;
}

static uint8_t *reserve(ScanTask *scan, size_t size) {
  if (size > scan->capacity - scan->length) {
    size_t capacity = scan->capacity == 0 ? 16384 : scan->capacity;
    while (capacity - scan->length < size) capacity *= 2;
    uint8_t *grown = realloc(scan->data, capacity);
    if (grown == NULL) return fail(scan, ENOMEM), NULL;
    scan->data = grown;
    scan->capacity = capacity;
  }
  return scan->data + scan->length;
}

static bool append(ScanTask *scan, const void *bytes, size_t length) {
  uint8_t *target = reserve(scan, length);
  if (target == NULL) return false;
  if (length != 0) memcpy(target, bytes, length);
  scan->length += length;
  return true;
}

static bool append_link(ScanTask *scan, int directory, const char *name, uint32_t *length) {
  uint8_t *target = reserve(scan, PATH_MAX);
  if (target == NULL) return false;
  ssize_t size = readlinkat(directory, name, (char *)target, PATH_MAX);
  if (size < 0) return fail(scan, errno);
  scan->length += (size_t)size;
  *length = (uint32_t)size;
  return true;
}

// The kernel has no *at form of these calls before 6.13, so they go by path; a path too long for them fails loudly.
static bool append_xattrs(ScanTask *scan, uint32_t *count) {
  char names[XATTR_BUFFER_SIZE];
  ssize_t size = llistxattr(scan->path, names, sizeof names);
  if (size < 0 && errno == ENOTSUP) return true;
  if (size < 0) return fail(scan, errno);
  for (char *name = names; name < names + size; name += strlen(name) + 1) {
    const size_t name_length = strlen(name), at = scan->length;
    ScanXattr head = {.name_length = (uint32_t)name_length};
    if (!append(scan, &head, sizeof head) || !append(scan, name, name_length)) return false;
    uint8_t *target = reserve(scan, XATTR_BUFFER_SIZE);
    if (target == NULL) return false;
    ssize_t value = lgetxattr(scan->path, name, target, XATTR_BUFFER_SIZE);
    if (value < 0 && errno == ENODATA) { // removed since it was listed
      scan->length = at;
      continue;
    }
    if (value < 0) return fail(scan, errno);
    head.value_length = (uint32_t)value;
    memcpy(scan->data + at, &head, sizeof head);
    scan->length += (size_t)value;
    ++*count;
  }
  return true;
}

static bool append_entry(ScanTask *scan, int directory, const char *name, size_t name_length) {
  struct stat status;
  if (stat_at(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0) return errno == ENOENT || fail(scan, errno); // gone since it was listed
  const size_t at = scan->length;
  ScanRecord record = {
    .mode = status.st_mode, .uid = status.st_uid, .gid = status.st_gid, .size = (uint64_t)status.st_size,
    .mtime = status.st_mtim.tv_sec, .mtime_nsec = (uint32_t)status.st_mtim.tv_nsec,
    .ino = status.st_ino, .dev = status.st_dev, .rdev = status.st_rdev, .nlink = status.st_nlink, .name_length = (uint32_t)name_length,
  };
  if (!append(scan, &record, sizeof record) || !append(scan, name, name_length)) return false;
  if ((S_ISLNK(status.st_mode) && !append_link(scan, directory, name, &record.link_length)) || !append_xattrs(scan, &record.xattr_count)) {
    if (scan->task.error != ENOENT) return false;
    scan->task.error = 0; // gone since lstat
    scan->length = at;
    return true;
  }
  static const uint8_t padding[8];
  if (!append(scan, padding, -scan->length & 7)) return false;
  record.record_size = (uint32_t)(scan->length - at);
  memcpy(scan->data + at, &record, sizeof record);
  return true;
}

static void scan_run(Task *task) {
  ScanTask *scan = (ScanTask *)task;
  const size_t prefix = strlen(scan->directory);
  memcpy(scan->path, scan->directory, prefix + 1);
  DIR *directory = opendir(scan->directory);
  if (directory == NULL) {
    fail(scan, errno);
    return;
  }
  scan->path[prefix] = '/';
  for (;;) {
    errno = 0;
    const struct dirent *entry = readdir(directory);
    if (entry == NULL) {
      if (errno != 0) fail(scan, errno);
      break;
    }
    const char *name = entry->d_name;
    const size_t length = strlen(name);
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
    memcpy(scan->path + prefix + 1, name, length + 1);
    if (!append_entry(scan, dirfd(directory), name, length)) break;
  }
  closedir(directory);
}

static napi_value scan_finish(napi_env env, Task *task) {
  ScanTask *scan = (ScanTask *)task;
  return copy_of(env, scan->data, scan->length);
}

static void scan_release(Task *task) {
  free(((ScanTask *)task)->data);
}

static napi_value scan_directory(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "scanDirectory");
  ScanTask *scan = task_new(&call, sizeof *scan, scan_run);
  if (scan == NULL) return NULL;
  scan->task.finish = scan_finish;
  scan->task.release = scan_release;
  int error = call_path(&call, 0, scan->directory);
  if (error < 0 && !call.failed) call_fail(&call, 0, "a path of less than 4096 bytes without a NUL");
  return task_start(&call, &scan->task);
}

void scan_register(napi_env env, napi_value exports) {
  export_function(env, exports, "scanDirectory", scan_directory);
}
