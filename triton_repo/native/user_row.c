#include "user_row.h"

#include <math.h>
#include <string.h>

enum {
    USER_FORMAT = 4,
    USER_HEAD = 135,
    HISTORY_FIELDS = 2,
    ATTRIBUTE_FIELDS = 2
};
enum { ACTIONS = 64 };                                          /* NUM_ACTION_CODES */
static const int64_t MAX_STORED_MS = INT64_C(9000000000000000); /* as in packing.py */

/* Return what Feast's Value holds, empty for none: a tag, a length, the content. */
static StringView feast_content(StringView value) {
    int64_t at = 1;
    while (at < value.length && value.start[at] & 0x80) at++;
    if (value.length <= 0) return (StringView){"", 0};
    return at + 1 > value.length
               ? (StringView){"", -1}
               : (StringView){value.start + at + 1, value.length - at - 1};
}

/* Return the version in us of a stored time, 0 for none and -1 for what is no time: a
 * protobuf Timestamp, whose fields 1 and 2 are seconds and nanoseconds. */
static int64_t timestamp_us(StringView time) {
    int64_t parts[3] = {0, 0, 0}, at = 0;
    while (at < time.length) {
        const int part = (unsigned char)time.start[at++] >> 3;
        uint64_t number = 0;
        int shift = 0, is_more = 1;
        for (; is_more && at < time.length && shift < 63; shift += 7) {
            const unsigned char byte = (unsigned char)time.start[at++];
            number |= (uint64_t)(byte & 0x7F) << shift;
            is_more = byte & 0x80;
        }
        if (is_more || part < 1 || part > 2) return -1;
        parts[part] = (int64_t)number;
    }
    if (parts[1] < 0 || parts[1] > INT64_C(9000000000000) || parts[2] < 0) return -1;
    return parts[1] * 1000000 + parts[2] / 1000;
}

static int64_t read_int64(const char *place) {
    int64_t number;
    memcpy(&number, place, sizeof number);
    return number;
}

/* Read the head of a sequence, its columns follow elsewhere; return whether it is right. */
static int read_sequence_head(const char *head, Columns *columns) {
    uint32_t count;
    memcpy(&count, head, sizeof count);
    memset(columns, 0, sizeof *columns);
    columns->count = count;
    columns->time_bytes = head[4];
    columns->base_ms = read_int64(head + 5);
    return columns->time_bytes == 4 || columns->time_bytes == 8;
}

static int is_valid_time(int64_t stored_ms) {
    return stored_ms >= 0 && stored_ms <= MAX_STORED_MS;
}

/* Return whether compiled.c can add to the times, and subtract them. */
static int are_valid_times(const Columns *columns) {
    int is_right = is_valid_time(columns->base_ms);
    for (int64_t at = 0; columns->time_bytes == 8 && at < columns->count; at++)
        is_right &= is_valid_time(read_int64(columns->times + 8 * at));
    return is_right;
}

static int are_valid_counts(const double *counts) {
    int is_right = 1;
    for (int at = 0; at < COUNTS; at++)
        is_right &= counts[at] >= 0.0 && counts[at] < (double)INFINITY;
    return is_right;
}

/* Unpack the row that pack_user has packed; return whether all of it is there, and what
 * can be: packing.py checks the same. */
static int unpack_user(StringView packed, UserRow *user) {
    const char *head = packed.start;
    if (packed.length < USER_HEAD || head[0] != USER_FORMAT) return 0;
    memcpy(user->counts, head + 1, sizeof user->counts);
    user->counted_at_ms = read_int64(head + 65);
    user->last_offset = read_int64(head + 81);
    if (!read_sequence_head(head + 105, &user->done) ||
        !read_sequence_head(head + 118, &user->shown))
        return 0;
    Columns *done = &user->done, *shown = &user->shown;
    const int64_t sizes[] = {done->count * done->time_bytes, done->count * 8, done->count,
                             shown->count * shown->time_bytes, shown->count * 8};
    const char *places[5], *at = head + USER_HEAD, *end = head + packed.length;
    for (int part = 0; part < 5; part++) {
        if (sizes[part] > end - at) return 0;
        places[part] = at;
        at += sizes[part];
    }
    done->times = places[0], done->keys = places[1];
    done->codes = (const uint8_t *)places[2];
    shown->times = places[3], shown->keys = places[4];
    done->values = at;
    for (int64_t each = 0; each < done->count; each++) {
        if ((done->codes[each] & ~HAS_VALUE) >= ACTIONS) return 0;
        done->values_count += (done->codes[each] & HAS_VALUE) != 0;
    }
    return end - at == 8 * done->values_count && are_valid_counts(user->counts) &&
           is_valid_time(user->counted_at_ms) && are_valid_times(done) &&
           are_valid_times(shown);
}

int read_user_row(const StringView *values, int count, UserRow *user) {
    memset(user, 0, sizeof *user);
    user->attributes = (StringView){"", 0};
    const StringView packed = feast_content(values[1]);
    const int64_t version = timestamp_us(values[0]);
    user->exists = version > 0;
    user->version_us = version;
    if (version < 0 || packed.length < 0 || user->exists != (packed.length > 0)) return 0;
    if (user->exists && !unpack_user(packed, user)) return 0;
    if (count < HISTORY_FIELDS + ATTRIBUTE_FIELDS) return 1;
    const StringView *part = values + HISTORY_FIELDS, text = feast_content(part[1]);
    const int64_t at_us = timestamp_us(part[0]);
    if (at_us < 0 || text.length < 0) return 0;
    if (at_us && !user->exists) return 0; /* attributes alone */
    if (at_us) user->attributes = text;
    return 1;
}
