#include "report.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "hashes.h"
#include "python_step.h"
#include "request.h"
#include "triton_errors.h"

enum { REPORTED_TENSORS = 10, REPORTED_INPUTS = REPORTED_TENSORS + 4 };
enum { SAMPLE_PARTS = 1000000 }; /* as in streams/events/schema.py */
static const char REPORT_PARAMETER[] = "srp4ctr_native_answer"; /* as in model_names.py */

struct Report {
    Ranker *ranker;
    TRITONSERVER_InferenceRequest *request;
    void *inputs[REPORTED_INPUTS]; /* what the request reads */
    int count;
    int references; /* the answer's callback, and the request */
};

static void release_report(Report *report) {
    if (__atomic_sub_fetch(&report->references, 1, __ATOMIC_ACQ_REL)) return;
    for (int at = 0; at < report->count; at++) free(report->inputs[at]);
    free(report);
}

static void on_report_release(TRITONSERVER_InferenceRequest *request, uint32_t flags,
                              void *user_data) {
    delete_released_request(request, flags, NULL);
    release_report(user_data);
}

static void on_reported(TRITONSERVER_InferenceResponse *response, uint32_t flags,
                        void *user_data) {
    Report *report = user_data;
    Ranker *ranker = report->ranker;
    (void)flags;
    if (response) {
        discard_error(TRITONSERVER_InferenceResponseError(response));
        discard_error(TRITONSERVER_InferenceResponseDelete(response));
    }
    release_report(report);
    forwarded_call_done(ranker);
}

/* Return the call's traceparent, NULL where its trace is not recorded. */
static const char *find_traceparent(TRITONBACKEND_Request *request) {
    uint32_t count = 0;
    discard_error(TRITONBACKEND_RequestParameterCount(request, &count));
    for (uint32_t at = 0; at < count; at++) {
        const char *name = "";
        const void *value = NULL;
        TRITONSERVER_ParameterType type = TRITONSERVER_PARAMETER_STRING;
        TRITONSERVER_Error *error =
            TRITONBACKEND_RequestParameter(request, at, &name, &type, &value);
        if (error)
            discard_error(error);
        else if (type == TRITONSERVER_PARAMETER_STRING && !strcmp(name, "traceparent"))
            return value;
    }
    return NULL;
}

/* Return whether the request is one of those that are logged: in_sample of schema.py. The
 * Python step looks again. */
static int is_request_logged(const Ranker *ranker, const RankInputs *inputs) {
    unsigned char name[XXH3_MAX_BYTES + 1] = "served:";
    uint64_t hash;
    StringTensor ids = inputs->request_id;
    if (!ranker->logged_parts || !ids.count) return 0;
    const StringView id = next_string(&ids);
    if (id.length <= 0) return 0;
    const size_t begins = strlen((const char *)name), length = begins + (size_t)id.length;
    if (length > XXH3_MAX_BYTES) return 1;
    memcpy(name + begins, id.start, (size_t)id.length);
    xxh3_64(name, length, &hash);
    const int64_t part = (hash ? (int64_t)hash : 1) % SAMPLE_PARTS;
    return (part < 0 ? part + SAMPLE_PARTS : part) < ranker->logged_parts;
}

/* Add an input with a copy of `content`; with `width` it has three axes. */
static TRITONSERVER_Error *add_copy(Report *report, TRITONSERVER_InferenceRequest *request,
                                    const char *name, TRITONSERVER_DataType type,
                                    int64_t rows, int64_t width, const void *content,
                                    int64_t bytes) {
    const int64_t shape[3] = {1, rows, width};
    void *copy = malloc((size_t)bytes + 1);
    if (!copy) return out_of_memory();
    memcpy(copy, content, (size_t)bytes);
    report->inputs[report->count++] = copy;
    return add_step_input(request, name, type, shape, width ? 3 : 2, copy, (uint64_t)bytes);
}

static TRITONSERVER_Error *add_tensors(Report *report,
                                       TRITONSERVER_InferenceRequest *request,
                                       const ParsedCache *cache, int64_t items,
                                       const Arrays *arrays) {
    const CacheHead *head = cache->head;
    const int64_t length = head->length, slots = head->slots;
    const struct {
        const char *name;
        int is_float;
        int64_t rows, width;
        const void *content;
    } tensors[REPORTED_TENSORS] = {
        {"history_item_rows", 0, length, 0, arrays->history_rows},
        {"history_attribute_rows", 0, length, slots, arrays->history_attributes},
        {"history_behavior_codes", 0, length, FIELDS, arrays->history_codes},
        {"request_features", 1, head->request_width, 0, arrays->request_features},
        {"context_rows", 0, head->context_slots, 0,
         arrays->context + 1 + head->context_numbers},
        {"candidate_item_rows", 0, items, 0, arrays->item_rows},
        {"candidate_attribute_rows", 0, items, slots, arrays->item_attributes},
        {"candidate_features", 1, items, head->candidate_width, arrays->candidate_features},
        {"served_probability", 1, items, 0, arrays->scores},
        {"user_attribute_rows", 0, head->user_slots, 0, arrays->user_rows},
    };
    TRITONSERVER_Error *error = NULL;
    for (int at = 0; !error && at < REPORTED_TENSORS; at++) {
        const int64_t rows = tensors[at].rows, width = tensors[at].width;
        if (rows)
            error = add_copy(report, request, tensors[at].name,
                             tensors[at].is_float ? TRITONSERVER_TYPE_FP32
                                                  : TRITONSERVER_TYPE_INT64,
                             rows, width, tensors[at].content,
                             rows * (width ? width : 1) * (tensors[at].is_float ? 4 : 8));
    }
    return error;
}

static TRITONSERVER_Error *add_strings(Report *report,
                                       TRITONSERVER_InferenceRequest *request,
                                       const char *name, const StringTensor *strings) {
    return add_copy(report, request, name, TRITONSERVER_TYPE_BYTES, strings->count, 0,
                    strings->content, strings->bytes);
}

static TRITONSERVER_Error *fill_report(Report *report, const Call *call,
                                       const ParsedCache *cache, const RankInputs *inputs,
                                       const Arrays *arrays) {
    TRITONSERVER_InferenceRequest *request = report->request;
    const char *trace = find_traceparent(call->request);
    TRITONSERVER_Error *error = NULL;
    if (trace)
        error =
            TRITONSERVER_InferenceRequestSetStringParameter(request, "traceparent", trace);
    if (!error)
        error = add_copy(report, request, "request_time_ms", TRITONSERVER_TYPE_INT64, 1, 0,
                         &inputs->at_ms, 8);
    if (!error && is_request_logged(call->ranker, inputs)) {
        error = add_strings(report, request, "user_id", &inputs->user);
        if (!error) error = add_strings(report, request, "item_ids", &inputs->items);
        if (!error) error = add_strings(report, request, "request_id", &inputs->request_id);
        if (!error)
            error = add_tensors(report, request, cache, inputs->items.count, arrays);
    }
    if (!error)
        error = TRITONSERVER_InferenceRequestAddRequestedOutput(request, "answered_by");
    return error;
}

void discard_report(Report *report) {
    if (report->request)
        discard_error(TRITONSERVER_InferenceRequestDelete(report->request));
    report->references = 1;
    release_report(report);
}

Report *create_report(const Call *call, const ParsedCache *cache, const RankInputs *inputs,
                      const Arrays *arrays) {
    Ranker *ranker = call->ranker;
    if (!is_request_logged(ranker, inputs) && !find_traceparent(call->request)) return NULL;
    Report *report = calloc(1, sizeof *report);
    if (!report) return NULL;
    *report = (Report){.ranker = ranker, .references = 2};
    TRITONSERVER_Error *error = create_step_request(ranker, &report->request);
    if (!error) error = fill_report(report, call, cache, inputs, arrays);
    if (!error) return report;
    discard_error(error);
    discard_report(report);
    return NULL;
}

/* Return what makes a time since the start one in UTC. A thread that is suspended between
 * the two clocks would be wrong by as long: of three differences the one that was read
 * fastest. */
static int64_t utc_offset_ns(void) {
    int64_t difference = 0, took = INT64_MAX;
    for (int turn = 0; turn < 3; turn++) {
        const int64_t before = monotonic_ns(), utc = utc_ns(), after = monotonic_ns();
        if (after - before >= took) continue;
        took = after - before;
        difference = utc - before;
    }
    return difference;
}

void send_report(Report *report, const CallTimings *timings, const Answer *answer) {
    const int64_t offset = utc_offset_ns();
    char notes[512];
    snprintf(
        notes, sizeof notes, "%s %s %lld %lld %lld %lld %lld", answer->status,
        answer->version, (long long)(timings->began_ns + offset),
        (long long)(timings->read_ns + offset), (long long)(timings->assembled_ns + offset),
        (long long)(timings->encoded_ns + offset), (long long)(timings->ended_ns + offset));
    TRITONSERVER_Error *error = TRITONSERVER_InferenceRequestSetStringParameter(
        report->request, REPORT_PARAMETER, notes);
    if (error) {
        discard_error(error);
        discard_report(report);
        return;
    }
    error = send_to_python_step(report->ranker, report->request, on_reported,
                                on_report_release, report);
    if (!error) return;
    discard_error(error); /* send_to_python_step has deleted the request */
    report->request = NULL;
    discard_report(report);
}
