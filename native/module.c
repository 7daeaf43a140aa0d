// The addon's table of contents.
#include "addon.h"

static void release_thread(void *unused) {
  (void)unused;
  codecs_release_thread();
  fuse_release_thread();
}

NAPI_MODULE_INIT() {
  codecs_register(env, exports);
  bulk_register(env, exports);
  scan_register(env, exports);
  stream_register(env, exports);
  deflate_register(env, exports);
  mmap_register(env, exports);
  memory_register(env, exports);
  file_register(env, exports);
  beneath_register(env, exports);
  beneath_file_register(env, exports);
  mount_register(env, exports);
  fsmount_register(env, exports);
  fuse_register(env, exports);
  socket_register(env, exports);
  poll_register(env, exports);
  edge_register(env, exports);
  guard_register(env, exports);
  uffd_register(env, exports);
  napi_add_env_cleanup_hook(env, release_thread, NULL);
  return exports;
}
