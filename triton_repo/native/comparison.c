#include "comparison.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cache_watch.h"
#include "python_step.h"
#include "triton_errors.h"

static const double ABSOLUTE_TOLERANCE = 1e-5, RELATIVE_TOLERANCE = 1e-4;

struct Comparison {
    Ranker *ranker;
    TRITONSERVER_InferenceRequest *request;
    OutputCopy outputs[NUM_COMPARED]; /* the native step's answer */
    int count;
    void *inputs[MAX_INPUTS]; /* what the request reads */
    int num_inputs;
    int64_t at_ms, generation, table_writes;
    int references; /* the answer's callback, and the request */
};

static void release_comparison(Comparison *comparison) {
    if (__atomic_sub_fetch(&comparison->references, 1, __ATOMIC_ACQ_REL)) return;
    for (int at = 0; at < NUM_COMPARED; at++) free(comparison->outputs[at].content);
    for (int at = 0; at < comparison->num_inputs; at++) free(comparison->inputs[at]);
    free(comparison);
}

static void on_comparison_release(TRITONSERVER_InferenceRequest *request, uint32_t flags,
                                  void *user_data) {
    delete_released_request(request, flags, NULL);
    release_comparison(user_data);
}

static int scores_close(const float *one, const float *other, size_t bytes) {
    for (size_t at = 0; at < bytes / sizeof *one; at++) {
        const double a = one[at], b = other[at];
        if ((a != a) != (b != b) ||
            fabs(a - b) > ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * fabs(b))
            return 0;
    }
    return 1;
}

/* Return whether two orders are alike: items may change places whose scores are near. */
static int orders_close(const int64_t *one, const int64_t *other, size_t bytes,
                        const float *scores) {
    const int64_t count = (int64_t)(bytes / sizeof *one);
    int64_t *item_at = malloc(bytes + 1);
    int are_close = item_at != NULL;
    for (int64_t at = 0; are_close && at < count; at++) item_at[one[at]] = at;
    for (int64_t at = 0; are_close && at < count; at++)
        are_close = other[at] >= 0 && other[at] < count &&
                    scores_close(scores + at, scores + item_at[other[at]], sizeof *scores);
    free(item_at);
    return are_close;
}

static int outputs_match(const Comparison *comparison, const OutputCopy *native,
                         const StepOutput *other) {
    if (native->type != other->type || native->bytes != other->bytes) return 0;
    if (!memcmp(native->content, other->content, native->bytes)) return 1;
    if (native->type == TRITONSERVER_TYPE_FP32)
        return scores_close(native->content, other->content, native->bytes);
    return native == comparison->outputs + OUTPUT_POSITION &&
           orders_close(native->content, other->content, native->bytes,
                        comparison->outputs[OUTPUT_RANKING_SCORE].content);
}

/* Return whether rows of the table of items may have changed since the native step read
 * them. They change before the time that feature_version names, so the two answers can have
 * the same one, and other rows. */
static int table_has_changed(const Comparison *comparison) {
    ParsedCache *cache = acquire_cache(comparison->ranker);
    if (!cache) return 1;
    const int has_changed = comparison->table_writes % 2 ||
                            table_writes(cache) != comparison->table_writes ||
                            cache->head->generation != comparison->generation;
    release_cache(comparison->ranker, cache);
    return has_changed;
}

/* Count the outputs that differ. Answers from other rows, or another table of items, may
 * differ: these count as feature_version only. */
static void count_differences(const Comparison *comparison,
                              TRITONSERVER_InferenceResponse *response) {
    const Counters *counters = &comparison->ranker->counters;
    uint32_t count = 0;
    discard_error(TRITONSERVER_InferenceResponseOutputCount(response, &count));
    increment(counters->comparisons, 1.0);
    for (int at = 0; at < comparison->count; at++) {
        StepOutput other = {.bytes = 0};
        int is_found = 0;
        for (uint32_t each = 0; each < count && !is_found; each++)
            is_found = read_step_output(response, each, &other) &&
                       !strcmp(other.name, OUTPUT_NAMES[at]);
        if (is_found && outputs_match(comparison, comparison->outputs + at, &other))
            continue;
        const int rows_changed =
            at == OUTPUT_FEATURE_VERSION || table_has_changed(comparison);
        increment(counters->mismatches[rows_changed ? OUTPUT_FEATURE_VERSION : at], 1.0);
        if (rows_changed) return;
    }
}

/* Compare with the answer of the Python step; a call that it cannot take is not compared.
 */
static void on_compared(TRITONSERVER_InferenceResponse *response, uint32_t flags,
                        void *user_data) {
    Comparison *comparison = user_data;
    Ranker *ranker = comparison->ranker;
    TRITONSERVER_Error *error =
        response ? TRITONSERVER_InferenceResponseError(response) : NULL;
    (void)flags;
    if (response && !error) count_differences(comparison, response);
    if (error && TRITONSERVER_ErrorCode(error) == TRITONSERVER_ERROR_INVALID_ARG) {
        increment(ranker->counters.comparisons, 1.0);
        increment(ranker->counters.mismatches[REFUSED], 1.0);
    }
    discard_error(error);
    if (response) discard_error(TRITONSERVER_InferenceResponseDelete(response));
    release_comparison(comparison);
    forwarded_call_done(ranker);
}

/* Add a copy of an input, which is in one buffer: the native step has read it. The copied
 * request is not logged again, and has the time of the first one. */
static TRITONSERVER_Error *add_input_copy(Comparison *comparison,
                                          TRITONBACKEND_Input *input) {
    const char *name;
    const int64_t *shape;
    const void *content = NULL;
    TRITONSERVER_DataType type;
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    uint32_t axes, buffers;
    uint64_t bytes, in_buffer = 0;
    int64_t memory_id = 0;
    TRITONSERVER_Error *error =
        TRITONBACKEND_InputProperties(input, &name, &type, &shape, &axes, &bytes, &buffers);
    if (error || !strcmp(name, "request_id") || !strcmp(name, "request_time_ms"))
        return error;
    error = TRITONBACKEND_InputBuffer(input, 0, &content, &in_buffer, &memory, &memory_id);
    if (error) return error;
    void *copied = malloc(bytes + 1);
    if (!copied) return out_of_memory();
    memcpy(copied, content, bytes);
    comparison->inputs[comparison->num_inputs++] = copied;
    return add_step_input(comparison->request, name, type, shape, axes, copied, bytes);
}

static TRITONSERVER_Error *copy_for_comparison(Comparison *comparison,
                                               TRITONBACKEND_Request *from) {
    const int64_t shape[2] = {1, 1};
    TRITONSERVER_InferenceRequest *request = comparison->request;
    uint32_t inputs = 0;
    TRITONSERVER_Error *error = TRITONBACKEND_RequestInputCount(from, &inputs);
    for (uint32_t at = 0; !error && at < inputs && at < MAX_INPUTS; at++) {
        TRITONBACKEND_Input *input;
        error = TRITONBACKEND_RequestInputByIndex(from, at, &input);
        if (!error) error = add_input_copy(comparison, input);
    }
    if (!error)
        error = add_step_input(request, "request_time_ms", TRITONSERVER_TYPE_INT64, shape,
                               2, &comparison->at_ms, 8);
    for (int at = 0; !error && at < comparison->count; at++)
        error = TRITONSERVER_InferenceRequestAddRequestedOutput(request, OUTPUT_NAMES[at]);
    return error;
}

void discard_comparison(Comparison *comparison) {
    if (comparison->request)
        discard_error(TRITONSERVER_InferenceRequestDelete(comparison->request));
    comparison->references = 1;
    release_comparison(comparison);
}

Comparison *create_comparison(const Call *call, const RankInputs *inputs,
                              const Answer *answer) {
    Ranker *ranker = call->ranker;
    Comparison *comparison = calloc(1, sizeof *comparison);
    if (!comparison) return NULL;
    comparison->ranker = ranker;
    comparison->at_ms = inputs->at_ms;
    comparison->generation = answer->arrays->generation;
    comparison->table_writes = answer->arrays->table_writes;
    comparison->references = 2;
    comparison->count = ranker->num_numbers ? NUM_COMPARED : OUTPUT_NUMBER_COLUMNS;
    OutputSink sink = {.copies = comparison->outputs};
    int is_copied = 1;
    for (int at = 0; is_copied && at < comparison->count; at++)
        is_copied = write_output(&sink, at, answer);
    TRITONSERVER_Error *error =
        is_copied ? create_step_request(ranker, &comparison->request) : out_of_memory();
    if (!error) error = copy_for_comparison(comparison, call->request);
    if (!error) return comparison;
    discard_error(error); /* the next call is compared */
    discard_comparison(comparison);
    return NULL;
}

void send_comparison(Comparison *comparison) {
    TRITONSERVER_Error *error =
        send_to_python_step(comparison->ranker, comparison->request, on_compared,
                            on_comparison_release, comparison);
    if (!error) return;
    discard_error(error); /* send_to_python_step has deleted the request */
    comparison->request = NULL;
    discard_comparison(comparison);
}
