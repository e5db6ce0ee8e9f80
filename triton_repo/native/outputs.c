#include "outputs.h"

#include <stdlib.h>
#include <string.h>

#include "triton_errors.h"

static const char *const NUMBER_SUFFIXES[NUMBER_WIDTH] = NUMBER_ENDS;

static _Thread_local const float *sorted_scores;

static int by_score(const void *one, const void *other) {
    const int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    const float left = sorted_scores[a], right = sorted_scores[b];
    const int left_pads = left != left, right_pads = right != right;
    if (left_pads != right_pads) return left_pads - right_pads;
    if (!left_pads && left != right) return left > right ? -1 : 1;
    return a < b ? -1 : a > b;
}

void write_positions(const float *scores, int64_t count, int64_t *positions) {
    int64_t *order = positions + count;
    for (int64_t at = 0; at < count; at++) order[at] = at;
    sorted_scores = scores;
    qsort(order, (size_t)count, sizeof *order, by_score);
    for (int64_t at = 0; at < count; at++) positions[order[at]] = at;
}

/* Return the place for an output (1, count), or (1, count, width) if that is positive; NULL
 * if there is no memory. */
static void *allocate_output(OutputSink *sink, int output, TRITONSERVER_DataType type,
                             int64_t count, int64_t width, uint64_t bytes) {
    if (!sink->response) {
        *sink->copies = (OutputCopy){type, bytes, malloc(bytes + 1)};
        return sink->copies++->content;
    }
    const int64_t shape[3] = {1, count, width};
    TRITONBACKEND_Output *created;
    void *place = NULL;
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    int64_t memory_id = 0;
    TRITONSERVER_Error *error = TRITONBACKEND_ResponseOutput(
        sink->response, &created, OUTPUT_NAMES[output], type, shape, width < 0 ? 2 : 3);
    if (!error)
        error = TRITONBACKEND_OutputBuffer(created, &place, bytes, &memory, &memory_id);
    discard_error(error);
    return error || memory != TRITONSERVER_MEMORY_CPU ? NULL : place;
}

static int write_string(OutputSink *sink, int output, const char *string) {
    const uint32_t length = (uint32_t)strlen(string);
    char *place =
        allocate_output(sink, output, TRITONSERVER_TYPE_BYTES, 1, -1, 4 + (uint64_t)length);
    if (!place) return 0;
    memcpy(place, &length, 4);
    memcpy(place + 4, string, length);
    return 1;
}

static int write_array(OutputSink *sink, int output, TRITONSERVER_DataType type,
                       int64_t count, const void *content, int bytes_each) {
    const uint64_t bytes = (uint64_t)(count * bytes_each);
    void *place = allocate_output(sink, output, type, count, -1, bytes);
    if (place) memcpy(place, content, bytes);
    return place != NULL;
}

/* Write 1 for each candidate: the order is not drawn. */
static int write_propensities(OutputSink *sink, int output, int64_t count) {
    float *place = allocate_output(sink, output, TRITONSERVER_TYPE_FP32, count, -1,
                                   (uint64_t)count * 4);
    for (int64_t at = 0; place && at < count; at++) place[at] = 1.0f;
    return place != NULL;
}

/* Write the last columns of the candidates' features: those of the bundle's numbers. */
static int write_number_columns(OutputSink *sink, int output, const Answer *answer) {
    const Arrays *arrays = answer->arrays;
    const int64_t width = NUMBER_WIDTH * answer->ranker->num_numbers;
    const int64_t before = arrays->candidate_width - width;
    const size_t bytes = (size_t)width * sizeof(float);
    float *place = allocate_output(sink, output, TRITONSERVER_TYPE_FP32, answer->count,
                                   width, (uint64_t)answer->count * bytes);
    for (int64_t at = 0; place && at < answer->count; at++)
        memcpy(place + at * width,
               arrays->candidate_features + at * arrays->candidate_width + before, bytes);
    return place != NULL;
}

static int write_number_names(OutputSink *sink, int output, const Ranker *ranker) {
    uint64_t bytes = 0;
    for (int64_t at = 0; at < ranker->num_numbers; at++)
        for (int end = 0; end < NUMBER_WIDTH; end++)
            bytes += 4 + strlen(ranker->numbers[at]) + strlen(NUMBER_SUFFIXES[end]);
    char *place = allocate_output(sink, output, TRITONSERVER_TYPE_BYTES,
                                  NUMBER_WIDTH * ranker->num_numbers, -1, bytes);
    for (int64_t at = 0; place && at < ranker->num_numbers; at++)
        for (int end = 0; end < NUMBER_WIDTH; end++) {
            const size_t name_bytes = strlen(ranker->numbers[at]);
            const size_t suffix_bytes = strlen(NUMBER_SUFFIXES[end]);
            const uint32_t length = (uint32_t)(name_bytes + suffix_bytes);
            memcpy(place, &length, 4);
            memcpy(place + 4, ranker->numbers[at], name_bytes);
            memcpy(place + 4 + name_bytes, NUMBER_SUFFIXES[end], suffix_bytes);
            place += 4 + length;
        }
    return place != NULL;
}

int write_output(OutputSink *sink, int output, const Answer *answer) {
    const Arrays *arrays = answer->arrays;
    const int64_t count = answer->count;
    if (output >= FIRST_SCORE && output < FIRST_SCORE + SCORES)
        return write_array(sink, output, TRITONSERVER_TYPE_FP32, count,
                           arrays->scores + (output - FIRST_SCORE) * count, 4);
    switch (output) {
    case OUTPUT_POSITION:
        return write_array(sink, output, TRITONSERVER_TYPE_INT64, count, arrays->positions,
                           8);
    case OUTPUT_PROPENSITY:
        return write_propensities(sink, output, count);
    case OUTPUT_ITEM_STATUS:
        return write_array(sink, output, TRITONSERVER_TYPE_UINT8, count,
                           arrays->item_status, 1);
    case OUTPUT_NUMBER_COLUMNS:
        return write_number_columns(sink, output, answer);
    case OUTPUT_NUMBER_COLUMN_NAMES:
        return write_number_names(sink, output, answer->ranker);
    case OUTPUT_STATUS:
        return write_string(sink, output, answer->status);
    case OUTPUT_FEATURE_VERSION:
        return write_string(sink, output, answer->version);
    case OUTPUT_MODEL_VERSION:
        return write_string(sink, output, answer->ranker->version);
    case OUTPUT_CALIBRATED:
        return write_array(sink, output, TRITONSERVER_TYPE_UINT8, 1,
                           &answer->ranker->is_calibrated, 1);
    case OUTPUT_SCORING_CPU_NS:
        return write_array(sink, output, TRITONSERVER_TYPE_INT64, 1, &arrays->cpu_ns, 8);
    case OUTPUT_ANSWERED_BY:
        return write_string(sink, output, "native");
    default:
        return 0;
    }
}
