#define _POSIX_C_SOURCE 200809L
#include "onnx_scorer.h"

#include <dlfcn.h>
#include <string.h>

#include "clock.h"
#include "output_names.h"
#include "triton_errors.h"

enum { MAX_TENSORS = 8, STATES = 3, ORT_VERSION = 1 };
/* Outputs of the encoder, which are inputs of the head. */
static const char *const STATE_NAMES[STATES] = {"layer_keys", "layer_values", "state_mask"};

/* Return whether a call succeeded; log what failed. */
static int ort_succeeded(const OrtApi *ort, OrtStatus *status) {
    if (!status) return 1;
    log_message(TRITONSERVER_LOG_WARN, ort->GetErrorMessage(status));
    ort->ReleaseStatus(status);
    return 0;
}

static int open_session(const OrtApi *ort, const OrtEnv *env, const char *path,
                        OrtSession **session) {
    OrtSessionOptions *options = NULL;
    const int is_open = ort_succeeded(ort, ort->CreateSessionOptions(&options)) &&
                        ort_succeeded(ort, ort->SetIntraOpNumThreads(options, 1)) &&
                        ort_succeeded(ort, ort->CreateSession(env, path, options, session));
    if (options) ort->ReleaseSessionOptions(options);
    return is_open;
}

int onnx_scorer_open(OnnxScorer *scorer, const char *library, const char *encoder,
                     const char *head) {
    void *opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!opened) {
        log_message(TRITONSERVER_LOG_WARN, dlerror());
        return 0;
    }
    const OrtApiBase *(*get_base)(void) = NULL;
    *(void **)&get_base = dlsym(opened, "OrtGetApiBase");
    const OrtApi *ort = get_base ? get_base()->GetApi(ORT_VERSION) : NULL;
    OrtEnv *env = NULL;
    if (!ort ||
        !ort_succeeded(ort, ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "srp4ctr", &env)))
        return 0;
    if (!scorer->memory &&
        !ort_succeeded(ort, ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault,
                                                     &scorer->memory)))
        return 0;
    scorer->ort = ort;
    return open_session(ort, env, encoder, &scorer->encoder) &&
           open_session(ort, env, head, &scorer->head);
}

void onnx_scorer_close(OnnxScorer *scorer) {
    if (scorer->encoder) scorer->ort->ReleaseSession(scorer->encoder);
    if (scorer->head) scorer->ort->ReleaseSession(scorer->head);
    scorer->encoder = scorer->head = NULL;
}

static void release_values(const OnnxScorer *scorer, OrtValue **values, int count) {
    for (int at = 0; at < count; at++)
        if (values[at]) scorer->ort->ReleaseValue(values[at]);
}

static int create_values(const OnnxScorer *scorer, const Tensor *tensors, int count,
                         const char **names, OrtValue **values) {
    for (int at = 0; at < count; at++) {
        const Tensor *each = tensors + at;
        names[at] = each->name;
        if (!ort_succeeded(scorer->ort,
                           scorer->ort->CreateTensorWithDataAsOrtValue(
                               scorer->memory, each->content, (size_t)each->bytes,
                               each->shape, (size_t)each->axes, each->type, values + at)))
            return 0;
    }
    return 1;
}

static int run(const OnnxScorer *scorer, OrtSession *session, const char *const *names,
               OrtValue **values, int count, const char *const *output_names,
               int num_outputs, OrtValue **outputs) {
    return ort_succeeded(scorer->ort,
                         scorer->ort->Run(session, NULL, names,
                                          (const OrtValue *const *)values, (size_t)count,
                                          output_names, (size_t)num_outputs, outputs));
}

/* Copy the `count` numbers of `value`; return whether it has as many. */
static int copy_scores(const OnnxScorer *scorer, OrtValue *value, float *into,
                       int64_t count) {
    const OrtApi *ort = scorer->ort;
    OrtTensorTypeAndShapeInfo *shape = NULL;
    void *content = NULL;
    size_t size = 0;
    if (!ort_succeeded(ort, ort->GetTensorTypeAndShape(value, &shape))) return 0;
    OrtStatus *status = ort->GetTensorShapeElementCount(shape, &size);
    ort->ReleaseTensorTypeAndShapeInfo(shape);
    if (!ort_succeeded(ort, status) || size != (size_t)count) return 0;
    if (!ort_succeeded(ort, ort->GetTensorMutableData(value, &content))) return 0;
    memcpy(into, content, size * sizeof *into);
    return 1;
}

int onnx_scorer_run(const OnnxScorer *scorer, const Tensor *history, int num_history,
                    const Tensor *inputs, int num_inputs, float *scores, int64_t candidates,
                    int64_t *encoded_ns) {
    const char *names[MAX_TENSORS + STATES];
    OrtValue *values[MAX_TENSORS + STATES] = {0}, *outputs[SCORES] = {0};
    OrtValue *encoder_values[MAX_TENSORS] = {0};
    int succeeded = create_values(scorer, history, num_history, names, encoder_values) &&
                    run(scorer, scorer->encoder, names, encoder_values, num_history,
                        STATE_NAMES, STATES, values + num_inputs);
    *encoded_ns = monotonic_ns();
    succeeded = succeeded && create_values(scorer, inputs, num_inputs, names, values);
    for (int at = 0; at < STATES; at++) names[num_inputs + at] = STATE_NAMES[at];
    succeeded = succeeded && run(scorer, scorer->head, names, values, num_inputs + STATES,
                                 OUTPUT_NAMES + FIRST_SCORE, SCORES, outputs);
    for (int at = 0; succeeded && at < SCORES; at++)
        succeeded = copy_scores(scorer, outputs[at], scores + at * candidates, candidates);
    release_values(scorer, encoder_values, num_history);
    release_values(scorer, values, num_inputs + STATES);
    release_values(scorer, outputs, SCORES);
    return succeeded;
}
