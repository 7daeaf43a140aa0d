// Raw deflate, decoded in steps that end wherever input or room ends. Half the time of zlib's: whole symbols come out of a 64-bit register with one
// table look-up each, and matches are copied by words, into a window of our own where both may overshoot.
// SPEC: RFC 1951. What zlib refuses is refused here (native/test/inflate.c compares the two).
#include "inflate.h"
#include <stdlib.h>
#include <string.h>

enum { HISTORY = 32768, ROOM = 256 * 1024, MAX_MATCH = 258, OVERSHOOT = 32 };
enum { MAX_BITS = 15, LITERAL_CODES = 288, DISTANCE_CODES = 32, LENGTH_CODES = 19, END_OF_BLOCK = 256 };
enum { LITERAL_ROOT = 11, DISTANCE_ROOT = 8, LENGTH_ROOT = 7 };
// Room for the second-level tables: what `enough` of zlib's examples counts for 286 and 30 symbols is 2342 and 402.
enum { LITERAL_TABLE = 2400, DISTANCE_TABLE = 512, LENGTH_TABLE = 1 << LENGTH_ROOT };
// The fast loop reads 8 bytes at a time, 4 times a round at most, and writes 3 literals and a match.
enum { FAST_INPUT = 40, FAST_OUTPUT = MAX_MATCH + OVERSHOOT + 8 };

// A table entry: bits of the code in 0..5, bits of code and extra value together in 8..13, the value in 16..31, and what it is between them.
// A pointer to a second-level table has the bits of its index for the bits together, and its place as value.
#define ENTRY(value, total, bits) ((uint32_t)(value) << 16 | (uint32_t)(total) << 8 | (uint32_t)(bits))
#define BITS(entry) ((entry) & 63)
#define TOTAL(entry) ((entry) >> 8 & 63)
#define VALUE(entry) ((entry) >> 16)
enum { LITERAL = 0x80, SPECIAL = 0x40, POINTER = 0x8000, END = 0x4000 }; // special: a pointer, the end of the block, or no code at all
#define INVALID(bits) (SPECIAL | ENTRY(0, bits, bits))

typedef enum { AT_BLOCK, AT_STORED_SIZE, AT_STORED, AT_COUNTS, AT_LENGTH_LENGTHS, AT_LENGTHS, AT_SYMBOLS, AT_MATCH, AT_END, AT_CORRUPT } State;

struct Inflater {
  State state;
  bool last;
  uint64_t bits;
  unsigned count;     // valid bits
  uint8_t *at, *seen; // end of what is decoded, and of what the caller has
  uint32_t stored, match, distance;
  unsigned literals, distances, length_lengths, read;
  uint8_t lengths[LITERAL_CODES + DISTANCE_CODES];
  uint32_t literal_table[LITERAL_TABLE], distance_table[DISTANCE_TABLE], length_table[LENGTH_TABLE];
  uint8_t window[HISTORY + ROOM + FAST_OUTPUT];
};

// --- tables -------------------------------------------------------------------------------------------------------------------

static const uint16_t LENGTH_BASE[29] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t LENGTH_EXTRA[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t DISTANCE_BASE[30] = {1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
static const uint8_t DISTANCE_EXTRA[30] = {0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
// The order in which the lengths of the code for lengths are sent.
static const uint8_t LENGTH_ORDER[LENGTH_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

typedef enum { OF_LITERALS, OF_DISTANCES, OF_LENGTHS } Alphabet;

static uint32_t entry_of(Alphabet alphabet, unsigned symbol, unsigned bits) {
  if (alphabet == OF_LENGTHS) return ENTRY(symbol, bits, bits);
  if (alphabet == OF_DISTANCES) return symbol < 30 ? ENTRY(DISTANCE_BASE[symbol], bits + DISTANCE_EXTRA[symbol], bits) : INVALID(bits);
  if (symbol < END_OF_BLOCK) return LITERAL | ENTRY(symbol, bits, bits);
  if (symbol == END_OF_BLOCK) return SPECIAL | END | ENTRY(0, bits, bits);
  symbol -= END_OF_BLOCK + 1;
  return symbol < 29 ? ENTRY(LENGTH_BASE[symbol], bits + LENGTH_EXTRA[symbol], bits) : INVALID(bits);
}

// The code that follows `code` when both are `bits` long, read from its first bit: a carry that runs from the other end.
static unsigned next_code(unsigned code, unsigned bits) {
  unsigned bit = 1u << (bits - 1);
  while (code & bit) bit >>= 1;
  return bit == 0 ? 0 : (code & (bit - 1)) | bit;
}

// Bits of the index of the second-level table for the codes of `bits` and more that are left.
static unsigned second_bits(const uint16_t counts[MAX_BITS + 1], unsigned bits, unsigned root) {
  unsigned index_bits = bits - root;
  int left = 1 << index_bits;
  for (; index_bits + root < MAX_BITS; index_bits++, left <<= 1) {
    left -= counts[index_bits + root];
    if (left <= 0) break;
  }
  return index_bits;
}

// False when the lengths are those of no code. As zlib: a code may lack words only if it has a single one, of one bit, and is no code of lengths.
static bool build(uint32_t *table, unsigned root, size_t capacity, const uint8_t *lengths, unsigned symbols, Alphabet alphabet) {
  uint16_t counts[MAX_BITS + 1] = {0}, places[MAX_BITS + 2], sorted[LITERAL_CODES];
  for (unsigned i = 0; i < symbols; i++) counts[lengths[i]]++;
  unsigned longest = MAX_BITS;
  while (longest > 0 && counts[longest] == 0) longest--;
  int left = 1;
  for (unsigned bits = 1; bits <= MAX_BITS; bits++) {
    left = (left << 1) - counts[bits];
    if (left < 0) return false;
  }
  if (left > 0 && longest != 0 && (alphabet == OF_LENGTHS || longest != 1)) return false;
  for (unsigned i = 0; i < 1u << root; i++) table[i] = INVALID(1);
  if (longest == 0) return alphabet != OF_LENGTHS; // whoever uses it is corrupt
  places[1] = 0;
  for (unsigned bits = 1; bits <= MAX_BITS; bits++) places[bits + 1] = (uint16_t)(places[bits] + counts[bits]);
  const unsigned used = places[MAX_BITS + 1];
  for (unsigned i = 0; i < symbols; i++) if (lengths[i] != 0) sorted[places[lengths[i]]++] = (uint16_t)i;

  unsigned code = 0, bits = 1;
  size_t end = (size_t)1 << root;
  uint32_t *second = NULL;
  unsigned second_size = 0, second_root = 0;
  for (unsigned i = 0; i < used; i++) {
    const unsigned symbol = sorted[i];
    bits = lengths[symbol];
    if (bits <= root) {
      const uint32_t entry = entry_of(alphabet, symbol, bits);
      for (unsigned at = code; at < 1u << root; at += 1u << bits) table[at] = entry;
    } else {
      if (second == NULL || (code & ((1u << root) - 1)) != second_root) {
        second_root = code & ((1u << root) - 1);
        const unsigned index_bits = second_bits(counts, bits, root);
        second_size = 1u << index_bits;
        if (end + second_size > capacity) return false; // cannot be
        second = table + end;
        for (unsigned at = 0; at < second_size; at++) second[at] = INVALID(1);
        table[second_root] = SPECIAL | POINTER | ENTRY(end, index_bits, root);
        end += second_size;
      }
      // its code's first bits have led here and are gone: only the rest is counted
      const uint32_t entry = entry_of(alphabet, symbol, bits - root);
      for (unsigned at = code >> root; at < second_size; at += 1u << (bits - root)) second[at] = entry;
    }
    counts[bits]--;
    code = next_code(code, bits);
  }
  return true;
}

static bool build_symbols(Inflater *inflater) {
  return build(inflater->literal_table, LITERAL_ROOT, LITERAL_TABLE, inflater->lengths, inflater->literals, OF_LITERALS) &&
    build(inflater->distance_table, DISTANCE_ROOT, DISTANCE_TABLE, inflater->lengths + inflater->literals, inflater->distances, OF_DISTANCES);
}

static bool build_fixed(Inflater *inflater) {
  inflater->literals = LITERAL_CODES;
  inflater->distances = DISTANCE_CODES;
  for (unsigned i = 0; i < LITERAL_CODES; i++) inflater->lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
  memset(inflater->lengths + LITERAL_CODES, 5, DISTANCE_CODES);
  return build_symbols(inflater);
}

// --- bits ---------------------------------------------------------------------------------------------------------------------

static uint64_t low(uint64_t bits, unsigned count) {
  return bits & (((uint64_t)1 << count) - 1);
}

// As many whole bytes as fit and are there.
static void refill(Inflater *inflater, InflateIo *io) {
  while (inflater->count < 56 && io->in_left > 0) {
    inflater->bits |= (uint64_t)*io->in++ << inflater->count;
    inflater->count += 8;
    io->in_left--;
  }
}

static uint64_t take(Inflater *inflater, unsigned count) {
  const uint64_t value = low(inflater->bits, count);
  inflater->bits >>= count;
  inflater->count -= count;
  return value;
}

// The entry for the next code, its second level included; `skip` are the bits of the first.
static uint32_t look_up(const uint32_t *table, unsigned root, uint64_t bits, unsigned *skip) {
  uint32_t entry = table[low(bits, root)];
  *skip = 0;
  if (entry & POINTER) {
    *skip = BITS(entry);
    entry = table[VALUE(entry) + low(bits >> *skip, TOTAL(entry))];
  }
  return entry;
}

// --- symbols ------------------------------------------------------------------------------------------------------------------

static uint64_t load(const uint8_t *bytes) {
  uint64_t value;
  memcpy(&value, bytes, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  value = __builtin_bswap64(value);
#endif
  return value;
}

static inline __attribute__((always_inline)) void copy_match(uint8_t *to, unsigned length, unsigned distance) {
  const uint8_t *from = to - distance, *end = to + length;
  if (distance >= 16) {
    do {
      memcpy(to, from, 16);
      to += 16;
      from += 16;
    } while (to < end);
  } else if (distance == 1) {
    memset(to, *from, length);
  } else if (distance >= 8) {
    do {
      memcpy(to, from, 8);
      to += 8;
      from += 8;
    } while (to < end);
  } else {
    do *to++ = *from++;
    while (to < end);
  }
}

// Decodes while a whole round fits input and room. Leaves the state as it is, at the end of a block, or corrupt.
static inline __attribute__((always_inline)) void fast_symbols(Inflater *inflater, InflateIo *io) {
  const uint32_t *literal_table = inflater->literal_table, *distance_table = inflater->distance_table;
  const uint8_t *in = io->in, *in_end = io->in + io->in_left - FAST_INPUT;
  uint8_t *out = inflater->at, *out_end = inflater->window + HISTORY + ROOM - 8;
  uint64_t bits = inflater->bits;
  unsigned count = inflater->count;
// Bits above `count` may be there already: they are the same ones, and `in` has not passed them.
#define REFILL() (bits |= load(in) << count, in += (63 - count) >> 3, count |= 56)
#define DROP(length) (bits >>= (length), count -= (length))
  while (in < in_end && out < out_end) {
    REFILL();
    uint32_t entry = literal_table[bits & ((1u << LITERAL_ROOT) - 1)];
    if (entry & LITERAL) {
      DROP(BITS(entry));
      *out++ = (uint8_t)VALUE(entry);
      entry = literal_table[bits & ((1u << LITERAL_ROOT) - 1)];
      if (entry & LITERAL) {
        DROP(BITS(entry));
        *out++ = (uint8_t)VALUE(entry);
        entry = literal_table[bits & ((1u << LITERAL_ROOT) - 1)];
        if (entry & LITERAL) {
          DROP(BITS(entry));
          *out++ = (uint8_t)VALUE(entry);
          continue;
        }
      }
    }
    if (entry & SPECIAL) {
      if (entry & POINTER) {
        DROP(BITS(entry));
        entry = literal_table[VALUE(entry) + low(bits, TOTAL(entry))];
        if (entry & LITERAL) {
          DROP(BITS(entry));
          *out++ = (uint8_t)VALUE(entry);
          continue;
        }
      }
      if (entry & SPECIAL) {
        inflater->state = (entry & END) ? AT_BLOCK : AT_CORRUPT;
        DROP(BITS(entry));
        break;
      }
    }
    // two literals of 11 bits and a length of 15 and 5 are 42 of 56 bits
    const unsigned length = VALUE(entry) + (unsigned)(low(bits, TOTAL(entry)) >> BITS(entry));
    DROP(TOTAL(entry));
    REFILL();
    entry = distance_table[bits & ((1u << DISTANCE_ROOT) - 1)];
    if (entry & SPECIAL) {
      if (entry & POINTER) {
        DROP(BITS(entry));
        entry = distance_table[VALUE(entry) + low(bits, TOTAL(entry))];
      }
      if (entry & SPECIAL) {
        inflater->state = AT_CORRUPT;
        break;
      }
    }
    const unsigned distance = VALUE(entry) + (unsigned)(low(bits, TOTAL(entry)) >> BITS(entry));
    DROP(TOTAL(entry));
    if (distance > (size_t)(out - inflater->window)) {
      inflater->state = AT_CORRUPT;
      break;
    }
    copy_match(out, length, distance);
    out += length;
  }
#undef REFILL
#undef DROP
  // whole bytes in the register go back, but for those that came with an earlier input
  size_t spare = count >> 3;
  if (spare > (size_t)(in - io->in)) spare = (size_t)(in - io->in);
  in -= spare;
  count -= 8 * (unsigned)spare;
  inflater->bits = low(bits, count);
  inflater->count = count;
  inflater->at = out;
  io->in_left -= (size_t)(in - io->in);
  io->in = in;
}

#if defined(__x86_64__)
__attribute__((target("bmi2"))) static void fast_symbols_bmi2(Inflater *inflater, InflateIo *io) { fast_symbols(inflater, io); }
#endif
static void fast_symbols_portable(Inflater *inflater, InflateIo *io) { fast_symbols(inflater, io); }

static void run_fast(Inflater *inflater, InflateIo *io) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("bmi2")) {
    fast_symbols_bmi2(inflater, io);
    return;
  }
#endif
  fast_symbols_portable(inflater, io);
}

// One symbol, with exactly the bits there are. False when they or the room do not suffice; then nothing has changed.
static bool slow_symbol(Inflater *inflater, InflateIo *io) {
  refill(inflater, io);
  unsigned skip, far_skip;
  const uint32_t entry = look_up(inflater->literal_table, LITERAL_ROOT, inflater->bits, &skip);
  const unsigned code = skip + BITS(entry), whole = skip + TOTAL(entry);
  if (code > inflater->count) return false;
  if (entry & LITERAL) {
    if (inflater->at >= inflater->window + HISTORY + ROOM) return false;
    take(inflater, code);
    *inflater->at++ = (uint8_t)VALUE(entry);
    return true;
  }
  if (entry & SPECIAL) {
    take(inflater, code);
    inflater->state = (entry & END) ? AT_BLOCK : AT_CORRUPT;
    return true;
  }
  if (whole > inflater->count) return false;
  const uint64_t rest = inflater->bits >> whole;
  const uint32_t far = look_up(inflater->distance_table, DISTANCE_ROOT, rest, &far_skip);
  const unsigned far_code = far_skip + BITS(far), far_whole = far_skip + TOTAL(far);
  if (far & SPECIAL) {
    if (whole + far_code > inflater->count) return false;
    inflater->state = AT_CORRUPT;
    return true;
  }
  if (whole + far_whole > inflater->count) return false;
  inflater->match = VALUE(entry) + (uint32_t)(low(inflater->bits >> code, whole - code));
  inflater->distance = VALUE(far) + (uint32_t)(low(rest >> far_code, far_whole - far_code));
  take(inflater, whole + far_whole);
  inflater->state = inflater->distance > (size_t)(inflater->at - inflater->window) ? AT_CORRUPT : AT_MATCH;
  return true;
}

// --- blocks -------------------------------------------------------------------------------------------------------------------

static bool has_bits(Inflater *inflater, InflateIo *io, unsigned count) {
  if (inflater->count < count) refill(inflater, io);
  return inflater->count >= count;
}

static bool begin_block(Inflater *inflater, InflateIo *io) {
  if (inflater->last) {
    inflater->state = AT_END;
    return true;
  }
  if (!has_bits(inflater, io, 3)) return false;
  inflater->last = take(inflater, 1) != 0;
  switch (take(inflater, 2)) {
    case 0: inflater->state = AT_STORED_SIZE; break;
    case 1: inflater->state = build_fixed(inflater) ? AT_SYMBOLS : AT_CORRUPT; break;
    case 2: inflater->state = AT_COUNTS; break;
    default: inflater->state = AT_CORRUPT;
  }
  return true;
}

static bool stored_size(Inflater *inflater, InflateIo *io) {
  const unsigned padding = inflater->count & 7;
  if (!has_bits(inflater, io, padding + 32)) return false;
  take(inflater, padding);
  inflater->stored = (uint32_t)take(inflater, 16);
  inflater->state = take(inflater, 16) == (inflater->stored ^ 0xffff) ? AT_STORED : AT_CORRUPT;
  return true;
}

static bool stored_bytes(Inflater *inflater, InflateIo *io) {
  uint8_t *const end = inflater->window + HISTORY + ROOM;
  while (inflater->stored > 0 && inflater->count >= 8 && inflater->at < end) {
    *inflater->at++ = (uint8_t)take(inflater, 8);
    inflater->stored--;
  }
  size_t length = inflater->stored;
  if (length > io->in_left) length = io->in_left;
  if (inflater->at >= end || inflater->count >= 8) length = 0;
  else if (length > (size_t)(end - inflater->at)) length = (size_t)(end - inflater->at);
  if (length > 0) memcpy(inflater->at, io->in, length);
  inflater->at += length;
  io->in += length;
  io->in_left -= length;
  inflater->stored -= (uint32_t)length;
  if (inflater->stored > 0) return false;
  inflater->state = AT_BLOCK;
  return true;
}

static bool counts(Inflater *inflater, InflateIo *io) {
  if (!has_bits(inflater, io, 14)) return false;
  inflater->literals = (unsigned)take(inflater, 5) + 257;
  inflater->distances = (unsigned)take(inflater, 5) + 1;
  inflater->length_lengths = (unsigned)take(inflater, 4) + 4;
  inflater->read = 0;
  memset(inflater->lengths, 0, LENGTH_CODES);
  inflater->state = inflater->literals > 286 || inflater->distances > 30 ? AT_CORRUPT : AT_LENGTH_LENGTHS;
  return true;
}

static bool length_lengths(Inflater *inflater, InflateIo *io) {
  for (; inflater->read < inflater->length_lengths; inflater->read++) {
    if (!has_bits(inflater, io, 3)) return false;
    inflater->lengths[LENGTH_ORDER[inflater->read]] = (uint8_t)take(inflater, 3);
  }
  inflater->read = 0;
  inflater->state = build(inflater->length_table, LENGTH_ROOT, LENGTH_TABLE, inflater->lengths, LENGTH_CODES, OF_LENGTHS) ? AT_LENGTHS : AT_CORRUPT;
  return true;
}

static bool lengths(Inflater *inflater, InflateIo *io) {
  static const uint8_t EXTRA[3] = {2, 3, 7}, BASE[3] = {3, 3, 11};
  const unsigned total = inflater->literals + inflater->distances;
  while (inflater->read < total) {
    has_bits(inflater, io, LENGTH_ROOT + 7);
    const uint32_t entry = inflater->length_table[low(inflater->bits, LENGTH_ROOT)];
    const unsigned bits = BITS(entry), symbol = VALUE(entry);
    if (entry & SPECIAL) {
      if (inflater->count < bits) return false;
      inflater->state = AT_CORRUPT;
      return true;
    }
    const unsigned extra = symbol < 16 ? 0 : EXTRA[symbol - 16];
    if (inflater->count < bits + extra) return false;
    take(inflater, bits);
    if (symbol < 16) {
      inflater->lengths[inflater->read++] = (uint8_t)symbol;
      continue;
    }
    const unsigned repeat = BASE[symbol - 16] + (unsigned)take(inflater, extra);
    if ((symbol == 16 && inflater->read == 0) || inflater->read + repeat > total) {
      inflater->state = AT_CORRUPT;
      return true;
    }
    const uint8_t length = symbol == 16 ? inflater->lengths[inflater->read - 1] : 0;
    memset(inflater->lengths + inflater->read, length, repeat);
    inflater->read += repeat;
  }
  inflater->state = inflater->lengths[END_OF_BLOCK] != 0 && build_symbols(inflater) ? AT_SYMBOLS : AT_CORRUPT;
  return true;
}

static bool symbols(Inflater *inflater, InflateIo *io) {
  while (inflater->state == AT_SYMBOLS) {
    if (io->in_left > FAST_INPUT && inflater->at < inflater->window + HISTORY + ROOM - 8) run_fast(inflater, io);
    if (inflater->state == AT_SYMBOLS && !slow_symbol(inflater, io)) return false;
  }
  return true;
}

static bool match(Inflater *inflater) {
  uint8_t *const end = inflater->window + HISTORY + ROOM;
  for (; inflater->match > 0 && inflater->at < end; inflater->match--, inflater->at++) *inflater->at = inflater->at[-(ptrdiff_t)inflater->distance];
  if (inflater->match > 0) return false;
  inflater->state = AT_SYMBOLS;
  return true;
}

// One move; false when it waits for input or room.
static bool advance(Inflater *inflater, InflateIo *io) {
  switch (inflater->state) {
    case AT_BLOCK: return begin_block(inflater, io);
    case AT_STORED_SIZE: return stored_size(inflater, io);
    case AT_STORED: return stored_bytes(inflater, io);
    case AT_COUNTS: return counts(inflater, io);
    case AT_LENGTH_LENGTHS: return length_lengths(inflater, io);
    case AT_LENGTHS: return lengths(inflater, io);
    case AT_SYMBOLS: return symbols(inflater, io);
    case AT_MATCH: return match(inflater);
    default: return false;
  }
}

// --- steps --------------------------------------------------------------------------------------------------------------------

Inflater *inflater_new(void) {
  Inflater *inflater = malloc(sizeof *inflater);
  if (inflater != NULL) inflater_reset(inflater);
  return inflater;
}

void inflater_free(Inflater *inflater) {
  free(inflater);
}

void inflater_reset(Inflater *inflater) {
  inflater->state = AT_BLOCK;
  inflater->last = false;
  inflater->bits = 0;
  inflater->count = 0;
  inflater->at = inflater->seen = inflater->window;
}

// Gives the caller what is decoded; makes room when the window is full and all of it is given. True when something moved.
static bool hand_out(Inflater *inflater, InflateIo *io) {
  size_t length = (size_t)(inflater->at - inflater->seen);
  if (length > io->out_left) length = io->out_left;
  if (length > 0) memcpy(io->out, inflater->seen, length);
  io->out += length;
  io->out_left -= length;
  inflater->seen += length;
  const bool full = inflater->at >= inflater->window + HISTORY + ROOM - FAST_OUTPUT && inflater->seen == inflater->at;
  if (full) {
    memmove(inflater->window, inflater->at - HISTORY, HISTORY);
    inflater->at = inflater->seen = inflater->window + HISTORY;
  }
  return full;
}

int inflater_step(Inflater *inflater, InflateIo *io) {
  for (;;) {
    while (advance(inflater, io)) {}
    const bool moved = hand_out(inflater, io);
    if (inflater->seen < inflater->at) return INFLATE_MORE;
    if (inflater->state == AT_CORRUPT) return INFLATE_CORRUPT;
    if (inflater->state == AT_END) return INFLATE_END;
    if (!moved) return INFLATE_MORE;
  }
}

bool inflater_byte(Inflater *inflater, InflateIo *io, uint8_t *byte) {
  take(inflater, inflater->count & 7);
  if (inflater->count == 0) {
    if (io->in_left == 0) return false;
    *byte = *io->in++;
    io->in_left--;
  } else {
    *byte = (uint8_t)take(inflater, 8);
  }
  return true;
}
