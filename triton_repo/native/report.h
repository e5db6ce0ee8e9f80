/* What the Python step keeps of an answer of the native step: the request in the log of
 * served requests, and the spans of its trace. It gets both after the client has the answer,
 * with the tensors that were scored: nothing is computed again. They are copied before the
 * answer is sent: the memory of a call's inputs is Triton's, which reads the next call into
 * it. */

enum { REPORTED_TENSORS = 10, REPORTED_INPUTS = REPORTED_TENSORS + 4 };
enum { SAMPLE_PARTS = 1000000 };                  /* as in streams/events/schema.py */
static const char REPORT[] = "srp4ctr_native_answer"; /* as in model_names.py */

typedef struct {
    Ranker *ranker;
    HandedRequest *request;
    void *inputs[REPORTED_INPUTS]; /* what the request reads */
    int count;
    int users; /* the answer's callback, and the request */
} Report;

static void drop_report(Report *report) {
    if (__atomic_sub_fetch(&report->users, 1, __ATOMIC_ACQ_REL)) return;
    for (int at = 0; at < report->count; at++) free(report->inputs[at]);
    free(report);
}

static void on_report_release(HandedRequest *request, uint32_t flags, void *own) {
    on_release(request, flags, NULL);
    drop_report(own);
}

static void on_reported(HandedResponse *response, uint32_t flags, void *own) {
    Report *report = own;
    Ranker *ranker = report->ranker;
    (void)flags;
    if (response) {
        forget(TRITONSERVER_InferenceResponseError(response));
        forget(TRITONSERVER_InferenceResponseDelete(response));
    }
    drop_report(report);
    one_less(ranker);
}

/* Return the call's traceparent, NULL where its trace is not recorded. */
static const char *trace_of(Request_ *request) {
    uint32_t count = 0;
    forget(TRITONBACKEND_RequestParameterCount(request, &count));
    for (uint32_t at = 0; at < count; at++) {
        const char *name = "";
        const void *value = NULL;
        int type = -1;
        Error *error = TRITONBACKEND_RequestParameter(request, at, &name, &type, &value);
        if (error)
            forget(error);
        else if (type == STRING_PARAMETER && !strcmp(name, "traceparent"))
            return value;
    }
    return NULL;
}

/* Return whether the request is one of those that are logged: in_sample of schema.py. The
 * Python step looks again. */
static int is_logged(const Ranker *ranker, const Given *given) {
    unsigned char name[XXH3_LONGEST + 1] = "served:";
    uint64_t hash;
    Texts texts = given->request_id;
    if (!ranker->logged_parts || !texts.count) return 0;
    const StoreValue id = next_text(&texts);
    if (id.length <= 0) return 0;
    const size_t begins = strlen((const char *)name), length = begins + (size_t)id.length;
    if (length > XXH3_LONGEST) return 1;
    memcpy(name + begins, id.at, (size_t)id.length);
    xxh3_64(name, length, &hash);
    const int64_t part = (hash ? (int64_t)hash : 1) % SAMPLE_PARTS;
    return (part < 0 ? part + SAMPLE_PARTS : part) < ranker->logged_parts;
}

/* Add an input with a copy of `content`; with `width` it has three axes. */
static Error *add_copy(Report *report, HandedRequest *request, const char *name, int type,
                       int64_t rows, int64_t width, const void *content, int64_t bytes) {
    const int64_t shape[3] = {1, rows, width};
    void *copy = malloc((size_t)bytes + 1);
    if (!copy) return TRITONSERVER_ErrorNew(UNAVAILABLE, "out of memory");
    memcpy(copy, content, (size_t)bytes);
    report->inputs[report->count++] = copy;
    return add_content(request, name, type, shape, width ? 3 : 2, copy, (uint64_t)bytes);
}

static Error *add_tensors(Report *report, HandedRequest *request, const ParsedCache *known,
                          int64_t items, const Arrays *arrays) {
    const int64_t *head = known->head, length = head[K_LENGTH], slots = head[K_SLOTS];
    const struct {
        const char *name;
        int is_float;
        int64_t rows, width;
        const void *content;
    } tensors[REPORTED_TENSORS] = {
        {"history_item_rows", 0, length, 0, arrays->history_rows},
        {"history_attribute_rows", 0, length, slots, arrays->history_attributes},
        {"history_behavior_codes", 0, length, FIELDS, arrays->history_codes},
        {"request_features", 1, head[K_REQUEST_WIDTH], 0, arrays->request_features},
        {"context_rows", 0, head[K_CONTEXT_SLOTS], 0,
         arrays->context + 1 + head[K_NUMBERS]},
        {"candidate_item_rows", 0, items, 0, arrays->item_rows},
        {"candidate_attribute_rows", 0, items, slots, arrays->item_attributes},
        {"candidate_features", 1, items, head[K_CANDIDATE_WIDTH],
         arrays->candidate_features},
        {"served_probability", 1, items, 0, arrays->scores},
        {"user_attribute_rows", 0, head[K_USER_SLOTS], 0, arrays->user_rows},
    };
    Error *error = NULL;
    for (int at = 0; !error && at < REPORTED_TENSORS; at++) {
        const int64_t rows = tensors[at].rows, width = tensors[at].width;
        if (rows)
            error = add_copy(report, request, tensors[at].name,
                             tensors[at].is_float ? T_FP32 : T_INT64, rows, width,
                             tensors[at].content,
                             rows * (width ? width : 1) * (tensors[at].is_float ? 4 : 8));
    }
    return error;
}

static Error *add_texts(Report *report, HandedRequest *request, const char *name,
                        const Texts *texts) {
    return add_copy(report, request, name, T_TEXTS, texts->count, 0, texts->content,
                    texts->bytes);
}

static Error *fill_report(Report *report, const Call *call, const ParsedCache *known,
                          const Given *given, const Arrays *arrays) {
    HandedRequest *request = report->request;
    const char *trace = trace_of(call->request);
    Error *error = NULL;
    if (trace)
        error = TRITONSERVER_InferenceRequestSetStringParameter(request, "traceparent",
                                                                trace);
    if (!error)
        error = add_copy(report, request, "request_time_ms", T_INT64, 1, 0, &given->at_ms,
                         8);
    if (!error && is_logged(call->ranker, given)) {
        error = add_texts(report, request, "user_id", &given->user);
        if (!error) error = add_texts(report, request, "item_ids", &given->items);
        if (!error) error = add_texts(report, request, "request_id", &given->request_id);
        if (!error)
            error = add_tensors(report, request, known, given->items.count, arrays);
    }
    if (!error)
        error = TRITONSERVER_InferenceRequestAddRequestedOutput(request, "answered_by");
    return error;
}

static void forget_report(Report *report) {
    if (report->request) forget(TRITONSERVER_InferenceRequestDelete(report->request));
    report->users = 1;
    drop_report(report);
}

/* Return the report of a call that is logged or traced; NULL for others, or where there is no
 * memory. */
static Report *make_report(const Call *call, const ParsedCache *known, const Given *given,
                           const Arrays *arrays) {
    Ranker *ranker = call->ranker;
    if (!is_logged(ranker, given) && !trace_of(call->request)) return NULL;
    Report *report = calloc(1, sizeof *report);
    if (!report) return NULL;
    *report = (Report){.ranker = ranker, .users = 2};
    Error *error = TRITONSERVER_InferenceRequestNew(&report->request, ranker->server,
                                                    ranker->python_step, -1);
    if (!error) error = fill_report(report, call, known, given, arrays);
    if (!error) return report;
    forget(error);
    forget_report(report);
    return NULL;
}

/* Return what makes a time since the start one in UTC. A thread that is suspended between
 * the two clocks would be wrong by as long: of three differences the one that was read
 * fastest. */
static int64_t to_utc_ns(void) {
    int64_t difference = 0, took = INT64_MAX;
    for (int turn = 0; turn < 3; turn++) {
        const int64_t before = now_ns(CLOCK_MONOTONIC), utc = now_ns(CLOCK_REALTIME),
                      after = now_ns(CLOCK_MONOTONIC);
        if (after - before >= took) continue;
        took = after - before;
        difference = utc - before;
    }
    return difference;
}

/* Send the report of a call that is answered now. */
static void send_report(Report *report, const Times *times, int status,
                        const char *version) {
    const int64_t to_utc = to_utc_ns();
    char notes[512];
    snprintf(notes, sizeof notes, "%s %s %lld %lld %lld %lld %lld", STATUS_NAMES[status],
             version, (long long)(times->began + to_utc), (long long)(times->read + to_utc),
             (long long)(times->made + to_utc), (long long)(times->encoded + to_utc),
             (long long)(times->ended + to_utc));
    Error *error =
        TRITONSERVER_InferenceRequestSetStringParameter(report->request, REPORT, notes);
    if (error) {
        forget(error);
        forget_report(report);
        return;
    }
    error = send_on(report->ranker, report->request, on_reported, report,
                    on_report_release);
    if (!error) return;
    forget(error); /* send_on has deleted the request */
    report->request = NULL;
    forget_report(report);
}
