/* Contexts and users' attributes: flat JSON → rows of the model's tables, and numbers.
 *
 * vocabulary.py and item_fields.py define what a text means; this reads the texts that are
 * plain: an object of strings, or of lists of strings, each name once. Of every other text
 * (no JSON, a nested value, a lone surrogate, a number that only Python spells so, a vector
 * between two codes) it says that it cannot read it, and the Python step does.
 */
#ifndef SRP4CTR_TEXTS_H
#define SRP4CTR_TEXTS_H

#include <math.h>
#include <stdlib.h>

enum { MOST_LETTERS = 256 };                     /* MAX_ID_LENGTH of streams/events */
enum { MOST_MEMBERS = 32, MOST_VALUES = 2048 };  /* as there: of one map, of all lists */
enum { UNESCAPED_BYTES = 4096, MOST_DIGITS = 64 };
enum { CONTEXT_ROWS = 1023 };                    /* NUM_CONTEXT_ROWS - 1 */
enum { NOT_A_NUMBER, IS_A_NUMBER, UNREAD_NUMBER };
enum { R_OFFSET, R_NAMES, R_FIELDS, R_ENTRIES, RULES_WORDS };
enum { F_NAME, F_NAME_LENGTH, F_KIND, F_SLOTS, F_FIRST_SLOT, F_FIRST_ROW, F_COUNT };
enum { F_ENTRIES = 7, F_NUMBERS, FIELD_WORDS }; /* the latter: of a vector */
enum { ENTRY_WORDS = 3 };                       /* place, length and index of a value */
enum { OF_VALUES, OF_NUMBERS, OF_VECTORS };      /* kinds of fields */
enum { LEAST_NUMBERS = 8, MOST_VECTOR = 1024 };  /* numbers of a vector, as in vectors.py */
static const double SURE = 1e-4; /* between the nearest code and the next: numpy's rounding */
static const double MAX_CONTEXT_NUMBER = 1e15;   /* as in vocabulary.py */
static const char UTC_OFFSET_FIELD[] = "utc_offset_minutes";

typedef struct { /* what texts are read by: `text_rules` of parsed_cache.py writes it */
    const int64_t *names, *fields, *entries; /* names: of the context's numbers */
    const char *pool;                        /* all texts */
    int64_t utc_offset_ms, name_count, field_count;
} TextRules;

typedef struct {
    StoreValue name;
    int first, count, is_list; /* of its values */
} Member;

typedef struct { /* a JSON object */
    Member members[MOST_MEMBERS];
    StoreValue values[MOST_VALUES];
    int member_count, value_count;
    char unescaped[UNESCAPED_BYTES];
    size_t filled;
} FlatMap;

typedef struct {
    const char *at, *end;
} Reading;

/* ---- JSON, as Python's json.loads reads it ---- */

static int next_sign(Reading *reading) {
    while (reading->at < reading->end && *reading->at && strchr(" \t\n\r", *reading->at))
        reading->at++;
    return reading->at < reading->end ? (unsigned char)*reading->at : -1;
}

static int take_sign(Reading *reading, char sign) {
    if (next_sign(reading) != sign) return 0;
    reading->at++;
    return 1;
}

/* Read four hexadecimal digits; return -1 where they are none. */
static int32_t hex_digits(Reading *reading) {
    int32_t number = 0;
    if (reading->end - reading->at < 4) return -1;
    for (int digit = 0; digit < 4; digit++) {
        const char sign = *reading->at++;
        const int is_decimal = sign >= '0' && sign <= '9', lower = sign | 0x20;
        if (!is_decimal && (lower < 'a' || lower > 'f')) return -1;
        number = 16 * number + (is_decimal ? sign - '0' : lower - 'a' + 10);
    }
    return number;
}

/* Write the letter of an escape after its "\u"; return its bytes, 0 for a lone surrogate. */
static size_t unescape_letter(Reading *reading, char *into) {
    int32_t letter = hex_digits(reading);
    if (letter < 0 || (letter >= 0xDC00 && letter < 0xE000)) return 0;
    if (letter >= 0xD800 && letter < 0xDC00) {
        if (reading->end - reading->at < 6 || memcmp(reading->at, "\\u", 2)) return 0;
        reading->at += 2;
        const int32_t low = hex_digits(reading);
        if (low < 0xDC00 || low >= 0xE000) return 0;
        letter = 0x10000 + ((letter - 0xD800) << 10) + (low - 0xDC00);
    }
    const size_t size = letter < 0x80 ? 1 : letter < 0x800 ? 2 : letter < 0x10000 ? 3 : 4;
    static const unsigned char FIRST[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t at = size; at-- > 1; letter >>= 6)
        into[at] = (char)(0x80 | (letter & 0x3F));
    into[0] = (char)(FIRST[size] | letter);
    return size;
}

/* Write what an escape after its backslash means; return its bytes, 0 for none. */
static size_t unescape(Reading *reading, char *into) {
    static const char SIGNS[] = "\"\\/bfnrt", MEANT[] = "\"\\/\b\f\n\r\t";
    if (reading->at == reading->end) return 0;
    const char sign = *reading->at++;
    if (sign == 'u') return unescape_letter(reading, into);
    const char *found = sign ? strchr(SIGNS, sign) : NULL;
    if (found) *into = MEANT[found - SIGNS];
    return found != NULL;
}

/* Read a string: a part of the text, or a copy without its escapes. */
static int read_string(Reading *reading, FlatMap *map, StoreValue *string) {
    if (!take_sign(reading, '"')) return 0;
    const char *began = reading->at;
    char *copy = NULL;
    for (; reading->at < reading->end && *reading->at != '"';) {
        if ((unsigned char)*reading->at < 0x20) return 0;
        const int is_escape = *reading->at == '\\';
        if (is_escape && !copy) {
            const size_t length = (size_t)(reading->at - began);
            if (length > UNESCAPED_BYTES - map->filled) return 0;
            copy = memcpy(map->unescaped + map->filled, began, length);
            map->filled += length;
        }
        if (!copy) {
            reading->at++;
            continue;
        }
        if (UNESCAPED_BYTES - map->filled < 4) return 0;
        size_t bytes = 1;
        if (!is_escape) map->unescaped[map->filled] = *reading->at;
        reading->at++;
        if (is_escape) bytes = unescape(reading, map->unescaped + map->filled);
        if (!bytes) return 0;
        map->filled += bytes;
    }
    if (reading->at == reading->end) return 0;
    const char *end = copy ? map->unescaped + map->filled : reading->at;
    *string = (StoreValue){copy ? copy : began, end - (copy ? copy : began)};
    reading->at++;
    return 1;
}

static int are_equal(StoreValue one, StoreValue other) {
    return one.length == other.length && !memcmp(one.at, other.at, (size_t)one.length);
}

/* Return the member of that name, NULL if there is none. */
static const Member *member_of(const FlatMap *map, StoreValue name) {
    for (int at = 0; at < map->member_count; at++)
        if (are_equal(map->members[at].name, name)) return map->members + at;
    return NULL;
}

static int read_value(Reading *reading, FlatMap *map, Member *member) {
    if (map->value_count == MOST_VALUES ||
        !read_string(reading, map, map->values + map->value_count))
        return 0;
    map->value_count++, member->count++;
    return 1;
}

static int read_values(Reading *reading, FlatMap *map, Member *member) {
    member->is_list = take_sign(reading, '[');
    if (!member->is_list) return read_value(reading, map, member);
    if (take_sign(reading, ']')) return 1;
    do
        if (!read_value(reading, map, member)) return 0;
    while (take_sign(reading, ','));
    return take_sign(reading, ']');
}

/* Read a text, whose parts `map` has then; an empty one is an empty map. Returns whether it
 * is plain. */
static int read_map(StoreValue text, FlatMap *map) {
    Reading reading = {text.at, text.at + text.length};
    map->member_count = map->value_count = 0, map->filled = 0;
    if (!text.length) return 1;
    if (letters_of((const unsigned char *)text.at, (size_t)text.length) < 0 ||
        !take_sign(&reading, '{'))
        return 0;
    if (take_sign(&reading, '}')) return next_sign(&reading) < 0;
    do {
        Member member = {.first = map->value_count};
        if (map->member_count == MOST_MEMBERS ||
            !read_string(&reading, map, &member.name) || member_of(map, member.name) ||
            !take_sign(&reading, ':') || !read_values(&reading, map, &member))
            return 0;
        map->members[map->member_count++] = member;
    } while (take_sign(&reading, ','));
    return take_sign(&reading, '}') && next_sign(&reading) < 0;
}

/* ---- Numbers, as Python's float reads them ---- */

static int64_t skip_digits(StoreValue text, int64_t *at) {
    const int64_t began = *at;
    while (*at < text.length && text.at[*at] >= '0' && text.at[*at] <= '9') ++*at;
    return *at - began;
}

static int skip_any(StoreValue text, int64_t *at, const char *signs) {
    const int is_there = *at < text.length && text.at[*at] && strchr(signs, text.at[*at]);
    *at += is_there;
    return is_there;
}

static int is_decimal(StoreValue text) {
    int64_t at = 0;
    skip_any(text, &at, "+-");
    int64_t digits = skip_digits(text, &at);
    if (skip_any(text, &at, ".")) digits += skip_digits(text, &at);
    if (digits && skip_any(text, &at, "eE")) {
        skip_any(text, &at, "+-");
        digits = skip_digits(text, &at);
    }
    return digits && at == text.length;
}

/* Read a finite number. Python alone knows spaces, underscores and the digits of other
 * scripts; "inf" and "nan" are no numbers for it either. */
static int read_number(StoreValue text, double *number) {
    char copy[MOST_DIGITS], *end;
    if (!is_decimal(text)) {
        for (int64_t at = 0; at < text.length; at++) {
            const unsigned char sign = (unsigned char)text.at[at];
            if (sign <= ' ' || sign >= 0x80 || sign == '_') return UNREAD_NUMBER;
        }
        return NOT_A_NUMBER;
    }
    if (text.length >= MOST_DIGITS) return UNREAD_NUMBER;
    memcpy(copy, text.at, (size_t)text.length);
    copy[text.length] = 0;
    *number = strtod(copy, &end);
    if (*end) return UNREAD_NUMBER; /* a locale with another decimal point */
    return isfinite(*number) ? IS_A_NUMBER : NOT_A_NUMBER;
}

/* ---- A context ---- */

static int is_before(StoreValue one, StoreValue other) {
    const int64_t length = one.length < other.length ? one.length : other.length;
    const int order = memcmp(one.at, other.at, (size_t)length);
    return order ? order < 0 : one.length < other.length;
}

/* Put the members in the order of their names, that of the user's clock left out; return
 * how many they are. */
static int in_order(const FlatMap *map, const Member **ordered) {
    const StoreValue clock = {UTC_OFFSET_FIELD, sizeof UTC_OFFSET_FIELD - 1};
    int count = 0;
    for (int at = 0; at < map->member_count; at++) {
        const Member *member = map->members + at;
        if (are_equal(member->name, clock)) continue;
        int place = count++;
        for (; place && is_before(member->name, ordered[place - 1]->name); place--)
            ordered[place] = ordered[place - 1];
        ordered[place] = member;
    }
    return count;
}

/* Write the row of a member; return whether its hash is known, as of a short one. */
static int context_row(const FlatMap *map, const Member *member, int64_t *row) {
    const StoreValue name = member->name, value = map->values[member->first];
    unsigned char joined[XXH3_LONGEST];
    uint64_t hash;
    if (name.length + 1 + value.length > XXH3_LONGEST) return 0;
    memcpy(joined, name.at, (size_t)name.length);
    joined[name.length] = '=';
    memcpy(joined + name.length + 1, value.at, (size_t)value.length);
    xxh3_64(joined, (size_t)(name.length + 1 + value.length), &hash);
    *row = 1 + (int64_t)(hash % CONTEXT_ROWS);
    return 1;
}

/* Write how far the user's clock is ahead; return whether it is given as it should be. */
static int read_utc_offset(const TextRules *rules, const FlatMap *map, int64_t *offset_ms) {
    const StoreValue clock = {UTC_OFFSET_FIELD, sizeof UTC_OFFSET_FIELD - 1};
    const Member *member = member_of(map, clock);
    *offset_ms = rules->utc_offset_ms;
    if (!member) return 1;
    const StoreValue text = map->values[member->first];
    int64_t at = 0, minutes = 0;
    const int is_negative = skip_any(text, &at, "-");
    const int64_t began = at, digits = skip_digits(text, &at);
    if (at != text.length || digits < 1 || digits > 3) return 0;
    for (int64_t digit = began; digit < at; digit++)
        minutes = 10 * minutes + (text.at[digit] - '0');
    if (is_negative) minutes = -minutes;
    *offset_ms = minutes * 60000;
    return minutes >= -720 && minutes <= 840;
}

/* Write the numbers of a context; return whether all could be read. */
static int context_numbers(const TextRules *rules, const FlatMap *map, double *numbers) {
    for (int64_t at = 0; at < rules->name_count; at++) {
        const int64_t *name = rules->names + 2 * at;
        const Member *member =
            member_of(map, (StoreValue){rules->pool + name[0], name[1]});
        double number = 0.0;
        if (!member) continue;
        const int found = read_number(map->values[member->first], &number);
        if (found == UNREAD_NUMBER) return 0;
        if (found == NOT_A_NUMBER || number == 0.0) continue;
        number = fmax(-MAX_CONTEXT_NUMBER, fmin(number, MAX_CONTEXT_NUMBER));
        numbers[at] = (double)(float)number;
    }
    return 1;
}

/* Read a context: write how far its clock is ahead, its `most_numbers` numbers and `slots`
 * rows, one after the other. Returns whether it is plain, and no mistake. */
static int read_context(const TextRules *rules, StoreValue text, int64_t most_numbers,
                        int64_t slots, int64_t *record) {
    const Member *ordered[MOST_MEMBERS];
    double *numbers = (double *)(record + 1);
    int64_t *rows = record + 1 + most_numbers;
    FlatMap map;
    if (text.length > 1 << 16 || !read_map(text, &map)) return 0;
    for (int at = 0; at < map.member_count; at++) {
        const Member *member = map.members + at;
        if (member->is_list) return 0;
        const StoreValue parts[] = {member->name, map.values[member->first]};
        for (int part = 0; part < 2; part++)
            if (letters_of((const unsigned char *)parts[part].at,
                           (size_t)parts[part].length) > MOST_LETTERS)
                return 0;
    }
    memset(record, 0, (size_t)(1 + most_numbers + slots) * sizeof *record);
    const int count = in_order(&map, ordered);
    for (int at = 0; at < count && at < slots; at++)
        if (!context_row(&map, ordered[at], rows + at)) return 0;
    return read_utc_offset(rules, &map, record) && context_numbers(rules, &map, numbers);
}

/* ---- A user's attributes ---- */

/* Return the index of a value of the field, -1 for an unknown one. */
static int64_t index_of(const TextRules *rules, const int64_t *field, StoreValue value) {
    const int64_t *entries = rules->entries + field[F_ENTRIES];
    int64_t low = 0, high = field[F_COUNT];
    while (low < high) {
        const int64_t middle = low + (high - low) / 2, *entry = entries + ENTRY_WORDS * middle;
        const StoreValue known = {rules->pool + entry[0], entry[1]};
        if (are_equal(known, value)) return entry[2];
        if (is_before(known, value))
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

/* Return the bucket of a number: how many edges are not above it. */
static int64_t number_bucket(const TextRules *rules, const int64_t *field, double number) {
    const int64_t *entries = rules->entries + field[F_ENTRIES];
    int64_t bucket = 0;
    for (double edge; bucket < field[F_COUNT]; bucket++) {
        memcpy(&edge, entries + bucket, sizeof edge);
        if (!(edge <= number)) break;
    }
    return bucket;
}

/* Put a row among the field's, which are ascending and distinct; the least ones stay. */
static void put_row(int64_t *rows, int64_t slots, int64_t row) {
    int64_t place = 0;
    while (place < slots && rows[place] && rows[place] < row) place++;
    if (place == slots || rows[place] == row) return;
    memmove(rows + place + 1, rows + place, (size_t)(slots - place - 1) * sizeof *rows);
    rows[place] = row;
}

/* ---- Vectors: vectors.py and vector_codes.py ---- */

static int base64_digit(char sign) {
    static const char DIGITS[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = sign ? strchr(DIGITS, sign) : NULL;
    return found ? (int)(found - DIGITS) : -1;
}

/* Return what two bytes of a float16 are; NaN where that is not finite. */
static double half_of(unsigned bits) {
    const int power = (int)(bits >> 10 & 0x1F), part = (int)(bits & 0x3FF);
    const double size = power ? ldexp(1024 + part, power - 25) : ldexp(part, -24);
    return power == 0x1F ? (double)NAN : bits >> 15 ? -size : size;
}

/* Read a vector's numbers; return how many they are, 0 for a text that is no vector. */
static int64_t read_vector(StoreValue text, double *numbers) {
    static const char BEGINS[] = "vector:";
    const int64_t start = sizeof BEGINS - 1, signs = text.length - start;
    if (signs < 4 || signs % 4 || memcmp(text.at, BEGINS, (size_t)start)) return 0;
    const char *at = text.at + start;
    const int64_t padding = (at[signs - 1] == '=') + (at[signs - 2] == '=');
    const int64_t bytes = signs / 4 * 3 - padding, count = bytes / 2;
    if (bytes % 2 || count < LEAST_NUMBERS || count > MOST_VECTOR) return 0;
    uint32_t bits = 0;
    int64_t filled = 0, halves = 0;
    for (int64_t sign = 0; sign < signs - padding; sign++) {
        const int digit = base64_digit(at[sign]);
        if (digit < 0) return 0;
        bits = bits << 6 | (uint32_t)digit;
        filled += 6;
        if (filled < 16) continue;
        filled -= 16;
        const uint32_t half = bits >> filled & 0xFFFF;
        const double number = half_of((half & 0xFF) << 8 | half >> 8);
        if (number != number) return 0;
        if (halves < count) numbers[halves++] = number;
    }
    return count;
}

/* Return the code that is nearest to `left`, which is what is left then; -1 where another
 * one is as near, as numpy may round. */
static int64_t take_code(const double *book, int64_t codes, int64_t count, double *left) {
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
    if (!(next - best > SURE)) return -1;
    for (int64_t at = 0; at < count; at++) left[at] -= book[found * count + at];
    return found;
}

/* Put the rows of a vector's codes, one for each slot; return whether they are sure. */
static int put_codes(const TextRules *rules, const int64_t *field, const double *numbers,
                     int64_t *rows) {
    const int64_t count = field[F_NUMBERS], codes = field[F_COUNT] / field[F_SLOTS];
    const double *books = (const double *)(rules->entries + field[F_ENTRIES]);
    double left[MOST_VECTOR], length = 0.0;
    for (int64_t at = 0; at < count; at++) length += numbers[at] * numbers[at];
    if (length == 0.0) return 1; /* it has no direction */
    for (int64_t at = 0; at < count; at++) left[at] = numbers[at] / sqrt(length);
    for (int64_t level = 0; level < field[F_SLOTS]; level++) {
        const int64_t code = take_code(books + level * codes * count, codes, count, left);
        if (code < 0) return 0;
        rows[field[F_FIRST_SLOT] + level] = field[F_FIRST_ROW] + level * codes + code;
    }
    return 1;
}

/* Read the vector of a member; of several only Python knows which one counts. */
static int read_codes(const TextRules *rules, const int64_t *field, const FlatMap *map,
                      const Member *member, int64_t *rows) {
    double numbers[MOST_VECTOR];
    if (member->count != 1) return !member->count;
    if (read_vector(map->values[member->first], numbers) != field[F_NUMBERS]) return 1;
    return put_codes(rules, field, numbers, rows);
}

static int read_field(const TextRules *rules, const int64_t *field, const FlatMap *map,
                      int64_t *rows) {
    const StoreValue name = {rules->pool + field[F_NAME], field[F_NAME_LENGTH]};
    const Member *member = member_of(map, name);
    if (member && field[F_KIND] == OF_VECTORS)
        return read_codes(rules, field, map, member, rows);
    for (int at = 0; member && at < member->count; at++) {
        const StoreValue value = map->values[member->first + at];
        double number = 0.0;
        int64_t index = -1;
        if (field[F_KIND] == OF_VALUES) {
            index = index_of(rules, field, value);
        } else {
            const int found = read_number(value, &number);
            if (found == UNREAD_NUMBER) return 0;
            if (found == IS_A_NUMBER) index = number_bucket(rules, field, number);
        }
        if (index >= 0)
            put_row(rows + field[F_FIRST_SLOT], field[F_SLOTS], field[F_FIRST_ROW] + index);
    }
    return 1;
}

/* Read a user's attributes: write the `slots` rows of what is known. Returns whether they
 * are plain. */
static int read_attributes(const TextRules *rules, StoreValue text, int64_t slots,
                           int64_t *rows) {
    FlatMap map;
    int is_read = read_map(text, &map);
    memset(rows, 0, (size_t)slots * sizeof *rows);
    for (int64_t at = 0; is_read && at < rules->field_count; at++)
        is_read = read_field(rules, rules->fields + FIELD_WORDS * at, &map, rows);
    return is_read;
}

/* ---- The rules ---- */

static int is_part(int64_t at, int64_t count, int64_t whole) {
    return at >= 0 && count >= 0 && at <= whole && count <= whole - at;
}

static int field_is_right(const TextRules *rules, const int64_t *field, int64_t words,
                          int64_t pool, int64_t user_slots) {
    const int64_t each = field[F_KIND] == OF_VALUES    ? ENTRY_WORDS
                         : field[F_KIND] == OF_NUMBERS ? 1
                                                       : field[F_NUMBERS];
    if (field[F_KIND] < OF_VALUES || field[F_KIND] > OF_VECTORS ||
        !is_part(0, each, MOST_VECTOR) ||
        !is_part(field[F_NAME], field[F_NAME_LENGTH], pool) || field[F_SLOTS] < 1 ||
        !is_part(field[F_FIRST_SLOT], field[F_SLOTS], user_slots) ||
        !is_part(0, field[F_COUNT], words) ||
        !is_part(0, field[F_FIRST_ROW], INT32_MAX) ||
        !is_part(field[F_ENTRIES], each * field[F_COUNT], words))
        return 0;
    if (field[F_KIND] == OF_VECTORS) return field[F_COUNT] % field[F_SLOTS] == 0;
    const int64_t *entry = rules->entries + field[F_ENTRIES];
    for (int64_t at = 0; field[F_KIND] == OF_VALUES && at < field[F_COUNT]; at++, entry += each)
        if (!is_part(entry[0], entry[1], pool) || !is_part(0, entry[2], field[F_COUNT]))
            return 0;
    return 1;
}

/* Find the rules in `bytes` bytes; return whether all that they name is there. */
static int rules_open(TextRules *rules, const char *at, int64_t bytes, int64_t user_slots,
                      int64_t most_numbers) {
    const int64_t *head = (const int64_t *)at, words = bytes / 8 - RULES_WORDS;
    if (words < 0 || !is_part(0, head[R_NAMES], most_numbers) ||
        !is_part(0, head[R_FIELDS], words / FIELD_WORDS))
        return 0;
    const int64_t before = 2 * head[R_NAMES] + FIELD_WORDS * head[R_FIELDS];
    if (!is_part(before, head[R_ENTRIES], words)) return 0;
    rules->utc_offset_ms = head[R_OFFSET];
    rules->name_count = head[R_NAMES], rules->field_count = head[R_FIELDS];
    rules->names = head + RULES_WORDS;
    rules->fields = rules->names + 2 * head[R_NAMES];
    rules->entries = rules->fields + FIELD_WORDS * head[R_FIELDS];
    rules->pool = (const char *)(rules->entries + head[R_ENTRIES]);
    const int64_t pool = at + bytes - rules->pool;
    for (int64_t name = 0; name < rules->name_count; name++)
        if (!is_part(rules->names[2 * name], rules->names[2 * name + 1], pool)) return 0;
    for (int64_t field = 0; field < rules->field_count; field++)
        if (!field_is_right(rules, rules->fields + FIELD_WORDS * field, head[R_ENTRIES],
                            pool, user_slots))
            return 0;
    return 1;
}

#endif
