// One gzip member after the other, decoded in steps: see gunzip.c.
#ifndef NYDUS_GUNZIP_H
#define NYDUS_GUNZIP_H

#include "inflate.h"

typedef struct Gunzip Gunzip;

Gunzip *gunzip_new(void); // NULL when memory is short
void gunzip_free(Gunzip *gunzip);
// Before each member but the first.
void gunzip_reset(Gunzip *gunzip);
// As inflater_step; INFLATE_END when the member's checksum and size were right, with `in` behind it.
int gunzip_step(Gunzip *gunzip, InflateIo *io);

#endif
