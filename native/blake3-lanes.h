// Template, included once for each vector width: BLAKE3's compression of LANES independent inputs at once, one input a vector element.
// Needs LANES (4, 8 or 16), TARGET (a target attribute or nothing), NAME(x) (a suffixed name); NATIVE_ROTATE where the processor has one.

typedef uint32_t NAME(Vector) __attribute__((vector_size(4 * LANES)));
typedef uint8_t NAME(VectorBytes) __attribute__((vector_size(4 * LANES)));

#define V NAME(Vector)
#if LANES == 4
#define ZIP(a, b, c, d) {a, b, c, d}
#elif LANES == 8
#define ZIP(a, b, c, d) {PICK(a, 0), PICK(b, 0), PICK(c, 0), PICK(d, 0), PICK(a, 4), PICK(b, 4), PICK(c, 4), PICK(d, 4)}
#else
#define ZIP(a, b, c, d) {PICK(a, 0), PICK(b, 0), PICK(c, 0), PICK(d, 0), PICK(a, 4), PICK(b, 4), PICK(c, 4), PICK(d, 4), \
                         PICK(a, 8), PICK(b, 8), PICK(c, 8), PICK(d, 8), PICK(a, 12), PICK(b, 12), PICK(c, 12), PICK(d, 12)}
#endif
// An index 0..3 is that element of the first operand's 128-bit group, 4..7 of the second operand's; groups stay apart.
#define PICK(index, group) ((index) < 4 ? (index) + (group) : (index) - 4 + (group) + LANES)

#define SHIFT_ROTATE(x, bits) ((x) >> (bits) | (x) << (32 - (bits)))
#ifdef NATIVE_ROTATE
#define ROTATE16(x) SHIFT_ROTATE(x, 16)
#define ROTATE8(x) SHIFT_ROTATE(x, 8)
#else // a byte shuffle is one instruction, two shifts and an or are three
#define ROTATE16(x) ((V)__builtin_shuffle((NAME(VectorBytes))(x), by_two))
#define ROTATE8(x) ((V)__builtin_shuffle((NAME(VectorBytes))(x), by_one))
#endif

// The four columns (shift 0) or diagonals (shift 1) of the state are mixed side by side.
#define A(i) v[i]
#define B(i, shift) v[4 + (((i) + (shift)) & 3)]
#define C(i, shift) v[8 + (((i) + 2 * (shift)) & 3)]
#define D(i, shift) v[12 + (((i) + 3 * (shift)) & 3)]
#define FOUR(step, r, s) step(0, r, s) step(1, r, s) step(2, r, s) step(3, r, s)
#define ADD_FIRST(i, r, s) A(i) += B(i, s) + m[ORDER[r][8 * (s) + 2 * (i)]];
#define ADD_SECOND(i, r, s) A(i) += B(i, s) + m[ORDER[r][8 * (s) + 2 * (i) + 1]];
#define TURN16(i, r, s) D(i, s) = ROTATE16(D(i, s) ^ A(i));
#define TURN12(i, r, s) B(i, s) ^= C(i, s) += D(i, s); B(i, s) = SHIFT_ROTATE(B(i, s), 12);
#define TURN8(i, r, s) D(i, s) = ROTATE8(D(i, s) ^ A(i));
#define TURN7(i, r, s) B(i, s) ^= C(i, s) += D(i, s); B(i, s) = SHIFT_ROTATE(B(i, s), 7);
#define HALF_ROUND(r, s) \
  FOUR(ADD_FIRST, r, s) FOUR(TURN16, r, s) FOUR(TURN12, r, s) FOUR(ADD_SECOND, r, s) FOUR(TURN8, r, s) FOUR(TURN7, r, s)
#define ROUND(r) HALF_ROUND(r, 0) HALF_ROUND(r, 1)

#define EXCHANGE(distance, low, high) \
  for (int i = 0; i < LANES; i++) { \
    if (i & (distance)) continue; \
    V a = rows[i], b = rows[i + (distance)]; \
    rows[i] = __builtin_shuffle(a, b, (V)low); \
    rows[i + (distance)] = __builtin_shuffle(a, b, (V)high); \
  }

// Rows of LANES words become columns: 4x4 inside the 128-bit groups, then the groups change places.
TARGET static inline __attribute__((always_inline)) void NAME(transpose)(V *rows) {
#pragma GCC unroll 4
  for (int i = 0; i < LANES; i += 4) {
    V ab = __builtin_shuffle(rows[i], rows[i + 1], (V)ZIP(0, 4, 1, 5)), AB = __builtin_shuffle(rows[i], rows[i + 1], (V)ZIP(2, 6, 3, 7));
    V cd = __builtin_shuffle(rows[i + 2], rows[i + 3], (V)ZIP(0, 4, 1, 5)), CD = __builtin_shuffle(rows[i + 2], rows[i + 3], (V)ZIP(2, 6, 3, 7));
    rows[i] = __builtin_shuffle(ab, cd, (V)ZIP(0, 1, 4, 5));
    rows[i + 1] = __builtin_shuffle(ab, cd, (V)ZIP(2, 3, 6, 7));
    rows[i + 2] = __builtin_shuffle(AB, CD, (V)ZIP(0, 1, 4, 5));
    rows[i + 3] = __builtin_shuffle(AB, CD, (V)ZIP(2, 3, 6, 7));
  }
#if LANES == 8
#pragma GCC unroll 8
  EXCHANGE(4, ((V){0, 1, 2, 3, 8, 9, 10, 11}), ((V){4, 5, 6, 7, 12, 13, 14, 15}))
#elif LANES == 16
#pragma GCC unroll 16
  EXCHANGE(4, ((V){0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27}), ((V){4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31}))
#pragma GCC unroll 16
  EXCHANGE(8, ((V){0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}), ((V){8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31}))
#endif
}

TARGET static void NAME(hash)(const Batch *batch, size_t first, uint8_t *out) {
#ifndef NATIVE_ROTATE
  NAME(VectorBytes) by_two, by_one;
  for (int i = 0; i < 4 * LANES; i++) {
    by_two[i] = (uint8_t)((i & ~3) | ((i + 2) & 3));
    by_one[i] = (uint8_t)((i & ~3) | ((i + 1) & 3));
  }
#endif
  const size_t count = batch->count - first < LANES ? batch->count - first : LANES;
  const uint8_t *input[LANES];
  V counter_low, counter_high, h[16];
  for (size_t lane = 0; lane < LANES; lane++) {
    const size_t index = first + (lane < count ? lane : 0); // idle lanes repeat the first
    const uint64_t counter = batch->counter + (batch->counting ? index : 0);
    input[lane] = batch->input + index * batch->blocks * BLOCK;
    counter_low[lane] = (uint32_t)counter;
    counter_high[lane] = (uint32_t)(counter >> 32);
  }
  for (int i = 0; i < 8; i++) h[i] = (V){} + IV[i];

  for (size_t block = 0; block < batch->blocks; block++) {
    V m[16];
    for (int word = 0; word < 16; word += LANES) {
      for (int lane = 0; lane < LANES; lane++) memcpy(&m[word + lane], input[lane] + block * BLOCK + 4 * word, sizeof(V));
      NAME(transpose)(m + word);
    }
    const uint32_t flags = batch->flags | (block == 0 ? batch->flags_first : 0) | (block + 1 == batch->blocks ? batch->flags_last : 0);
    V v[16] = {
      h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], (V){} + IV[0], (V){} + IV[1], (V){} + IV[2], (V){} + IV[3],
      counter_low, counter_high, (V){} + BLOCK, (V){} + flags,
    };
    ROUND(0) ROUND(1) ROUND(2) ROUND(3) ROUND(4) ROUND(5) ROUND(6)
    for (int i = 0; i < 8; i++) h[i] = v[i] ^ v[i + 8];
  }

  for (int i = 8; i < 16; i++) h[i] = (V){};
  for (int word = 0; word < 8; word += LANES) NAME(transpose)(h + word);
  for (size_t lane = 0; lane < count; lane++) {
    for (int word = 0; word < 8; word += LANES) memcpy(out + DIGEST_SIZE * lane + 4 * word, &h[word + lane], LANES < 8 ? 4 * LANES : DIGEST_SIZE);
  }
}

#undef V
#undef ZIP
#undef PICK
#undef SHIFT_ROTATE
#undef ROTATE16
#undef ROTATE8
#undef A
#undef B
#undef C
#undef D
#undef FOUR
#undef ADD_FIRST
#undef ADD_SECOND
#undef TURN16
#undef TURN12
#undef TURN8
#undef TURN7
#undef HALF_ROUND
#undef ROUND
#undef EXCHANGE
