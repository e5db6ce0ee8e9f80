/* XXH3 is written from its public specification (xxhash_spec.md), with seed 0 and the
 * default secret. Numbers are read as they lie in memory: every machine that we know is
 * little-endian. */
#include "hashes.h"

#include <string.h>

static const uint64_t XXH_PRIMES[3] = {UINT64_C(0x9E3779B185EBCA87),
                                       UINT64_C(0xC2B2AE3D27D4EB4F),
                                       UINT64_C(0x165667B19E3779F9)};

static const unsigned char XXH3_SECRET[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21,
    0xad, 0x1c, 0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4,
    0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a,
    0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e,
    0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3,
    0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97,
    0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa,
    0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78,
    0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff,
    0xfa, 0x13, 0x63, 0xeb, 0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16,
    0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc,
    0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16,
    0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e};

static uint64_t xxh_read64(const unsigned char *at) {
    uint64_t number;
    memcpy(&number, at, sizeof number);
    return number;
}

static uint32_t xxh_read32(const unsigned char *at) {
    uint32_t number;
    memcpy(&number, at, sizeof number);
    return number;
}

static uint64_t xxh_rotated(uint64_t number, int bits) {
    return number << bits | number >> (64 - bits);
}

static uint64_t xxh_mixed(uint64_t hash) {
    hash = (hash ^ hash >> 33) * XXH_PRIMES[1];
    hash = (hash ^ hash >> 29) * XXH_PRIMES[2];
    return hash ^ hash >> 32;
}

/* Return two words of the secret, from byte `at` on, as one. */
static uint64_t xxh3_secret(size_t at) {
    return xxh_read64(XXH3_SECRET + at) ^ xxh_read64(XXH3_SECRET + at + 8);
}

/* Return the product's two halves as one. */
static uint64_t xxh3_product(uint64_t one, uint64_t other) {
    const unsigned __int128 product = (unsigned __int128)one * other;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t xxh3_mixed(uint64_t hash) {
    hash = (hash ^ hash >> 37) * UINT64_C(0x165667919E3779F9);
    return hash ^ hash >> 32;
}

/* Return the hash of 16 bytes, with the secret from byte `at` on. */
static uint64_t xxh3_part(const unsigned char *text, size_t at) {
    return xxh3_product(xxh_read64(text) ^ xxh_read64(XXH3_SECRET + at),
                        xxh_read64(text + 8) ^ xxh_read64(XXH3_SECRET + at + 8));
}

/* Of at most 16 bytes. */
static uint64_t xxh3_of_16(const unsigned char *text, size_t length) {
    const uint64_t size = length;
    if (!length) return xxh_mixed(xxh3_secret(56));
    if (length < 4) {
        const uint32_t bytes = (uint32_t)text[0] << 16 | (uint32_t)text[length / 2] << 24 |
                               text[length - 1] | (uint32_t)length << 8;
        const uint32_t secret = xxh_read32(XXH3_SECRET) ^ xxh_read32(XXH3_SECRET + 4);
        return xxh_mixed(bytes ^ secret);
    }
    if (length <= 8) {
        const uint64_t first = xxh_read32(text), last = xxh_read32(text + length - 4);
        uint64_t hash = (last + (first << 32)) ^ xxh3_secret(8);
        hash ^= xxh_rotated(hash, 49) ^ xxh_rotated(hash, 24);
        hash *= UINT64_C(0x9FB21C651E98DF25);
        hash = (hash ^ ((hash >> 35) + size)) * UINT64_C(0x9FB21C651E98DF25);
        return hash ^ hash >> 28;
    }
    const uint64_t first = xxh_read64(text) ^ xxh3_secret(24);
    const uint64_t last = xxh_read64(text + length - 8) ^ xxh3_secret(40);
    return xxh3_mixed(size + __builtin_bswap64(first) + last + xxh3_product(first, last));
}

/* Of 17 to 128 bytes: pairs of parts, from both ends. */
static uint64_t xxh3_of_128(const unsigned char *text, size_t length) {
    uint64_t hash = length * XXH_PRIMES[0];
    for (size_t pair = 0; pair < (length + 31) / 32; pair++) {
        hash += xxh3_part(text + 16 * pair, 32 * pair);
        hash += xxh3_part(text + length - 16 * (pair + 1), 32 * pair + 16);
    }
    return xxh3_mixed(hash);
}

/* Of 129 to 240 bytes: eight parts, then the others with the secret from byte 3 on. */
static uint64_t xxh3_of_240(const unsigned char *text, size_t length) {
    uint64_t hash = length * XXH_PRIMES[0];
    for (size_t part = 0; part < 8; part++) hash += xxh3_part(text + 16 * part, 16 * part);
    hash = xxh3_mixed(hash);
    for (size_t part = 8; part < length / 16; part++)
        hash += xxh3_part(text + 16 * part, 16 * (part - 8) + 3);
    return xxh3_mixed(hash + xxh3_part(text + length - 16, 119));
}

int xxh3_64(const unsigned char *text, size_t length, uint64_t *hash) {
    if (length > XXH3_MAX_BYTES) return 0;
    *hash = length <= 16    ? xxh3_of_16(text, length)
            : length <= 128 ? xxh3_of_128(text, length)
                            : xxh3_of_240(text, length);
    return 1;
}
