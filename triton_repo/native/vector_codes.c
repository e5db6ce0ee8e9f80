#include "vector_codes.h"

#include <math.h>
#include <string.h>

/* Between the nearest code and the next: numpy's rounding. */
static const double MIN_MARGIN = 1e-4;

static int base64_digit(char character) {
    static const char DIGITS[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = character ? strchr(DIGITS, character) : NULL;
    return found ? (int)(found - DIGITS) : -1;
}

/* Return what two bytes of a float16 are; NaN where that is not finite. */
static double float16_to_double(unsigned bits) {
    const int power = (int)(bits >> 10 & 0x1F), part = (int)(bits & 0x3FF);
    const double size = power ? ldexp(1024 + part, power - 25) : ldexp(part, -24);
    return power == 0x1F ? (double)NAN : bits >> 15 ? -size : size;
}

int64_t read_vector(StringView text, double *numbers) {
    static const char BEGINS[] = "vector:";
    const int64_t start = sizeof BEGINS - 1, characters = text.length - start;
    if (characters < 4 || characters % 4 || memcmp(text.start, BEGINS, (size_t)start))
        return 0;
    const char *at = text.start + start;
    const int64_t padding = (at[characters - 1] == '=') + (at[characters - 2] == '=');
    const int64_t bytes = characters / 4 * 3 - padding, count = bytes / 2;
    if (bytes % 2 || count < MIN_DIMENSIONS || count > MAX_DIMENSIONS) return 0;
    uint32_t bits = 0;
    int64_t filled = 0, halves = 0;
    for (int64_t each = 0; each < characters - padding; each++) {
        const int digit = base64_digit(at[each]);
        if (digit < 0) return 0;
        bits = bits << 6 | (uint32_t)digit;
        filled += 6;
        if (filled < 16) continue;
        filled -= 16;
        const uint32_t half = bits >> filled & 0xFFFF;
        const double number = float16_to_double((half & 0xFF) << 8 | half >> 8);
        if (number != number) return 0;
        if (halves < count) numbers[halves++] = number;
    }
    return count;
}

/* Return the code that is nearest to `left`, which is what is left then; -1 where another
 * one is as near, as numpy may round. */
static int64_t subtract_nearest_code(const double *book, int64_t codes, int64_t count,
                                     double *left) {
    double best = INFINITY, next = INFINITY;
    int64_t found = -1;
    for (int64_t code = 0; code < codes; code++) {
        double distance = 0.0;
        for (int64_t at = 0; at < count; at++) {
            const double number = book[code * count + at];
            distance += number * (number - 2.0 * left[at]);
        }
        if (distance < best)
            next = best, best = distance, found = code;
        else if (distance < next)
            next = distance;
    }
    if (!(next - best > MIN_MARGIN)) return -1;
    for (int64_t at = 0; at < count; at++) left[at] -= book[found * count + at];
    return found;
}

int64_t encode_vector(const double *books, int64_t levels, int64_t codes,
                      const double *numbers, int64_t count, int64_t *found) {
    double left[MAX_DIMENSIONS], length = 0.0;
    for (int64_t at = 0; at < count; at++) length += numbers[at] * numbers[at];
    if (length == 0.0) return 0;
    for (int64_t at = 0; at < count; at++) left[at] = numbers[at] / sqrt(length);
    for (int64_t level = 0; level < levels; level++) {
        found[level] =
            subtract_nearest_code(books + level * codes * count, codes, count, left);
        if (found[level] < 0) return -1;
    }
    return levels;
}
