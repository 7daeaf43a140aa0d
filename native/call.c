// Arguments from JavaScript and results back to it.
#include "addon.h"
#include <stdio.h>
#include <string.h>

Call call_begin(napi_env env, napi_callback_info info, const char *function) {
  Call call = {.env = env, .function = function};
  size_t count = MAX_ARGUMENTS;
  napi_get_cb_info(env, info, &count, call.argument, NULL, NULL); // missing arguments become undefined
  return call;
}

void call_fail(Call *call, int index, const char *expected) {
  if (call->failed) return;
  call->failed = true;
  char message[160];
  snprintf(message, sizeof message, "%s: argument %d is not %s", call->function, index + 1, expected);
  napi_throw_type_error(call->env, "ERR_INVALID_ARG_TYPE", message);
}

bool call_has(Call *call, int index) {
  napi_valuetype type = napi_undefined;
  napi_typeof(call->env, call->argument[index], &type);
  return type != napi_undefined && type != napi_null;
}

static void *typed_array(Call *call, int index, napi_typedarray_type first, napi_typedarray_type second, size_t *length, const char *expected) {
  napi_typedarray_type type;
  void *data = NULL;
  *length = 0;
  if (call->failed) return NULL;
  if (napi_get_typedarray_info(call->env, call->argument[index], &type, length, &data, NULL, NULL) != napi_ok ||
      (type != first && type != second)) {
    *length = 0;
    call_fail(call, index, expected);
    return NULL;
  }
  return data;
}

Bytes call_bytes(Call *call, int index) {
  Bytes bytes;
  bytes.data = typed_array(call, index, napi_uint8_array, napi_uint8_array, &bytes.length, "a Uint8Array");
  return bytes;
}

Int32s call_int32s(Call *call, int index) {
  Int32s items;
  items.data = typed_array(call, index, napi_int32_array, napi_uint32_array, &items.length, "an Int32Array or Uint32Array");
  return items;
}

double *call_doubles(Call *call, int index, size_t *length) {
  return typed_array(call, index, napi_float64_array, napi_float64_array, length, "a Float64Array");
}

int32_t call_int32(Call *call, int index) {
  int32_t value = 0;
  if (!call->failed && napi_get_value_int32(call->env, call->argument[index], &value) != napi_ok) call_fail(call, index, "a number");
  return value;
}

int64_t call_int64(Call *call, int index) {
  int64_t value = 0;
  if (!call->failed && napi_get_value_int64(call->env, call->argument[index], &value) != napi_ok) call_fail(call, index, "a number");
  return value;
}

bool call_bool(Call *call, int index) {
  bool value = false;
  if (!call->failed && napi_get_value_bool(call->env, call->argument[index], &value) != napi_ok) call_fail(call, index, "a boolean");
  return value;
}

int call_path(Call *call, int index, char path[PATH_MAX]) {
  Bytes bytes = call_bytes(call, index);
  if (call->failed) return -EINVAL;
  if (bytes.length >= PATH_MAX) return -ENAMETOOLONG;
  if (bytes.length != 0) {
    if (memchr(bytes.data, 0, bytes.length) != NULL) return -EINVAL;
    memcpy(path, bytes.data, bytes.length);
  }
  path[bytes.length] = 0;
  return 0;
}

int call_text(Call *call, int index, char *text, size_t size) {
  size_t length = 0;
  if (call->failed) return -EINVAL;
  if (napi_get_value_string_utf8(call->env, call->argument[index], NULL, 0, &length) != napi_ok) {
    call_fail(call, index, "a string");
    return -EINVAL;
  }
  if (length >= size) return -ENAMETOOLONG;
  napi_get_value_string_utf8(call->env, call->argument[index], text, size, &length);
  return strlen(text) == length ? 0 : -EINVAL;
}

napi_value number(napi_env env, int64_t value) {
  napi_value result;
  if (value >= INT32_MIN && value <= INT32_MAX) napi_create_int32(env, (int32_t)value, &result);
  else napi_create_int64(env, value, &result);
  return result;
}

napi_value result_of(napi_env env, int64_t result) {
  return number(env, result < 0 ? -errno : result);
}

napi_value copy_of(napi_env env, const void *data, size_t length) {
  napi_value result = NULL;
  napi_create_buffer_copy(env, length, data, NULL, &result);
  return result;
}

napi_value undefined(napi_env env) {
  napi_value result;
  napi_get_undefined(env, &result);
  return result;
}

napi_value system_error(napi_env env, const char *function, int error, const char *path) {
  char text[200];
  napi_value message, result, value;
  // Not strerror(): its static buffer is not safe with other threads, and TypeScript names the errno anyway.
  snprintf(text, sizeof text, "%s: errno %d", function, error);
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message);
  napi_create_error(env, NULL, message, &result);
  napi_set_named_property(env, result, "errno", number(env, error));
  napi_create_string_utf8(env, function, NAPI_AUTO_LENGTH, &value);
  napi_set_named_property(env, result, "syscall", value);
  if (path != NULL && (value = copy_of(env, path, strlen(path))) != NULL) napi_set_named_property(env, result, "path", value);
  return result;
}

void export_function(napi_env env, napi_value exports, const char *name, napi_callback callback) {
  napi_value function;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, NULL, &function) == napi_ok) {
    napi_set_named_property(env, exports, name, function);
  }
}
