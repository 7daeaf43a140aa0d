// Work on libuv's thread pool behind a promise.
#include "addon.h"
#include <stdlib.h>

void *task_new(Call *call, size_t size, void (*run)(Task *)) {
  Task *task = calloc(1, size);
  if (task == NULL) {
    napi_throw(call->env, system_error(call->env, call->function, ENOMEM, NULL));
    return NULL;
  }
  task->function = call->function;
  task->run = run;
  return task;
}

void task_keep(Call *call, Task *task, int argument) {
  if (call->failed) return;
  napi_create_reference(call->env, call->argument[argument], 1, &task->references[task->reference_count++]);
}

static void task_free(napi_env env, Task *task) {
  for (int i = 0; i < task->reference_count; i++) napi_delete_reference(env, task->references[i]);
  if (task->work != NULL) napi_delete_async_work(env, task->work);
  if (task->release != NULL) task->release(task);
  free(task);
}

static void task_execute(napi_env env, void *data) {
  (void)env;
  Task *task = data;
  task->run(task);
}

static void task_complete(napi_env env, napi_status status, void *data) {
  Task *task = data;
  if (status != napi_ok && task->error == 0) task->error = ECANCELED;
  napi_value result = task->error == 0 && task->finish != NULL ? task->finish(env, task) : NULL;
  bool thrown = false;
  napi_is_exception_pending(env, &thrown);
  if (thrown) {
    napi_get_and_clear_last_exception(env, &result);
    napi_reject_deferred(env, task->deferred, result);
  } else if (task->error != 0) {
    napi_reject_deferred(env, task->deferred, system_error(env, task->function, task->error, task->error_path));
  } else {
    napi_resolve_deferred(env, task->deferred, result == NULL ? undefined(env) : result);
  }
  task_free(env, task);
}

napi_value task_start(Call *call, Task *task) {
  napi_env env = call->env;
  napi_value name, promise;
  if (!call->failed) {
    if (napi_create_string_utf8(env, task->function, NAPI_AUTO_LENGTH, &name) == napi_ok &&
        napi_create_async_work(env, NULL, name, task_execute, task_complete, task, &task->work) == napi_ok &&
        napi_create_promise(env, &task->deferred, &promise) == napi_ok) {
      if (napi_queue_async_work(env, task->work) == napi_ok) return promise;
      napi_reject_deferred(env, task->deferred, system_error(env, task->function, EAGAIN, NULL));
      task_free(env, task);
      return promise;
    }
    napi_throw_error(env, NULL, "the thread pool takes no work");
  }
  task_free(env, task);
  return NULL;
}
