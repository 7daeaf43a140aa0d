// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78): the SSE4.2 instruction on three interleaved lanes, or eight tables.
#include "addon.h"
#include <string.h>

enum { POLYNOMIAL = (int)0x82f63b78u };

static uint32_t table[8][256];

__attribute__((constructor)) static void fill_tables(void) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >> 1) ^ (uint32_t)POLYNOMIAL : crc >> 1;
    table[0][byte] = crc;
  }
  for (uint32_t byte = 0; byte < 256; byte++) {
    for (int slice = 1; slice < 8; slice++) {
      uint32_t crc = table[slice - 1][byte];
      table[slice][byte] = (crc >> 8) ^ table[0][crc & 0xff];
    }
  }
}

static uint32_t update_tables(uint32_t crc, const uint8_t *bytes, size_t length) {
  for (; length >= 8; bytes += 8, length -= 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    word ^= crc;
    crc = 0;
    for (int slice = 0; slice < 8; slice++) crc ^= table[7 - slice][(word >> (8 * slice)) & 0xff];
  }
  for (; length != 0; length--) crc = (crc >> 8) ^ table[0][(crc ^ *bytes++) & 0xff];
  return crc;
}

#ifdef __x86_64__
#include <immintrin.h>

// One lane is latency bound (3 cycles for 8 bytes). Three lanes of LANE bytes run at once; a lane's register is then moved behind the
// bytes of the lanes after it by a carry-less multiplication with x^(8*bytes), which the crc32 instruction reduces.
enum { LANE = 1024 };
static uint64_t skip_one_lane, skip_two_lanes;

// x^exponent mod P, reflected.
static uint32_t power_of_x(uint64_t exponent) {
  uint32_t value = 0x80000000u;
  for (; exponent != 0; exponent--) value = value & 1 ? (value >> 1) ^ (uint32_t)POLYNOMIAL : value >> 1;
  return value;
}

__attribute__((constructor)) static void fill_skips(void) {
  // The product of two reflected 32-bit values stands one bit low in 64 bits, and the reduction itself multiplies by x^32: hence 33.
  skip_one_lane = power_of_x(8 * LANE - 33);
  skip_two_lanes = power_of_x(16 * LANE - 33);
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t skip(uint64_t crc, uint64_t power) {
  __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)power), 0);
  return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t update_sse42(uint32_t crc, const uint8_t *bytes, size_t length) {
  uint64_t first = crc, word[3];
  for (; length >= 3 * LANE; bytes += 3 * LANE, length -= 3 * LANE) {
    uint64_t second = 0, third = 0;
    for (size_t at = 0; at < LANE; at += 8) {
      memcpy(&word[0], bytes + at, 8);
      memcpy(&word[1], bytes + LANE + at, 8);
      memcpy(&word[2], bytes + 2 * LANE + at, 8);
      first = _mm_crc32_u64(first, word[0]);
      second = _mm_crc32_u64(second, word[1]);
      third = _mm_crc32_u64(third, word[2]);
    }
    first = skip(first, skip_two_lanes) ^ skip(second, skip_one_lane) ^ third;
  }
  for (; length >= 8; bytes += 8, length -= 8) {
    memcpy(&word[0], bytes, 8);
    first = _mm_crc32_u64(first, word[0]);
  }
  for (; length != 0; length--) first = _mm_crc32_u8((uint32_t)first, *bytes++);
  return (uint32_t)first;
}
#endif

uint32_t crc32c_update(uint32_t crc, const uint8_t *bytes, size_t length) {
#ifdef __x86_64__
  if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) return ~update_sse42(~crc, bytes, length);
#endif
  return ~update_tables(~crc, bytes, length);
}
