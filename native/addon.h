// Private to native/: argument conversion, results, tasks on libuv's pool, and the capabilities that several files use.
// Conventions: a function converts its arguments, makes one call and returns a value >= 0 or -errno. Nothing here decides anything.
#ifndef NYDUS_ADDON_H
#define NYDUS_ADDON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <node_api.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// --- call.c: arguments and results ----------------------------------------------------------------------------------------------

enum { MAX_ARGUMENTS = 9 };

// One call from JavaScript. The first argument of a wrong type throws a TypeError and sets `failed`; later getters then do nothing.
typedef struct {
  napi_env env;
  const char *function;
  napi_value argument[MAX_ARGUMENTS];
  bool failed;
} Call;

typedef struct {
  uint8_t *data;
  size_t length; // bytes
} Bytes;

typedef struct {
  int32_t *data;
  size_t length; // items
} Int32s;

Call call_begin(napi_env env, napi_callback_info info, const char *function);
void call_fail(Call *call, int index, const char *expected);
bool call_has(Call *call, int index); // neither undefined nor null
Bytes call_bytes(Call *call, int index);
Int32s call_int32s(Call *call, int index); // Int32Array or Uint32Array
double *call_doubles(Call *call, int index, size_t *length);
int32_t call_int32(Call *call, int index);
int64_t call_int64(Call *call, int index); // a whole number of either sign below 2^53
bool call_bool(Call *call, int index);
// NUL-terminated copy of a path given as bytes. 0, or -ENAMETOOLONG / -EINVAL (a NUL inside) / -EINVAL with call->failed set.
int call_path(Call *call, int index, char path[PATH_MAX]);
// The same for a JavaScript string of less than `size` bytes of UTF-8.
int call_text(Call *call, int index, char *text, size_t size);

napi_value number(napi_env env, int64_t value);
// `result` of a system call: itself, or -errno when it is -1.
napi_value result_of(napi_env env, int64_t result);
napi_value copy_of(napi_env env, const void *data, size_t length); // a Buffer
napi_value undefined(napi_env env);
// An Error with `code` ('ERRNO'), `errno` (positive), `syscall` and, when known, `path` (a Buffer).
napi_value system_error(napi_env env, const char *function, int error, const char *path);
void export_function(napi_env env, napi_value exports, const char *name, napi_callback callback);

// glibc gives stat calls a new symbol version (2.33); the system call is the same everywhere.
static inline int stat_at(int directory, const char *path, struct stat *status, int flags) {
  return (int)syscall(SYS_newfstatat, directory, path, status, flags);
}

// --- task.c: work on libuv's thread pool ----------------------------------------------------------------------------------------

enum { MAX_TASK_REFERENCES = 7 };

// First member of a capability's own task structure, which task_start takes over and frees.
typedef struct Task Task;
struct Task {
  const char *function;
  void (*run)(Task *task);                           // on the pool: must not touch JavaScript
  napi_value (*finish)(napi_env env, Task *task);    // on the JavaScript thread: the result; NULL = undefined
  void (*release)(Task *task);                       // frees what the structure owns; may be NULL
  int error;                                         // errno set by run: the promise is rejected
  const char *error_path;                            // owned by the task; may be NULL
  napi_async_work work;
  napi_deferred deferred;
  napi_ref references[MAX_TASK_REFERENCES];
  int reference_count;
};

void *task_new(Call *call, size_t size, void (*run)(Task *)); // zeroed; NULL, and an Error thrown, when memory is short
void task_keep(Call *call, Task *task, int argument);         // keeps a buffer alive until the task is done
napi_value task_start(Call *call, Task *task);                // the promise; after a failed conversion only frees the task

// --- codecs ---------------------------------------------------------------------------------------------------------------------

enum { COMPRESSOR_NONE = 0, COMPRESSOR_LZ4 = 1, COMPRESSOR_GZIP = 2, COMPRESSOR_ZSTD = 3 };
enum { DIGESTER_BLAKE3 = 0, DIGESTER_SHA256 = 1, DIGEST_SIZE = 32 };

// Bytes written, or 0 when the result does not fit.
size_t lz4_compress(const uint8_t *source, size_t length, uint8_t *target, size_t capacity);
size_t zstd_compress(const uint8_t *source, size_t length, uint8_t *target, size_t capacity, int level);
// Bytes written, or -1 when the source is corrupt or does not fit.
int64_t lz4_decompress(const uint8_t *source, size_t length, uint8_t *target, size_t capacity);
int64_t zstd_decompress(const uint8_t *source, size_t length, uint8_t *target, size_t capacity);
int64_t gzip_decompress(const uint8_t *source, size_t length, uint8_t *target, size_t capacity);

void blake3_hash(const uint8_t *bytes, size_t length, uint8_t digest[DIGEST_SIZE]);
void sha256_hash(const uint8_t *bytes, size_t length, uint8_t digest[DIGEST_SIZE]);
uint32_t crc32c_update(uint32_t crc, const uint8_t *bytes, size_t length);

// --- one registration function a file ---------------------------------------------------------------------------------------------

void codecs_register(napi_env env, napi_value exports);
void bulk_register(napi_env env, napi_value exports);
void scan_register(napi_env env, napi_value exports);
void stream_register(napi_env env, napi_value exports);
void deflate_register(napi_env env, napi_value exports);
void mmap_register(napi_env env, napi_value exports);
void memory_register(napi_env env, napi_value exports);
void file_register(napi_env env, napi_value exports);
void beneath_register(napi_env env, napi_value exports);
void beneath_file_register(napi_env env, napi_value exports);
void mount_register(napi_env env, napi_value exports);
void fsmount_register(napi_env env, napi_value exports);
void fuse_register(napi_env env, napi_value exports);
void socket_register(napi_env env, napi_value exports);
void poll_register(napi_env env, napi_value exports);
void edge_register(napi_env env, napi_value exports);
void guard_register(napi_env env, napi_value exports);
void uffd_register(napi_env env, napi_value exports);

// Free this thread's reused contexts; run when a JavaScript thread ends (pool threads live as long as the process).
void codecs_release_thread(void);
void fuse_release_thread(void);

#endif
