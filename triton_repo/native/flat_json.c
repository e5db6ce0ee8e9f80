#include "flat_json.h"

#include <stdint.h>

#include "utf8.h"

typedef struct {
    const char *next, *end;
} JsonCursor;

static int peek_byte(JsonCursor *cursor) {
    while (cursor->next < cursor->end && *cursor->next && strchr(" \t\n\r", *cursor->next))
        cursor->next++;
    return cursor->next < cursor->end ? (unsigned char)*cursor->next : -1;
}

static int take_byte(JsonCursor *cursor, char byte) {
    if (peek_byte(cursor) != byte) return 0;
    cursor->next++;
    return 1;
}

/* Read four hexadecimal digits; return -1 where they are none. */
static int32_t hex_digits(JsonCursor *cursor) {
    int32_t number = 0;
    if (cursor->end - cursor->next < 4) return -1;
    for (int digit = 0; digit < 4; digit++) {
        const char byte = *cursor->next++;
        const int is_decimal = byte >= '0' && byte <= '9', lower = byte | 0x20;
        if (!is_decimal && (lower < 'a' || lower > 'f')) return -1;
        number = 16 * number + (is_decimal ? byte - '0' : lower - 'a' + 10);
    }
    return number;
}

/* Write the character of an escape after its "\u"; return its bytes, 0 for a lone
 * surrogate. */
static size_t unescape_unicode(JsonCursor *cursor, char *into) {
    int32_t character = hex_digits(cursor);
    if (character < 0 || (character >= 0xDC00 && character < 0xE000)) return 0;
    if (character >= 0xD800 && character < 0xDC00) {
        if (cursor->end - cursor->next < 6 || memcmp(cursor->next, "\\u", 2)) return 0;
        cursor->next += 2;
        const int32_t low = hex_digits(cursor);
        if (low < 0xDC00 || low >= 0xE000) return 0;
        character = 0x10000 + ((character - 0xD800) << 10) + (low - 0xDC00);
    }
    const size_t size = character < 0x80      ? 1
                        : character < 0x800   ? 2
                        : character < 0x10000 ? 3
                                              : 4;
    static const unsigned char FIRST[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t at = size; at-- > 1; character >>= 6)
        into[at] = (char)(0x80 | (character & 0x3F));
    into[0] = (char)(FIRST[size] | character);
    return size;
}

/* Write what an escape after its backslash means; return its bytes, 0 for none. */
static size_t unescape(JsonCursor *cursor, char *into) {
    static const char ESCAPES[] = "\"\\/bfnrt", MEANT[] = "\"\\/\b\f\n\r\t";
    if (cursor->next == cursor->end) return 0;
    const char byte = *cursor->next++;
    if (byte == 'u') return unescape_unicode(cursor, into);
    const char *found = byte ? strchr(ESCAPES, byte) : NULL;
    if (found) *into = MEANT[found - ESCAPES];
    return found != NULL;
}

/* Read a string: a part of the text, or a copy without its escapes. */
static int read_string(JsonCursor *cursor, FlatJson *map, StringView *string) {
    if (!take_byte(cursor, '"')) return 0;
    const char *began = cursor->next;
    char *copy = NULL;
    for (; cursor->next < cursor->end && *cursor->next != '"';) {
        if ((unsigned char)*cursor->next < 0x20) return 0;
        const int is_escape = *cursor->next == '\\';
        if (is_escape && !copy) {
            const size_t length = (size_t)(cursor->next - began);
            if (length > MAX_UNESCAPED_BYTES - map->filled) return 0;
            copy = memcpy(map->unescaped + map->filled, began, length);
            map->filled += length;
        }
        if (!copy) {
            cursor->next++;
            continue;
        }
        if (MAX_UNESCAPED_BYTES - map->filled < 4) return 0;
        size_t bytes = 1;
        if (!is_escape) map->unescaped[map->filled] = *cursor->next;
        cursor->next++;
        if (is_escape) bytes = unescape(cursor, map->unescaped + map->filled);
        if (!bytes) return 0;
        map->filled += bytes;
    }
    if (cursor->next == cursor->end) return 0;
    const char *end = copy ? map->unescaped + map->filled : cursor->next;
    *string = (StringView){copy ? copy : began, end - (copy ? copy : began)};
    cursor->next++;
    return 1;
}

const Member *find_member(const FlatJson *map, StringView name) {
    for (int at = 0; at < map->member_count; at++)
        if (strings_equal(map->members[at].name, name)) return map->members + at;
    return NULL;
}

static int read_value(JsonCursor *cursor, FlatJson *map, Member *member) {
    if (map->value_count == MAX_VALUES ||
        !read_string(cursor, map, map->values + map->value_count))
        return 0;
    map->value_count++, member->count++;
    return 1;
}

static int read_member_values(JsonCursor *cursor, FlatJson *map, Member *member) {
    member->is_list = take_byte(cursor, '[');
    if (!member->is_list) return read_value(cursor, map, member);
    if (take_byte(cursor, ']')) return 1;
    do
        if (!read_value(cursor, map, member)) return 0;
    while (take_byte(cursor, ','));
    return take_byte(cursor, ']');
}

int parse_flat_json(StringView text, FlatJson *map) {
    JsonCursor cursor = {text.start, text.start + text.length};
    map->member_count = map->value_count = 0, map->filled = 0;
    if (!text.length) return 1;
    if (count_characters((const unsigned char *)text.start, (size_t)text.length) < 0 ||
        !take_byte(&cursor, '{'))
        return 0;
    if (take_byte(&cursor, '}')) return peek_byte(&cursor) < 0;
    do {
        Member member = {.first = map->value_count};
        if (map->member_count == MAX_MEMBERS || !read_string(&cursor, map, &member.name) ||
            find_member(map, member.name) || !take_byte(&cursor, ':') ||
            !read_member_values(&cursor, map, &member))
            return 0;
        map->members[map->member_count++] = member;
    } while (take_byte(&cursor, ','));
    return take_byte(&cursor, '}') && peek_byte(&cursor) < 0;
}
