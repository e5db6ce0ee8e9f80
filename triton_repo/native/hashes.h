/* The hash of an id, as Python makes it of the same bytes: XXH3, 64 bits. */
#ifndef SRP4CTR_HASHES_H
#define SRP4CTR_HASHES_H

#include <stddef.h>
#include <stdint.h>

enum { XXH3_MAX_BYTES = 240 }; /* longer texts take another way of the specification */

/* Write what Python's xxhash.xxh3_64_intdigest returns; return 0 for a longer text. */
int xxh3_64(const unsigned char *text, size_t length, uint64_t *hash);

#endif
