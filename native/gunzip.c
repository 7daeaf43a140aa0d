// A gzip member: its header, deflate data, checksum and size. SPEC: RFC 1952 2.3. What zlib refuses is refused.
#include "gunzip.h"
#include <stdlib.h>
#include <zlib.h>

enum { FLAG_HEADER_CRC = 2, FLAG_EXTRA = 4, FLAG_NAME = 8, FLAG_COMMENT = 16, FLAGS_RESERVED = 0xe0 };
enum { FIXED_HEADER = 10, FLAGS_AT = 3, DEFLATE = 8 };

typedef enum { IN_FIXED, IN_EXTRA_SIZE, IN_EXTRA, IN_NAME, IN_COMMENT, IN_HEADER_CRC, IN_DATA, IN_TRAILER, AT_END, AT_CORRUPT } Part;

struct Gunzip {
  Inflater *inflater;
  Part part;
  uint8_t flags;
  uint32_t read;  // bytes of the part
  uint32_t extra; // its size
  uLong header_crc, crc;
  uint32_t size, word;
};

Gunzip *gunzip_new(void) {
  Gunzip *gunzip = calloc(1, sizeof *gunzip);
  if (gunzip == NULL) return NULL;
  if ((gunzip->inflater = inflater_new()) == NULL) {
    free(gunzip);
    return NULL;
  }
  gunzip_reset(gunzip);
  return gunzip;
}

void gunzip_free(Gunzip *gunzip) {
  inflater_free(gunzip->inflater);
  free(gunzip);
}

void gunzip_reset(Gunzip *gunzip) {
  inflater_reset(gunzip->inflater);
  gunzip->part = IN_FIXED;
  gunzip->read = 0;
  gunzip->header_crc = gunzip->crc = crc32(0, NULL, 0);
  gunzip->size = 0;
}

static void begin(Gunzip *gunzip, Part part) {
  gunzip->part = part;
  gunzip->read = 0;
}

static void header_byte(Gunzip *gunzip, uint8_t byte) {
  static const uint8_t START[FLAGS_AT] = {0x1f, 0x8b, DEFLATE};
  const uint32_t at = gunzip->read++;
  switch (gunzip->part) {
    case IN_FIXED:
      if (at < FLAGS_AT && byte != START[at]) gunzip->part = AT_CORRUPT;
      if (at == FLAGS_AT) gunzip->flags = byte;
      if (at == FLAGS_AT && (byte & FLAGS_RESERVED)) gunzip->part = AT_CORRUPT;
      if (at == FIXED_HEADER - 1) begin(gunzip, IN_EXTRA_SIZE);
      break;
    case IN_EXTRA_SIZE:
      gunzip->extra = at == 0 ? byte : gunzip->extra | (uint32_t)byte << 8;
      if (at == 1) begin(gunzip, IN_EXTRA);
      break;
    case IN_NAME: case IN_COMMENT:
      if (byte == 0) begin(gunzip, gunzip->part + 1);
      break;
    default: break;
  }
}

// Parts of the header that this member does not have.
static void skip_absent(Gunzip *gunzip) {
  if (gunzip->part == IN_EXTRA_SIZE && !(gunzip->flags & FLAG_EXTRA)) begin(gunzip, IN_NAME);
  if (gunzip->part == IN_EXTRA && gunzip->read == gunzip->extra) begin(gunzip, IN_NAME);
  if (gunzip->part == IN_NAME && !(gunzip->flags & FLAG_NAME)) begin(gunzip, IN_COMMENT);
  if (gunzip->part == IN_COMMENT && !(gunzip->flags & FLAG_COMMENT)) begin(gunzip, IN_HEADER_CRC);
  if (gunzip->part == IN_HEADER_CRC && !(gunzip->flags & FLAG_HEADER_CRC)) begin(gunzip, IN_DATA);
}

static void header(Gunzip *gunzip, InflateIo *io) {
  while (gunzip->part < IN_DATA && io->in_left > 0) {
    const uint8_t byte = *io->in++;
    io->in_left--;
    if (gunzip->part == IN_HEADER_CRC) {
      gunzip->word = gunzip->word >> 8 | (uint32_t)byte << 24;
      if (++gunzip->read < 2) continue;
      if (gunzip->word >> 16 == (gunzip->header_crc & 0xffff)) begin(gunzip, IN_DATA);
      else gunzip->part = AT_CORRUPT;
      continue;
    }
    gunzip->header_crc = crc32(gunzip->header_crc, &byte, 1);
    header_byte(gunzip, byte);
    skip_absent(gunzip);
  }
}

static void data(Gunzip *gunzip, InflateIo *io) {
  const uint8_t *from = io->out;
  const int result = inflater_step(gunzip->inflater, io);
  const size_t length = (size_t)(io->out - from);
  gunzip->crc = crc32_z(gunzip->crc, from, length);
  gunzip->size += (uint32_t)length;
  if (result == INFLATE_END) begin(gunzip, IN_TRAILER);
  if (result == INFLATE_CORRUPT) gunzip->part = AT_CORRUPT;
}

static void trailer(Gunzip *gunzip, InflateIo *io) {
  uint8_t byte;
  while (gunzip->part == IN_TRAILER && inflater_byte(gunzip->inflater, io, &byte)) {
    gunzip->word = gunzip->word >> 8 | (uint32_t)byte << 24;
    gunzip->read++;
    if (gunzip->read == 4 && gunzip->word != gunzip->crc) gunzip->part = AT_CORRUPT;
    if (gunzip->read == 8) gunzip->part = gunzip->word == gunzip->size ? AT_END : AT_CORRUPT;
  }
}

int gunzip_step(Gunzip *gunzip, InflateIo *io) {
  if (gunzip->part < IN_DATA) header(gunzip, io);
  if (gunzip->part == IN_DATA) data(gunzip, io);
  if (gunzip->part == IN_TRAILER) trailer(gunzip, io);
  return gunzip->part == AT_END ? INFLATE_END : gunzip->part == AT_CORRUPT ? INFLATE_CORRUPT : INFLATE_MORE;
}
