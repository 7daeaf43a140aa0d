// Hears of descriptors that become readable or writable, on the event loop of the thread that asks.
#include "addon.h"
#include <stdlib.h>

// The part of libuv that is needed. Node exports it and libuv keeps it stable throughout version 1; node-api-headers does not carry uv.h.
typedef struct uv_poll_s uv_poll_t;
extern size_t uv_handle_size(int type);
extern int uv_poll_init(struct uv_loop_s *loop, uv_poll_t *handle, int fd);
extern int uv_poll_start(uv_poll_t *handle, int events, void (*callback)(uv_poll_t *handle, int status, int events));
extern void uv_close(uv_poll_t *handle, void (*callback)(uv_poll_t *handle));
extern void uv_handle_set_data(uv_poll_t *handle, void *data);
extern void *uv_handle_get_data(const uv_poll_t *handle);
enum { TYPE_POLL = 8 }; // UV_POLL

typedef struct {
  napi_env env;
  napi_ref callback;
  uv_poll_t *handle; // NULL when it was ended
} Watch;

static void notify(uv_poll_t *handle, int status, int events) {
  (void)status, (void)events;
  Watch *watch = uv_handle_get_data(handle);
  napi_env env = watch->env;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value callback, receiver, error;
  napi_get_reference_value(env, watch->callback, &callback);
  napi_get_global(env, &receiver);
  if (napi_make_callback(env, NULL, receiver, callback, 0, NULL, NULL) == napi_pending_exception) {
    napi_get_and_clear_last_exception(env, &error);
    napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
}

static void freed(uv_poll_t *handle) { free(handle); }

static void end_watch(Watch *watch) {
  if (watch->handle == NULL) return;
  uv_close(watch->handle, freed);
  watch->handle = NULL;
  napi_delete_reference(watch->env, watch->callback);
}

static void finalize(napi_env env, void *data, void *hint) {
  (void)env, (void)hint;
  end_watch(data);
  free(data);
}

static napi_value watch_begin(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "watchBegin");
  int fd = call_int32(&call, 0), events = call_int32(&call, 1);
  napi_valuetype type = napi_undefined;
  napi_typeof(env, call.argument[2], &type);
  if (!call.failed && type != napi_function) call_fail(&call, 2, "a function");
  if (call.failed) return NULL;
  struct uv_loop_s *loop;
  Watch *watch = calloc(1, sizeof *watch);
  uv_poll_t *handle = calloc(1, uv_handle_size(TYPE_POLL));
  int error = -ENOMEM;
  if (watch == NULL || handle == NULL || napi_get_uv_event_loop(env, &loop) != napi_ok || (error = uv_poll_init(loop, handle, fd)) < 0) {
    free(watch);
    free(handle);
    return number(env, error);
  }
  *watch = (Watch){.env = env, .handle = handle};
  uv_handle_set_data(handle, watch);
  napi_value external;
  napi_create_reference(env, call.argument[2], 1, &watch->callback);
  napi_create_external(env, watch, finalize, NULL, &external);
  uv_poll_start(handle, events, notify);
  return external;
}

static napi_value watch_end(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "watchEnd");
  void *watch = NULL;
  if (napi_get_value_external(env, call.argument[0], &watch) != napi_ok) {
    call_fail(&call, 0, "a watch");
    return NULL;
  }
  end_watch(watch);
  return NULL;
}

void poll_register(napi_env env, napi_value exports) {
  export_function(env, exports, "watchBegin", watch_begin);
  export_function(env, exports, "watchEnd", watch_end);
}
