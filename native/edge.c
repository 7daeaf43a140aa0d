// Waiting for descriptors without reading them: each new signal is told once (edge-triggered), so that nothing blocks on what a stranger sent.
#include "addon.h"
#include <sys/epoll.h>

enum { MAX_EVENTS = 64 };

static napi_value edge_add(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "edgeAdd");
  int set = call_int32(&call, 0), fd = call_int32(&call, 1), cookie = call_int32(&call, 2);
  if (call.failed) return NULL;
  struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.u64 = (uint32_t)cookie};
  return result_of(env, epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

static napi_value edge_wait(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "edgeWait");
  int set = call_int32(&call, 0);
  Int32s cookies = call_int32s(&call, 1);
  int timeout_ms = call_int32(&call, 2);
  if (call.failed) return NULL;
  struct epoll_event events[MAX_EVENTS];
  int room = cookies.length < MAX_EVENTS ? (int)cookies.length : MAX_EVENTS;
  int count = epoll_wait(set, events, room, timeout_ms);
  if (count < 0 && errno == EINTR) count = 0;
  for (int i = 0; i < count; i++) cookies.data[i] = (int32_t)(uint32_t)events[i].data.u64;
  return result_of(env, count);
}

void edge_register(napi_env env, napi_value exports) {
  export_function(env, exports, "edgeAdd", edge_add);
  export_function(env, exports, "edgeWait", edge_wait);
}
