// Many slices or files in one crossing, on libuv's thread pool. Every bound is checked before the work is queued.
#include "addon.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  uint32_t offset, length;
} Slice;

typedef struct {
  Task task;
  Bytes buffer, out, digests, compressors, results;
  const Slice *slices, *out_slices;
  size_t count;
  int32_t compressor, level, digester;
  uint32_t *numbers; // crcs or sizes
  size_t used;
} SliceTask;

static const Slice *call_slices(Call *call, int index, size_t *count, size_t bound) {
  Int32s pairs = call_int32s(call, index);
  const Slice *slices = (const Slice *)pairs.data;
  if (call->failed) return NULL;
  *count = pairs.length / 2;
  for (size_t i = 0; i < *count; i++) {
    if ((uint64_t)slices[i].offset + slices[i].length > bound) {
      call_fail(call, index, "a list of [offset, length] within its buffer");
      return NULL;
    }
  }
  return slices;
}

static void require(Call *call, int index, bool enough) {
  if (!enough) call_fail(call, index, "long enough for all slices");
}

static void require_digester(Call *call, int index, int32_t digester) {
  if (digester != DIGESTER_BLAKE3 && digester != DIGESTER_SHA256) call_fail(call, index, "a digester (0 or 1)");
}

static void hash_slice(int32_t digester, const uint8_t *bytes, size_t length, uint8_t *digest) {
  if (digester == DIGESTER_BLAKE3) blake3_hash(bytes, length, digest);
  else sha256_hash(bytes, length, digest);
}

static void hash_run(Task *task) {
  SliceTask *work = (SliceTask *)task;
  for (size_t i = 0; i < work->count; i++) {
    const uint8_t *bytes = work->buffer.data + work->slices[i].offset;
    hash_slice(work->digester, bytes, work->slices[i].length, work->digests.data + i * DIGEST_SIZE);
    if (work->numbers != NULL) work->numbers[i] = crc32c_update(0, bytes, work->slices[i].length);
  }
}

static napi_value hash_slices(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "hashSlices");
  SliceTask *work = task_new(&call, sizeof *work, hash_run);
  if (work == NULL) return NULL;
  work->buffer = call_bytes(&call, 0);
  work->slices = call_slices(&call, 1, &work->count, work->buffer.length);
  work->digester = call_int32(&call, 2);
  work->digests = call_bytes(&call, 3);
  Int32s crcs = call_int32s(&call, 4);
  work->numbers = crcs.length > 0 ? (uint32_t *)crcs.data : NULL;
  require_digester(&call, 2, work->digester);
  require(&call, 3, work->digests.length / DIGEST_SIZE >= work->count);
  require(&call, 4, crcs.length == 0 || crcs.length >= work->count);
  const int kept[] = {0, 1, 3, 4};
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) task_keep(&call, &work->task, kept[i]);
  return task_start(&call, &work->task);
}

static void compress_run(Task *task) {
  SliceTask *work = (SliceTask *)task;
  for (size_t i = 0; i < work->count; i++) {
    const uint8_t *source = work->buffer.data + work->slices[i].offset;
    uint8_t *target = work->out.data + work->used;
    const size_t length = work->slices[i].length;
    // One byte less than the slice: what does not become smaller is stored as it is.
    size_t size = 0;
    if (length > 1 && work->compressor == COMPRESSOR_LZ4) size = lz4_compress(source, length, target, length - 1);
    if (length > 1 && work->compressor == COMPRESSOR_ZSTD) size = zstd_compress(source, length, target, length - 1, work->level);
    if (size == 0) {
      if (length != 0) memcpy(target, source, length);
      size = length;
    }
    work->numbers[i] = (uint32_t)size;
    work->used += size;
  }
}

static napi_value compress_finish(napi_env env, Task *task) {
  return number(env, (int64_t)((SliceTask *)task)->used);
}

static napi_value compress_slices(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "compressSlices");
  SliceTask *work = task_new(&call, sizeof *work, compress_run);
  if (work == NULL) return NULL;
  work->task.finish = compress_finish;
  work->buffer = call_bytes(&call, 0);
  work->slices = call_slices(&call, 1, &work->count, work->buffer.length);
  work->compressor = call_int32(&call, 2);
  work->level = call_int32(&call, 3);
  work->out = call_bytes(&call, 4);
  Int32s sizes = call_int32s(&call, 5);
  work->numbers = (uint32_t *)sizes.data;
  if (work->compressor != COMPRESSOR_NONE && work->compressor != COMPRESSOR_LZ4 && work->compressor != COMPRESSOR_ZSTD) {
    call_fail(&call, 2, "a compressor that compresses slices (0, 1 or 3)");
  }
  size_t total = 0;
  for (size_t i = 0; !call.failed && i < work->count; i++) total += work->slices[i].length;
  require(&call, 4, work->out.length >= total);
  require(&call, 5, sizes.length >= work->count);
  const int kept[] = {0, 1, 4, 5};
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) task_keep(&call, &work->task, kept[i]);
  return task_start(&call, &work->task);
}

static int64_t decode_slice(int compressor, const uint8_t *source, size_t length, uint8_t *target, size_t capacity) {
  switch (compressor) {
    case COMPRESSOR_NONE:
      if (length == capacity && length != 0) memcpy(target, source, length);
      return length == capacity ? (int64_t)length : -1;
    case COMPRESSOR_LZ4: return lz4_decompress(source, length, target, capacity);
    case COMPRESSOR_GZIP: return gzip_decompress(source, length, target, capacity);
    case COMPRESSOR_ZSTD: return zstd_decompress(source, length, target, capacity);
    default: return -1;
  }
}

enum { DECODED = 0, NOT_DECODED = 1, WRONG_DIGEST = 2 };

static void decode_run(Task *task) {
  SliceTask *work = (SliceTask *)task;
  for (size_t i = 0; i < work->count; i++) {
    const Slice from = work->slices[i], to = work->out_slices[i];
    uint8_t *target = work->out.data + to.offset;
    uint8_t result = DECODED, digest[DIGEST_SIZE];
    if (decode_slice(work->compressors.data[i], work->buffer.data + from.offset, from.length, target, to.length) != to.length) {
      result = NOT_DECODED;
    } else if (work->digests.data != NULL) {
      hash_slice(work->digester, target, to.length, digest);
      if (memcmp(digest, work->digests.data + i * DIGEST_SIZE, DIGEST_SIZE) != 0) result = WRONG_DIGEST;
    }
    work->results.data[i] = result;
    work->used += result != DECODED;
  }
}

static napi_value decode_slices(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "decodeSlices");
  SliceTask *work = task_new(&call, sizeof *work, decode_run);
  if (work == NULL) return NULL;
  work->task.finish = compress_finish;
  size_t out_count = 0;
  work->buffer = call_bytes(&call, 0);
  work->slices = call_slices(&call, 1, &work->count, work->buffer.length);
  work->compressors = call_bytes(&call, 2);
  work->out = call_bytes(&call, 3);
  work->out_slices = call_slices(&call, 4, &out_count, work->out.length);
  work->digester = call_int32(&call, 5);
  const bool verify = call_has(&call, 6);
  if (verify) work->digests = call_bytes(&call, 6);
  work->results = call_bytes(&call, 7);
  require_digester(&call, 5, work->digester);
  require(&call, 2, work->compressors.length >= work->count);
  require(&call, 4, out_count >= work->count);
  require(&call, 6, !verify || work->digests.length / DIGEST_SIZE >= work->count);
  require(&call, 7, work->results.length >= work->count);
  const int kept[] = {0, 1, 2, 3, 4, 7};
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) task_keep(&call, &work->task, kept[i]);
  if (verify) task_keep(&call, &work->task, 6);
  return task_start(&call, &work->task);
}

// --- the chunks of a range: decoded, put to their places, hashed, in one go ---------------------------------------------------------

typedef struct {
  uint32_t offset, length, to, size, compressor;
} Unit;

typedef struct {
  uint32_t unit, from, to, size;
} Chunk;

typedef struct {
  Task task;
  Bytes stored, out, digests, results;
  const Unit *units;
  const Chunk *chunks;
  size_t unit_count, chunk_count;
  uint32_t alignment;
  int32_t digester;
  uint32_t *crcs; // NULL: not wanted
} ChunkTask;

enum { UNIT_COLUMNS = 5, CHUNK_COLUMNS = 4 };

// The unit is decoded when the first of its chunks is met: its bytes are hashed while they are in the processor's cache.
static void chunks_run(Task *task) {
  ChunkTask *work = (ChunkTask *)task;
  const size_t room = work->out.length;
  int64_t open = -1;
  bool decoded = false;
  for (size_t i = 0; i < work->chunk_count; i++) {
    const Chunk chunk = work->chunks[i];
    const Unit unit = work->units[chunk.unit];
    uint8_t *bytes = work->out.data + chunk.to;
    if (open != chunk.unit) {
      open = chunk.unit;
      decoded = decode_slice((int)unit.compressor, work->stored.data + unit.offset, unit.length, work->out.data + unit.to, unit.size) == unit.size;
    }
    work->results.data[i] = decoded ? DECODED : NOT_DECODED;
    if (!decoded) continue;
    if (chunk.from != chunk.to) memmove(bytes, work->out.data + chunk.from, chunk.size);
    // zeros up to the next chunk's place, so that neighbours can be written together
    size_t end = (size_t)chunk.to + chunk.size, next = (end + work->alignment - 1) / work->alignment * work->alignment;
    if (next > room) next = room;
    if (next > end) memset(work->out.data + end, 0, next - end);
    if (work->digests.data != NULL) hash_slice(work->digester, bytes, chunk.size, work->digests.data + i * DIGEST_SIZE);
    if (work->crcs != NULL) work->crcs[i] = crc32c_update(0, bytes, chunk.size);
  }
}

static napi_value decode_chunks(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "decodeChunks");
  ChunkTask *work = task_new(&call, sizeof *work, chunks_run);
  if (work == NULL) return NULL;
  work->stored = call_bytes(&call, 0);
  Int32s units = call_int32s(&call, 1);
  work->out = call_bytes(&call, 2);
  Int32s chunks = call_int32s(&call, 3);
  const int32_t alignment = call_int32(&call, 4);
  work->digester = call_int32(&call, 5);
  const bool hashes = call_has(&call, 6);
  if (hashes) work->digests = call_bytes(&call, 6);
  Int32s crcs = call_int32s(&call, 7);
  work->results = call_bytes(&call, 8);
  work->crcs = crcs.length > 0 ? (uint32_t *)crcs.data : NULL;
  work->units = (const Unit *)units.data;
  work->chunks = (const Chunk *)chunks.data;
  work->unit_count = units.length / UNIT_COLUMNS;
  work->chunk_count = chunks.length / CHUNK_COLUMNS;
  work->alignment = (uint32_t)alignment;
  require_digester(&call, 5, work->digester);
  if (alignment < 1) call_fail(&call, 4, "an alignment");
  require(&call, 6, !hashes || work->digests.length / DIGEST_SIZE >= work->chunk_count);
  require(&call, 7, crcs.length == 0 || crcs.length >= work->chunk_count);
  require(&call, 8, work->results.length >= work->chunk_count);
  for (size_t i = 0; !call.failed && i < work->unit_count; i++) {
    const Unit unit = work->units[i];
    if ((uint64_t)unit.offset + unit.length > work->stored.length || (uint64_t)unit.to + unit.size > work->out.length) call_fail(&call, 1, "a list of units within their buffers");
  }
  for (size_t i = 0; !call.failed && i < work->chunk_count; i++) {
    const Chunk chunk = work->chunks[i];
    if (chunk.unit >= work->unit_count || (uint64_t)chunk.from + chunk.size > work->out.length || (uint64_t)chunk.to + chunk.size > work->out.length) call_fail(&call, 3, "a list of chunks within their buffer");
  }
  const int kept[] = {0, 1, 2, 3, 7, 8};
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) task_keep(&call, &work->task, kept[i]);
  if (hashes) task_keep(&call, &work->task, 6);
  return task_start(&call, &work->task);
}

// --- parts of many files --------------------------------------------------------------------------------------------------------

typedef struct {
  Task task;
  char *paths; // own copy
  size_t path_count;
  const double *ranges;
  Bytes buffer;
  int32_t *results;
} ReadTask;

enum { RANGE_COLUMNS = 3 };

static int32_t read_part(const char *path, int64_t offset, size_t length, uint8_t *target) {
  const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK; // a fifo that took the file's place must not block
  int fd = open(path, flags | O_NOATIME);
  if (fd < 0 && errno == EPERM) fd = open(path, flags); // O_NOATIME is for the owner
  if (fd < 0) return -errno;
  size_t done = 0;
  int error = 0;
  while (done < length) {
    ssize_t size = pread(fd, target + done, length - done, offset + (int64_t)done);
    if (size > 0) done += (size_t)size;
    else if (size == 0) break;
    else if (errno != EINTR) {
      error = -errno;
      break;
    }
  }
  close(fd);
  return error != 0 ? error : (int32_t)done;
}

static void read_run(Task *task) {
  ReadTask *work = (ReadTask *)task;
  const char *path = work->paths;
  for (size_t i = 0; i < work->path_count; i++, path += strlen(path) + 1) {
    const double *range = work->ranges + RANGE_COLUMNS * i;
    work->results[i] = read_part(path, (int64_t)range[0], (size_t)range[1], work->buffer.data + (size_t)range[2]);
  }
}

static void read_release(Task *task) {
  free(((ReadTask *)task)->paths);
}

static napi_value read_files(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "readFiles");
  ReadTask *work = task_new(&call, sizeof *work, read_run);
  if (work == NULL) return NULL;
  work->task.release = read_release;
  size_t range_items = 0;
  Bytes paths = call_bytes(&call, 0);
  work->ranges = call_doubles(&call, 1, &range_items);
  work->buffer = call_bytes(&call, 2);
  Int32s results = call_int32s(&call, 3);
  work->results = results.data;
  for (size_t i = 0; i < paths.length; i++) work->path_count += paths.data[i] == 0;
  if (paths.length != 0 && paths.data[paths.length - 1] != 0) call_fail(&call, 0, "a list of NUL-terminated paths");
  require(&call, 1, range_items / RANGE_COLUMNS >= work->path_count);
  require(&call, 3, results.length >= work->path_count);
  for (size_t i = 0; !call.failed && i < work->path_count; i++) {
    const double *range = work->ranges + RANGE_COLUMNS * i, size = (double)work->buffer.length;
    // Written so that NaN fails too.
    if (!(range[0] >= 0 && range[0] <= 0x1p53 && range[1] >= 0 && range[1] <= INT32_MAX && range[2] >= 0 && range[1] + range[2] <= size)) {
      call_fail(&call, 1, "a list of [file offset, length, buffer offset] within the buffer");
    }
  }
  if (!call.failed && paths.length != 0) {
    // Copied, so that the walk by NULs stays inside whatever JavaScript does to its array meanwhile.
    if ((work->paths = malloc(paths.length)) == NULL) call_fail(&call, 0, "small enough for the memory there is");
    else memcpy(work->paths, paths.data, paths.length);
  }
  for (int i = 1; i <= 3; i++) task_keep(&call, &work->task, i);
  return task_start(&call, &work->task);
}

void bulk_register(napi_env env, napi_value exports) {
  export_function(env, exports, "hashSlices", hash_slices);
  export_function(env, exports, "compressSlices", compress_slices);
  export_function(env, exports, "decodeSlices", decode_slices);
  export_function(env, exports, "decodeChunks", decode_chunks);
  export_function(env, exports, "readFiles", read_files);
}
