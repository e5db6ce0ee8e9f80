#include "worker.h"

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "cache_watch.h"
#include "call.h"
#include "clock.h"
#include "comparison.h"
#include "metrics.h"
#include "python_step.h"
#include "report.h"
#include "request.h"
#include "triton_errors.h"

static const char CANCELLED_BY_CALLER[] = "the caller has cancelled the request";
static const char QUEUED_TOO_LONG[] =
    "queued for too long: the server has more to do than it can";

static void count_part(const Counters *counters, int part, int64_t took_ns) {
    increment(counters->part_runs[part], 1.0);
    increment(counters->part_us[part], (double)took_ns / 1e3);
}

static void count_call(const Call *call, const CallTimings *timings,
                       const RankInputs *inputs, const UserRow *user, int status,
                       const Arrays *arrays, const ParsedCache *cache, int64_t table_ms) {
    const Counters *counters = &call->ranker->counters;
    const int64_t count = inputs->items.count;
    const int64_t table_age_ms = inputs->at_ms > table_ms ? inputs->at_ms - table_ms : 0;
    double scored = 0.0;
    for (int64_t at = 0; at < count; at++)
        scored += arrays->scores[at] == arrays->scores[at];
    count_part(counters, FETCH_FEATURES, timings->assembled_ns - timings->began_ns);
    count_part(counters, BEHAVIOR_ENCODER, timings->encoded_ns - timings->assembled_ns);
    count_part(counters, CLICK_HEAD, timings->ended_ns - timings->encoded_ns);
    increment(counters->cpu_us, (double)timings->cpu_ns / 1e3);
    increment(counters->candidates, scored);
    increment(counters->statuses[status], 1.0);
    count_items(counters, arrays->item_status, count, cache->fixed.padding);
    increment(counters->table_reads, 1.0);
    increment(counters->table_age_ms, (double)table_age_ms);
    if (user->exists)
        count_age(counters,
                  fmax(0.0, (double)inputs->at_ms - (double)user->version_us / 1e3));
    count_answer(counters, (double)(timings->ended_ns - call->arrived_ns) / 1e9);
}

static void write_version(const UserRow *user, int64_t table_ms, char *into, size_t size) {
    if (user->exists)
        snprintf(into, size, "user=%lld@%lld,items=%lld", (long long)user->version_us,
                 (long long)user->last_offset, (long long)table_ms);
    else
        snprintf(into, size, "items=%lld", (long long)table_ms);
}

/* Send what the Python step is to compare, or to log; either may be absent. */
static void send_copies(Comparison *comparison, Report *report, const CallTimings *timings,
                        const Answer *answer) {
    if (comparison) send_comparison(comparison);
    if (report) send_report(report, timings, answer);
}

static void discard_copies(Comparison *comparison, Report *report) {
    if (comparison) discard_comparison(comparison);
    if (report) discard_report(report);
}

/* Answer a call natively; return whether it was. The sample is answered by both steps, and
 * the Python step counts it. */
static int try_rank(Worker *worker, ParsedCache *cache, Call *call, int is_sample) {
    Ranker *ranker = call->ranker;
    CallTimings timings = {.began_ns = monotonic_ns(), .cpu_ns = -thread_cpu_ns()};
    RankInputs inputs;
    UserRow user;
    Arrays arrays;
    char version[96];
    if (!parsed_cache_is_current(cache) || cache->fixed.numbers != ranker->num_numbers ||
        !read_inputs(ranker, call->request, &inputs) ||
        !read_call(ranker, worker, cache, &inputs, &user, &arrays))
        return 0;
    timings.read_ns = monotonic_ns();
    const int64_t table_ms = table_updated_ms(cache), count = inputs.items.count;
    arrays.generation = cache->head->generation;
    arrays.table_writes = table_writes(cache);
    const int64_t behaviors = assemble_tensors(cache, &inputs, &user, &arrays);
    if (behaviors == NEEDS_PARSING) worker->outcome = UNPARSED_ITEM;
    if (behaviors < 0) return 0;
    timings.assembled_ns = call->scoring_ns = monotonic_ns();
    if (!score_tensors(ranker, cache, behaviors, count, &arrays, &timings.encoded_ns))
        return 0;
    call->scored_ns = monotonic_ns();
    write_positions(arrays.scores + (OUTPUT_RANKING_SCORE - FIRST_SCORE) * count, count,
                    arrays.positions);
    write_version(&user, table_ms, version, sizeof version);
    arrays.cpu_ns = timings.cpu_ns + thread_cpu_ns();
    const int status = user_status(&user, behaviors);
    const Answer answer = {ranker, &arrays, count, STATUS_NAMES[status], version};
    Comparison *comparison = is_sample ? create_comparison(call, &inputs, &answer) : NULL;
    Report *report = create_report(call, cache, &inputs, &arrays);
    const int is_answered = respond(call, &answer, &timings.ended_ns);
    /* From here on the memory of the call's inputs may be another call's. */
    timings.cpu_ns += thread_cpu_ns();
    if (is_answered && !is_sample)
        count_call(call, &timings, &inputs, &user, status, &arrays, cache, table_ms);
    if (is_answered)
        send_copies(comparison, report, &timings, &answer);
    else
        discard_copies(comparison, report);
    end_call(call, is_answered);
    return 1;
}

/* Return whether this call is the one in a second that both steps answer, and whose
 * features the Python step compares with those of training, whichever step could answer it.
 */
static int is_sample_due(Ranker *ranker, int64_t now) {
    pthread_mutex_lock(&ranker->lock);
    const int is_due = now - ranker->sampled_ns >= INT64_C(1000000000);
    if (is_due) ranker->sampled_ns = now;
    pthread_mutex_unlock(&ranker->lock);
    return is_due;
}

static void answer_call(Worker *worker, Call *call) {
    Ranker *ranker = call->ranker;
    const int64_t now = monotonic_ns();
    uint64_t limit_us = 0;
    call->began_ns = call->scoring_ns = call->scored_ns = now;
    if (is_cancelled(call)) {
        refuse_call(call, TRITONSERVER_ERROR_CANCELLED, CANCELLED_BY_CALLER);
        return;
    }
    discard_error(
        TRITONBACKEND_InferenceRequestTimeoutMicroseconds(call->request, &limit_us));
    if (!limit_us || limit_us > (uint64_t)ranker->max_wait_us)
        limit_us = (uint64_t)ranker->max_wait_us;
    const int64_t left_us = (int64_t)limit_us - (now - call->arrived_ns) / 1000;
    if (left_us <= 0) {
        refuse_call(call, TRITONSERVER_ERROR_UNAVAILABLE, QUEUED_TOO_LONG);
        return;
    }
    const int is_sample = is_sample_due(ranker, now);
    ParsedCache *cache = acquire_cache(ranker);
    worker->outcome = cache ? OTHER_CALL : NOT_LOADED;
    const int is_answered = cache && try_rank(worker, cache, call, is_sample);
    if (is_answered) worker->outcome = ANSWERED;
    increment(ranker->counters.outcomes[worker->outcome], 1.0);
    if (cache) release_cache(ranker, cache);
    if (!is_answered) forward_call(call, (uint64_t)left_us, is_sample);
}

void *run_worker(void *user_data) {
    Ranker *ranker = user_data;
    Worker worker = {.connection = {.socket = -1}};
    for (;;) {
        pthread_mutex_lock(&ranker->lock);
        while (!ranker->first && !ranker->is_stopping)
            pthread_cond_wait(&ranker->has_calls, &ranker->lock);
        Call *call = ranker->first;
        if (call && !(ranker->first = call->next)) ranker->last = NULL;
        pthread_mutex_unlock(&ranker->lock);
        if (!call) break;
        answer_call(&worker, call);
    }
    store_close(&worker.connection);
    free(worker.memory);
    return NULL;
}
