#include "utf8.h"

#include <string.h>

/* Return how many bytes the first character has; 0 if they are none. Of the second byte,
 * some values would be of a shorter form, of a surrogate, or beyond the last character. */
static size_t character_size(const unsigned char *text, size_t length) {
    const unsigned char first = text[0];
    if (first < 0x80) return 1;
    if (first < 0xC2 || first > 0xF4) return 0;
    const size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (length < size) return 0;
    const unsigned char min = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const unsigned char max = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (text[1] < min || text[1] > max) return 0;
    for (size_t at = 2; at < size; at++)
        if ((text[at] & 0xC0) != 0x80) return 0;
    return size;
}

static int is_ascii8(const unsigned char *text) {
    uint64_t bytes;
    memcpy(&bytes, text, sizeof bytes);
    return !(bytes & UINT64_C(0x8080808080808080));
}

int64_t count_characters(const unsigned char *text, size_t length) {
    int64_t characters = 0;
    for (size_t at = 0; at < length; characters++) {
        for (; length - at >= 8; at += 8, characters += 8) /* most texts are ASCII */
            if (!is_ascii8(text + at)) break;
        if (at == length) break;
        const size_t size = character_size(text + at, length - at);
        if (!size) return -1;
        at += size;
    }
    return characters;
}
