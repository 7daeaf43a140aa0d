// fsopen(2) and its companions, and umount2(2), off the JavaScript thread: they may wait for files that this very process serves.
#include "addon.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

// Numbers of the system calls and constants, which older C libraries lack. SPEC: linux/mount.h; the same on every architecture.
enum { CALL_MOVE_MOUNT = 429, CALL_FSOPEN = 430, CALL_FSCONFIG = 431, CALL_FSMOUNT = 432 };
enum { CLOEXEC = 1, SET_FLAG = 0, SET_STRING = 1, CMD_CREATE = 6, EMPTY_PATH = 4 };
enum { MAX_MESSAGE = 1024 };

typedef struct {
  Task task;
  char type[64], target[PATH_MAX];
  char *options; // own copy: NUL-terminated, back to back
  size_t length;
  uint32_t attributes;
  char message[MAX_MESSAGE]; // what the file system says of a failure
} MountTask;

// Each read gives one line, "e text" for an error.
static void read_messages(int context, char message[MAX_MESSAGE]) {
  size_t used = 0;
  while (used + 2 < MAX_MESSAGE) {
    ssize_t size = read(context, message + used, MAX_MESSAGE - 2 - used);
    if (size <= 0) break;
    used += (size_t)size;
    if (message[used - 1] != '\n') message[used++] = '\n';
  }
  message[used] = 0;
}

static int set_option(int context, char *option) {
  char *value = strchr(option, '=');
  if (value == NULL) return (int)syscall(CALL_FSCONFIG, context, SET_FLAG, option, NULL, 0);
  *value = 0;
  return (int)syscall(CALL_FSCONFIG, context, SET_STRING, option, value + 1, 0);
}

static void mount_run(Task *task) {
  MountTask *work = (MountTask *)task;
  int mounted = -1;
  const int context = (int)syscall(CALL_FSOPEN, work->type, CLOEXEC);
  bool fine = context >= 0;
  for (char *option = work->options; fine && option < work->options + work->length;) {
    char *next = option + strlen(option) + 1;
    fine = set_option(context, option) == 0;
    option = next;
  }
  fine = fine && syscall(CALL_FSCONFIG, context, CMD_CREATE, NULL, NULL, 0) == 0;
  if (fine) fine = (mounted = (int)syscall(CALL_FSMOUNT, context, CLOEXEC, work->attributes)) >= 0;
  fine = fine && syscall(CALL_MOVE_MOUNT, mounted, "", AT_FDCWD, work->target, EMPTY_PATH) == 0;
  if (!fine) {
    task->error = errno;
    if (context >= 0) read_messages(context, work->message);
    task->error_path = work->message;
  }
  if (mounted >= 0) close(mounted);
  if (context >= 0) close(context);
}

static void mount_release(Task *task) {
  free(((MountTask *)task)->options);
}

static napi_value mount_file_system(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "mountFileSystem");
  MountTask *work = task_new(&call, sizeof *work, mount_run);
  if (work == NULL) return NULL;
  work->task.release = mount_release;
  if (call_text(&call, 0, work->type, sizeof work->type) < 0) call_fail(&call, 0, "the name of a file system");
  Bytes options = call_bytes(&call, 1);
  if (!call.failed && options.length != 0 && options.data[options.length - 1] != 0) call_fail(&call, 1, "a list of NUL-terminated options");
  if (call_path(&call, 2, work->target) < 0) call_fail(&call, 2, "a path");
  work->attributes = (uint32_t)call_int64(&call, 3);
  if (!call.failed && (work->options = malloc(options.length + 1)) == NULL) call_fail(&call, 1, "small enough for the memory there is");
  if (!call.failed) memcpy(work->options, options.data, work->length = options.length);
  return task_start(&call, &work->task);
}

typedef struct {
  Task task;
  char target[PATH_MAX];
  int flags;
} UmountTask;

static void umount_run(Task *task) {
  UmountTask *work = (UmountTask *)task;
  if (umount2(work->target, work->flags) < 0) task->error = errno;
}

static napi_value unmount_file_system(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "unmountFileSystem");
  UmountTask *work = task_new(&call, sizeof *work, umount_run);
  if (work == NULL) return NULL;
  if (call_path(&call, 0, work->target) < 0) call_fail(&call, 0, "a path");
  work->flags = call_int32(&call, 1);
  return task_start(&call, &work->task);
}

void fsmount_register(napi_env env, napi_value exports) {
  export_function(env, exports, "mountFileSystem", mount_file_system);
  export_function(env, exports, "unmountFileSystem", unmount_file_system);
}
