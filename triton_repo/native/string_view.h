/* Bytes that something else owns, such as a value in a buffer. */
#ifndef SRP4CTR_STRING_VIEW_H
#define SRP4CTR_STRING_VIEW_H

#include <stdint.h>
#include <string.h>

typedef struct {
    const char *start;
    int64_t length; /* -1: no value */
} StringView;

static inline int strings_equal(StringView one, StringView other) {
    return one.length == other.length &&
           !memcmp(one.start, other.start, (size_t)one.length);
}

#endif
