/* JSON objects of strings, or of lists of strings, each name once: as Python's json.loads
 * reads them. Every other text (a nested value, a lone surrogate) is left to Python. */
#ifndef SRP4CTR_FLAT_JSON_H
#define SRP4CTR_FLAT_JSON_H

#include <stddef.h>

#include "string_view.h"

enum { MAX_MEMBERS = 32, MAX_VALUES = 2048 }; /* as in streams/events: of one map, of all */
enum { MAX_UNESCAPED_BYTES = 4096 };

typedef struct {
    StringView name;
    int first, count, is_list; /* of its values */
} Member;

typedef struct { /* a JSON object */
    Member members[MAX_MEMBERS];
    StringView values[MAX_VALUES];
    int member_count, value_count;
    char unescaped[MAX_UNESCAPED_BYTES];
    size_t filled;
} FlatJson;

/* Parse `text`, which `map` refers to from then on; an empty one is an empty map. Return
 * whether it is such an object. */
int parse_flat_json(StringView text, FlatJson *map);

/* Return the member of that name, NULL if there is none. */
const Member *find_member(const FlatJson *map, StringView name);

#endif
