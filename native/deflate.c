// Parts of one gzip member, each compressed by itself on the thread pool, and the checksum of the whole.
#include "addon.h"
#include <stdlib.h>
#include <zlib.h>

enum { RAW_DEFLATE = -MAX_WBITS, MEMORY_LEVEL = 8, WINDOW = 1 << MAX_WBITS };

typedef struct {
  Task task;
  Bytes source, out;
  size_t offset, length;
  int level;
  bool last;
  uint32_t *result; // [size, CRC-32 of the part]
} PartTask;

static void part_run(Task *task) {
  PartTask *part = (PartTask *)task;
  z_stream stream = {0};
  if (deflateInit2(&stream, part->level, Z_DEFLATED, RAW_DEFLATE, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
    task->error = ENOMEM;
    return;
  }
  Bytef *start = part->source.data + part->offset;
  // What a decoder has in its window when it comes here: matches may lead back into it.
  const size_t window = part->offset < WINDOW ? part->offset : WINDOW;
  if (window > 0) deflateSetDictionary(&stream, start - window, (uInt)window);
  stream.next_in = start;
  stream.avail_in = (uInt)part->length;
  stream.next_out = part->out.data;
  stream.avail_out = (uInt)part->out.length;
  // A part that is not the last one ends on a byte, so that the next can follow it.
  const int state = deflate(&stream, part->last ? Z_FINISH : Z_SYNC_FLUSH);
  const bool whole = part->last ? state == Z_STREAM_END : state == Z_OK && stream.avail_in == 0 && stream.avail_out > 0;
  if (!whole) task->error = ENOSPC;
  part->result[0] = (uint32_t)(part->out.length - stream.avail_out);
  part->result[1] = (uint32_t)crc32(0, start, (uInt)part->length);
  deflateEnd(&stream);
}

static napi_value deflate_part(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "deflatePart");
  PartTask *part = task_new(&call, sizeof *part, part_run);
  if (part == NULL) return NULL;
  part->source = call_bytes(&call, 0);
  const int64_t offset = call_int64(&call, 1), length = call_int64(&call, 2);
  part->level = call_int32(&call, 3);
  part->last = call_bool(&call, 4);
  part->out = call_bytes(&call, 5);
  Int32s result = call_int32s(&call, 6);
  part->result = (uint32_t *)result.data;
  if (!call.failed && (offset < 0 || length < 0 || length > INT32_MAX || (uint64_t)offset > part->source.length || (uint64_t)length > part->source.length - (uint64_t)offset)) {
    call_fail(&call, 2, "a part of the source");
  }
  if (!call.failed && (part->level < 1 || part->level > 9)) call_fail(&call, 3, "a level of 1 to 9");
  if (!call.failed && part->out.length > INT32_MAX) call_fail(&call, 5, "less than 2 GiB");
  if (!call.failed && result.length < 2) call_fail(&call, 6, "two items long");
  part->offset = (size_t)offset;
  part->length = (size_t)length;
  const int kept[] = {0, 5, 6};
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) task_keep(&call, &part->task, kept[i]);
  return task_start(&call, &part->task);
}

static napi_value crc32_combine_call(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "crc32Combine");
  const int64_t first = call_int64(&call, 0), second = call_int64(&call, 1), length = call_int64(&call, 2);
  if (call.failed) return NULL;
  if (length < 0) call_fail(&call, 2, "a number of bytes"); // zlib would count down from there for ever
  return call.failed ? NULL : number(env, (int64_t)crc32_combine((uLong)first, (uLong)second, (z_off_t)length));
}

void deflate_register(napi_env env, napi_value exports) {
  export_function(env, exports, "deflatePart", deflate_part);
  export_function(env, exports, "crc32Combine", crc32_combine_call);
}
