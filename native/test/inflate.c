// Test driver (src/native/inflate.test.ts): gzip members of many makes, some of them damaged, decoded by gunzip.c in random steps and by zlib at once.
// Both must come to the same verdict and the same bytes. Arguments: seed, number of members. Prints how many were whole, corrupt, cut short.
#include "../gunzip.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { LARGEST = 700 * 1024, PACKED = LARGEST + 4096, VERDICTS = 3 };

static uint64_t state;
static uint32_t any(uint32_t below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)((state >> 11) % below);
}

static uint8_t plain[LARGEST], packed[PACKED], mine[LARGEST + 1], theirs[LARGEST + 1];

// Runs, text of a few letters, noise, and copies from far and near.
static size_t make_plain(void) {
  const size_t size = any(3) == 0 ? any(200) : any(4) != 0 ? any(40000) : any(LARGEST);
  for (size_t at = 0; at < size;) {
    size_t length = 1 + any(any(2) ? 20 : 3000);
    if (length > size - at) length = size - at;
    const uint32_t kind = any(4), letters = 1 + any(60);
    const size_t far = at == 0 ? 0 : 1 + any(at > 40000 ? 40000 : (uint32_t)at);
    for (size_t i = 0; i < length; i++, at++) plain[at] = (uint8_t)(kind == 0 ? letters : kind == 1 ? 'a' + any(letters) : kind == 2 || far == 0 ? any(256) : plain[at - far]);
  }
  return size;
}

static size_t make_packed(size_t size) {
  static const int STRATEGIES[] = {Z_DEFAULT_STRATEGY, Z_FILTERED, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED};
  z_stream stream = {0};
  if (deflateInit2(&stream, (int)any(10), Z_DEFLATED, 16 + 9 + (int)any(7), 1 + (int)any(9), STRATEGIES[any(5)]) != Z_OK) exit(2);
  gz_header header = {.extra = plain, .extra_len = any(300), .name = (Bytef *)"name", .comment = (Bytef *)"a comment", .hcrc = (int)any(2), .os = 3};
  if (any(2)) header.extra = NULL;
  if (any(2)) header.name = NULL;
  if (any(2)) header.comment = NULL;
  if (any(2)) deflateSetHeader(&stream, &header);
  stream.next_out = packed;
  stream.avail_out = PACKED;
  for (size_t at = 0; at < size;) {
    const size_t part = any(3) == 0 ? size - at : 1 + any((uint32_t)(size - at));
    stream.next_in = plain + at;
    stream.avail_in = (uInt)part;
    deflate(&stream, any(4) == 0 ? Z_FULL_FLUSH : any(4) == 0 ? Z_SYNC_FLUSH : Z_NO_FLUSH);
    at += part;
  }
  if (deflate(&stream, Z_FINISH) != Z_STREAM_END) exit(2);
  deflateEnd(&stream);
  return stream.total_out;
}

static size_t damage(size_t size) {
  // most of the codes stand at the beginning
  for (uint32_t i = any(3); i > 0; i--) packed[any(2) ? any((uint32_t)size) : any(size < 200 ? (uint32_t)size : 200)] ^= (uint8_t)(1 << any(8));
  // zlib judges the first bytes of a header in pairs
  return any(4) == 0 ? 4 + any((uint32_t)size - 4) : size;
}

// Input is copied to where it ends at the end of its memory: a read behind it is seen by the address sanitizer.
static int decode_mine(Gunzip *gunzip, size_t size, size_t *produced) {
  gunzip_reset(gunzip);
  const uint32_t in_most = any(2) ? 1 + any(30) : 1 + any(100000), out_most = any(2) ? 1 + any(300) : 1 + any(600000);
  size_t fed = 0, out = 0;
  for (bool pending = false;;) {
    size_t length = 1 + any(in_most);
    if (length > size - fed) length = size - fed;
    if (length == 0 && !pending) break;
    uint8_t *copy = malloc(length == 0 ? 1 : length);
    memcpy(copy, packed + fed, length);
    InflateIo io = {.in = copy, .in_left = length};
    int result = INFLATE_MORE;
    do {
      size_t room = 1 + any(out_most);
      if (room > sizeof mine - out) room = sizeof mine - out;
      io.out = mine + out;
      io.out_left = room;
      result = gunzip_step(gunzip, &io);
      out += room - io.out_left;
      pending = io.out_left == 0 && out < sizeof mine;
    } while (result == INFLATE_MORE && (io.in_left > 0 || pending));
    fed += length - io.in_left;
    free(copy);
    *produced = out;
    if (result != INFLATE_MORE) return result;
    if (out == sizeof mine) break;
  }
  *produced = out;
  return INFLATE_MORE;
}

static int decode_theirs(size_t size, size_t *produced) {
  z_stream stream = {0};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) exit(2);
  stream.next_in = packed;
  stream.avail_in = (uInt)size;
  stream.next_out = theirs;
  stream.avail_out = sizeof theirs;
  const int result = inflate(&stream, Z_NO_FLUSH);
  inflateEnd(&stream);
  *produced = stream.total_out;
  return result == Z_STREAM_END ? INFLATE_END : result == Z_OK || result == Z_BUF_ERROR ? INFLATE_MORE : INFLATE_CORRUPT;
}

int main(int count, char **arguments) {
  if (count < 3) return 2;
  state = strtoull(arguments[1], NULL, 10) * 2 + 1;
  for (int i = 0; i < 20; i++) any(2);
  Gunzip *gunzip = gunzip_new();
  unsigned verdicts[VERDICTS] = {0};
  for (long i = 0, members = atol(arguments[2]); i < members; i++) {
    size_t size = damage(make_packed(make_plain())), got = 0, want = 0;
    const int verdict = decode_mine(gunzip, size, &got), expected = decode_theirs(size, &want);
    const size_t common = got < want ? got : want;
    if (verdict != expected || (verdict == INFLATE_END && got != want) || memcmp(mine, theirs, common) != 0) {
      printf("member %ld of seed %s: verdict %d, %zu bytes; zlib: %d, %zu bytes\n", i, arguments[1], verdict, got, expected, want);
      return 1;
    }
    verdicts[verdict == INFLATE_END ? 0 : verdict == INFLATE_CORRUPT ? 1 : 2]++;
  }
  gunzip_free(gunzip);
  printf("%u %u %u\n", verdicts[0], verdicts[1], verdicts[2]);
  return 0;
}
