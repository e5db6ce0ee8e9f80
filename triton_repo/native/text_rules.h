/* Contexts and users' attributes → rows of the model's tables, and numbers.
 *
 * vocabulary.py and item_fields.py define what a text means; this reads the texts that are
 * plain. Of every other text (a nested value, a number that only Python spells so, a vector
 * between two codes) it returns that it cannot read it, and the Python step does.
 */
#ifndef SRP4CTR_TEXT_RULES_H
#define SRP4CTR_TEXT_RULES_H

#include <stdint.h>

#include "string_view.h"

typedef struct { /* of one attribute; places are words or bytes of TextRules */
    int64_t name, name_length, kind, slots, first_slot, first_row, count, entries;
    int64_t dimensions; /* of a vector */
} FieldRule;

typedef struct { /* how texts are read: `text_rules` of parsed_cache.py writes it */
    const int64_t *names, *entries; /* names: of the context's numbers */
    const FieldRule *fields;
    const char *pool; /* all strings */
    int64_t utc_offset_ms, name_count, field_count;
} TextRules;

/* Find the rules in `bytes` bytes; return whether all that they name is there. */
int text_rules_open(TextRules *rules, const char *bytes, int64_t length, int64_t user_slots,
                    int64_t max_numbers);

/* Read a context: write how far its clock is ahead, its `max_numbers` numbers and `slots`
 * rows, one after the other. Return whether it is plain, and valid. */
int read_context(const TextRules *rules, StringView text, int64_t max_numbers,
                 int64_t slots, int64_t *record);

/* Read a user's attributes: write the `slots` rows of the known values. Return whether they
 * are plain. */
int read_attributes(const TextRules *rules, StringView text, int64_t slots, int64_t *rows);

#endif
