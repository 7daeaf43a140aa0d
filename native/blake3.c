// BLAKE3, unkeyed, 32-byte output, whole buffers. SPEC: "BLAKE3: one function, fast everywhere", sections 2.1-2.6 and 5.3.
// Chunks and parents are hashed 4, 8 or 16 at a time where the processor can. GCC's vector types carry all of it: x86-64 and arm64 share the text.
#include "addon.h"
#include <string.h>

#pragma GCC optimize("O3") // a tenth faster than O2: the loops over vector arrays are unrolled into registers

enum { BLOCK = 64, CHUNK = 1024, CHUNK_BLOCKS = CHUNK / BLOCK };
enum { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8 };
// A group of chunks is reduced to one chaining value before the next is read: the values of a group fit the first-level cache.
enum { GROUP = 64, MAX_DEPTH = 54 };

static const uint32_t IV[8] = {
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

// The message word of each mixing step: row r is the specification's permutation applied r times.
static const uint8_t ORDER[7][16] = {
  {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
  {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
  {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
  {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
  {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
  {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
  {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

// Inputs of equal length, back to back: whole chunks (counting) or pairs of chaining values.
typedef struct {
  const uint8_t *input;
  size_t count, blocks;
  uint64_t counter;
  bool counting;
  uint32_t flags, flags_first, flags_last;
} Batch;

// --- one block: the four rows of the state are vectors, so that a column (or diagonal) is an element ---------------------------------

typedef uint32_t Row __attribute__((vector_size(16)));
typedef uint8_t RowBytes __attribute__((vector_size(16)));

#define SHIFT_ROTATE(x, bits) ((x) >> (bits) | (x) << (32 - (bits)))
// A rotation by whole bytes is one byte shuffle where the processor has that, else three instructions.
#define ROTATE16(x) (shuffles ? (Row)__builtin_shuffle((RowBytes)(x), by_two) : SHIFT_ROTATE(x, 16))
#define ROTATE8(x) (shuffles ? (Row)__builtin_shuffle((RowBytes)(x), by_one) : SHIFT_ROTATE(x, 8))
#define MIX(x, y) \
  a += b + (x); d ^= a; d = ROTATE16(d); c += d; b ^= c; b = SHIFT_ROTATE(b, 12); \
  a += b + (y); d ^= a; d = ROTATE8(d); c += d; b ^= c; b = SHIFT_ROTATE(b, 7);

static inline __attribute__((always_inline)) void compress_rows(
  uint32_t h[8], const uint8_t block[BLOCK], uint32_t length, uint64_t counter, uint32_t flags, bool shuffles) {
  const RowBytes by_two = {2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13};
  const RowBytes by_one = {1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12};
  Row a = {h[0], h[1], h[2], h[3]}, b = {h[4], h[5], h[6], h[7]}, c = {IV[0], IV[1], IV[2], IV[3]};
  Row d = {(uint32_t)counter, (uint32_t)(counter >> 32), length, flags};
  uint32_t m[16];
  memcpy(m, block, BLOCK);
#pragma GCC unroll 7
  for (int round = 0; round < 7; round++) {
    const uint8_t *o = ORDER[round];
    MIX(((Row){m[o[0]], m[o[2]], m[o[4]], m[o[6]]}), ((Row){m[o[1]], m[o[3]], m[o[5]], m[o[7]]}))
    // Rows a, c and d turn so that the diagonals stand in columns; b, which the next step needs first, stays.
    a = __builtin_shuffle(a, (Row){3, 0, 1, 2});
    c = __builtin_shuffle(c, (Row){1, 2, 3, 0});
    d = __builtin_shuffle(d, (Row){2, 3, 0, 1});
    MIX(((Row){m[o[14]], m[o[8]], m[o[10]], m[o[12]]}), ((Row){m[o[15]], m[o[9]], m[o[11]], m[o[13]]}))
    a = __builtin_shuffle(a, (Row){1, 2, 3, 0});
    c = __builtin_shuffle(c, (Row){3, 0, 1, 2});
    d = __builtin_shuffle(d, (Row){2, 3, 0, 1});
  }
  a ^= c;
  b ^= d;
  memcpy(h, &a, sizeof a);
  memcpy(h + 4, &b, sizeof b);
}

#undef SHIFT_ROTATE
#undef ROTATE16
#undef ROTATE8
#undef MIX

#ifdef __x86_64__
__attribute__((target("sse4.1"))) static void compress_sse41(uint32_t h[8], const uint8_t block[BLOCK], uint32_t length, uint64_t counter, uint32_t flags) {
  compress_rows(h, block, length, counter, flags, true);
}

static void compress(uint32_t h[8], const uint8_t block[BLOCK], uint32_t length, uint64_t counter, uint32_t flags) {
  if (__builtin_cpu_supports("sse4.1")) compress_sse41(h, block, length, counter, flags);
  else compress_rows(h, block, length, counter, flags, false);
}
#else
static void compress(uint32_t h[8], const uint8_t block[BLOCK], uint32_t length, uint64_t counter, uint32_t flags) {
  compress_rows(h, block, length, counter, flags, true);
}
#endif

// --- many inputs: an element of a vector is an input ------------------------------------------------------------------------------

#ifdef __x86_64__
#define LANES 4
#define TARGET __attribute__((target("sse4.1")))
#define NAME(x) x##_sse41
#include "blake3-lanes.h"
#undef LANES
#undef TARGET
#undef NAME

#define LANES 8
#define TARGET __attribute__((target("avx2")))
#define NAME(x) x##_avx2
#include "blake3-lanes.h"
#undef LANES
#undef TARGET
#undef NAME

#define NATIVE_ROTATE
#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq")))
#define LANES 4
#define NAME(x) x##_avx512_4
#include "blake3-lanes.h"
#undef LANES
#undef NAME
#define LANES 8
#define NAME(x) x##_avx512_8
#include "blake3-lanes.h"
#undef LANES
#undef NAME
#define LANES 16
#define NAME(x) x##_avx512_16
#include "blake3-lanes.h"
#else
#define LANES 4
#define TARGET
#define NAME(x) x##_portable
#include "blake3-lanes.h"
#endif

typedef void LaneHash(const Batch *batch, size_t first, uint8_t *out);

// The narrowest kernel that takes `wanted` inputs in one go, or the widest there is; its width, or 0 when there is none.
static size_t choose_kernel(size_t wanted, LaneHash **kernel) {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq")) {
    *kernel = wanted > 8 ? hash_avx512_16 : wanted > 4 ? hash_avx512_8 : hash_avx512_4;
    return wanted > 8 ? 16 : wanted > 4 ? 8 : 4;
  }
  if (wanted > 4 && __builtin_cpu_supports("avx2")) {
    *kernel = hash_avx2;
    return 8;
  }
  *kernel = hash_sse41;
  return __builtin_cpu_supports("sse4.1") ? 4 : 0;
#else
  (void)wanted;
  *kernel = hash_portable;
  return 4;
#endif
}

// One chaining value an input, into `out`. `out` may be `batch->input`: values are written behind what was read.
static void hash_batch(const Batch *batch, uint8_t *out) {
  for (size_t done = 0; done < batch->count;) {
    LaneHash *kernel;
    const size_t left = batch->count - done, lanes = left == 1 ? 0 : choose_kernel(left, &kernel);
    if (lanes != 0) {
      kernel(batch, done, out + done * DIGEST_SIZE);
      done += lanes < left ? lanes : left;
      continue;
    }
    uint32_t h[8];
    memcpy(h, IV, sizeof h);
    for (size_t block = 0; block < batch->blocks; block++) {
      const uint32_t flags = batch->flags | (block == 0 ? batch->flags_first : 0) | (block + 1 == batch->blocks ? batch->flags_last : 0);
      compress(h, batch->input + (done * batch->blocks + block) * BLOCK, BLOCK, batch->counter + (batch->counting ? done : 0), flags);
    }
    memcpy(out + done * DIGEST_SIZE, h, DIGEST_SIZE);
    done++;
  }
}

// A chunk that may be short; the only one of its input when flags has ROOT.
static void hash_chunk(const uint8_t *bytes, size_t length, uint64_t counter, uint32_t flags, uint8_t out[DIGEST_SIZE]) {
  uint32_t h[8];
  memcpy(h, IV, sizeof h);
  uint32_t first = CHUNK_START;
  for (; length > BLOCK; bytes += BLOCK, length -= BLOCK, first = 0) compress(h, bytes, BLOCK, counter, first);
  uint8_t last[BLOCK] = {0};
  if (length != 0) memcpy(last, bytes, length);
  compress(h, last, (uint32_t)length, counter, first | CHUNK_END | flags);
  memcpy(out, h, DIGEST_SIZE);
}

// Chaining values of up to GROUP chunks, the last of which may be short; their number.
static size_t hash_group(const uint8_t *bytes, size_t length, uint64_t counter, uint8_t values[GROUP * DIGEST_SIZE]) {
  const size_t whole = length / CHUNK, rest = length % CHUNK;
  const Batch batch = {.input = bytes, .count = whole, .blocks = CHUNK_BLOCKS, .counter = counter, .counting = true,
                       .flags_first = CHUNK_START, .flags_last = CHUNK_END};
  hash_batch(&batch, values);
  if (rest != 0) hash_chunk(bytes + whole * CHUNK, rest, counter + whole, 0, values + whole * DIGEST_SIZE);
  return whole + (rest != 0);
}

// Joins neighbours, level by level, until `target` (1 or 2) values are left: an odd last one moves up as it is, which gives the
// specification's tree (every left subtree is full).
static void reduce(uint8_t *values, size_t count, size_t target) {
  while (count > target) {
    const Batch pairs = {.input = values, .count = count / 2, .blocks = 1, .flags = PARENT};
    hash_batch(&pairs, values);
    if (count % 2 != 0) memmove(values + count / 2 * DIGEST_SIZE, values + (count - 1) * DIGEST_SIZE, DIGEST_SIZE);
    count = count / 2 + count % 2;
  }
}

static void parent(uint8_t pair[2 * DIGEST_SIZE], uint32_t flags, uint8_t out[DIGEST_SIZE]) {
  uint32_t h[8];
  memcpy(h, IV, sizeof h);
  compress(h, pair, BLOCK, 0, PARENT | flags);
  memcpy(out, h, DIGEST_SIZE);
}

void blake3_hash(const uint8_t *bytes, size_t length, uint8_t digest[DIGEST_SIZE]) {
  if (length <= CHUNK) {
    hash_chunk(bytes, length, 0, ROOT, digest);
    return;
  }
  // The stack holds the values of full subtrees, largest first, as the bits of the number of groups so far.
  uint8_t stack[(MAX_DEPTH + GROUP) * DIGEST_SIZE];
  size_t depth = 0;
  uint64_t groups = 0;
  for (; length > GROUP * CHUNK; bytes += GROUP * CHUNK, length -= GROUP * CHUNK) {
    uint8_t *values = stack + depth * DIGEST_SIZE;
    hash_group(bytes, GROUP * CHUNK, groups * GROUP, values);
    reduce(values, GROUP, 1);
    depth++;
    groups++;
    for (uint64_t bits = groups; bits % 2 == 0; bits /= 2, depth--) {
      uint8_t *pair = stack + (depth - 2) * DIGEST_SIZE;
      parent(pair, 0, pair);
    }
  }
  // The last group. Only the very last parent carries ROOT.
  size_t count = hash_group(bytes, length, groups * GROUP, stack + depth * DIGEST_SIZE);
  if (depth == 0) {
    reduce(stack, count, 2);
    parent(stack, ROOT, digest);
    return;
  }
  reduce(stack + depth * DIGEST_SIZE, count, 1);
  for (; depth > 0; depth--) {
    uint8_t *pair = stack + (depth - 1) * DIGEST_SIZE;
    parent(pair, depth == 1 ? ROOT : 0, pair);
  }
  memcpy(digest, stack, DIGEST_SIZE);
}
