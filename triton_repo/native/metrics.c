#define _POSIX_C_SOURCE 200809L
#include "metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "triton_errors.h"

static const double ANSWER_BUCKETS[NUM_ANSWER_BUCKETS] = {
    .001, .002, .003, .005, .0075, .01, .015, .02, .03, .05, .1, .25, .5, 1};
static const double AGE_BUCKETS[NUM_AGE_BUCKETS] = {1,    5,     30,    120,    600,
                                                    3600, 21600, 86400, 604800, 2592000};
static const char *const PART_NAMES[PARTS] = {"fetch_features", "behavior_encoder",
                                              "click_head"};
static const char *const ITEM_STATUS_NAMES[ITEM_STATUSES] = {
    "ok", "unknown_item", "no_attributes", "no_activity", "unavailable"};

static const char *const OUTCOME_NAMES[OUTCOMES] = {
    "answered",       "not_loaded",        "store_down",    "unreadable_row",
    "unread_context", "unread_attributes", "unparsed_item", "other_call"};

void increment(TRITONSERVER_Metric *metric, double value) {
    TRITONSERVER_Error *error = metric ? TRITONSERVER_MetricIncrement(metric, value) : NULL;
    if (error) TRITONSERVER_ErrorDelete(error);
}

static TRITONSERVER_MetricFamily *open_family(Counters *counters, const char *name,
                                              const char *help) {
    TRITONSERVER_MetricFamily *family = NULL;
    if (counters->family_count == MAX_FAMILIES) return NULL;
    TRITONSERVER_Error *error =
        TRITONSERVER_MetricFamilyNew(&family, TRITONSERVER_METRIC_KIND_COUNTER, name, help);
    if (error)
        TRITONSERVER_ErrorDelete(error);
    else
        counters->families[counters->family_count++] = family;
    return error ? NULL : family;
}

/* Return the counter of `model`, with a further label unless `label` is NULL. */
static TRITONSERVER_Metric *open_labelled_counter(Counters *counters,
                                                  TRITONSERVER_MetricFamily *family,
                                                  const char *model, const char *label,
                                                  const char *value) {
    const TRITONSERVER_Parameter *labels[3] = {
        TRITONSERVER_ParameterNew("model", TRITONSERVER_PARAMETER_STRING, model),
        TRITONSERVER_ParameterNew("source", TRITONSERVER_PARAMETER_STRING, "native"),
        label ? TRITONSERVER_ParameterNew(label, TRITONSERVER_PARAMETER_STRING, value)
              : NULL};
    TRITONSERVER_Metric *metric = NULL;
    TRITONSERVER_Error *error = NULL;
    if (family && counters->metric_count < MAX_METRICS)
        error = TRITONSERVER_MetricNew(&metric, family, labels, label ? 3 : 2);
    if (error) {
        TRITONSERVER_ErrorDelete(error);
        metric = NULL;
    }
    if (metric) counters->metrics[counters->metric_count++] = metric;
    for (int at = 0; at < 3; at++)
        if (labels[at]) TRITONSERVER_ParameterDelete((TRITONSERVER_Parameter *)labels[at]);
    return metric;
}

static TRITONSERVER_Metric *open_counter(Counters *counters, const char *name,
                                         const char *help, const char *model) {
    return open_labelled_counter(counters, open_family(counters, name, help), model, NULL,
                                 NULL);
}

/* Open a counter for each of `names`, which are values of `label`. */
static void open_counters(Counters *counters, const char *name, const char *help,
                          const char *model, const char *label, const char *const *names,
                          int count, TRITONSERVER_Metric **metrics) {
    TRITONSERVER_MetricFamily *family = open_family(counters, name, help);
    for (int at = 0; at < count; at++)
        metrics[at] = open_labelled_counter(counters, family, model, label, names[at]);
}

static void open_histogram(Counters *counters, const char *name, const char *help,
                           const char *model, const double *bounds, int count,
                           TRITONSERVER_Metric **metrics) {
    TRITONSERVER_MetricFamily *family = open_family(counters, name, help);
    char value[32];
    for (int at = 0; at <= count; at++) {
        snprintf(value, sizeof value, at < count ? "%g" : "+Inf",
                 at < count ? bounds[at] : 0);
        metrics[at] = open_labelled_counter(counters, family, model, "under", value);
    }
}

/* Open the counters of single numbers. */
static void open_totals(Counters *counters, const char *model) {
    counters->cpu_us =
        open_counter(counters, "srp4ctr_cpu_us",
                     "CPU time of the step's processes, in microseconds.", model);
    counters->candidates = open_counter(counters, "srp4ctr_candidates",
                                        "Candidates scored, padding left out.", model);
    counters->answers_us = open_counter(counters, "srp4ctr_answers_us",
                                        "Time of answered calls, in microseconds.", model);
    counters->age_ms = open_counter(counters, "srp4ctr_feature_age_ms",
                                    "Age of users' sequences, in milliseconds.", model);
    counters->table_age_ms = open_counter(
        counters, "srp4ctr_table_age_ms",
        "Time since the table of items was up to date, in milliseconds.", model);
    counters->table_reads = open_counter(counters, "srp4ctr_table_reads",
                                         "Requests that read the table of items.", model);
    counters->comparisons = open_counter(counters, "srp4ctr_native_comparisons",
                                         "Calls that both steps answered.", model);
    counters->failed_loads =
        open_counter(counters, "srp4ctr_native_failed_loads",
                     "Times that the native step could not load what it needs.", model);
}

static void open_all_counters(Counters *counters, const char *model, const char *version) {
    const char *mismatches[NUM_COMPARED + 1];
    memcpy(mismatches, OUTPUT_NAMES, NUM_COMPARED * sizeof *mismatches);
    mismatches[REFUSED] = "refused";
    TRITONSERVER_MetricFamily *runs =
        open_family(counters, "srp4ctr_part_runs", "Requests that a part worked on.");
    TRITONSERVER_MetricFamily *us =
        open_family(counters, "srp4ctr_part_us", "Time of a part, in microseconds.");
    for (int part = 0; part < PARTS; part++) {
        char step[512];
        snprintf(step, sizeof step, "%s_%s", PART_NAMES[part], version);
        counters->part_runs[part] = open_labelled_counter(counters, runs, step, NULL, NULL);
        counters->part_us[part] = open_labelled_counter(counters, us, step, NULL, NULL);
    }
    open_totals(counters, model);
    open_histogram(counters, "srp4ctr_answers",
                   "Answered calls by the upper bound of their latency, in seconds.", model,
                   ANSWER_BUCKETS, NUM_ANSWER_BUCKETS, counters->answers);
    open_histogram(counters, "srp4ctr_feature_age",
                   "Requests by the age of the user's row, in seconds.", model, AGE_BUCKETS,
                   NUM_AGE_BUCKETS, counters->ages);
    open_counters(counters, "srp4ctr_request_status",
                  "Requests by what was known of their user.", model, "status",
                  STATUS_NAMES, STATUSES, counters->statuses);
    open_counters(counters, "srp4ctr_native_calls",
                  "Calls of the native step by what became of them.", model, "outcome",
                  OUTCOME_NAMES, OUTCOMES, counters->outcomes);
    open_counters(counters, "srp4ctr_native_mismatches",
                  "Outputs of these in which the two answers differ.", model, "output",
                  mismatches, NUM_COMPARED + 1, counters->mismatches);
    open_counters(counters, "srp4ctr_item_status", "Candidates by what was known of them.",
                  model, "status", ITEM_STATUS_NAMES, ITEM_STATUSES,
                  counters->item_statuses);
}

/* Delete the counters, then their families. */
static void delete_all_counters(Counters *counters) {
    for (int at = 0; at < counters->metric_count; at++) {
        TRITONSERVER_Error *error = TRITONSERVER_MetricDelete(counters->metrics[at]);
        if (error) TRITONSERVER_ErrorDelete(error);
    }
    for (int at = 0; at < counters->family_count; at++) {
        TRITONSERVER_Error *error = TRITONSERVER_MetricFamilyDelete(counters->families[at]);
        if (error) TRITONSERVER_ErrorDelete(error);
    }
}

/* A version that is loaded again is there twice for a moment. Triton gives both the same
 * counters, so the one that ends first must not delete them. */
typedef struct OpenCounters {
    char model[512];
    Counters counters;
    int users;
    struct OpenCounters *next;
} OpenCounters;

static OpenCounters *first_open; /* of this process, in which the library is once */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;

static OpenCounters **find_open(const char *model) {
    OpenCounters **place = &first_open;
    while (*place && strcmp((*place)->model, model)) place = &(*place)->next;
    return place;
}

static OpenCounters *create_open_counters(const char *model, const char *version) {
    OpenCounters *created = calloc(1, sizeof *created);
    if (!created) return NULL;
    snprintf(created->model, sizeof created->model, "%s", model);
    open_all_counters(&created->counters, model, version);
    return created;
}

int counters_open(Counters *counters, const char *model, const char *version) {
    pthread_mutex_lock(&open_lock);
    OpenCounters **place = find_open(model);
    if (!*place) *place = create_open_counters(model, version);
    if (*place) {
        (*place)->users++;
        *counters = (*place)->counters;
    }
    const int is_open = *place != NULL;
    pthread_mutex_unlock(&open_lock);
    return is_open;
}

void counters_close(const char *model) {
    pthread_mutex_lock(&open_lock);
    OpenCounters **place = find_open(model), *found = *place;
    if (found && !--found->users) {
        *place = found->next;
        delete_all_counters(&found->counters);
        free(found);
    }
    pthread_mutex_unlock(&open_lock);
}

static void increment_histogram(TRITONSERVER_Metric *const *metrics, const double *bounds,
                                int count, double value) {
    int at = 0;
    while (at < count && value > bounds[at]) at++;
    increment(metrics[at], 1.0);
}

void count_answer(const Counters *counters, double seconds) {
    increment_histogram(counters->answers, ANSWER_BUCKETS, NUM_ANSWER_BUCKETS, seconds);
    increment(counters->answers_us, seconds * 1e6);
}

void count_age(const Counters *counters, double age_ms) {
    increment_histogram(counters->ages, AGE_BUCKETS, NUM_AGE_BUCKETS, age_ms / 1e3);
    increment(counters->age_ms, age_ms);
}

void count_items(const Counters *counters, const uint8_t *status, int64_t count,
                 int64_t padding) {
    double found[ITEM_STATUSES] = {0};
    for (int64_t at = 0; at < count; at++) {
        if (status[at] == padding) continue;
        found[0] += status[at] == 0;
        for (int bit = 0; bit < ITEM_STATUSES - 1; bit++)
            found[1 + bit] += status[at] >> bit & 1;
    }
    for (int at = 0; at < ITEM_STATUSES; at++)
        if (found[at] > 0) increment(counters->item_statuses[at], found[at]);
}
