/* Counters of serving_metrics.py, by the same names, whose calls are added to those of the
 * Python step. And the native step's own: srp4ctr_native_….
 *
 * All have a label `source` more than Python's. With the same labels Triton would give both
 * steps one counter, and delete that of the Python step with the native step's.
 */
#ifndef SRP4CTR_METRICS_H
#define SRP4CTR_METRICS_H

#include <stdint.h>

#include "output_names.h"
#include "triton_api.h"

enum { NUM_ANSWER_BUCKETS = 14, NUM_AGE_BUCKETS = 10 };
enum { FETCH_FEATURES, BEHAVIOR_ENCODER, CLICK_HEAD, PARTS };
enum { ITEM_STATUSES = 5 };      /* none, and four bits */
enum { REFUSED = NUM_COMPARED }; /* by the Python step alone: counted as a mismatch */

/* What became of calls. OTHER_CALL: of several users, with a mistake, and so on. */
enum {
    ANSWERED,
    NOT_LOADED,
    STORE_DOWN,
    UNREADABLE_ROW,
    UNREAD_CONTEXT,
    UNREAD_ATTRIBUTES,
    UNPARSED_ITEM,
    OTHER_CALL,
    OUTCOMES
};

enum { MAX_FAMILIES = 24, MAX_METRICS = 96 };

typedef struct {
    TRITONSERVER_MetricFamily *families[MAX_FAMILIES]; /* all of them, to be deleted */
    TRITONSERVER_Metric *metrics[MAX_METRICS];
    int family_count, metric_count;
    TRITONSERVER_Metric *comparisons, *mismatches[NUM_COMPARED + 1];
    TRITONSERVER_Metric *outcomes[OUTCOMES], *failed_loads;
    TRITONSERVER_Metric *part_runs[PARTS], *part_us[PARTS], *cpu_us, *candidates,
        *answers_us;
    TRITONSERVER_Metric *answers[NUM_ANSWER_BUCKETS + 1], *ages[NUM_AGE_BUCKETS + 1],
        *age_ms, *table_age_ms;
    TRITONSERVER_Metric *statuses[STATUSES], *item_statuses[ITEM_STATUSES], *table_reads;
} Counters;

/* Open the counters of a version, or take those that are open; return whether there is
 * memory for them. */
int counters_open(Counters *counters, const char *model, const char *version);

/* Delete the counters of a version, unless another step of that version counts. */
void counters_close(const char *model);

void increment(TRITONSERVER_Metric *metric, double value);

/* Count a call that took `seconds`. */
void count_answer(const Counters *counters, double seconds);

/* Count the age of a user's row. */
void count_age(const Counters *counters, double age_ms);

/* Count candidates by their bits of `status`, those that are `padding` left out. */
void count_items(const Counters *counters, const uint8_t *status, int64_t count,
                 int64_t padding);

#endif
