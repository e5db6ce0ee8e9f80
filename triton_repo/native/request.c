#include "request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../features/tensors/key_map.h"
#include "clock.h"
#include "hashes.h"
#include "text_rules.h"
#include "triton_errors.h"
#include "utf8.h"

enum {
    MAX_STORE_OUTAGES = 3,
    STORE_RETRY_MS = 1000
}; /* as the Python step's CircuitBreaker */
static const int64_t MIN_REQUEST_MS = INT64_C(100000000000);  /* 1973 */
static const int64_t MAX_REQUEST_MS = INT64_C(4102444800000); /* 2100 */

StringView next_string(StringTensor *strings) {
    uint32_t length;
    if (strings->bytes < 4) return (StringView){NULL, -1};
    memcpy(&length, strings->content, 4);
    if ((int64_t)length > strings->bytes - 4) return (StringView){NULL, -1};
    const StringView found = {strings->content + 4, length};
    strings->content += 4 + (int64_t)length;
    strings->bytes -= 4 + (int64_t)length;
    return found;
}

typedef struct {
    const char *name;
    TRITONSERVER_DataType type;
    const int64_t *shape;
    uint32_t axes;
    uint64_t bytes;
    const void *content;
} OneInput;

/* Return whether the input is one buffer of this machine's memory, of one request. */
static int read_buffer(TRITONBACKEND_Input *input, OneInput *one) {
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    uint32_t buffers = 0;
    uint64_t in_buffer = 0;
    int64_t memory_id = 0;
    TRITONSERVER_Error *error = TRITONBACKEND_InputProperties(
        input, &one->name, &one->type, &one->shape, &one->axes, &one->bytes, &buffers);
    if (!error && buffers == 1)
        error = TRITONBACKEND_InputBuffer(input, 0, &one->content, &in_buffer, &memory,
                                          &memory_id);
    if (!error && buffers == 1 && in_buffer == one->bytes &&
        memory == TRITONSERVER_MEMORY_CPU)
        return one->shape[0] == 1;
    discard_error(error);
    return 0;
}

/* Return where the strings of an input of that name belong; NULL: it is none of ours. */
static StringTensor *strings_named(const char *name, RankInputs *inputs) {
    if (!strcmp(name, "user_id")) return &inputs->user;
    if (!strcmp(name, "item_ids")) return &inputs->items;
    if (!strcmp(name, "context")) return &inputs->context;
    if (!strcmp(name, "request_id")) return &inputs->request_id;
    if (!strcmp(name, "candidate_number_names")) return &inputs->number_names;
    return NULL;
}

/* Read one input; return whether it is as the native step reads it. */
static int read_input(TRITONBACKEND_Input *input, RankInputs *inputs) {
    OneInput one = {0};
    if (!read_buffer(input, &one)) return 0;
    if (!strcmp(one.name, "candidate_numbers")) {
        if (one.type != TRITONSERVER_TYPE_FP32 || one.axes != 3) return 0;
        inputs->numbers = one.content;
        inputs->numbered_items = one.shape[1];
        inputs->numbers_of_item = one.shape[2];
        return one.bytes == (uint64_t)(one.shape[1] * one.shape[2]) * sizeof(float);
    }
    if (one.axes != 2) return 0;
    if (!strcmp(one.name, "request_time_ms")) {
        if (one.type != TRITONSERVER_TYPE_INT64 || one.shape[1] != 1 || one.bytes != 8)
            return 0;
        memcpy(&inputs->at_ms, one.content, 8);
        return 1;
    }
    StringTensor *into = strings_named(one.name, inputs);
    if (!into) return 0;
    *into = (StringTensor){one.content, (int64_t)one.bytes, one.shape[1]};
    const int are_several = into == &inputs->items || into == &inputs->number_names;
    return one.type == TRITONSERVER_TYPE_BYTES && (are_several || one.shape[1] == 1);
}

int read_inputs(const Ranker *ranker, TRITONBACKEND_Request *request, RankInputs *inputs) {
    uint32_t count = 0;
    memset(inputs, 0, sizeof *inputs);
    discard_error(TRITONBACKEND_RequestInputCount(request, &count));
    for (uint32_t at = 0; at < count; at++) {
        TRITONBACKEND_Input *input;
        TRITONSERVER_Error *error = TRITONBACKEND_RequestInputByIndex(request, at, &input);
        if (error || !read_input(input, inputs)) {
            discard_error(error);
            return 0;
        }
    }
    if (!inputs->at_ms) inputs->at_ms = utc_ns() / 1000000;
    if (inputs->numbers_of_item != inputs->number_names.count ||
        (inputs->numbers && inputs->numbered_items != inputs->items.count))
        return 0;
    return inputs->user.count == 1 && inputs->items.count >= 1 &&
           inputs->items.count <= ranker->max_candidates &&
           inputs->at_ms >= MIN_REQUEST_MS && inputs->at_ms <= MAX_REQUEST_MS;
}

/* Return the place of `name` among the bundle's numbers, -1 for another name. */
static int find_number(const Ranker *ranker, StringView name) {
    for (int at = 0; at < ranker->num_numbers; at++)
        if (strlen(ranker->numbers[at]) == (size_t)name.length &&
            !memcmp(ranker->numbers[at], name.start, (size_t)name.length))
            return at;
    return -1;
}

/* Write the bundle's numbers of each item, NaN for what was not sent. Of a name that was
 * sent twice the first counts. Returns whether the names can be read. */
static int read_numbers(const Ranker *ranker, RankInputs *inputs, float *numbers) {
    const int64_t count = ranker->num_numbers, items = inputs->items.count;
    int is_placed[MAX_NUMBERS] = {0};
    for (int64_t at = 0; at < items * count; at++) numbers[at] = NAN;
    for (int64_t sent = 0; sent < inputs->numbers_of_item; sent++) {
        const StringView name = next_string(&inputs->number_names);
        if (name.length < 0) return 0;
        const int place = find_number(ranker, name);
        if (place < 0 || is_placed[place]) continue;
        is_placed[place] = 1;
        for (int64_t at = 0; at < items; at++)
            memcpy(numbers + at * count + place,
                   inputs->numbers +
                       (at * inputs->numbers_of_item + sent) * (int64_t)sizeof *numbers,
                   sizeof *numbers);
    }
    return inputs->number_names.bytes == 0;
}

/* Write the items' keys, 0 for padding. Returns whether all are ids, and no id is twice:
 * the Python step gives both places the same score. */
static int read_keys(StringTensor ids, int64_t *keys, KeyMap *seen) {
    const int64_t count = ids.count;
    for (int64_t at = 0; at < count; at++) {
        const StringView id = next_string(&ids);
        const unsigned char *text = (const unsigned char *)id.start;
        uint64_t hash;
        if (id.length < 0) return 0;
        keys[at] = 0;
        if (!id.length) continue;
        const int64_t characters = count_characters(text, (size_t)id.length);
        if (characters < 0 || characters > MAX_ID_CHARACTERS ||
            !xxh3_64(text, (size_t)id.length, &hash))
            return 0;
        keys[at] = hash ? (int64_t)hash : 1;
        if (key_map_place(seen, keys[at], -1) >= 0) return 0;
        key_map_place(seen, keys[at], (int32_t)at);
    }
    return ids.bytes == 0;
}

/* Read a key of the store. After a few outages in a row the store is skipped for a while:
 * otherwise this call and those queued behind it would wait for the timeout. */
static int read_store(Worker *worker, ParsedCache *cache, const char *key, int64_t length,
                      StringView *values) {
    const int64_t now = monotonic_ns();
    worker->outcome = STORE_DOWN;
    if (now < __atomic_load_n(&cache->store_retry_at_ns, __ATOMIC_RELAXED)) return 0;
    const int step = store_read(&worker->connection, &cache->store, key, (size_t)length,
                                cache->row_fields, cache->num_row_fields, values);
    if (step != STORE_FAILED) {
        __atomic_store_n(&cache->store_outages, 0, __ATOMIC_RELAXED);
        worker->outcome = UNREADABLE_ROW; /* until it is read */
        return step == STORE_DONE;
    }
    if (__atomic_add_fetch(&cache->store_outages, 1, __ATOMIC_RELAXED) >= MAX_STORE_OUTAGES)
        __atomic_store_n(&cache->store_retry_at_ns,
                         monotonic_ns() + STORE_RETRY_MS * INT64_C(1000000),
                         __ATOMIC_RELAXED);
    return 0;
}

/* Read the user's row; return whether the native step can use it. */
static int read_user(Worker *worker, ParsedCache *cache, StringView id, UserRow *user) {
    StringView values[MAX_ROW_FIELDS];
    char key[2048];
    const int64_t sized = 8 + id.length, size = cache->prefix.length + sized;
    const int64_t characters =
        count_characters((const unsigned char *)id.start, (size_t)id.length);
    const uint32_t kind = 2, length = (uint32_t)id.length; /* Feast's number of strings */
    if (characters < 0 || characters > MAX_ID_CHARACTERS ||
        size + cache->suffix.length > (int64_t)sizeof key)
        return 0;
    memcpy(key, cache->prefix.start, (size_t)cache->prefix.length);
    memcpy(key + cache->prefix.length, &kind, 4);
    memcpy(key + cache->prefix.length + 4, &length, 4);
    memcpy(key + cache->prefix.length + 8, id.start, (size_t)id.length);
    memcpy(key + size, cache->suffix.start, (size_t)cache->suffix.length);
    if (!read_store(worker, cache, key, size + cache->suffix.length, values) ||
        !read_user_row(values, cache->num_row_fields, user))
        return 0;
    worker->outcome = OTHER_CALL;
    return 1;
}

int user_status(const UserRow *user, int64_t behaviors) {
    if (!user->exists) return COLD_USER;
    if (behaviors) return OK_STATUS;
    return user->done.count ? STALE_SEQUENCE : EMPTY_SEQUENCE;
}

/* Allocate the arrays of N candidates in the worker's memory; return whether there is any.
 */
static int allocate_arrays(Worker *worker, const ParsedCache *cache, int64_t count,
                           Arrays *arrays) {
    const CacheHead *head = cache->head;
    const int64_t length = head->length, slots = head->slots;
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
        {&arrays->context, 1 + head->context_numbers + head->context_slots},
        {&arrays->user_rows, head->user_slots},
        {&arrays->positions, 2 * count},
        {&arrays->request_features, head->request_width},
        {&arrays->candidate_features, count * head->candidate_width},
        {&arrays->scores, SCORES * count},
        {&arrays->item_status, count},
        {&arrays->numbers, count * cache->fixed.numbers},
    };
    arrays->candidate_width = head->candidate_width;
    const int num_parts = (int)(sizeof parts / sizeof *parts);
    int64_t words = 0;
    for (int at = 0; at < num_parts; at++) words += parts[at].words + 8;
    if ((size_t)words * 8 > worker->size) {
        char *more = realloc(worker->memory, (size_t)words * 8);
        if (!more) return 0;
        worker->memory = more;
        worker->size = (size_t)words * 8;
    }
    char *next = worker->memory;
    for (int at = 0; at < num_parts; at++) {
        memcpy(parts[at].place, &next, sizeof next);
        next += (parts[at].words + 8) * 8;
    }
    return 1;
}

int read_call(const Ranker *ranker, Worker *worker, ParsedCache *cache, RankInputs *inputs,
              UserRow *user, Arrays *arrays) {
    const CacheHead *head = cache->head;
    StringTensor users = inputs->user;
    const StringView id = next_string(&users);
    StringView context = {"", 0};
    KeyMap seen = {0};
    if (inputs->context.count) context = next_string(&inputs->context);
    if (id.length < 0 || users.bytes || context.length < 0 || inputs->context.bytes ||
        !allocate_arrays(worker, cache, inputs->items.count, arrays) ||
        !read_numbers(ranker, inputs, arrays->numbers))
        return 0;
    const int are_keys = key_map_init(&seen, inputs->items.count) &&
                         read_keys(inputs->items, arrays->keys, &seen);
    key_map_free(&seen);
    if (!are_keys) return 0;
    worker->outcome = UNREAD_CONTEXT;
    if (!read_context(&cache->rules, context, head->context_numbers, head->context_slots,
                      arrays->context))
        return 0;
    worker->outcome = OTHER_CALL;
    if (!read_user(worker, cache, id, user)) return 0;
    worker->outcome = UNREAD_ATTRIBUTES;
    if (head->user_slots && !read_attributes(&cache->rules, user->attributes,
                                             head->user_slots, arrays->user_rows))
        return 0;
    worker->outcome = OTHER_CALL;
    return 1;
}

int64_t assemble_tensors(const ParsedCache *cache, const RankInputs *inputs,
                         const UserRow *user, const Arrays *arrays) {
    Request request = {
        .at_ms = inputs->at_ms,
        .after_ms = inputs->at_ms - cache->head->ttl_ms,
        .utc_offset_ms = arrays->context[0],
        .counted_at_ms = user->counted_at_ms,
        .done = user->done.count,
        .done_time_bytes = user->done.time_bytes,
        .done_base_ms = user->done.base_ms,
        .done_values = user->done.values_count,
        .shown = user->shown.count,
        .shown_time_bytes = user->shown.time_bytes,
        .shown_base_ms = user->shown.base_ms,
        .length = cache->head->length,
        .exposures = cache->head->exposures,
        .candidates = inputs->items.count,
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
    return srp4ctr_assemble(&cache->fixed, &request, arrays->keys,
                            (const double *)(arrays->context + 1), user->done.times,
                            user->done.keys, (const char *)user->done.codes,
                            user->done.values, user->shown.times, user->shown.keys);
}

static Tensor create_tensor(const char *name, ONNXTensorElementDataType type, void *content,
                            int64_t rows, int64_t width, int64_t bytes_each) {
    const int64_t bytes = rows * (width < 0 ? 1 : width) * bytes_each;
    return (Tensor){name, type, content, bytes, width < 0 ? 2 : 3, {1, rows, width, 0}};
}

/* Return a tensor (1, rows), or (1, rows, width) unless that is negative. */
static Tensor int64_tensor(const char *name, int64_t *content, int64_t rows,
                           int64_t width) {
    return create_tensor(name, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, content, rows, width,
                         sizeof *content);
}

static Tensor float_tensor(const char *name, float *content, int64_t rows, int64_t width) {
    return create_tensor(name, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, content, rows, width,
                         sizeof *content);
}

int score_tensors(const Ranker *ranker, const ParsedCache *cache, int64_t behaviors,
                  int64_t count, const Arrays *arrays, int64_t *encoded_ns) {
    const CacheHead *head = cache->head;
    const int64_t slots = head->slots;
    const int64_t read = behaviors ? behaviors : 1, first = head->length - read;
    const Tensor history[] = {
        int64_tensor("history_item_rows", arrays->history_rows + first, read, -1),
        int64_tensor("history_attribute_rows", arrays->history_attributes + first * slots,
                     read, slots),
        int64_tensor("history_behavior_codes", arrays->history_codes + first * FIELDS, read,
                     FIELDS),
    };
    const Tensor inputs[] = {
        float_tensor("request_features", arrays->request_features, head->request_width, -1),
        int64_tensor("context_rows", arrays->context + 1 + head->context_numbers,
                     head->context_slots, -1),
        int64_tensor("candidate_item_rows", arrays->item_rows, count, -1),
        int64_tensor("candidate_attribute_rows", arrays->item_attributes, count, slots),
        float_tensor("candidate_features", arrays->candidate_features, count,
                     head->candidate_width),
        int64_tensor("user_attribute_rows", arrays->user_rows, head->user_slots, -1),
    };
    return onnx_scorer_run(&ranker->scorer, history, 3, inputs, head->user_slots ? 6 : 5,
                           arrays->scores, count, encoded_ns);
}
