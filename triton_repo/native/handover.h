/* Calls that the Python step answers, and what it is asked itself: which file holds what it
 * knows. Its answers are passed on as they are, errors included. */

static Error *allocate(Allocator *allocator, const char *name, size_t bytes, int memory,
                       int64_t memory_id, void *own, void **buffer, void **of_buffer,
                       int *memory_is, int64_t *memory_id_is) {
    (void)allocator, (void)name, (void)memory, (void)memory_id, (void)own;
    *memory_is = IN_MEMORY;
    *memory_id_is = 0;
    *of_buffer = NULL;
    *buffer = malloc(bytes ? bytes : 1);
    return *buffer ? NULL : TRITONSERVER_ErrorNew(UNAVAILABLE, "out of memory");
}

static Error *give_back(Allocator *allocator, void *buffer, void *of_buffer, size_t bytes,
                        int memory, int64_t memory_id) {
    (void)allocator, (void)of_buffer, (void)bytes, (void)memory, (void)memory_id;
    free(buffer);
    return NULL;
}

static void on_release(HandedRequest *request, uint32_t flags, void *own) {
    (void)flags, (void)own;
    forget(TRITONSERVER_InferenceRequestDelete(request));
}

/* Note that a handed call has ended. */
static void one_less(Ranker *ranker) {
    pthread_mutex_lock(&ranker->lock);
    if (--ranker->handed == 0) pthread_cond_broadcast(&ranker->has_ended);
    pthread_mutex_unlock(&ranker->lock);
}

typedef struct { /* an output of the Python step's */
    const char *name;
    const int64_t *shape;
    const void *content;
    uint64_t axes;
    size_t bytes;
    int type;
} Made;

static int made_output(HandedResponse *response, uint32_t at, Made *made) {
    int memory;
    int64_t memory_id;
    void *own;
    Error *error = TRITONSERVER_InferenceResponseOutput(
        response, at, &made->name, &made->type, &made->shape, &made->axes, &made->content,
        &made->bytes, &memory, &memory_id, &own);
    forget(error);
    return !error;
}

static int pass_on(HandedResponse *response, Response *into) {
    uint32_t count = 0;
    forget(TRITONSERVER_InferenceResponseOutputCount(response, &count));
    for (uint32_t at = 0; at < count; at++) {
        Made made;
        Output *output;
        void *place;
        int memory = IN_MEMORY;
        int64_t memory_id = 0;
        if (!made_output(response, at, &made)) return 0;
        Error *error = TRITONBACKEND_ResponseOutput(into, &output, made.name, made.type,
                                                    made.shape, (uint32_t)made.axes);
        if (!error)
            error =
                TRITONBACKEND_OutputBuffer(output, &place, made.bytes, &memory, &memory_id);
        forget(error);
        if (error || memory != IN_MEMORY) return 0;
        memcpy(place, made.content, made.bytes);
    }
    return 1;
}

/* ---- Calls that are handed over, which their callers may cancel meanwhile ---- */

static void add_handed(Call *call) {
    Ranker *ranker = call->ranker;
    pthread_mutex_lock(&ranker->lock);
    call->users = 3;
    call->next = ranker->handed_calls;
    ranker->handed_calls = call;
    ranker->handed++; /* the release of its request; `send_on` adds the answer */
    pthread_mutex_unlock(&ranker->lock);
}

/* Note that a call is answered: nobody cancels it any more. */
static void remove_handed(Call *call) {
    Ranker *ranker = call->ranker;
    pthread_mutex_lock(&ranker->lock);
    Call **place = &ranker->handed_calls;
    while (*place && *place != call) place = &(*place)->next;
    if (*place) *place = call->next;
    pthread_mutex_unlock(&ranker->lock);
}

/* Let `request` be cancelled with its call, now that Triton has it. */
static void set_handed(Call *call, HandedRequest *request) {
    pthread_mutex_lock(&call->ranker->lock);
    if (!call->is_released) call->handed = request;
    pthread_mutex_unlock(&call->ranker->lock);
    drop_call(call);
}

static void on_handed_release(HandedRequest *request, uint32_t flags, void *own) {
    Call *call = own;
    Ranker *ranker = call->ranker;
    pthread_mutex_lock(&ranker->lock);
    call->is_released = 1;
    call->handed = NULL;
    pthread_mutex_unlock(&ranker->lock);
    on_release(request, flags, NULL);
    drop_call(call);
    one_less(ranker);
}

/* Cancel the handed requests of those calls that their callers have cancelled. */
static void cancel_handed(Ranker *ranker) {
    pthread_mutex_lock(&ranker->lock);
    for (Call *call = ranker->handed_calls; call; call = call->next)
        if (call->handed && is_cancelled(call))
            forget(TRITONSERVER_InferenceRequestCancel(call->handed));
    pthread_mutex_unlock(&ranker->lock);
}

/* Answer a call as the Python step has. */
static void on_answer(HandedResponse *response, uint32_t flags, void *own) {
    Call *call = own;
    Ranker *ranker = call->ranker;
    call->scored_ns = now_ns(CLOCK_MONOTONIC);
    remove_handed(call);
    Error *failure = response ? TRITONSERVER_InferenceResponseError(response) : NULL;
    int is_answered = 0;
    (void)flags;
    if (!response) {
        respond_error(call, INTERNAL, "the Python step sent no answer");
    } else if (failure) {
        respond_error(call, TRITONSERVER_ErrorCode(failure),
                      TRITONSERVER_ErrorMessage(failure));
        forget(failure);
    } else {
        Response *into = NULL;
        Error *error = TRITONBACKEND_ResponseNew(&into, call->request);
        if (!error) {
            failure = pass_on(response, into)
                          ? NULL
                          : TRITONSERVER_ErrorNew(UNAVAILABLE, "out of memory");
            error = TRITONBACKEND_ResponseSend(into, LAST, failure);
            is_answered = !error && !failure;
            forget(failure);
        }
        forget(error);
    }
    if (response) forget(TRITONSERVER_InferenceResponseDelete(response));
    end_call(call, is_answered);
    one_less(ranker);
}

static Error *copy_input(Input *input, HandedRequest *request) {
    const char *name;
    const int64_t *shape;
    int type;
    uint32_t axes, buffers;
    uint64_t bytes;
    Error *error =
        TRITONBACKEND_InputProperties(input, &name, &type, &shape, &axes, &bytes, &buffers);
    if (!error)
        error = TRITONSERVER_InferenceRequestAddInput(request, name, type, shape, axes);
    for (uint32_t at = 0; !error && at < buffers; at++) {
        const void *content;
        int memory = IN_MEMORY;
        int64_t memory_id = 0;
        uint64_t size;
        error = TRITONBACKEND_InputBuffer(input, at, &content, &size, &memory, &memory_id);
        if (!error)
            error = TRITONSERVER_InferenceRequestAppendInputData(request, name, content,
                                                                 size, memory, memory_id);
    }
    return error;
}

/* Copy the id, inputs, wanted outputs and parameters. */
static Error *copy_request(Request_ *from, HandedRequest *request) {
    uint32_t inputs = 0, outputs = 0, parameters = 0;
    const char *id = NULL;
    Error *error = TRITONBACKEND_RequestId(from, &id);
    if (!error && id && *id) error = TRITONSERVER_InferenceRequestSetId(request, id);
    if (!error) error = TRITONBACKEND_RequestInputCount(from, &inputs);
    for (uint32_t at = 0; !error && at < inputs; at++) {
        Input *input;
        error = TRITONBACKEND_RequestInputByIndex(from, at, &input);
        if (!error) error = copy_input(input, request);
    }
    if (!error) error = TRITONBACKEND_RequestOutputCount(from, &outputs);
    for (uint32_t at = 0; !error && at < outputs; at++) {
        const char *name;
        error = TRITONBACKEND_RequestOutputName(from, at, &name);
        if (!error) error = TRITONSERVER_InferenceRequestAddRequestedOutput(request, name);
    }
    if (!error) error = TRITONBACKEND_RequestParameterCount(from, &parameters);
    for (uint32_t at = 0; !error && at < parameters; at++) {
        const char *name;
        const void *value;
        int type;
        error = TRITONBACKEND_RequestParameter(from, at, &name, &type, &value);
        if (!error && type == STRING_PARAMETER)
            error = TRITONSERVER_InferenceRequestSetStringParameter(request, name, value);
    }
    return error;
}

/* Send `request` to the Python step; it is deleted where that does not take it. */
static Error *send_on(Ranker *ranker, HandedRequest *request,
                      void (*answered)(HandedResponse *, uint32_t, void *), void *own,
                      void (*released)(HandedRequest *, uint32_t, void *)) {
    Error *error = TRITONSERVER_InferenceRequestSetReleaseCallback(request, released, own);
    if (!error)
        error = TRITONSERVER_InferenceRequestSetResponseCallback(request, ranker->allocator,
                                                                 NULL, answered, own);
    pthread_mutex_lock(&ranker->lock);
    ranker->handed++;
    pthread_mutex_unlock(&ranker->lock);
    if (!error) error = TRITONSERVER_ServerInferAsync(ranker->server, request, NULL);
    if (error) {
        forget(TRITONSERVER_InferenceRequestDelete(request));
        one_less(ranker);
    }
    return error;
}

/* Let the Python step answer, for which the call may wait as long as it has `left_us`. One
 * that is no sample is marked: those handed over are not as the others. */
static void hand_over(Call *call, uint64_t left_us, int is_sample) {
    Ranker *ranker = call->ranker;
    HandedRequest *request = NULL;
    Error *error =
        TRITONSERVER_InferenceRequestNew(&request, ranker->server, ranker->python_step, -1);
    if (!error)
        error = TRITONSERVER_InferenceRequestSetTimeoutMicroseconds(request, left_us);
    if (!error) error = copy_request(call->request, request);
    if (!error && !is_sample)
        error = TRITONSERVER_InferenceRequestSetStringParameter(request, NOT_SAMPLED, "1");
    call->scoring_ns = call->scored_ns = now_ns(CLOCK_MONOTONIC);
    if (error && request) {
        forget(TRITONSERVER_InferenceRequestDelete(request));
    } else if (!error) {
        add_handed(call);
        error = send_on(ranker, request, on_answer, call, on_handed_release);
        if (!error) {
            set_handed(call, request);
            return;
        }
        remove_handed(call);
        call->users = 1;
        one_less(ranker);
    }
    refuse(call, TRITONSERVER_ErrorCode(error), TRITONSERVER_ErrorMessage(error));
    forget(error);
}

/* Note the file that the Python step names. */
static void on_parsed_cache(HandedResponse *response, uint32_t flags, void *own) {
    Ranker *ranker = own;
    Error *error = response ? TRITONSERVER_InferenceResponseError(response) : NULL;
    Made made = {.bytes = 0};
    (void)flags;
    if (response && !error && made_output(response, 0, &made) && made.bytes > 4 &&
        made.bytes - 4 < sizeof ranker->path) {
        pthread_mutex_lock(&ranker->lock);
        memcpy(ranker->path, (const char *)made.content + 4, made.bytes - 4);
        ranker->path[made.bytes - 4] = 0;
        pthread_mutex_unlock(&ranker->lock);
    }
    forget(error);
    if (response) forget(TRITONSERVER_InferenceResponseDelete(response));
    __atomic_store_n(&ranker->is_asking, 0, __ATOMIC_RELEASE);
    one_less(ranker);
}

static int is_asking(Ranker *ranker) {
    return __atomic_load_n(&ranker->is_asking, __ATOMIC_ACQUIRE);
}

/* Ask for the file: a call of nobody, with one padding item. */
static void ask(Ranker *ranker) {
    static const char *const inputs[] = {"user_id", "item_ids"};
    static const char empty[4] = {0};
    const int64_t shape[2] = {1, 1};
    HandedRequest *request = NULL;
    Error *error =
        TRITONSERVER_InferenceRequestNew(&request, ranker->server, ranker->python_step, -1);
    for (int at = 0; !error && at < 2; at++) {
        error =
            TRITONSERVER_InferenceRequestAddInput(request, inputs[at], T_TEXTS, shape, 2);
        if (!error)
            error = TRITONSERVER_InferenceRequestAppendInputData(request, inputs[at], empty,
                                                                 4, IN_MEMORY, 0);
    }
    if (!error)
        error =
            TRITONSERVER_InferenceRequestAddRequestedOutput(request, "parsed_cache_file");
    if (error && request)
        forget(TRITONSERVER_InferenceRequestDelete(request));
    else if (!error) {
        __atomic_store_n(&ranker->is_asking, 1, __ATOMIC_RELEASE);
        error = send_on(ranker, request, on_parsed_cache, ranker, on_release);
        if (error) __atomic_store_n(&ranker->is_asking, 0, __ATOMIC_RELEASE);
    }
    forget(error); /* the step is not ready: it is asked again */
}

static ParsedCache *hold(Ranker *ranker) {
    pthread_mutex_lock(&ranker->lock);
    ParsedCache *known = ranker->known;
    if (known) known->users++;
    pthread_mutex_unlock(&ranker->lock);
    return known;
}

static void let_go(Ranker *ranker, ParsedCache *known) {
    pthread_mutex_lock(&ranker->lock);
    const int is_last = --known->users == 0 && known != ranker->known;
    pthread_mutex_unlock(&ranker->lock);
    if (is_last) parsed_cache_close(known);
}

/* Use `known` from now on; NULL: none. */
static void use(Ranker *ranker, ParsedCache *known) {
    pthread_mutex_lock(&ranker->lock);
    ParsedCache *before = ranker->known;
    ranker->known = known;
    const int is_unused = before && before->users == 0;
    pthread_mutex_unlock(&ranker->lock);
    if (is_unused) parsed_cache_close(before);
}

static void join_folder(const Ranker *ranker, const char *file, char *path, size_t size) {
    snprintf(path, size, "%s/../%s/%s", ranker->folder, ranker->python_step, file);
}

/* Open the file `path`, and with the first one the model; return whether calls can be
 * answered then. */
static int learn(Ranker *ranker, const char *path) {
    char encoder[4096], head[4096];
    ParsedCache *known = parsed_cache_open(path);
    if (!known) return 0;
    if (!ranker->scoring.head) {
        join_folder(ranker, ranker->encoder, encoder, sizeof encoder);
        join_folder(ranker, ranker->head, head, sizeof head);
        if (!scoring_open(&ranker->scoring, known->library, encoder, head)) {
            scoring_close(&ranker->scoring);
            parsed_cache_close(known);
            return 0;
        }
    }
    use(ranker, known);
    return 1;
}

/* Wait for a while, or until the end; return whether it is the end. */
static int pause_watch(Ranker *ranker) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WATCH_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&ranker->lock);
    if (!ranker->is_stopping) pthread_cond_timedwait(&ranker->stops, &ranker->lock, &until);
    const int is_over = ranker->is_stopping;
    pthread_mutex_unlock(&ranker->lock);
    return is_over;
}

static void say_failed_load(const Ranker *ranker, int64_t again_ms) {
    char message[160];
    add(ranker->counters.failed_loads, 1.0);
    snprintf(message, sizeof message,
             "the native step cannot load: the Python step answers its calls, and it tries "
             "again in %lld s",
             (long long)again_ms / 1000);
    say(LOG_WARNING, message);
}

/* Keep what is known up to date: ask at the start, when the table of items has moved, and
 * when the file is gone, for the step's processes have been replaced then. */
static void *watch(void *own) {
    Ranker *ranker = own;
    char path[sizeof ranker->path], refused[sizeof ranker->path] = "";
    int64_t asked_ns = 0, ask_after_ms = ASK_AFTER_MS;
    do {
        ParsedCache *known = hold(ranker);
        const int is_right = known && is_current(known) && is_of(known, known->path);
        const int64_t now = now_ns(CLOCK_MONOTONIC);
        if (!is_right && !is_asking(ranker) &&
            (!asked_ns || now - asked_ns > ask_after_ms * INT64_C(1000000))) {
            ask(ranker);
            asked_ns = now;
            *refused = 0;
        }
        if (is_right) asked_ns = 0, ask_after_ms = ASK_AFTER_MS;
        pthread_mutex_lock(&ranker->lock);
        strcpy(path, ranker->path);
        pthread_mutex_unlock(&ranker->lock);
        if (*path && !access(path, F_OK) && strcmp(path, refused) &&
            (!known || !is_of(known, path)) && !learn(ranker, path)) {
            strcpy(refused, path); /* until it is asked again */
            ask_after_ms = ask_after_ms < LONGEST_ASK_MS / 2 ? 2 * ask_after_ms
                                                             : LONGEST_ASK_MS;
            say_failed_load(ranker, ask_after_ms);
        }
        if (known) let_go(ranker, known);
        cancel_handed(ranker);
    } while (!pause_watch(ranker));
    return NULL;
}
