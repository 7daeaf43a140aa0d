// Test driver (src/native/kernels.test.ts): digests and checksum of prefixes of standard input, one line for each length in the arguments.
#include "../addon.h"
#include <stdio.h>
#include <stdlib.h>

static void print_hex(const uint8_t *bytes) {
  for (int i = 0; i < DIGEST_SIZE; i++) printf("%02x", bytes[i]);
  putchar(' ');
}

int main(int count, char **lengths) {
  enum { CAPACITY = 4 << 20 };
  uint8_t *input = malloc(CAPACITY), digest[DIGEST_SIZE];
  if (input == NULL) return 1;
  const size_t size = fread(input, 1, CAPACITY, stdin);
  for (int i = 1; i < count; i++) {
    const size_t length = strtoul(lengths[i], NULL, 10);
    if (length > size) return 2;
    blake3_hash(input, length, digest);
    print_hex(digest);
    sha256_hash(input, length, digest);
    print_hex(digest);
    printf("%u\n", crc32c_update(0, input, length));
  }
  free(input);
  return 0;
}
