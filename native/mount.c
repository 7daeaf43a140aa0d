// mount(2) and umount2(2).
#include "addon.h"
#include <sys/mount.h>

static napi_value mount_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "mount");
  char source[PATH_MAX], target[PATH_MAX], data[PATH_MAX], type[64];
  int error = call_path(&call, 0, source);
  if (error == 0) error = call_path(&call, 1, target);
  if (error == 0) error = call_text(&call, 2, type, sizeof type);
  int64_t flags = call_int64(&call, 3);
  if (error == 0) error = call_path(&call, 4, data); // one page, as in the kernel
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  return result_of(env, mount(source, target, type, (unsigned long)flags, data[0] == 0 ? NULL : data));
}

static napi_value umount_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "umount");
  char target[PATH_MAX];
  int error = call_path(&call, 0, target);
  int flags = call_int32(&call, 1);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_of(env, umount2(target, flags));
}

void mount_register(napi_env env, napi_value exports) {
  export_function(env, exports, "mount", mount_call);
  export_function(env, exports, "umount", umount_call);
}
