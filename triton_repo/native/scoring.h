/* The bundle's two ONNX files, run by onnxruntime's library, which is opened by its path:
 * encoder, then head, as triton_repo/serving/onnx_scorer.py does. */
#include <dlfcn.h>

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct { /* OrtApi, whose functions keep their places */
    void *functions[112];
} OrtApi;
typedef struct {
    const OrtApi *(*get)(uint32_t version);
    const char *(*version)(void);
} OrtApiBase;

enum { ORT_MESSAGE = 2, ORT_ENVIRONMENT, ORT_SESSION = 7, ORT_RUN = 9, ORT_OPTIONS = 10 };
enum { ORT_THREADS = 24, ORT_TENSOR = 49, ORT_CONTENT = 51, ORT_SIZE = 64, ORT_SHAPE = 65 };
enum { ORT_MEMORY = 69, ORT_FREE_STATUS = 93, ORT_FREE_SESSION = 95, ORT_FREE_VALUE = 96 };
enum { ORT_FREE_SHAPE = 99, ORT_FREE_OPTIONS = 100 };
enum { ORT_FLOAT = 1, ORT_INT64 = 7, ORT_WARNINGS = 2, ORT_ARENA = 1, ORT_DEFAULT = 0 };
enum { STATES = 3, SCORES = 2, MOST_AXES = 4 };

typedef struct {
    const OrtApi *ort;
    void *memory, *encoder, *head;
} Scoring;

typedef struct { /* a tensor of one request */
    const char *name;
    int type;
    void *content;
    int64_t bytes, axes, shape[MOST_AXES];
} Tensor;

static const char *const STATE_NAMES[STATES] = {"layer_keys", "layer_values", "state_mask"};
static const char *const SCORE_NAMES[SCORES] = {"click_probability", "ranking_score"};

/* Return whether a call succeeded; say what failed. */
static int ort_succeeded(const OrtApi *ort, OrtStatus *status) {
    if (!status) return 1;
    const char *(*message)(const OrtStatus *) =
        (const char *(*)(const OrtStatus *))ort->functions[ORT_MESSAGE];
    say(LOG_WARNING, message(status));
    ((void (*)(OrtStatus *))ort->functions[ORT_FREE_STATUS])(status);
    return 0;
}

static int open_session(const OrtApi *ort, void *environment, const char *path,
                        void **session) {
    void *options = NULL;
    int is_open = ort_succeeded(
        ort, ((OrtStatus * (*)(void **)) ort->functions[ORT_OPTIONS])(&options));
    is_open = is_open &&
              ort_succeeded(ort, ((OrtStatus * (*)(void *, int))
                                      ort->functions[ORT_THREADS])(options, 1)) &&
              ort_succeeded(ort, ((OrtStatus * (*)(void *, const char *, void *, void **))
                                      ort->functions[ORT_SESSION])(environment, path,
                                                                   options, session));
    if (options) ((void (*)(void *))ort->functions[ORT_FREE_OPTIONS])(options);
    return is_open;
}

/* Open `library` and the two files; return whether that succeeded. What was opened stays
 * open: onnxruntime's library must not be closed while the server runs. */
static int scoring_open(Scoring *scoring, const char *library, const char *encoder,
                        const char *head) {
    void *opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!opened) {
        say(LOG_WARNING, dlerror());
        return 0;
    }
    const OrtApiBase *(*base)(void) = NULL;
    *(void **)&base = dlsym(opened, "OrtGetApiBase");
    const OrtApi *ort = base ? base()->get(1) : NULL;
    void *environment = NULL;
    if (!ort ||
        !ort_succeeded(ort, ((OrtStatus * (*)(int, const char *, void **))
                                 ort->functions[ORT_ENVIRONMENT])(ORT_WARNINGS, "srp4ctr",
                                                                  &environment)) ||
        !(scoring->memory ||
          ort_succeeded(ort,
                        ((OrtStatus * (*)(int, int, void **)) ort->functions[ORT_MEMORY])(
                            ORT_ARENA, ORT_DEFAULT, &scoring->memory))))
        return 0;
    scoring->ort = ort;
    return open_session(ort, environment, encoder, &scoring->encoder) &&
           open_session(ort, environment, head, &scoring->head);
}

static void scoring_close(Scoring *scoring) {
    void (*give_back)(void *) = NULL;
    if (scoring->ort) *(void **)&give_back = scoring->ort->functions[ORT_FREE_SESSION];
    if (give_back && scoring->encoder) give_back(scoring->encoder);
    if (give_back && scoring->head) give_back(scoring->head);
    scoring->encoder = scoring->head = NULL;
}

static void free_values(const Scoring *scoring, OrtValue **values, int count) {
    for (int at = 0; at < count; at++)
        if (values[at])
            ((void (*)(OrtValue *))scoring->ort->functions[ORT_FREE_VALUE])(values[at]);
}

static int make_values(const Scoring *scoring, const Tensor *tensors, int count,
                       const char **names, OrtValue **values) {
    OrtStatus *(*make)(const void *, void *, size_t, const int64_t *, size_t, int,
                       OrtValue **) = NULL;
    *(void **)&make = scoring->ort->functions[ORT_TENSOR];
    for (int at = 0; at < count; at++) {
        const Tensor *each = tensors + at;
        names[at] = each->name;
        if (!ort_succeeded(scoring->ort,
                           make(scoring->memory, each->content, (size_t)each->bytes,
                                each->shape, (size_t)each->axes, each->type, values + at)))
            return 0;
    }
    return 1;
}

static int run(const Scoring *scoring, void *session, const char *const *names,
               OrtValue **values, int count, const char *const *made_names, int made_count,
               OrtValue **made) {
    OrtStatus *(*call)(void *, const void *, const char *const *, OrtValue *const *, size_t,
                       const char *const *, size_t, OrtValue **) = NULL;
    *(void **)&call = scoring->ort->functions[ORT_RUN];
    return ort_succeeded(scoring->ort, call(session, NULL, names, values, (size_t)count,
                                            made_names, (size_t)made_count, made));
}

/* Copy the `count` numbers of `value`; return whether it has as many. */
static int copy_scores(const Scoring *scoring, OrtValue *value, float *into,
                       int64_t count) {
    const OrtApi *ort = scoring->ort;
    void *shape = NULL, *content = NULL;
    size_t size = 0;
    if (!ort_succeeded(ort, ((OrtStatus * (*)(const OrtValue *, void **))
                                 ort->functions[ORT_SHAPE])(value, &shape)))
        return 0;
    OrtStatus *status =
        ((OrtStatus * (*)(const void *, size_t *)) ort->functions[ORT_SIZE])(shape, &size);
    ((void (*)(void *))ort->functions[ORT_FREE_SHAPE])(shape);
    if (!ort_succeeded(ort, status) || size != (size_t)count) return 0;
    if (!ort_succeeded(ort, ((OrtStatus * (*)(OrtValue *, void **))
                                 ort->functions[ORT_CONTENT])(value, &content)))
        return 0;
    memcpy(into, content, size * sizeof *into);
    return 1;
}

enum { MOST_TENSORS = 8 };

/* Score `candidates` items: write SCORES rows of them to `scores`, and when the encoder had
 * ended. Return whether that succeeded. */
static int score(const Scoring *scoring, const Tensor *history, int of_history,
                 const Tensor *others, int of_others, float *scores, int64_t candidates,
                 int64_t *encoded_ns) {
    const char *names[MOST_TENSORS + STATES];
    OrtValue *values[MOST_TENSORS + STATES] = {0}, *made[SCORES] = {0};
    OrtValue *encoder_values[MOST_TENSORS] = {0};
    int is_done = make_values(scoring, history, of_history, names, encoder_values) &&
                  run(scoring, scoring->encoder, names, encoder_values, of_history,
                      STATE_NAMES, STATES, values + of_others);
    *encoded_ns = now_ns(CLOCK_MONOTONIC);
    is_done = is_done && make_values(scoring, others, of_others, names, values);
    for (int at = 0; at < STATES; at++) names[of_others + at] = STATE_NAMES[at];
    is_done = is_done && run(scoring, scoring->head, names, values, of_others + STATES,
                             SCORE_NAMES, SCORES, made);
    for (int at = 0; is_done && at < SCORES; at++)
        is_done = copy_scores(scoring, made[at], scores + at * candidates, candidates);
    free_values(scoring, encoder_values, of_history);
    free_values(scoring, values, of_others + STATES);
    free_values(scoring, made, SCORES);
    return is_done;
}
