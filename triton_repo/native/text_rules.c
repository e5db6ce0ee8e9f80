#include "text_rules.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "flat_json.h"
#include "hashes.h"
#include "utf8.h"
#include "vector_codes.h"

enum { MAX_NUMBER_BYTES = 64, CONTEXT_ROWS = 1023 }; /* NUM_CONTEXT_ROWS - 1 */
enum { NOT_A_NUMBER, IS_A_NUMBER, UNREAD_NUMBER };
enum { ENTRY_WORDS = 3 }; /* place, length and index of a value */
enum { FIELD_WORDS = sizeof(FieldRule) / sizeof(int64_t) };
enum { VALUE_FIELD, NUMBER_FIELD, VECTOR_FIELD };

typedef struct { /* of the rules' bytes: how many names, fields and words of entries follow
                  */
    int64_t utc_offset_ms, names, fields, entries;
} RulesHead;

static const double MAX_CONTEXT_NUMBER = 1e15; /* as in vocabulary.py */
static const char UTC_OFFSET_FIELD[] = "utc_offset_minutes";

/* ---- Numbers, as Python's float reads them ---- */

static int64_t skip_digits(StringView text, int64_t *at) {
    const int64_t began = *at;
    while (*at < text.length && text.start[*at] >= '0' && text.start[*at] <= '9') ++*at;
    return *at - began;
}

static int skip_any(StringView text, int64_t *at, const char *allowed) {
    const int is_there =
        *at < text.length && text.start[*at] && strchr(allowed, text.start[*at]);
    *at += is_there;
    return is_there;
}

static int is_decimal(StringView text) {
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
static int read_number(StringView text, double *number) {
    char copy[MAX_NUMBER_BYTES], *end;
    if (!is_decimal(text)) {
        for (int64_t at = 0; at < text.length; at++) {
            const unsigned char byte = (unsigned char)text.start[at];
            if (byte <= ' ' || byte >= 0x80 || byte == '_') return UNREAD_NUMBER;
        }
        return NOT_A_NUMBER;
    }
    if (text.length >= MAX_NUMBER_BYTES) return UNREAD_NUMBER;
    memcpy(copy, text.start, (size_t)text.length);
    copy[text.length] = 0;
    *number = strtod(copy, &end);
    if (*end) return UNREAD_NUMBER; /* a locale with another decimal point */
    return isfinite(*number) ? IS_A_NUMBER : NOT_A_NUMBER;
}

/* ---- A context ---- */

static int string_less(StringView one, StringView other) {
    const int64_t length = one.length < other.length ? one.length : other.length;
    const int order = memcmp(one.start, other.start, (size_t)length);
    return order ? order < 0 : one.length < other.length;
}

/* Put the members in the order of their names, that of the user's clock left out; return
 * how many they are. */
static int sort_members(const FlatJson *map, const Member **ordered) {
    const StringView clock = {UTC_OFFSET_FIELD, sizeof UTC_OFFSET_FIELD - 1};
    int count = 0;
    for (int at = 0; at < map->member_count; at++) {
        const Member *member = map->members + at;
        if (strings_equal(member->name, clock)) continue;
        int place = count++;
        for (; place && string_less(member->name, ordered[place - 1]->name); place--)
            ordered[place] = ordered[place - 1];
        ordered[place] = member;
    }
    return count;
}

/* Write the row of a member; return whether its hash is known, as of a short one. */
static int hash_context_row(const FlatJson *map, const Member *member, int64_t *row) {
    const StringView name = member->name, value = map->values[member->first];
    unsigned char joined[XXH3_MAX_BYTES];
    uint64_t hash;
    if (name.length + 1 + value.length > XXH3_MAX_BYTES) return 0;
    memcpy(joined, name.start, (size_t)name.length);
    joined[name.length] = '=';
    memcpy(joined + name.length + 1, value.start, (size_t)value.length);
    xxh3_64(joined, (size_t)(name.length + 1 + value.length), &hash);
    *row = 1 + (int64_t)(hash % CONTEXT_ROWS);
    return 1;
}

/* Write how far the user's clock is ahead; return whether it is given as it should be. */
static int read_utc_offset(const TextRules *rules, const FlatJson *map,
                           int64_t *offset_ms) {
    const StringView clock = {UTC_OFFSET_FIELD, sizeof UTC_OFFSET_FIELD - 1};
    const Member *member = find_member(map, clock);
    *offset_ms = rules->utc_offset_ms;
    if (!member) return 1;
    const StringView text = map->values[member->first];
    int64_t at = 0, minutes = 0;
    const int is_negative = skip_any(text, &at, "-");
    const int64_t began = at, digits = skip_digits(text, &at);
    if (at != text.length || digits < 1 || digits > 3) return 0;
    for (int64_t digit = began; digit < at; digit++)
        minutes = 10 * minutes + (text.start[digit] - '0');
    if (is_negative) minutes = -minutes;
    *offset_ms = minutes * 60000;
    return minutes >= -720 && minutes <= 840;
}

/* Write the numbers of a context; return whether all could be read. */
static int read_context_numbers(const TextRules *rules, const FlatJson *map,
                                double *numbers) {
    for (int64_t at = 0; at < rules->name_count; at++) {
        const int64_t *name = rules->names + 2 * at;
        const Member *member =
            find_member(map, (StringView){rules->pool + name[0], name[1]});
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

int read_context(const TextRules *rules, StringView text, int64_t max_numbers,
                 int64_t slots, int64_t *record) {
    const Member *ordered[MAX_MEMBERS];
    double *numbers = (double *)(record + 1);
    int64_t *rows = record + 1 + max_numbers;
    FlatJson map;
    if (text.length > 1 << 16 || !parse_flat_json(text, &map)) return 0;
    for (int at = 0; at < map.member_count; at++) {
        const Member *member = map.members + at;
        if (member->is_list) return 0;
        const StringView parts[] = {member->name, map.values[member->first]};
        for (int part = 0; part < 2; part++)
            if (count_characters((const unsigned char *)parts[part].start,
                                 (size_t)parts[part].length) > MAX_ID_CHARACTERS)
                return 0;
    }
    memset(record, 0, (size_t)(1 + max_numbers + slots) * sizeof *record);
    const int count = sort_members(&map, ordered);
    for (int at = 0; at < count && at < slots; at++)
        if (!hash_context_row(&map, ordered[at], rows + at)) return 0;
    return read_utc_offset(rules, &map, record) &&
           read_context_numbers(rules, &map, numbers);
}

/* ---- A user's attributes ---- */

/* Return the index of a value of the field, -1 for an unknown one. */
static int64_t find_value_index(const TextRules *rules, const FieldRule *field,
                                StringView value) {
    const int64_t *entries = rules->entries + field->entries;
    int64_t low = 0, high = field->count;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2,
                      *entry = entries + ENTRY_WORDS * middle;
        const StringView known = {rules->pool + entry[0], entry[1]};
        if (strings_equal(known, value)) return entry[2];
        if (string_less(known, value))
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

/* Return the bucket of a number: how many edges are not above it. */
static int64_t bucket_of_number(const TextRules *rules, const FieldRule *field,
                                double number) {
    const int64_t *entries = rules->entries + field->entries;
    int64_t bucket = 0;
    for (double edge; bucket < field->count; bucket++) {
        memcpy(&edge, entries + bucket, sizeof edge);
        if (!(edge <= number)) break;
    }
    return bucket;
}

/* Put a row among the field's, which are ascending and distinct; the least ones stay. */
static void insert_row(int64_t *rows, int64_t slots, int64_t row) {
    int64_t place = 0;
    while (place < slots && rows[place] && rows[place] < row) place++;
    if (place == slots || rows[place] == row) return;
    memmove(rows + place + 1, rows + place, (size_t)(slots - place - 1) * sizeof *rows);
    rows[place] = row;
}

/* Write the rows of a vector's codes, one per slot; return whether they are certain. */
static int write_vector_rows(const TextRules *rules, const FieldRule *field,
                             const double *numbers, int64_t *rows) {
    const double *books = (const double *)(rules->entries + field->entries);
    const int64_t codes = field->count / field->slots;
    int64_t *first = rows + field->first_slot;
    const int64_t levels =
        encode_vector(books, field->slots, codes, numbers, field->dimensions, first);
    for (int64_t level = 0; level < levels; level++)
        first[level] += field->first_row + level * codes;
    return levels >= 0;
}

/* Read the vector of a member; of several only Python knows which one counts. */
static int read_vector_field(const TextRules *rules, const FieldRule *field,
                             const FlatJson *map, const Member *member, int64_t *rows) {
    double numbers[MAX_DIMENSIONS];
    if (member->count != 1) return !member->count;
    if (read_vector(map->values[member->first], numbers) != field->dimensions) return 1;
    return write_vector_rows(rules, field, numbers, rows);
}

static int read_field(const TextRules *rules, const FieldRule *field, const FlatJson *map,
                      int64_t *rows) {
    const StringView name = {rules->pool + field->name, field->name_length};
    const Member *member = find_member(map, name);
    if (member && field->kind == VECTOR_FIELD)
        return read_vector_field(rules, field, map, member, rows);
    for (int at = 0; member && at < member->count; at++) {
        const StringView value = map->values[member->first + at];
        double number = 0.0;
        int64_t index = -1;
        if (field->kind == VALUE_FIELD) {
            index = find_value_index(rules, field, value);
        } else {
            const int found = read_number(value, &number);
            if (found == UNREAD_NUMBER) return 0;
            if (found == IS_A_NUMBER) index = bucket_of_number(rules, field, number);
        }
        if (index >= 0)
            insert_row(rows + field->first_slot, field->slots, field->first_row + index);
    }
    return 1;
}

int read_attributes(const TextRules *rules, StringView text, int64_t slots, int64_t *rows) {
    FlatJson map;
    int is_read = parse_flat_json(text, &map);
    memset(rows, 0, (size_t)slots * sizeof *rows);
    for (int64_t at = 0; is_read && at < rules->field_count; at++)
        is_read = read_field(rules, rules->fields + at, &map, rows);
    return is_read;
}

/* ---- The rules ---- */

static int is_in_range(int64_t at, int64_t count, int64_t whole) {
    return at >= 0 && count >= 0 && at <= whole && count <= whole - at;
}

static int is_valid_field(const TextRules *rules, const FieldRule *field, int64_t words,
                          int64_t pool, int64_t user_slots) {
    const int64_t each = field->kind == VALUE_FIELD    ? ENTRY_WORDS
                         : field->kind == NUMBER_FIELD ? 1
                                                       : field->dimensions;
    if (field->kind < VALUE_FIELD || field->kind > VECTOR_FIELD ||
        !is_in_range(0, each, MAX_DIMENSIONS) ||
        !is_in_range(field->name, field->name_length, pool) || field->slots < 1 ||
        !is_in_range(field->first_slot, field->slots, user_slots) ||
        !is_in_range(0, field->count, words) ||
        !is_in_range(0, field->first_row, INT32_MAX) ||
        !is_in_range(field->entries, each * field->count, words))
        return 0;
    if (field->kind == VECTOR_FIELD) return field->count % field->slots == 0;
    const int64_t *entry = rules->entries + field->entries;
    for (int64_t at = 0; field->kind == VALUE_FIELD && at < field->count;
         at++, entry += each)
        if (!is_in_range(entry[0], entry[1], pool) ||
            !is_in_range(0, entry[2], field->count))
            return 0;
    return 1;
}

int text_rules_open(TextRules *rules, const char *bytes, int64_t length, int64_t user_slots,
                    int64_t max_numbers) {
    const RulesHead *head = (const RulesHead *)bytes;
    const int64_t words = (length - (int64_t)sizeof *head) / 8;
    if (length < (int64_t)sizeof *head || !is_in_range(0, head->names, max_numbers) ||
        !is_in_range(0, head->fields, words / FIELD_WORDS))
        return 0;
    const int64_t before = 2 * head->names + FIELD_WORDS * head->fields;
    if (!is_in_range(before, head->entries, words)) return 0;
    rules->utc_offset_ms = head->utc_offset_ms;
    rules->name_count = head->names, rules->field_count = head->fields;
    rules->names = (const int64_t *)(head + 1);
    rules->fields = (const FieldRule *)(rules->names + 2 * head->names);
    rules->entries = (const int64_t *)(rules->fields + head->fields);
    rules->pool = (const char *)(rules->entries + head->entries);
    const int64_t pool = bytes + length - rules->pool;
    for (int64_t name = 0; name < rules->name_count; name++)
        if (!is_in_range(rules->names[2 * name], rules->names[2 * name + 1], pool))
            return 0;
    for (int64_t field = 0; field < rules->field_count; field++)
        if (!is_valid_field(rules, rules->fields + field, head->entries, pool, user_slots))
            return 0;
    return 1;
}
