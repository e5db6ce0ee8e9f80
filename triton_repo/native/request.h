/* What a call has sent, and the tensors of it. A call that is not as the native step
 * reads it is no mistake: the Python step says what is. */

/* Return the next of the texts, and move on; a length of -1 where they are cut off. */
static StoreValue next_text(Texts *texts) {
    uint32_t length;
    if (texts->bytes < 4) return (StoreValue){NULL, -1};
    memcpy(&length, texts->content, 4);
    if ((int64_t)length > texts->bytes - 4) return (StoreValue){NULL, -1};
    const StoreValue found = {texts->content + 4, length};
    texts->content += 4 + (int64_t)length;
    texts->bytes -= 4 + (int64_t)length;
    return found;
}

/* Read one input; return whether it is as the native step reads it. */
static int read_input(Input *input, Given *given) {
    const char *name;
    const void *content = NULL;
    const int64_t *shape;
    int type, memory = IN_MEMORY;
    uint32_t axes, buffers;
    uint64_t bytes, in_buffer = 0;
    int64_t memory_id = 0;
    Error *error =
        TRITONBACKEND_InputProperties(input, &name, &type, &shape, &axes, &bytes, &buffers);
    if (!error && buffers == 1)
        error =
            TRITONBACKEND_InputBuffer(input, 0, &content, &in_buffer, &memory, &memory_id);
    if (error || buffers != 1 || in_buffer != bytes || memory != IN_MEMORY ||
        shape[0] != 1) {
        forget(error);
        return 0;
    }
    if (!strcmp(name, "candidate_numbers")) {
        if (type != T_FP32 || axes != 3) return 0;
        given->numbers = content;
        given->numbered_items = shape[1];
        given->numbers_of_item = shape[2];
        return bytes == (uint64_t)(shape[1] * shape[2]) * sizeof(float);
    }
    if (axes != 2) return 0;
    const Texts texts = {content, (int64_t)bytes, shape[1]};
    if (!strcmp(name, "request_time_ms")) {
        if (type != T_INT64 || shape[1] != 1 || bytes != 8) return 0;
        memcpy(&given->at_ms, content, 8);
        return 1;
    }
    Texts *into = !strcmp(name, "user_id")    ? &given->user
                  : !strcmp(name, "item_ids") ? &given->items
                  : !strcmp(name, "context")  ? &given->context
                                              : NULL;
    if (!strcmp(name, "candidate_number_names")) into = &given->number_names;
    if (!strcmp(name, "request_id")) into = &given->request_id;
    if (!into) return 0;
    *into = texts;
    const int are_several = into == &given->items || into == &given->number_names;
    return type == T_TEXTS && (are_several || shape[1] == 1);
}

static int read_given(const Ranker *ranker, Request_ *request, Given *given) {
    uint32_t count = 0;
    memset(given, 0, sizeof *given);
    forget(TRITONBACKEND_RequestInputCount(request, &count));
    for (uint32_t at = 0; at < count; at++) {
        Input *input;
        Error *error = TRITONBACKEND_RequestInputByIndex(request, at, &input);
        if (error || !read_input(input, given)) {
            forget(error);
            return 0;
        }
    }
    if (!given->at_ms) given->at_ms = now_ns(CLOCK_REALTIME) / 1000000;
    if (given->numbers_of_item != given->number_names.count ||
        (given->numbers && given->numbered_items != given->items.count))
        return 0;
    return given->user.count == 1 && given->items.count >= 1 &&
           given->items.count <= ranker->max_candidates && given->at_ms >= FIRST_MS &&
           given->at_ms <= LAST_MS;
}

/* Return the place of `name` among the bundle's numbers, -1 for another name. */
static int number_place(const Ranker *ranker, StoreValue name) {
    for (int at = 0; at < ranker->number_count; at++)
        if (strlen(ranker->numbers[at]) == (size_t)name.length &&
            !memcmp(ranker->numbers[at], name.at, (size_t)name.length))
            return at;
    return -1;
}

/* Write the bundle's numbers of each item, NaN for what was not sent. Of a name that was
 * sent twice the first counts. Returns whether the names can be read. */
static int read_numbers(const Ranker *ranker, Given *given, float *numbers) {
    const int64_t count = ranker->number_count, items = given->items.count;
    int is_placed[MOST_NUMBERS] = {0};
    for (int64_t at = 0; at < items * count; at++) numbers[at] = NAN;
    for (int64_t sent = 0; sent < given->numbers_of_item; sent++) {
        const StoreValue name = next_text(&given->number_names);
        if (name.length < 0) return 0;
        const int place = number_place(ranker, name);
        if (place < 0 || is_placed[place]) continue;
        is_placed[place] = 1;
        for (int64_t at = 0; at < items; at++)
            memcpy(numbers + at * count + place,
                   given->numbers +
                       (at * given->numbers_of_item + sent) * (int64_t)sizeof *numbers,
                   sizeof *numbers);
    }
    return given->number_names.bytes == 0;
}

/* Write the items' keys, 0 for padding. Returns whether all are ids, and no id is twice:
 * the Python step gives both places the same score. */
static int read_keys(Texts texts, int64_t *keys, Map *seen) {
    const int64_t count = texts.count;
    for (int64_t at = 0; at < count; at++) {
        const StoreValue id = next_text(&texts);
        const unsigned char *text = (const unsigned char *)id.at;
        uint64_t hash;
        if (id.length < 0) return 0;
        keys[at] = 0;
        if (!id.length) continue;
        const int64_t letters = letters_of(text, (size_t)id.length);
        if (letters < 0 || letters > MOST_LETTERS ||
            !xxh3_64(text, (size_t)id.length, &hash))
            return 0;
        keys[at] = hash ? (int64_t)hash : 1;
        if (map_place(seen, keys[at], -1) >= 0) return 0;
        map_place(seen, keys[at], (int32_t)at);
    }
    return texts.bytes == 0;
}

/* Read a key of the store. After a few outages in a row it is not asked for a while: calls
 * would wait for its silence, and those behind them for these. */
static int read_store(Worker *worker, ParsedCache *known, const char *key, int64_t length,
                      StoreValue *values) {
    const int64_t now = now_ns(CLOCK_MONOTONIC);
    worker->outcome = STORE_DOWN;
    if (now < __atomic_load_n(&known->store_rests_until_ns, __ATOMIC_RELAXED)) return 0;
    const int step = store_read(&worker->connection, &known->store, key, (size_t)length,
                                known->fields, known->reads, values);
    if (step != STORE_FAILED) {
        __atomic_store_n(&known->store_outages, 0, __ATOMIC_RELAXED);
        worker->outcome = UNREADABLE_ROW; /* until it is read */
        return step == STORE_DONE;
    }
    if (__atomic_add_fetch(&known->store_outages, 1, __ATOMIC_RELAXED) >= STORE_OUTAGES)
        __atomic_store_n(&known->store_rests_until_ns,
                         now_ns(CLOCK_MONOTONIC) + STORE_RESTS_MS * INT64_C(1000000),
                         __ATOMIC_RELAXED);
    return 0;
}

/* Read the user's row; return whether the native step can use it. */
static int read_user(Worker *worker, ParsedCache *known, StoreValue id, UserRow *user) {
    StoreValue values[MOST_READ];
    char key[2048];
    const int64_t sized = 8 + id.length, size = known->prefix.length + sized;
    const int64_t letters = letters_of((const unsigned char *)id.at, (size_t)id.length);
    const uint32_t kind = 2, length = (uint32_t)id.length; /* Feast's number of strings */
    if (letters < 0 || letters > MOST_LETTERS ||
        size + known->suffix.length > (int64_t)sizeof key)
        return 0;
    memcpy(key, known->prefix.at, (size_t)known->prefix.length);
    memcpy(key + known->prefix.length, &kind, 4);
    memcpy(key + known->prefix.length + 4, &length, 4);
    memcpy(key + known->prefix.length + 8, id.at, (size_t)id.length);
    memcpy(key + size, known->suffix.at, (size_t)known->suffix.length);
    if (!read_store(worker, known, key, size + known->suffix.length, values) ||
        !read_user_row(values, known->reads, user))
        return 0;
    worker->outcome = OTHER_CALL;
    return 1;
}

static int status_of_user(const UserRow *user, int64_t behaviors) {
    if (!user->is_there) return COLD_USER;
    if (behaviors) return OK_STATUS;
    return user->done.count ? STALE_SEQUENCE : EMPTY_SEQUENCE;
}

/* Lay the arrays of N candidates out in the worker's memory; return whether there is any.
 */
static int lay_out(Worker *worker, const ParsedCache *known, int64_t count,
                   Arrays *arrays) {
    const int64_t *head = known->head, length = head[K_LENGTH], slots = head[K_SLOTS];
    struct {
        void *place;
        int64_t words;
    } parts[] = {
        {&arrays->keys, count},
        {&arrays->history_rows, length},
        {&arrays->history_attributes, length * slots},
        {&arrays->history_codes, length * FIELDS},
        {&arrays->item_rows, count},
        {&arrays->item_attributes, count * slots},
        {&arrays->context, 1 + head[K_NUMBERS] + head[K_CONTEXT_SLOTS]},
        {&arrays->user_rows, head[K_USER_SLOTS]},
        {&arrays->positions, 2 * count},
        {&arrays->request_features, head[K_REQUEST_WIDTH]},
        {&arrays->candidate_features, count * head[K_CANDIDATE_WIDTH]},
        {&arrays->scores, SCORES * count},
        {&arrays->item_status, count},
        {&arrays->numbers, count * known->fixed.numbers},
    };
    arrays->candidate_width = head[K_CANDIDATE_WIDTH];
    const int number = (int)(sizeof parts / sizeof *parts);
    int64_t words = 0;
    for (int at = 0; at < number; at++) words += parts[at].words + 8;
    if ((size_t)words * 8 > worker->size) {
        char *more = realloc(worker->memory, (size_t)words * 8);
        if (!more) return 0;
        worker->memory = more;
        worker->size = (size_t)words * 8;
    }
    char *next = worker->memory;
    for (int at = 0; at < number; at++) {
        memcpy(parts[at].place, &next, sizeof next);
        next += (parts[at].words + 8) * 8;
    }
    return 1;
}

/* Make the tensors of a request; return how many behaviours it has, or less than 0. */
static int64_t assemble(const ParsedCache *known, const Given *given, const UserRow *user,
                        const Arrays *arrays) {
    Request request = {
        .at_ms = given->at_ms,
        .after_ms = given->at_ms - known->head[K_TTL],
        .utc_offset_ms = arrays->context[0],
        .counted_at_ms = user->counted_at_ms,
        .done = user->done.count,
        .done_time_bytes = user->done.time_bytes,
        .done_base_ms = user->done.base_ms,
        .done_values = user->done.values_count,
        .shown = user->shown.count,
        .shown_time_bytes = user->shown.time_bytes,
        .shown_base_ms = user->shown.base_ms,
        .length = known->head[K_LENGTH],
        .exposures = known->head[K_EXPOSURES],
        .candidates = given->items.count,
        .history_rows = arrays->history_rows,
        .history_attributes = arrays->history_attributes,
        .history_codes = arrays->history_codes,
        .request_features = arrays->request_features,
        .item_rows = arrays->item_rows,
        .item_attributes = arrays->item_attributes,
        .candidate_features = arrays->candidate_features,
        .item_status = arrays->item_status,
        .numbers = arrays->numbers,
    };
    memcpy(request.counts, user->counts, sizeof request.counts);
    return srp4ctr_assemble(&known->fixed, &request, arrays->keys,
                            (const double *)(arrays->context + 1), user->done.times,
                            user->done.keys, (const char *)user->done.codes,
                            user->done.values, user->shown.times, user->shown.keys);
}

static Tensor tensor_of(const char *name, int type, void *content, int64_t rows,
                        int64_t width) {
    const int64_t bytes = type == ORT_INT64 ? 8 : 4;
    Tensor made = {name,
                   type,
                   content,
                   rows * (width < 0 ? 1 : width) * bytes,
                   width < 0 ? 2 : 3,
                   {1, rows, width, 0}};
    return made;
}

/* Score the candidates by the behaviours that there are. */
static int score_arrays(const Ranker *ranker, const ParsedCache *known, int64_t behaviors,
                        int64_t count, const Arrays *arrays, int64_t *encoded_ns) {
    const int64_t *head = known->head, slots = head[K_SLOTS];
    const int64_t read = behaviors ? behaviors : 1, first = head[K_LENGTH] - read;
    const Tensor history[] = {
        tensor_of("history_item_rows", ORT_INT64, arrays->history_rows + first, read, -1),
        tensor_of("history_attribute_rows", ORT_INT64,
                  arrays->history_attributes + first * slots, read, slots),
        tensor_of("history_behavior_codes", ORT_INT64,
                  arrays->history_codes + first * FIELDS, read, FIELDS),
    };
    const Tensor others[] = {
        tensor_of("request_features", ORT_FLOAT, arrays->request_features,
                  head[K_REQUEST_WIDTH], -1),
        tensor_of("context_rows", ORT_INT64, arrays->context + 1 + head[K_NUMBERS],
                  head[K_CONTEXT_SLOTS], -1),
        tensor_of("candidate_item_rows", ORT_INT64, arrays->item_rows, count, -1),
        tensor_of("candidate_attribute_rows", ORT_INT64, arrays->item_attributes, count,
                  slots),
        tensor_of("candidate_features", ORT_FLOAT, arrays->candidate_features, count,
                  head[K_CANDIDATE_WIDTH]),
        tensor_of("user_attribute_rows", ORT_INT64, arrays->user_rows, head[K_USER_SLOTS],
                  -1),
    };
    return score(&ranker->scoring, history, 3, others, head[K_USER_SLOTS] ? 6 : 5,
                 arrays->scores, count, encoded_ns);
}
