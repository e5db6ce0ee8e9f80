/* Counters of serving_metrics.py, by the same names, whose calls are added to those of the
 * Python step. And the native step's own: srp4ctr_native_….
 *
 * All have a label `source` more than Python's. With the same labels Triton would give both
 * steps one counter, and delete that of the Python step with the native step's.
 */

enum { ANSWER_BOUNDS = 14, AGE_BOUNDS = 10, PARTS = 3, STATUSES = 4, ITEM_STATUSES = 5 };
static const double ANSWERS_UNDER[ANSWER_BOUNDS] = {
    .001, .002, .003, .005, .0075, .01, .015, .02, .03, .05, .1, .25, .5, 1};
static const double AGES_UNDER[AGE_BOUNDS] = {1,    5,     30,    120,    600,
                                              3600, 21600, 86400, 604800, 2592000};
static const char *const PART_NAMES[PARTS] = {"fetch_features", "behavior_encoder",
                                              "click_head"};
enum { OK_STATUS, COLD_USER, EMPTY_SEQUENCE, STALE_SEQUENCE };
static const char *const STATUS_NAMES[STATUSES] = {"ok", "cold_user", "empty_sequence",
                                                   "stale_sequence"};
static const char *const ITEM_STATUS_NAMES[ITEM_STATUSES] = {
    "ok", "unknown_item", "no_attributes", "no_activity", "unavailable"};

/* What became of calls. OTHER_CALL: of several users, with a mistake, and so on. */
enum { ANSWERED, NOT_LOADED, STORE_DOWN, UNREADABLE_ROW };
enum { UNREAD_CONTEXT = 4, UNREAD_ATTRIBUTES, UNPARSED_ITEM, OTHER_CALL, OUTCOMES };
static const char *const OUTCOME_NAMES[OUTCOMES] = {
    "answered",       "not_loaded",        "store_down",    "unreadable_row",
    "unread_context", "unread_attributes", "unparsed_item", "other_call"};

/* Outputs of the sampled call, which both steps answer. */
enum { FEATURE_VERSIONS, PROBABILITIES, RANKING_SCORES, POSITIONS };
enum { COMPARED_ALWAYS = 9, COMPARED = 11, REFUSALS = COMPARED };
static const char *const COMPARED_NAMES[COMPARED + 1] = {
    "feature_version", "click_probability", "ranking_score", "position",
    "propensity",      "item_status",       "status",        "model_version",
    "calibrated",      "number_columns",    "number_column_names", "refused"};

enum { MOST_FAMILIES = 24, MOST_METRICS = 96 };

typedef struct {
    Family *families[MOST_FAMILIES]; /* all of them, to be deleted */
    Metric *metrics[MOST_METRICS];
    int family_count, metric_count;
    Metric *comparisons, *mismatches[COMPARED + 1];
    Metric *outcomes[OUTCOMES], *failed_loads;
    Metric *part_runs[PARTS], *part_us[PARTS], *cpu_us, *candidates, *answers_us;
    Metric *answers[ANSWER_BOUNDS + 1], *ages[AGE_BOUNDS + 1], *age_ms, *table_age_ms;
    Metric *statuses[STATUSES], *item_statuses[ITEM_STATUSES], *table_reads;
} Counters;

static void add(Metric *metric, double value) {
    Error *error = metric ? TRITONSERVER_MetricIncrement(metric, value) : NULL;
    if (error) TRITONSERVER_ErrorDelete(error);
}

static Family *family_of(Counters *counters, const char *name, const char *help) {
    Family *family = NULL;
    if (counters->family_count == MOST_FAMILIES) return NULL;
    Error *error = TRITONSERVER_MetricFamilyNew(&family, COUNTER, name, help);
    if (error)
        TRITONSERVER_ErrorDelete(error);
    else
        counters->families[counters->family_count++] = family;
    return error ? NULL : family;
}

/* Return the counter of `model`, with a further label unless `label` is NULL. */
static Metric *counter_of(Counters *counters, Family *family, const char *model,
                          const char *label, const char *value) {
    const Parameter *labels[3] = {
        TRITONSERVER_ParameterNew("model", STRING_PARAMETER, model),
        TRITONSERVER_ParameterNew("source", STRING_PARAMETER, "native"),
        label ? TRITONSERVER_ParameterNew(label, STRING_PARAMETER, value) : NULL};
    Metric *metric = NULL;
    Error *error = NULL;
    if (family && counters->metric_count < MOST_METRICS)
        error = TRITONSERVER_MetricNew(&metric, family, labels, label ? 3 : 2);
    if (error) {
        TRITONSERVER_ErrorDelete(error);
        metric = NULL;
    }
    if (metric) counters->metrics[counters->metric_count++] = metric;
    for (int at = 0; at < 3; at++)
        if (labels[at]) TRITONSERVER_ParameterDelete((Parameter *)labels[at]);
    return metric;
}

static Metric *open_counter(Counters *counters, const char *name, const char *help,
                            const char *model) {
    return counter_of(counters, family_of(counters, name, help), model, NULL, NULL);
}

/* Open a counter for each of `names`, which are values of `label`. */
static void open_labelled(Counters *counters, const char *name, const char *help,
                          const char *model, const char *label, const char *const *names,
                          int count, Metric **metrics) {
    Family *family = family_of(counters, name, help);
    for (int at = 0; at < count; at++)
        metrics[at] = counter_of(counters, family, model, label, names[at]);
}

static void open_histogram(Counters *counters, const char *name, const char *help,
                           const char *model, const double *bounds, int count,
                           Metric **metrics) {
    Family *family = family_of(counters, name, help);
    char value[32];
    for (int at = 0; at <= count; at++) {
        snprintf(value, sizeof value, at < count ? "%g" : "+Inf",
                 at < count ? bounds[at] : 0);
        metrics[at] = counter_of(counters, family, model, "under", value);
    }
}

/* Open the counters of single numbers. */
static void open_sums(Counters *counters, const char *model) {
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

static void open_all(Counters *counters, const char *model, const char *version) {
    Family *runs =
        family_of(counters, "srp4ctr_part_runs", "Requests that a part worked on.");
    Family *us =
        family_of(counters, "srp4ctr_part_us", "Time of a part, in microseconds.");
    for (int part = 0; part < PARTS; part++) {
        char step[512];
        snprintf(step, sizeof step, "%s_%s", PART_NAMES[part], version);
        counters->part_runs[part] = counter_of(counters, runs, step, NULL, NULL);
        counters->part_us[part] = counter_of(counters, us, step, NULL, NULL);
    }
    open_sums(counters, model);
    open_histogram(counters, "srp4ctr_answers",
                   "Answered calls by the upper bound of their latency, in seconds.", model,
                   ANSWERS_UNDER, ANSWER_BOUNDS, counters->answers);
    open_histogram(counters, "srp4ctr_feature_age",
                   "Requests by the age of the user's row, in seconds.", model, AGES_UNDER,
                   AGE_BOUNDS, counters->ages);
    open_labelled(counters, "srp4ctr_request_status",
                  "Requests by what was known of their user.", model, "status",
                  STATUS_NAMES, STATUSES, counters->statuses);
    open_labelled(counters, "srp4ctr_native_calls",
                  "Calls of the native step by what became of them.", model, "outcome",
                  OUTCOME_NAMES, OUTCOMES, counters->outcomes);
    open_labelled(counters, "srp4ctr_native_mismatches",
                  "Outputs of these in which the two answers differ.", model, "output",
                  COMPARED_NAMES, COMPARED + 1, counters->mismatches);
    open_labelled(counters, "srp4ctr_item_status", "Candidates by what was known of them.",
                  model, "status", ITEM_STATUS_NAMES, ITEM_STATUSES,
                  counters->item_statuses);
}

/* Delete the counters, then their families. */
static void delete_all(Counters *counters) {
    for (int at = 0; at < counters->metric_count; at++) {
        Error *error = TRITONSERVER_MetricDelete(counters->metrics[at]);
        if (error) TRITONSERVER_ErrorDelete(error);
    }
    for (int at = 0; at < counters->family_count; at++) {
        Error *error = TRITONSERVER_MetricFamilyDelete(counters->families[at]);
        if (error) TRITONSERVER_ErrorDelete(error);
    }
}

/* A version that is loaded again is there twice for a moment. Triton gives both the same
 * counters, so the one that ends first must not delete them. */
typedef struct Opened {
    char model[512];
    Counters counters;
    int users;
    struct Opened *next;
} Opened;

static Opened *all_opened; /* of this process, in which the library is once */
static pthread_mutex_t opened_lock = PTHREAD_MUTEX_INITIALIZER;

static Opened **opened_of(const char *model) {
    Opened **place = &all_opened;
    while (*place && strcmp((*place)->model, model)) place = &(*place)->next;
    return place;
}

/* Open the counters of a version, or take those that are open; return whether there is
 * memory for them. */
static int counters_open(Counters *counters, const char *model, const char *version) {
    pthread_mutex_lock(&opened_lock);
    Opened **place = opened_of(model);
    if (!*place && (*place = calloc(1, sizeof **place))) {
        snprintf((*place)->model, sizeof (*place)->model, "%s", model);
        open_all(&(*place)->counters, model, version);
    }
    if (*place) {
        (*place)->users++;
        *counters = (*place)->counters;
    }
    const int is_open = *place != NULL;
    pthread_mutex_unlock(&opened_lock);
    return is_open;
}

/* Delete the counters of a version when nobody counts any more. */
static void counters_close(const char *model) {
    pthread_mutex_lock(&opened_lock);
    Opened **place = opened_of(model), *found = *place;
    if (found && !--found->users) {
        *place = found->next;
        delete_all(&found->counters);
        free(found);
    }
    pthread_mutex_unlock(&opened_lock);
}

static void add_to_histogram(Metric *const *metrics, const double *bounds, int count,
                             double value) {
    int at = 0;
    while (at < count && value > bounds[at]) at++;
    add(metrics[at], 1.0);
}

static void count_items(const Counters *counters, const uint8_t *status, int64_t count,
                        int64_t padding) {
    double found[ITEM_STATUSES] = {0};
    for (int64_t at = 0; at < count; at++) {
        if (status[at] == padding) continue;
        found[0] += status[at] == 0;
        for (int bit = 0; bit < ITEM_STATUSES - 1; bit++)
            found[1 + bit] += status[at] >> bit & 1;
    }
    for (int at = 0; at < ITEM_STATUSES; at++)
        if (found[at] > 0) add(counters->item_statuses[at], found[at]);
}
