/* Scores → the outputs that a call wants: exploration.py and ranker.py do the same. */

static _Thread_local const float *ranking;

static int by_score(const void *one, const void *other) {
    const int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    const float left = ranking[a], right = ranking[b];
    const int left_pads = left != left, right_pads = right != right;
    if (left_pads != right_pads) return left_pads - right_pads;
    if (!left_pads && left != right) return left > right ? -1 : 1;
    return a < b ? -1 : a > b;
}

/* Write each candidate's position, best first, equal ones as given, padding last. */
static void write_positions(const float *scores, int64_t count, int64_t *positions) {
    int64_t *order = positions + count;
    for (int64_t at = 0; at < count; at++) order[at] = at;
    ranking = scores;
    qsort(order, (size_t)count, sizeof *order, by_score);
    for (int64_t at = 0; at < count; at++) positions[order[at]] = at;
}

typedef struct { /* an output of an answer */
    int type;
    size_t bytes;
    void *content;
} Kept;

typedef struct { /* where outputs are written: a response, or else the next of `kept` */
    Response *response;
    Kept *kept;
} Sink;

/* Return the place for an output, NULL where there is no memory. */
static void *wide_place(Sink *sink, const char *name, int type, int64_t count,
                        int64_t width, uint64_t bytes) {
    if (!sink->response) {
        *sink->kept = (Kept){type, bytes, malloc(bytes + 1)};
        return sink->kept++->content;
    }
    const int64_t shape[3] = {1, count, width};
    Output *output;
    void *place = NULL;
    int memory = IN_MEMORY;
    int64_t memory_id = 0;
    Error *error = TRITONBACKEND_ResponseOutput(sink->response, &output, name, type, shape,
                                                width < 0 ? 2 : 3);
    if (!error)
        error = TRITONBACKEND_OutputBuffer(output, &place, bytes, &memory, &memory_id);
    forget(error);
    return error || memory != IN_MEMORY ? NULL : place;
}

static void *output_place(Sink *sink, const char *name, int type, int64_t count,
                          uint64_t bytes) {
    return wide_place(sink, name, type, count, -1, bytes);
}

static int write_text(Sink *sink, const char *name, const char *text) {
    const uint32_t length = (uint32_t)strlen(text);
    char *place = output_place(sink, name, T_TEXTS, 1, 4 + (uint64_t)length);
    if (!place) return 0;
    memcpy(place, &length, 4);
    memcpy(place + 4, text, length);
    return 1;
}

static int write_numbers(Sink *sink, const char *name, int type, int64_t count,
                         const void *numbers, int bytes) {
    void *place = output_place(sink, name, type, count, (uint64_t)(count * bytes));
    if (place) memcpy(place, numbers, (size_t)(count * bytes));
    return place != NULL;
}

/* Write the last columns of the candidates' features: those of the bundle's numbers. */
static int write_number_columns(Sink *sink, const char *name, const Ranker *ranker,
                                const Arrays *arrays, int64_t count) {
    const int64_t width = NUMBER_WIDTH * ranker->number_count;
    const int64_t before = arrays->candidate_width - width;
    const size_t bytes = (size_t)width * sizeof(float);
    float *place =
        wide_place(sink, name, T_FP32, count, width, (uint64_t)count * bytes);
    for (int64_t at = 0; place && at < count; at++)
        memcpy(place + at * width,
               arrays->candidate_features + at * arrays->candidate_width + before, bytes);
    return place != NULL;
}

static const char *const NUMBER_SUFFIXES[NUMBER_WIDTH] = NUMBER_ENDS;

static int write_number_names(Sink *sink, const char *name, const Ranker *ranker) {
    uint64_t bytes = 0;
    for (int64_t at = 0; at < ranker->number_count; at++)
        for (int end = 0; end < NUMBER_WIDTH; end++)
            bytes += 4 + strlen(ranker->numbers[at]) + strlen(NUMBER_SUFFIXES[end]);
    char *place = output_place(sink, name, T_TEXTS, NUMBER_WIDTH * ranker->number_count,
                               bytes);
    for (int64_t at = 0; place && at < ranker->number_count; at++)
        for (int end = 0; end < NUMBER_WIDTH; end++) {
            const size_t own = strlen(ranker->numbers[at]);
            const size_t added = strlen(NUMBER_SUFFIXES[end]);
            const uint32_t length = (uint32_t)(own + added);
            memcpy(place, &length, 4);
            memcpy(place + 4, ranker->numbers[at], own);
            memcpy(place + 4 + own, NUMBER_SUFFIXES[end], added);
            place += 4 + length;
        }
    return place != NULL;
}

static int write_output(Sink *sink, const char *name, const Ranker *ranker,
                        const Arrays *arrays, int64_t count, const char *status,
                        const char *version) {
    if (!strcmp(name, "click_probability"))
        return write_numbers(sink, name, T_FP32, count, arrays->scores, 4);
    if (!strcmp(name, "ranking_score"))
        return write_numbers(sink, name, T_FP32, count, arrays->scores + count, 4);
    if (!strcmp(name, "position"))
        return write_numbers(sink, name, T_INT64, count, arrays->positions, 8);
    if (!strcmp(name, "item_status"))
        return write_numbers(sink, name, T_UINT8, count, arrays->item_status, 1);
    if (!strcmp(name, "propensity")) {
        float *place = output_place(sink, name, T_FP32, count, (uint64_t)count * 4);
        for (int64_t at = 0; place && at < count; at++) place[at] = 1.0f;
        return place != NULL;
    }
    if (!strcmp(name, "number_columns"))
        return write_number_columns(sink, name, ranker, arrays, count);
    if (!strcmp(name, "number_column_names"))
        return write_number_names(sink, name, ranker);
    if (!strcmp(name, "status")) return write_text(sink, name, status);
    if (!strcmp(name, "feature_version")) return write_text(sink, name, version);
    if (!strcmp(name, "model_version")) return write_text(sink, name, ranker->version);
    if (!strcmp(name, "calibrated"))
        return write_numbers(sink, name, T_UINT8, 1, &ranker->is_calibrated, 1);
    if (!strcmp(name, "scoring_cpu_ns"))
        return write_numbers(sink, name, T_INT64, 1, &arrays->cpu_ns, 8);
    if (!strcmp(name, "answered_by")) return write_text(sink, name, "native");
    return 0;
}

/* Send the answer, of the outputs that the call wants, and note when. */
static int respond(const Call *call, const Arrays *arrays, int64_t count, int status,
                   const char *version, int64_t *sent_ns) {
    Response *response;
    Error *error = TRITONBACKEND_ResponseNew(&response, call->request);
    uint32_t outputs = 0;
    int is_whole = 1;
    *sent_ns = now_ns(CLOCK_MONOTONIC);
    if (error) {
        forget(error);
        return 0;
    }
    Sink sink = {.response = response};
    forget(TRITONBACKEND_RequestOutputCount(call->request, &outputs));
    for (uint32_t at = 0; is_whole && at < outputs; at++) {
        const char *name = "";
        forget(TRITONBACKEND_RequestOutputName(call->request, at, &name));
        is_whole = write_output(&sink, name, call->ranker, arrays, count,
                                STATUS_NAMES[status], version);
    }
    error = is_whole ? NULL : TRITONSERVER_ErrorNew(INTERNAL, "no memory for the answer");
    *sent_ns = now_ns(CLOCK_MONOTONIC);
    forget(TRITONBACKEND_ResponseSend(response, LAST, error));
    forget(error);
    return is_whole;
}

static void respond_error(const Call *call, int code, const char *message) {
    Response *response;
    Error *error = TRITONBACKEND_ResponseNew(&response, call->request);
    if (error) {
        forget(error);
        return;
    }
    error = TRITONSERVER_ErrorNew(code, message);
    forget(TRITONBACKEND_ResponseSend(response, LAST, error));
    forget(error);
}

static void drop_call(Call *call) {
    if (!__atomic_sub_fetch(&call->users, 1, __ATOMIC_ACQ_REL)) free(call);
}

/* Report when the call was taken from the queue (Triton counts what was before as queueing),
 * when it was scored, and its end. */
static void report(const Call *call, int is_answered) {
    const uint64_t began = (uint64_t)call->began_ns, scoring = (uint64_t)call->scoring_ns,
                   scored = (uint64_t)call->scored_ns,
                   ended = (uint64_t)now_ns(CLOCK_MONOTONIC);
    forget(TRITONBACKEND_ModelInstanceReportStatistics(
        call->instance, call->request, is_answered != 0, began, scoring, scored, ended));
    if (is_answered)
        forget(TRITONBACKEND_ModelInstanceReportBatchStatistics(
            call->instance, 1, began, scoring, scored, ended));
}

/* Give the request back to Triton; the call is over. */
static void end_call(Call *call, int is_answered) {
    report(call, is_answered);
    forget(TRITONBACKEND_RequestRelease(call->request, WHOLE));
    pthread_mutex_lock(&call->ranker->lock);
    if (--*call->in_instance == 0) pthread_cond_broadcast(&call->ranker->has_ended);
    pthread_mutex_unlock(&call->ranker->lock);
    drop_call(call);
}

static void refuse(Call *call, int code, const char *message) {
    respond_error(call, code, message);
    end_call(call, 0);
}

static int is_cancelled(const Call *call) {
    _Bool found = 0;
    forget(TRITONBACKEND_RequestIsCancelled(call->request, &found));
    return found;
}
