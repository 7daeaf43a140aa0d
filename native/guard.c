// Mappings of a file that somebody else may cut short. Touching a page behind its end raises SIGBUS; for a guarded mapping the handler puts
// zero pages over the whole of it, so that the process goes on and can ask whether that happened.
#include "addon.h"
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

enum { MAX_GUARDS = 1024 };

typedef struct {
  _Atomic uintptr_t start; // 0: free
  _Atomic size_t length;
  atomic_bool broken;
} Guard;

static Guard guards[MAX_GUARDS];
static struct sigaction previous;
static atomic_bool installed;

// Only async-signal-safe calls, no allocation, no lock.
static void on_bus_error(int signal, siginfo_t *info, void *context) {
  (void)context;
  const uintptr_t address = (uintptr_t)info->si_addr;
  for (int i = 0; i < MAX_GUARDS; i++) {
    const uintptr_t start = atomic_load(&guards[i].start);
    const size_t length = atomic_load(&guards[i].length);
    if (start == 0 || address < start || address - start >= length) continue;
    const int saved = errno;
    void *replaced = mmap((void *)start, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    errno = saved;
    if (replaced == MAP_FAILED) break;
    atomic_store(&guards[i].broken, true);
    return;
  }
  sigaction(signal, &previous, NULL); // not ours: the access is repeated and does what it would have done without us
}

static int install(void) {
  bool expected = false;
  if (!atomic_compare_exchange_strong(&installed, &expected, true)) return 0;
  struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  sigemptyset(&action.sa_mask);
  return sigaction(SIGBUS, &action, &previous);
}

static Guard *guard_of(Call *call, void **data, size_t *length) {
  if (napi_get_arraybuffer_info(call->env, call->argument[0], data, length) != napi_ok) {
    call_fail(call, 0, "an ArrayBuffer");
    return NULL;
  }
  for (int i = 0; i < MAX_GUARDS; i++) {
    if (*data != NULL && atomic_load(&guards[i].start) == (uintptr_t)*data) return &guards[i];
  }
  return NULL;
}

static napi_value guard_mapping(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "guardMapping");
  void *data = NULL;
  size_t length = 0;
  Guard *known = guard_of(&call, &data, &length);
  if (call.failed) return NULL;
  if (data == NULL || known != NULL) return number(env, -EINVAL);
  if (install() < 0) return result_of(env, -1);
  for (int i = 0; i < MAX_GUARDS; i++) {
    uintptr_t free_start = 0;
    // The length first: a reader that sees the start must see the length. 1 marks the slot taken; no mapping starts there.
    if (!atomic_compare_exchange_strong(&guards[i].start, &free_start, 1)) continue;
    atomic_store(&guards[i].length, length);
    atomic_store(&guards[i].broken, false);
    atomic_store(&guards[i].start, (uintptr_t)data);
    return number(env, 0);
  }
  return number(env, -ENOSPC);
}

// 1 when pages of the mapping were found missing, and it is zeros of ours now; 0 when not.
static napi_value guard_broken(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "guardBroken");
  void *data = NULL;
  size_t length = 0;
  Guard *guard = guard_of(&call, &data, &length);
  if (call.failed) return NULL;
  return guard == NULL ? number(env, -EINVAL) : number(env, atomic_load(&guard->broken) ? 1 : 0);
}

static napi_value unguard_mapping(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "unguardMapping");
  void *data = NULL;
  size_t length = 0;
  Guard *guard = guard_of(&call, &data, &length);
  if (call.failed) return NULL;
  if (guard == NULL) return number(env, -EINVAL);
  atomic_store(&guard->length, 0);
  atomic_store(&guard->start, 0);
  return number(env, 0);
}

void guard_register(napi_env env, napi_value exports) {
  export_function(env, exports, "guardMapping", guard_mapping);
  export_function(env, exports, "guardBroken", guard_broken);
  export_function(env, exports, "unguardMapping", unguard_mapping);
}
