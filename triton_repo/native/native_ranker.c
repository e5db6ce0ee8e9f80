/* A backend of Triton that answers `rank_clicks` without Python.
 *
 * It answers the calls that it knows all of: one user whose row this release wrote, items
 * whose texts the Python step has parsed, a context and attributes that are plain, nothing
 * wrong with what was sent.
 * Any other call it hands to the Python step, whose answer it passes on: what a mistake is,
 * and what a text means, is defined there alone. Both read the same row of the store, the
 * same table of items and the same ONNX files; compiled.c makes the tensors of both.
 *
 * Its threads share the weights and the processor's caches, and nothing passes from one
 * process to another: that is what it is for.
 */
#define _POSIX_C_SOURCE 200809L /* no newer functions of glibc than Triton's image has */
#include "../../features/tensors/compiled.c"
#include "triton.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

static void say(int level, const char *message) {
    Error *error = TRITONSERVER_LogMessage(level, "native_ranker", 0, message);
    if (error) TRITONSERVER_ErrorDelete(error);
}

static int64_t now_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

#include "hashes.h"
#include "store.h"

#include "texts.h"
#include "parsed_cache.h"
#include "metrics.h"
#include "scoring.h"
#include "user_row.h"

enum { MOST_THREADS = 64, WATCH_MS = 200, ASK_AFTER_MS = 1000 };
enum { MOST_INPUTS = 8 };        /* of a call that the native step answers */
static const char NOT_SAMPLED[] = "srp4ctr_not_sampled"; /* as in model_names.py */
enum { LONGEST_ASK_MS = 60000 }; /* between loads that fail */
enum { STORE_OUTAGES = 3, STORE_RESTS_MS = 1000 }; /* as the Python step's CircuitBreaker */
static const int64_t FIRST_MS = INT64_C(100000000000), LAST_MS = INT64_C(4102444800000);
static const char BY_CALLER[] = "the caller has cancelled the request";
static const char WAITED[] = "queued for too long: the server has more to do than it can";

typedef struct Call { /* one request of Triton's */
    Request_ *request;
    Instance *instance;
    int *in_instance; /* how many calls it has; guarded by the ranker's lock */
    int64_t arrived_ns, began_ns; /* from then on: in the queue, with a thread */
    int64_t scoring_ns, scored_ns; /* the graphs, or the Python step */
    struct Ranker *ranker;
    struct Call *next;     /* in the queue, or of those that are handed over */
    HandedRequest *handed; /* which can be cancelled; guarded by the ranker's lock */
    int is_released;       /* the handed request; guarded as well */
    int users;             /* the answer, and of a handed call its sender and its request */
} Call;

enum { MOST_NUMBERS = 8, NUMBER_BYTES = 1025 }; /* as in config.py; of a name */

typedef struct Ranker { /* one bundle */
    Server *server;
    char numbers[MOST_NUMBERS][NUMBER_BYTES]; /* the names of its candidates' numbers */
    int64_t number_count;
    char folder[2048], python_step[512], version[256], encoder[256], head[256];
    int64_t max_candidates, max_wait_us, threads;
    int64_t logged_parts; /* of SAMPLE_PARTS of the requests with an id */
    unsigned char is_calibrated;
    Allocator *allocator;
    Counters counters;
    int has_counters;
    Scoring scoring;
    pthread_mutex_t lock;
    pthread_cond_t has_calls, has_ended, stops;
    Call *first, *last, *handed_calls;
    int is_stopping, is_asking, handed, started;
    ParsedCache *known;
    char path[1024]; /* of the cache that the Python step has now */
    int64_t sampled_ns;
    pthread_t workers[MOST_THREADS], watcher;
} Ranker;

typedef struct { /* a thread's own memory */
    int outcome; /* of its call: one of OUTCOME_NAMES */
    StoreConnection connection;
    char *memory;
    size_t size;
} Worker;

typedef struct {
    const char *content;
    int64_t bytes, count;
} Texts;

typedef struct { /* what a call has sent */
    Texts user, items, context, number_names, request_id;
    const char *numbers; /* of items by names, float; NULL: none */
    int64_t numbered_items, numbers_of_item;
    int64_t at_ms;
} Given;

typedef struct { /* a request's tensors, in a worker's memory */
    int64_t *keys, *history_rows, *history_attributes, *history_codes, *item_rows;
    int64_t *item_attributes, *context, *user_rows, *positions;
    float *request_features, *candidate_features, *scores, *numbers;
    uint8_t *item_status;
    int64_t candidate_width, cpu_ns; /* of the call until it is scored */
    int64_t generation, table_writes; /* of the table, before its rows were read */
} Arrays;

static void forget(Error *error) {
    if (error) TRITONSERVER_ErrorDelete(error);
}

#include "answer.h"
#include "handover.h"
#include "request.h"
#include "comparison.h"

typedef struct { /* of a call's way, in ns */
    int64_t began, read, made, encoded, ended, cpu;
} Times;

#include "report.h"

static void count_call(const Ranker *ranker, const Call *call, const Times *times,
                       const Given *given, const UserRow *user, int status,
                       const Arrays *arrays, int64_t table_ms, int64_t padding) {
    const Counters *counters = &ranker->counters;
    const int64_t parts[] = {times->made - times->began, times->encoded - times->made,
                             times->ended - times->encoded};
    double scored = 0.0;
    for (int64_t at = 0; at < given->items.count; at++)
        scored += arrays->scores[at] == arrays->scores[at];
    for (int part = 0; part < PARTS; part++) {
        add(counters->part_runs[part], 1.0);
        add(counters->part_us[part], (double)parts[part] / 1e3);
    }
    add(counters->cpu_us, (double)times->cpu / 1e3);
    add(counters->candidates, scored);
    add(counters->statuses[status], 1.0);
    count_items(counters, arrays->item_status, given->items.count, padding);
    add(counters->table_reads, 1.0);
    add(counters->table_age_ms,
        (double)(given->at_ms > table_ms ? given->at_ms - table_ms : 0));
    if (user->is_there) {
        const double age_ms =
            fmax(0.0, (double)given->at_ms - (double)user->version_us / 1e3);
        add_to_histogram(counters->ages, AGES_UNDER, AGE_BOUNDS, age_ms / 1e3);
        add(counters->age_ms, age_ms);
    }
    const double took_s = (double)(times->ended - call->arrived_ns) / 1e9;
    add_to_histogram(counters->answers, ANSWERS_UNDER, ANSWER_BOUNDS, took_s);
    add(counters->answers_us, took_s * 1e6);
}

/* Read all that a call asks for: its user, context and items; return whether that is known.
 */
static int read_all(const Ranker *ranker, Worker *worker, ParsedCache *known,
                    Given *given, UserRow *user, Arrays *arrays) {
    const int64_t *head = known->head;
    Texts users = given->user;
    const StoreValue id = next_text(&users);
    StoreValue context = {"", 0};
    Map seen = {0};
    if (given->context.count) context = next_text(&given->context);
    if (id.length < 0 || users.bytes || context.length < 0 || given->context.bytes ||
        !lay_out(worker, known, given->items.count, arrays) ||
        !read_numbers(ranker, given, arrays->numbers))
        return 0;
    const int are_keys =
        map_make(&seen, given->items.count) && read_keys(given->items, arrays->keys, &seen);
    free(seen.keys); /* and the places behind them */
    if (!are_keys) return 0;
    worker->outcome = UNREAD_CONTEXT;
    if (!read_context(&known->rules, context, head[K_NUMBERS], head[K_CONTEXT_SLOTS],
                      arrays->context))
        return 0;
    worker->outcome = OTHER_CALL;
    if (!read_user(worker, known, id, user)) return 0;
    worker->outcome = UNREAD_ATTRIBUTES;
    if (head[K_USER_SLOTS] && !read_attributes(&known->rules, user->attributes,
                                               head[K_USER_SLOTS], arrays->user_rows))
        return 0;
    worker->outcome = OTHER_CALL;
    return 1;
}

static void write_version(const UserRow *user, int64_t table_ms, char *into, size_t size) {
    if (user->is_there)
        snprintf(into, size, "user=%lld@%lld,items=%lld", (long long)user->version_us,
                 (long long)user->last_offset, (long long)table_ms);
    else
        snprintf(into, size, "items=%lld", (long long)table_ms);
}

/* Answer a call by what is known; return whether it was. The sample is answered by both
 * steps, and the Python step counts it. */
static int rank(Worker *worker, ParsedCache *known, Call *call, int is_sample) {
    Ranker *ranker = call->ranker;
    Times times = {.began = now_ns(CLOCK_MONOTONIC),
                   .cpu = -now_ns(CLOCK_THREAD_CPUTIME_ID)};
    Given given;
    UserRow user;
    Arrays arrays;
    char version[96];
    if (!is_current(known) || known->fixed.numbers != ranker->number_count ||
        !read_given(ranker, call->request, &given) ||
        !read_all(ranker, worker, known, &given, &user, &arrays))
        return 0;
    times.read = now_ns(CLOCK_MONOTONIC);
    const int64_t table_ms = up_to_date_ms(known), count = given.items.count;
    arrays.generation = known->head[K_GENERATION];
    arrays.table_writes = table_writes(known);
    const int64_t behaviors = assemble(known, &given, &user, &arrays);
    if (behaviors == TO_PARSE) worker->outcome = UNPARSED_ITEM;
    if (behaviors < 0) return 0;
    times.made = call->scoring_ns = now_ns(CLOCK_MONOTONIC);
    if (!score_arrays(ranker, known, behaviors, count, &arrays, &times.encoded)) return 0;
    call->scored_ns = now_ns(CLOCK_MONOTONIC);
    write_positions(arrays.scores + count, count, arrays.positions);
    write_version(&user, table_ms, version, sizeof version);
    arrays.cpu_ns = times.cpu + now_ns(CLOCK_THREAD_CPUTIME_ID);
    const int status = status_of_user(&user, behaviors);
    Comparison *compared =
        is_sample ? make_comparison(call, &given, &arrays, status, version) : NULL;
    Report *report = make_report(call, known, &given, &arrays);
    const int is_answered = respond(call, &arrays, count, status, version, &times.ended);
    /* From here on the call's inputs may be those of another. */
    times.cpu += now_ns(CLOCK_THREAD_CPUTIME_ID);
    if (is_answered && !is_sample)
        count_call(ranker, call, &times, &given, &user, status, &arrays, table_ms,
                   known->fixed.padding);
    if (compared) (is_answered ? send_comparison : forget_comparison)(compared);
    if (report && is_answered) send_report(report, &times, status, version);
    if (report && !is_answered) forget_report(report);
    end_call(call, is_answered);
    return 1;
}

/* Return whether this call is the one in a second that both steps answer, and whose features
 * the Python step compares with those of training, whichever step could answer it. */
static int take_sample(Ranker *ranker, int64_t now) {
    pthread_mutex_lock(&ranker->lock);
    const int is_due = now - ranker->sampled_ns >= INT64_C(1000000000);
    if (is_due) ranker->sampled_ns = now;
    pthread_mutex_unlock(&ranker->lock);
    return is_due;
}

static void answer(Worker *worker, Call *call) {
    Ranker *ranker = call->ranker;
    const int64_t now = now_ns(CLOCK_MONOTONIC);
    uint64_t limit_us = 0;
    call->began_ns = call->scoring_ns = call->scored_ns = now;
    if (is_cancelled(call)) {
        refuse(call, CANCELLED, BY_CALLER);
        return;
    }
    forget(TRITONBACKEND_InferenceRequestTimeoutMicroseconds(call->request, &limit_us));
    if (!limit_us || limit_us > (uint64_t)ranker->max_wait_us)
        limit_us = (uint64_t)ranker->max_wait_us;
    const int64_t left_us = (int64_t)limit_us - (now - call->arrived_ns) / 1000;
    if (left_us <= 0) {
        refuse(call, UNAVAILABLE, WAITED);
        return;
    }
    const int is_sample = take_sample(ranker, now);
    ParsedCache *known = hold(ranker);
    worker->outcome = known ? OTHER_CALL : NOT_LOADED;
    const int is_over = known && rank(worker, known, call, is_sample);
    if (is_over) worker->outcome = ANSWERED;
    add(ranker->counters.outcomes[worker->outcome], 1.0);
    if (known) let_go(ranker, known);
    if (!is_over) hand_over(call, (uint64_t)left_us, is_sample);
}

/* Answer calls, the oldest first, until the end; those that wait then are answered. */
static void *work(void *own) {
    Ranker *ranker = own;
    Worker worker = {.connection = {.socket = -1}};
    for (;;) {
        pthread_mutex_lock(&ranker->lock);
        while (!ranker->first && !ranker->is_stopping)
            pthread_cond_wait(&ranker->has_calls, &ranker->lock);
        Call *call = ranker->first;
        if (call && !(ranker->first = call->next)) ranker->last = NULL;
        pthread_mutex_unlock(&ranker->lock);
        if (!call) break;
        answer(&worker, call);
    }
    store_close(&worker.connection);
    free(worker.memory);
    return NULL;
}

/* ---- Triton's functions of a backend ---- */

#define TEXT_OF(word) #word
#define MARK(number) "srp4ctr native source " TEXT_OF(number)
/* By which native_library.py knows of which sources the library is. */
const char srp4ctr_native_source[] = MARK(SRP4CTR_SOURCE);

/* Add a number of candidates, whose name is `digits`: two hexadecimal ones a byte. */
static int add_number(Ranker *ranker, const char *digits) {
    const size_t bytes = strlen(digits) / 2;
    if (ranker->number_count >= MOST_NUMBERS || bytes >= NUMBER_BYTES) return 0;
    char *name = ranker->numbers[ranker->number_count++];
    for (size_t at = 0; at < bytes; at++) {
        unsigned byte;
        if (sscanf(digits + 2 * at, "%2x", &byte) != 1) return 0;
        name[at] = (char)byte;
    }
    return 1;
}

/* Read `settings.txt`, a name and a value a line; return whether there is one. */
static int read_settings(Ranker *ranker) {
    char path[4096], name[64], value[2 * NUMBER_BYTES];
    int is_right = 1;
    snprintf(path, sizeof path, "%s/settings.txt", ranker->folder);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    while (fscanf(file, "%63s %2049s", name, value) == 2) {
        const int64_t number = strtoll(value, NULL, 10);
        if (!strcmp(name, "number"))
            is_right = add_number(ranker, value) && is_right;
        else if (strlen(value) >= sizeof ranker->version)
            is_right = 0;
        else if (!strcmp(name, "python_step"))
            strcpy(ranker->python_step, value);
        else if (!strcmp(name, "version"))
            strcpy(ranker->version, value);
        else if (!strcmp(name, "encoder"))
            strcpy(ranker->encoder, value);
        else if (!strcmp(name, "head"))
            strcpy(ranker->head, value);
        else if (!strcmp(name, "max_candidates"))
            ranker->max_candidates = number;
        else if (!strcmp(name, "max_wait_us"))
            ranker->max_wait_us = number;
        else if (!strcmp(name, "threads"))
            ranker->threads = number;
        else if (!strcmp(name, "logged_parts"))
            ranker->logged_parts = number;
        else if (!strcmp(name, "calibrated"))
            ranker->is_calibrated = (unsigned char)number;
    }
    fclose(file);
    return is_right && *ranker->python_step && ranker->threads > 0 &&
           ranker->threads <= MOST_THREADS;
}

static void stop(Ranker *ranker) {
    pthread_mutex_lock(&ranker->lock);
    ranker->is_stopping = 1;
    pthread_cond_broadcast(&ranker->has_calls);
    pthread_cond_broadcast(&ranker->stops);
    pthread_mutex_unlock(&ranker->lock);
    for (int at = 0; at < ranker->started; at++)
        pthread_join(at ? ranker->workers[at - 1] : ranker->watcher, NULL);
    pthread_mutex_lock(&ranker->lock);
    while (ranker->handed > 0) pthread_cond_wait(&ranker->has_ended, &ranker->lock);
    pthread_mutex_unlock(&ranker->lock);
    use(ranker, NULL);
    scoring_close(&ranker->scoring);
    if (ranker->has_counters) counters_close(ranker->python_step);
    if (ranker->allocator) forget(TRITONSERVER_ResponseAllocatorDelete(ranker->allocator));
    free(ranker);
}

static int start_threads(Ranker *ranker) {
    for (int at = 0; at <= ranker->threads; at++, ranker->started++)
        if (pthread_create(at ? ranker->workers + at - 1 : &ranker->watcher, NULL,
                           at ? work : watch, ranker))
            return 0;
    return 1;
}

/* Refuse a server that lacks functions which are used here. */
Error *TRITONBACKEND_Initialize(Backend *backend) {
    uint32_t major = 0, minor = 0;
    char message[160];
    (void)backend;
    Error *error = TRITONBACKEND_ApiVersion(&major, &minor);
    if (error || (major == API_MAJOR && minor >= API_MINOR)) return error;
    snprintf(message, sizeof message,
             "the native step needs Triton's backend API %d.%d or a later %d; this server "
             "has %u.%u",
             API_MAJOR, API_MINOR, API_MAJOR, major, minor);
    return TRITONSERVER_ErrorNew(UNSUPPORTED, message);
}

Error *TRITONBACKEND_ModelInitialize(TritonModel *model) {
    Ranker *ranker = calloc(1, sizeof *ranker);
    const char *folder = "";
    int kind;
    if (!ranker) return TRITONSERVER_ErrorNew(UNAVAILABLE, "out of memory");
    pthread_mutex_init(&ranker->lock, NULL);
    pthread_cond_init(&ranker->has_calls, NULL);
    pthread_cond_init(&ranker->has_ended, NULL);
    pthread_cond_init(&ranker->stops, NULL);
    Error *error = TRITONBACKEND_ModelRepository(model, &kind, &folder);
    if (!error) error = TRITONBACKEND_ModelServer(model, &ranker->server);
    if (!error)
        error = TRITONSERVER_ResponseAllocatorNew(&ranker->allocator, allocate, give_back,
                                                  NULL);
    if (!error && snprintf(ranker->folder, sizeof ranker->folder, "%s", folder) >=
                      (int)sizeof ranker->folder)
        error = TRITONSERVER_ErrorNew(INTERNAL, "the path of the repository is too long");
    if (!error && !read_settings(ranker))
        error = TRITONSERVER_ErrorNew(INTERNAL, "settings.txt of the native step is wrong");
    if (!error) {
        ranker->has_counters =
            counters_open(&ranker->counters, ranker->python_step, ranker->version);
        ranker->sampled_ns = now_ns(CLOCK_MONOTONIC);
        if (!start_threads(ranker))
            error = TRITONSERVER_ErrorNew(UNAVAILABLE, "no thread can be started");
        else
            error = TRITONBACKEND_ModelSetState(model, ranker);
    }
    if (error) stop(ranker);
    return error;
}

Error *TRITONBACKEND_ModelFinalize(TritonModel *model) {
    void *ranker = NULL;
    Error *error = TRITONBACKEND_ModelState(model, &ranker);
    if (!error && ranker) stop(ranker);
    return error;
}

Error *TRITONBACKEND_ModelInstanceInitialize(Instance *instance) {
    int *calls = calloc(1, sizeof *calls);
    if (!calls) return TRITONSERVER_ErrorNew(UNAVAILABLE, "out of memory");
    return TRITONBACKEND_ModelInstanceSetState(instance, calls);
}

/* Wait for the calls that came by this instance: their statistics name it. */
Error *TRITONBACKEND_ModelInstanceFinalize(Instance *instance) {
    TritonModel *model;
    void *own = NULL, *calls = NULL;
    Error *error = TRITONBACKEND_ModelInstanceModel(instance, &model);
    if (!error) error = TRITONBACKEND_ModelState(model, &own);
    if (!error) error = TRITONBACKEND_ModelInstanceState(instance, &calls);
    if (error || !own || !calls) return error;
    Ranker *ranker = own;
    pthread_mutex_lock(&ranker->lock);
    while (*(int *)calls > 0) pthread_cond_wait(&ranker->has_ended, &ranker->lock);
    pthread_mutex_unlock(&ranker->lock);
    free(calls);
    return NULL;
}

/* Queue the calls for the threads; Triton's own thread returns at once. */
Error *TRITONBACKEND_ModelInstanceExecute(Instance *instance, Request_ **requests,
                                          uint32_t count) {
    TritonModel *model;
    void *own = NULL, *calls = NULL;
    Error *error = TRITONBACKEND_ModelInstanceModel(instance, &model);
    if (!error) error = TRITONBACKEND_ModelState(model, &own);
    if (!error) error = TRITONBACKEND_ModelInstanceState(instance, &calls);
    if (error) return error;
    Ranker *ranker = own;
    for (uint32_t at = 0; at < count; at++) {
        Call made = {.request = requests[at],
                     .instance = instance,
                     .in_instance = calls,
                     .arrived_ns = now_ns(CLOCK_MONOTONIC),
                     .ranker = ranker,
                     .users = 1};
        Call *call = malloc(sizeof *call);
        if (!call) {
            respond_error(&made, UNAVAILABLE, "out of memory");
            forget(TRITONBACKEND_RequestRelease(requests[at], WHOLE));
            continue;
        }
        *call = made;
        pthread_mutex_lock(&ranker->lock);
        ++*call->in_instance;
        if (ranker->last)
            ranker->last->next = call;
        else
            ranker->first = call;
        ranker->last = call;
        pthread_cond_signal(&ranker->has_calls);
        pthread_mutex_unlock(&ranker->lock);
    }
    return NULL;
}
