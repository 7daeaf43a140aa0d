// Shared file mappings as ArrayBuffers, and atomic operations on them.
#include "addon.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

// Lives as long as the ArrayBuffer's backing store; address is NULL once unmapped by hand.
typedef struct {
  void *address;
  size_t length;
} Mapping;

static const napi_type_tag MAPPING_TAG = {0x9b1f6a0c5d7e4c21, 0xa3d2e85b1c904f76};

static void mapping_finalize(napi_env env, void *data, void *hint) {
  (void)env;
  (void)data;
  Mapping *mapping = hint;
  if (mapping->address != NULL) munmap(mapping->address, mapping->length);
  free(mapping);
}

// A page that lies wholly behind the end of a file raises SIGBUS when it is touched: such a mapping is refused.
static int check_length(int fd, int64_t offset, int64_t length) {
  struct stat status;
  if (offset < 0 || length <= 0 || length > INT64_MAX - offset) return EINVAL;
  if (stat_at(fd, "", &status, AT_EMPTY_PATH) < 0) return errno;
  return S_ISREG(status.st_mode) && offset + length > status.st_size ? ENODATA : 0;
}

static napi_value mmap_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "mmap");
  int fd = call_int32(&call, 0);
  int64_t offset = call_int64(&call, 1), length = call_int64(&call, 2);
  bool writable = call_bool(&call, 3);
  if (call.failed) return NULL;
  int error = check_length(fd, offset, length);
  Mapping *mapping = error == 0 ? malloc(sizeof *mapping) : NULL;
  if (mapping != NULL) {
    mapping->length = (size_t)length;
    mapping->address = mmap(NULL, mapping->length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, offset);
    if (mapping->address != MAP_FAILED) {
      napi_value buffer;
      // From here on the finalizer owns the mapping.
      if (napi_create_external_arraybuffer(env, mapping->address, mapping->length, mapping_finalize, mapping, &buffer) == napi_ok &&
          napi_type_tag_object(env, buffer, &MAPPING_TAG) == napi_ok && napi_wrap(env, buffer, mapping, NULL, NULL, NULL) == napi_ok) {
        return buffer;
      }
      error = ENOMEM;
    } else {
      error = errno;
      free(mapping);
    }
  } else if (error == 0) {
    error = ENOMEM;
  }
  napi_throw(env, system_error(env, "mmap", error, NULL));
  return NULL;
}

static napi_value munmap_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "munmap");
  bool ours = false;
  void *wrapped = NULL;
  if (napi_check_object_type_tag(env, call.argument[0], &MAPPING_TAG, &ours) != napi_ok || !ours) {
    call_fail(&call, 0, "a mapping");
    return NULL;
  }
  bool detached = true;
  napi_is_detached_arraybuffer(env, call.argument[0], &detached);
  if (detached || napi_unwrap(env, call.argument[0], &wrapped) != napi_ok) return NULL;
  Mapping *mapping = wrapped;
  void *address = mapping->address;
  size_t length = mapping->length;
  mapping->address = NULL; // before the detach: that lets go of the backing store, whose finalizer frees `mapping`
  napi_detach_arraybuffer(env, call.argument[0]);
  munmap(address, length);
  return NULL;
}

static uint32_t *atomic_cell(Call *call) {
  Int32s cells = call_int32s(call, 0);
  int64_t index = call_int64(call, 1);
  if (call->failed) return NULL;
  if (index < 0 || (uint64_t)index >= cells.length) {
    call_fail(call, 1, "an index of the array");
    return NULL;
  }
  return (uint32_t *)cells.data + index;
}

static napi_value atomic_or(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "atomicOr");
  uint32_t *cell = atomic_cell(&call);
  uint32_t bits = (uint32_t)call_int64(&call, 2);
  return call.failed ? NULL : number(env, __atomic_fetch_or(cell, bits, __ATOMIC_SEQ_CST));
}

static napi_value atomic_compare_exchange(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "atomicCompareExchange");
  uint32_t *cell = atomic_cell(&call);
  uint32_t expected = (uint32_t)call_int64(&call, 2), replacement = (uint32_t)call_int64(&call, 3);
  if (call.failed) return NULL;
  __atomic_compare_exchange_n(cell, &expected, replacement, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return number(env, expected);
}

void mmap_register(napi_env env, napi_value exports) {
  export_function(env, exports, "mmap", mmap_call);
  export_function(env, exports, "munmap", munmap_call);
  export_function(env, exports, "atomicOr", atomic_or);
  export_function(env, exports, "atomicCompareExchange", atomic_compare_exchange);
}
