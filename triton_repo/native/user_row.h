/* A user's row as the store has it: packing.py and row_codec.py pack it. */
#ifndef SRP4CTR_USER_ROW_H
#define SRP4CTR_USER_ROW_H

#include <stdint.h>

#include "../../features/tensors/compiled.h"
#include "string_view.h"

typedef struct {
    int exists;
    int64_t version_us, last_offset;
    double counts[COUNTS];
    int64_t counted_at_ms;
    Columns done, shown;
    StringView attributes; /* JSON; empty: none */
} UserRow;

/* Read a user's fields: HISTORY_FIELDS, and ATTRIBUTE_FIELDS if there are as many. Returns
 * whether they can be read; the Python step answers for all other rows. */
int read_user_row(const StringView *values, int count, UserRow *user);

#endif
