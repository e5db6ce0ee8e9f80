/* A request's tensors: what compiled.py and the native step call, and their arguments. */
#ifndef SRP4CTR_COMPILED_H
#define SRP4CTR_COMPILED_H

#include <stdint.h>

#include "columns.h"

#define SRP4CTR_EXPORT __attribute__((visibility("default")))

enum { LIVES = 4, COUNTS = 2 * LIVES, FIELDS = 3 }; /* half-lives; a behaviour's codes */
enum { ITEM_ROW, NOTES, ATTRIBUTES };               /* as in arrays.py, and the next two */
enum { TEXT, COUNTED_AT, FIRST_SEEN, COUNTED, COLUMNS = 11 };
enum { BUCKET = 8 };                         /* of item_map.py */
enum { HAS_VALUE = 0x80 };                   /* as in sequences.py */
enum { NEEDS_PARSING = -1, NO_MEMORY = -2 }; /* as in compiled.py */

/* All members have eight bytes: compiled.py packs them in this order. */
typedef struct { /* what stays, while the table is of one generation */
    double decay_per_ms[LIVES], prior_clicks, prior_impressions;
    double affinity_decay_per_ms, prior_rate, never_hours, share_scale;
    int64_t click, gap_buckets, value_buckets, candidate_width;
    int64_t unknown_item, no_activity, no_attributes, padding;
    int64_t first_shared_row, shared_rows, first_known_row, known_items;
    int64_t shift, half, known_width; /* of a hash; buckets of a half; 2 + A */
    int64_t total_key;                /* of the row that counts all items together */
    int64_t numbers;                  /* of a candidate: how many */
    int64_t visit_gap_ms, actions, main_fields; /* the latter two: how many */
    int64_t main_slots[MAX_MAIN_FIELDS];
    int64_t action_places[MAX_ACTION_CODES]; /* by code; -1: no columns of its own */
    const int64_t *item_keys;                /* the model's items, sorted */
    const int64_t *buckets;
    const int32_t *bucket_rows;
    const int64_t *versions, *halves, *texts;
    int32_t *known;
} Fixed;

typedef struct { /* the user, the request, and where its tensors go */
    int64_t at_ms, after_ms, utc_offset_ms;
    double counts[COUNTS];
    int64_t counted_at_ms;
    int64_t done, done_time_bytes, done_base_ms, done_values;
    int64_t shown, shown_time_bytes, shown_base_ms;
    int64_t length, exposures, candidates;
    int64_t *history_rows, *history_attributes, *history_codes;
    float *request_features;
    int64_t *item_rows, *item_attributes;
    float *candidate_features;
    uint8_t *item_status;
    const float *numbers; /* N x fixed->numbers, NaN: missing; NULL: all are */
} Request;

typedef struct { /* behaviours or exposures as the store has them */
    int64_t count, time_bytes, base_ms, values_count;
    const char *times, *keys;
    const uint8_t *codes; /* NULL: of what was shown */
    const char *values;
} Columns;

/* Return a number of the source from which the library was made. */
SRP4CTR_EXPORT uint32_t srp4ctr_source(void);

/* Write the request's tensors; return how many behaviours it has, NEEDS_PARSING if a text
 * is not parsed yet, or NO_MEMORY. */
SRP4CTR_EXPORT int64_t srp4ctr_assemble(const Fixed *fixed, const Request *request,
                                        const int64_t *keys, const double *numbers,
                                        const char *times, const char *done_keys,
                                        const char *codes, const char *values,
                                        const char *shown_times, const char *shown_keys);

#endif
