// What glibc's allocator keeps: it is made for programs whose many threads allocate all the time.
#include "addon.h"
#include <malloc.h>

static napi_value lean_malloc(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "leanMalloc");
  const int32_t arenas = call_int32(&call, 0), mapped = call_int32(&call, 1);
  if (call.failed) return NULL;
  if (arenas < 1 || mapped < 4096) return number(env, -EINVAL); // mallopt takes them, and means something else
  // A fixed threshold: glibc raises its own to 32 MiB with the first large buffer that is freed, and keeps all later ones in its heaps.
  return number(env, mallopt(M_ARENA_MAX, arenas) == 1 && mallopt(M_MMAP_THRESHOLD, mapped) == 1 && mallopt(M_TRIM_THRESHOLD, mapped) == 1 ? 0 : -EINVAL);
}

void memory_register(napi_env env, napi_value exports) {
  export_function(env, exports, "leanMalloc", lean_malloc);
}
