// Streaming decompression in steps on the thread pool: gzip with concatenated members, zstd with concatenated and skippable frames.
#include "addon.h"
#include "gunzip.h"
#include <stdlib.h>
#include <string.h>
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>

enum { STATE_CORRUPT = -1, STATE_TOO_LARGE = -2, STATE_MORE = 0, STATE_BETWEEN = 1 };
enum { DEFAULT_WINDOW_LOG = 27 };

typedef struct {
  int kind;
  Gunzip *gzip;
  ZSTD_DCtx *zstd;
  int state;
  bool padding; // gzip: zero bytes after the last member
  bool pending; // gzip: the output was full, there may be more decoded
  bool busy, closing;
} Decoder;

typedef struct {
  Task task;
  Decoder *decoder;
  Bytes input, output;
  int32_t *result;
  size_t consumed, produced;
} StepTask;

static const napi_type_tag DECODER_TAG = {0x2c7e51b0a94d4f38, 0xb86f03d4e1924a5d};

static void decoder_free(Decoder *decoder) {
  if (decoder->gzip != NULL) gunzip_free(decoder->gzip);
  if (decoder->zstd != NULL) ZSTD_freeDCtx(decoder->zstd);
  free(decoder);
}

static void decoder_finalize(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  decoder_free(data); // never busy: a step keeps its decoder alive
}

static void step_gzip(StepTask *step) {
  Decoder *decoder = step->decoder;
  while (decoder->state >= 0 && (step->consumed < step->input.length || decoder->pending)) {
    if (decoder->state == STATE_BETWEEN) {
      const uint8_t next = step->input.data[step->consumed];
      if (next == 0) {
        decoder->padding = true;
        step->consumed++;
        continue;
      }
      if (decoder->padding) {
        decoder->state = STATE_CORRUPT;
        return;
      }
      gunzip_reset(decoder->gzip);
      decoder->state = STATE_MORE;
    }
    InflateIo io = {
      .in = step->input.data + step->consumed, .in_left = step->input.length - step->consumed,
      .out = step->output.data + step->produced, .out_left = step->output.length - step->produced,
    };
    if (io.out_left == 0) return;
    const int result = gunzip_step(decoder->gzip, &io);
    step->consumed = step->input.length - io.in_left;
    step->produced = step->output.length - io.out_left;
    decoder->pending = result == INFLATE_MORE && io.out_left == 0;
    if (result == INFLATE_END) decoder->state = STATE_BETWEEN;
    if (result == INFLATE_CORRUPT) decoder->state = STATE_CORRUPT;
  }
}

static void step_zstd(StepTask *step) {
  Decoder *decoder = step->decoder;
  ZSTD_inBuffer input = {.src = step->input.data, .size = step->input.length};
  ZSTD_outBuffer output = {.dst = step->output.data, .size = step->output.length};
  // A frame may be consumed whole while its last bytes still wait for room: then a step has output only.
  while (decoder->state >= 0 && (input.pos < input.size || decoder->state == STATE_MORE)) {
    const size_t read = input.pos, written = output.pos;
    const size_t result = ZSTD_decompressStream(decoder->zstd, &output, &input);
    if (ZSTD_isError(result)) {
      const ZSTD_ErrorCode code = ZSTD_getErrorCode(result);
      decoder->state = code == ZSTD_error_frameParameter_windowTooLarge || code == ZSTD_error_memory_allocation ? STATE_TOO_LARGE : STATE_CORRUPT;
    } else {
      decoder->state = result == 0 ? STATE_BETWEEN : STATE_MORE;
    }
    if (output.pos == output.size || (input.pos == read && output.pos == written)) break;
  }
  step->consumed = input.pos;
  step->produced = output.pos;
}

static void step_run(Task *task) {
  StepTask *step = (StepTask *)task;
  if (step->decoder->kind == COMPRESSOR_GZIP) step_gzip(step);
  else step_zstd(step);
}

static napi_value step_finish(napi_env env, Task *task) {
  (void)env;
  StepTask *step = (StepTask *)task;
  step->result[0] = (int32_t)step->consumed;
  step->result[1] = (int32_t)step->produced;
  step->result[2] = step->decoder->state;
  return NULL;
}

static void step_release(Task *task) {
  Decoder *decoder = ((StepTask *)task)->decoder;
  if (decoder == NULL) return;
  decoder->busy = false;
  if (decoder->closing) decoder_free(decoder);
}

static Decoder *call_decoder(Call *call, int index) {
  bool ours = false;
  void *decoder = NULL;
  if (napi_check_object_type_tag(call->env, call->argument[index], &DECODER_TAG, &ours) != napi_ok || !ours ||
      napi_unwrap(call->env, call->argument[index], &decoder) != napi_ok) {
    call_fail(call, index, "an open decoder");
  }
  return decoder;
}

static napi_value stream_step(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "streamStep");
  StepTask *step = task_new(&call, sizeof *step, step_run);
  if (step == NULL) return NULL;
  step->task.finish = step_finish;
  step->task.release = step_release;
  Decoder *decoder = call_decoder(&call, 0);
  step->input = call_bytes(&call, 1);
  step->output = call_bytes(&call, 2);
  Int32s result = call_int32s(&call, 3);
  step->result = result.data;
  if (!call.failed && decoder->busy) call_fail(&call, 0, "free: its last step has not ended");
  if (!call.failed && (step->input.length > INT32_MAX || step->output.length > INT32_MAX)) call_fail(&call, 1, "less than 2 GiB");
  if (!call.failed && result.length < 3) call_fail(&call, 3, "three items long");
  for (int i = 0; i < 4; i++) task_keep(&call, &step->task, i);
  if (!call.failed) {
    step->decoder = decoder;
    decoder->busy = true;
  }
  return task_start(&call, &step->task);
}

static Decoder *decoder_new(int kind, int window_log) {
  Decoder *decoder = calloc(1, sizeof *decoder);
  if (decoder == NULL) return NULL;
  decoder->kind = kind;
  bool ready;
  if (kind == COMPRESSOR_GZIP) {
    ready = (decoder->gzip = gunzip_new()) != NULL;
  } else {
    decoder->zstd = ZSTD_createDCtx();
    ready = decoder->zstd != NULL && !ZSTD_isError(ZSTD_DCtx_setParameter(decoder->zstd, ZSTD_d_windowLogMax, window_log));
  }
  if (ready) return decoder;
  decoder_free(decoder);
  return NULL;
}

static napi_value stream_open(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "streamOpen");
  const int kind = call_int32(&call, 0);
  const int window_log = call_has(&call, 1) ? call_int32(&call, 1) : DEFAULT_WINDOW_LOG;
  if (!call.failed && kind != COMPRESSOR_GZIP && kind != COMPRESSOR_ZSTD) call_fail(&call, 0, "2 (gzip) or 3 (zstd)");
  if (!call.failed && (window_log < 10 || window_log > 31)) call_fail(&call, 1, "a window size of 2^10 to 2^31");
  if (call.failed) return NULL;
  Decoder *decoder = decoder_new(kind, window_log);
  napi_value object;
  if (decoder != NULL && napi_create_object(env, &object) == napi_ok) {
    if (napi_type_tag_object(env, object, &DECODER_TAG) == napi_ok &&
        napi_wrap(env, object, decoder, decoder_finalize, NULL, NULL) == napi_ok) {
      return object;
    }
  }
  if (decoder != NULL) decoder_free(decoder);
  napi_throw(env, system_error(env, call.function, ENOMEM, NULL));
  return NULL;
}

static napi_value stream_close(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "streamClose");
  call_decoder(&call, 0);
  void *decoder;
  if (call.failed || napi_remove_wrap(env, call.argument[0], &decoder) != napi_ok) return NULL;
  if (((Decoder *)decoder)->busy) ((Decoder *)decoder)->closing = true;
  else decoder_free(decoder);
  return NULL;
}

void stream_register(napi_env env, napi_value exports) {
  export_function(env, exports, "streamOpen", stream_open);
  export_function(env, exports, "streamStep", stream_step);
  export_function(env, exports, "streamClose", stream_close);
}
