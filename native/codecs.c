// Codecs, digests and checksums, one buffer a call. Contexts are reused: one of a kind and thread.
#include "addon.h"
#include <lz4.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

static _Thread_local ZSTD_CCtx *compression_context;
static _Thread_local ZSTD_DCtx *decompression_context;
static _Thread_local z_stream *inflate_context;

size_t lz4_compress(const uint8_t *source, size_t length, uint8_t *target, size_t capacity) {
  if (length > LZ4_MAX_INPUT_SIZE) return 0;
  int size = LZ4_compress_default((const char *)source, (char *)target, (int)length, capacity > INT_MAX ? INT_MAX : (int)capacity);
  return size > 0 ? (size_t)size : 0;
}

int64_t lz4_decompress(const uint8_t *source, size_t length, uint8_t *target, size_t capacity) {
  if (length > INT_MAX) return -1;
  int size = LZ4_decompress_safe((const char *)source, (char *)target, (int)length, capacity > INT_MAX ? INT_MAX : (int)capacity);
  return size < 0 ? -1 : size;
}

// Frames do not name their content's size, which is 1 to 3 bytes of each: every reader of a chunk has it from the image.
size_t zstd_compress(const uint8_t *source, size_t length, uint8_t *target, size_t capacity, int level) {
  if (compression_context == NULL) {
    ZSTD_CCtx *created = ZSTD_createCCtx();
    if (created == NULL) return 0;
    if (ZSTD_isError(ZSTD_CCtx_setParameter(created, ZSTD_c_contentSizeFlag, 0))) {
      ZSTD_freeCCtx(created);
      return 0;
    }
    compression_context = created;
  }
  if (ZSTD_isError(ZSTD_CCtx_setParameter(compression_context, ZSTD_c_compressionLevel, level))) return 0;
  size_t size = ZSTD_compress2(compression_context, target, capacity, source, length);
  return ZSTD_isError(size) ? 0 : size;
}

int64_t zstd_decompress(const uint8_t *source, size_t length, uint8_t *target, size_t capacity) {
  if (decompression_context == NULL && (decompression_context = ZSTD_createDCtx()) == NULL) return -1;
  size_t size = ZSTD_decompressDCtx(decompression_context, target, capacity, source, length);
  return ZSTD_isError(size) ? -1 : (int64_t)size;
}

// One gzip or zlib member that ends exactly where the source ends.
int64_t gzip_decompress(const uint8_t *source, size_t length, uint8_t *target, size_t capacity) {
  enum { GZIP_OR_ZLIB = 32 };
  if (length > UINT_MAX || capacity > UINT_MAX) return -1;
  if (inflate_context == NULL) {
    z_stream *created = calloc(1, sizeof *created);
    if (created == NULL || inflateInit2(created, GZIP_OR_ZLIB + MAX_WBITS) != Z_OK) {
      free(created);
      return -1;
    }
    inflate_context = created;
  }
  z_stream *stream = inflate_context;
  inflateReset(stream);
  stream->next_in = (Bytef *)source;
  stream->avail_in = (uInt)length;
  stream->next_out = target;
  stream->avail_out = (uInt)capacity;
  int state = inflate(stream, Z_FINISH);
  return state == Z_STREAM_END && stream->avail_in == 0 ? (int64_t)(capacity - stream->avail_out) : -1;
}

void codecs_release_thread(void) {
  ZSTD_freeCCtx(compression_context);
  ZSTD_freeDCtx(decompression_context);
  if (inflate_context != NULL) {
    inflateEnd(inflate_context);
    free(inflate_context);
  }
  compression_context = NULL;
  decompression_context = NULL;
  inflate_context = NULL;
}

static napi_value lz4_compress_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "lz4Compress");
  Bytes source = call_bytes(&call, 0), target = call_bytes(&call, 1);
  if (call.failed) return NULL;
  return number(env, (int64_t)lz4_compress(source.data, source.length, target.data, target.length));
}

static napi_value lz4_decompress_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "lz4Decompress");
  Bytes source = call_bytes(&call, 0), target = call_bytes(&call, 1);
  if (call.failed) return NULL;
  return number(env, lz4_decompress(source.data, source.length, target.data, target.length));
}

static napi_value gzip_decompress_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "gzipDecompress");
  Bytes source = call_bytes(&call, 0), target = call_bytes(&call, 1);
  if (call.failed) return NULL;
  return number(env, gzip_decompress(source.data, source.length, target.data, target.length));
}

static napi_value zstd_compress_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "zstdCompress");
  Bytes source = call_bytes(&call, 0), target = call_bytes(&call, 1);
  int32_t level = call_int32(&call, 2);
  if (call.failed) return NULL;
  return number(env, (int64_t)zstd_compress(source.data, source.length, target.data, target.length, level));
}

static napi_value zstd_decompress_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "zstdDecompress");
  Bytes source = call_bytes(&call, 0), target = call_bytes(&call, 1);
  if (call.failed) return NULL;
  return number(env, zstd_decompress(source.data, source.length, target.data, target.length));
}

static napi_value crc32c_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "crc32c");
  Bytes bytes = call_bytes(&call, 0);
  if (call.failed) return NULL;
  return number(env, crc32c_update(0, bytes.data, bytes.length));
}

static napi_value digest_call(napi_env env, napi_callback_info info, const char *name, void (*hash)(const uint8_t *, size_t, uint8_t *)) {
  Call call = call_begin(env, info, name);
  Bytes bytes = call_bytes(&call, 0), out = call_bytes(&call, 1);
  int64_t offset = call_int64(&call, 2);
  if (call.failed) return NULL;
  if (out.length < DIGEST_SIZE || offset < 0 || (uint64_t)offset > out.length - DIGEST_SIZE) {
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "a digest needs 32 bytes of the output");
    return NULL;
  }
  hash(bytes.data, bytes.length, out.data + offset);
  return NULL;
}

static napi_value blake3_call(napi_env env, napi_callback_info info) {
  return digest_call(env, info, "blake3", blake3_hash);
}

static napi_value sha256_call(napi_env env, napi_callback_info info) {
  return digest_call(env, info, "sha256", sha256_hash);
}

void codecs_register(napi_env env, napi_value exports) {
  export_function(env, exports, "lz4Compress", lz4_compress_call);
  export_function(env, exports, "lz4Decompress", lz4_decompress_call);
  export_function(env, exports, "gzipDecompress", gzip_decompress_call);
  export_function(env, exports, "zstdCompress", zstd_compress_call);
  export_function(env, exports, "zstdDecompress", zstd_decompress_call);
  export_function(env, exports, "crc32c", crc32c_call);
  export_function(env, exports, "blake3", blake3_call);
  export_function(env, exports, "sha256", sha256_call);
}
