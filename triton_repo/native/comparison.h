/* Once a second both steps answer a call: the Python step from copies of what was sent,
 * after the client has the native step's answer. Where the two differ is counted. The copies
 * are made before the answer is sent: the memory of a call's inputs is Triton's, which reads
 * the next call into it. */

static const double ABSOLUTE_TOLERANCE = 1e-5, RELATIVE_TOLERANCE = 1e-4;

typedef struct {
    Ranker *ranker;
    HandedRequest *request;
    Kept outputs[COMPARED]; /* the native step's answer */
    int count;
    void *inputs[MOST_INPUTS]; /* what the request reads */
    int64_t at_ms, generation, table_writes;
    int users; /* the answer's callback, and the request */
} Comparison;

static void drop_comparison(Comparison *made) {
    if (__atomic_sub_fetch(&made->users, 1, __ATOMIC_ACQ_REL)) return;
    for (int at = 0; at < COMPARED; at++) free(made->outputs[at].content);
    for (int at = 0; at < MOST_INPUTS; at++) free(made->inputs[at]);
    free(made);
}

static void on_comparison_release(HandedRequest *request, uint32_t flags, void *own) {
    on_release(request, flags, NULL);
    drop_comparison(own);
}

static int are_near(const float *one, const float *other, size_t bytes) {
    for (size_t at = 0; at < bytes / sizeof *one; at++) {
        const double a = one[at], b = other[at];
        if ((a != a) != (b != b) ||
            fabs(a - b) > ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * fabs(b))
            return 0;
    }
    return 1;
}

/* Return whether two orders are alike: items may change places whose scores are near. */
static int are_near_orders(const int64_t *one, const int64_t *other, size_t bytes,
                           const float *scores) {
    const int64_t count = (int64_t)(bytes / sizeof *one);
    int64_t *item_at = malloc(bytes + 1);
    int are_alike = item_at != NULL;
    for (int64_t at = 0; are_alike && at < count; at++) item_at[one[at]] = at;
    for (int64_t at = 0; are_alike && at < count; at++)
        are_alike = other[at] >= 0 && other[at] < count &&
                    are_near(scores + at, scores + item_at[other[at]], sizeof *scores);
    free(item_at);
    return are_alike;
}

static int are_alike(const Comparison *made, const Kept *kept, const Made *other) {
    if (kept->type != other->type || kept->bytes != other->bytes) return 0;
    if (!memcmp(kept->content, other->content, kept->bytes)) return 1;
    if (kept->type == T_FP32) return are_near(kept->content, other->content, kept->bytes);
    return kept == made->outputs + POSITIONS &&
           are_near_orders(kept->content, other->content, kept->bytes,
                           made->outputs[RANKING_SCORES].content);
}

/* Return whether rows of the table of items may have changed since the native step read
 * them. They change before the time that feature_version names, so the two answers can have
 * the same one, and other rows. */
static int has_table_changed(const Comparison *made) {
    ParsedCache *known = hold(made->ranker);
    if (!known) return 1;
    const int has_changed = made->table_writes % 2 ||
                            table_writes(known) != made->table_writes ||
                            known->head[K_GENERATION] != made->generation;
    let_go(made->ranker, known);
    return has_changed;
}

/* Count what differs. Of other rows, or another table of items, the answers differ rightly. */
static void count_differences(const Comparison *made, HandedResponse *response) {
    const Counters *counters = &made->ranker->counters;
    uint32_t count = 0;
    forget(TRITONSERVER_InferenceResponseOutputCount(response, &count));
    add(counters->comparisons, 1.0);
    for (int at = 0; at < made->count; at++) {
        Made other = {.bytes = 0};
        int is_there = 0;
        for (uint32_t each = 0; each < count && !is_there; each++)
            is_there = made_output(response, each, &other) &&
                       !strcmp(other.name, COMPARED_NAMES[at]);
        if (is_there && are_alike(made, made->outputs + at, &other)) continue;
        const int is_of_other_rows = at == FEATURE_VERSIONS || has_table_changed(made);
        add(counters->mismatches[is_of_other_rows ? FEATURE_VERSIONS : at], 1.0);
        if (is_of_other_rows) return;
    }
}

/* Compare with the answer of the Python step; a call that it cannot take is not compared. */
static void on_compared(HandedResponse *response, uint32_t flags, void *own) {
    Comparison *made = own;
    Ranker *ranker = made->ranker;
    Error *error = response ? TRITONSERVER_InferenceResponseError(response) : NULL;
    (void)flags;
    if (response && !error) count_differences(made, response);
    if (error && TRITONSERVER_ErrorCode(error) == INVALID) {
        add(ranker->counters.comparisons, 1.0);
        add(ranker->counters.mismatches[REFUSALS], 1.0);
    }
    forget(error);
    if (response) forget(TRITONSERVER_InferenceResponseDelete(response));
    drop_comparison(made);
    one_less(ranker);
}

static Error *add_content(HandedRequest *request, const char *name, int type,
                          const int64_t *shape, uint64_t axes, const void *content,
                          uint64_t bytes) {
    Error *error = TRITONSERVER_InferenceRequestAddInput(request, name, type, shape, axes);
    if (!error)
        error = TRITONSERVER_InferenceRequestAppendInputData(request, name, content, bytes,
                                                             IN_MEMORY, 0);
    return error;
}

/* Add a copy of an input, which is in one buffer: the native step has read it. The request
 * is not logged again, and of the same time. */
static Error *add_input_copy(Input *input, HandedRequest *request, void **copy) {
    const char *name;
    const int64_t *shape;
    const void *content = NULL;
    int type, memory = IN_MEMORY;
    uint32_t axes, buffers;
    uint64_t bytes, in_buffer = 0;
    int64_t memory_id = 0;
    Error *error =
        TRITONBACKEND_InputProperties(input, &name, &type, &shape, &axes, &bytes, &buffers);
    if (error || !strcmp(name, "request_id") || !strcmp(name, "request_time_ms"))
        return error;
    error = TRITONBACKEND_InputBuffer(input, 0, &content, &in_buffer, &memory, &memory_id);
    if (error) return error;
    if (!(*copy = malloc(bytes + 1)))
        return TRITONSERVER_ErrorNew(UNAVAILABLE, "out of memory");
    memcpy(*copy, content, bytes);
    return add_content(request, name, type, shape, axes, *copy, bytes);
}

static Error *copy_for_comparison(Comparison *made, Request_ *from,
                                  HandedRequest *request) {
    const int64_t shape[2] = {1, 1};
    uint32_t inputs = 0;
    Error *error = TRITONBACKEND_RequestInputCount(from, &inputs);
    for (uint32_t at = 0; !error && at < inputs && at < MOST_INPUTS; at++) {
        Input *input;
        error = TRITONBACKEND_RequestInputByIndex(from, at, &input);
        if (!error) error = add_input_copy(input, request, made->inputs + at);
    }
    if (!error)
        error = add_content(request, "request_time_ms", T_INT64, shape, 2, &made->at_ms, 8);
    for (int at = 0; !error && at < made->count; at++)
        error =
            TRITONSERVER_InferenceRequestAddRequestedOutput(request, COMPARED_NAMES[at]);
    return error;
}

static void forget_comparison(Comparison *made) {
    if (made->request) forget(TRITONSERVER_InferenceRequestDelete(made->request));
    made->users = 1;
    drop_comparison(made);
}

/* Return what lets the Python step answer `call`, too; NULL where there is no memory. */
static Comparison *make_comparison(const Call *call, const Given *given,
                                   const Arrays *arrays, int status, const char *version) {
    Ranker *ranker = call->ranker;
    Comparison *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->ranker = ranker;
    made->at_ms = given->at_ms;
    made->generation = arrays->generation;
    made->table_writes = arrays->table_writes;
    made->users = 2;
    made->count = ranker->number_count ? COMPARED : COMPARED_ALWAYS;
    Sink sink = {.kept = made->outputs};
    int is_kept = 1;
    for (int at = 0; is_kept && at < made->count; at++)
        is_kept = write_output(&sink, COMPARED_NAMES[at], ranker, arrays,
                               given->items.count, STATUS_NAMES[status], version);
    Error *error = is_kept ? TRITONSERVER_InferenceRequestNew(&made->request, ranker->server,
                                                              ranker->python_step, -1)
                           : TRITONSERVER_ErrorNew(UNAVAILABLE, "out of memory");
    if (!error) error = copy_for_comparison(made, call->request, made->request);
    if (!error) return made;
    forget(error); /* the next call is compared */
    forget_comparison(made);
    return NULL;
}

/* Let the Python step answer, too, now that the call is answered. */
static void send_comparison(Comparison *made) {
    Error *error = send_on(made->ranker, made->request, on_compared, made,
                           on_comparison_release);
    if (!error) return;
    forget(error); /* send_on has deleted the request */
    made->request = NULL;
    forget_comparison(made);
}
