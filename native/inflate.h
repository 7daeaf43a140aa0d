// Raw deflate, decoded in steps: see inflate.c.
#ifndef NYDUS_INFLATE_H
#define NYDUS_INFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  INFLATE_MORE = 0,     // all input is used, or the output is full
  INFLATE_END = 1,      // the last block has ended
  INFLATE_CORRUPT = -1, // stays so
};

typedef struct Inflater Inflater;

// What a step may read and write; it moves both on.
typedef struct {
  const uint8_t *in;
  size_t in_left;
  uint8_t *out;
  size_t out_left;
} InflateIo;

Inflater *inflater_new(void); // NULL when memory is short
void inflater_free(Inflater *inflater);
void inflater_reset(Inflater *inflater);
int inflater_step(Inflater *inflater, InflateIo *io);
// After INFLATE_END: the next byte behind the stream, of which up to 7 have been read already. False when it is yet to come.
bool inflater_byte(Inflater *inflater, InflateIo *io, uint8_t *byte);

#endif
