#define _POSIX_C_SOURCE 200809L
#include "cache_watch.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "metrics.h"
#include "python_step.h"
#include "triton_errors.h"

enum { WATCH_MS = 200 };
enum { MIN_RETRY_MS = 1000, MAX_RETRY_MS = 60000 }; /* between loads that fail */

/* Note the file that the Python step names. */
static void on_cache_path(TRITONSERVER_InferenceResponse *response, uint32_t flags,
                          void *user_data) {
    Ranker *ranker = user_data;
    TRITONSERVER_Error *error =
        response ? TRITONSERVER_InferenceResponseError(response) : NULL;
    StepOutput path = {.bytes = 0};
    (void)flags;
    if (response && !error && read_step_output(response, 0, &path) && path.bytes > 4 &&
        path.bytes - 4 < sizeof ranker->cache_path) {
        pthread_mutex_lock(&ranker->lock);
        memcpy(ranker->cache_path, (const char *)path.content + 4, path.bytes - 4);
        ranker->cache_path[path.bytes - 4] = 0;
        pthread_mutex_unlock(&ranker->lock);
    }
    discard_error(error);
    if (response) discard_error(TRITONSERVER_InferenceResponseDelete(response));
    __atomic_store_n(&ranker->is_requesting_path, 0, __ATOMIC_RELEASE);
    forwarded_call_done(ranker);
}

static int is_requesting_path(Ranker *ranker) {
    return __atomic_load_n(&ranker->is_requesting_path, __ATOMIC_ACQUIRE);
}

/* Request the cache file's path: a call with an empty user id and one padding item. */
static void request_cache_path(Ranker *ranker) {
    static const char *const inputs[] = {"user_id", "item_ids"};
    static const char empty[4] = {0};
    const int64_t shape[2] = {1, 1};
    TRITONSERVER_InferenceRequest *request = NULL;
    TRITONSERVER_Error *error = create_step_request(ranker, &request);
    for (int at = 0; !error && at < 2; at++)
        error = add_step_input(request, inputs[at], TRITONSERVER_TYPE_BYTES, shape, 2,
                               empty, sizeof empty);
    if (!error)
        error =
            TRITONSERVER_InferenceRequestAddRequestedOutput(request, "parsed_cache_file");
    if (error && request)
        discard_error(TRITONSERVER_InferenceRequestDelete(request));
    else if (!error) {
        __atomic_store_n(&ranker->is_requesting_path, 1, __ATOMIC_RELEASE);
        error = send_to_python_step(ranker, request, on_cache_path, delete_released_request,
                                    ranker);
        if (error) __atomic_store_n(&ranker->is_requesting_path, 0, __ATOMIC_RELEASE);
    }
    discard_error(error); /* the step is not ready: the watch tries again */
}

ParsedCache *acquire_cache(Ranker *ranker) {
    pthread_mutex_lock(&ranker->lock);
    ParsedCache *cache = ranker->cache;
    if (cache) cache->users++;
    pthread_mutex_unlock(&ranker->lock);
    return cache;
}

void release_cache(Ranker *ranker, ParsedCache *cache) {
    pthread_mutex_lock(&ranker->lock);
    const int is_last = --cache->users == 0 && cache != ranker->cache;
    pthread_mutex_unlock(&ranker->lock);
    if (is_last) parsed_cache_close(cache);
}

void replace_cache(Ranker *ranker, ParsedCache *cache) {
    pthread_mutex_lock(&ranker->lock);
    ParsedCache *previous = ranker->cache;
    ranker->cache = cache;
    const int is_unused = previous && previous->users == 0;
    pthread_mutex_unlock(&ranker->lock);
    if (is_unused) parsed_cache_close(previous);
}

static void step_path(const Ranker *ranker, const char *file, char *path, size_t size) {
    snprintf(path, size, "%s/../%s/%s", ranker->folder, ranker->python_step, file);
}

/* Open the file `path`, and with the first one the model; return whether calls can be
 * answered then. */
static int load_cache(Ranker *ranker, const char *path) {
    char encoder[4096], head[4096];
    ParsedCache *cache = parsed_cache_open(path);
    if (!cache) return 0;
    if (!ranker->scorer.head) {
        step_path(ranker, ranker->encoder, encoder, sizeof encoder);
        step_path(ranker, ranker->head, head, sizeof head);
        if (!onnx_scorer_open(&ranker->scorer, cache->library, encoder, head)) {
            onnx_scorer_close(&ranker->scorer);
            parsed_cache_close(cache);
            return 0;
        }
    }
    replace_cache(ranker, cache);
    return 1;
}

/* Wait for WATCH_MS, or until the ranker stops; return whether it stops. */
static int wait_for_stop(Ranker *ranker) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WATCH_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&ranker->lock);
    if (!ranker->is_stopping) pthread_cond_timedwait(&ranker->stops, &ranker->lock, &until);
    const int is_stopping = ranker->is_stopping;
    pthread_mutex_unlock(&ranker->lock);
    return is_stopping;
}

static void log_failed_load(const Ranker *ranker, int64_t again_ms) {
    char message[160];
    increment(ranker->counters.failed_loads, 1.0);
    snprintf(message, sizeof message,
             "the native step cannot load: the Python step answers its calls, and it tries "
             "again in %lld s",
             (long long)again_ms / 1000);
    log_message(TRITONSERVER_LOG_WARN, message);
}

void *watch_cache(void *user_data) {
    Ranker *ranker = user_data;
    char path[sizeof ranker->cache_path], refused[sizeof ranker->cache_path] = "";
    int64_t requested_ns = 0, retry_ms = MIN_RETRY_MS;
    do {
        ParsedCache *cache = acquire_cache(ranker);
        const int is_current = cache && parsed_cache_is_current(cache) &&
                               parsed_cache_maps(cache, cache->path);
        const int64_t now = monotonic_ns();
        if (!is_current && !is_requesting_path(ranker) &&
            (!requested_ns || now - requested_ns > retry_ms * INT64_C(1000000))) {
            request_cache_path(ranker);
            requested_ns = now;
            *refused = 0;
        }
        if (is_current) requested_ns = 0, retry_ms = MIN_RETRY_MS;
        pthread_mutex_lock(&ranker->lock);
        strcpy(path, ranker->cache_path);
        pthread_mutex_unlock(&ranker->lock);
        if (*path && !access(path, F_OK) && strcmp(path, refused) &&
            (!cache || !parsed_cache_maps(cache, path)) && !load_cache(ranker, path)) {
            strcpy(refused, path); /* until the path is requested again */
            retry_ms = retry_ms < MAX_RETRY_MS / 2 ? 2 * retry_ms : MAX_RETRY_MS;
            log_failed_load(ranker, retry_ms);
        }
        if (cache) release_cache(ranker, cache);
        cancel_forwarded_calls(ranker);
    } while (!wait_for_stop(ranker));
    return NULL;
}
