/* A backend of Triton that answers `rank_clicks` without Python.
 *
 * It answers the calls that it can read in full: one user whose row it can read,
 * items whose texts the Python step has parsed, a context and attributes that are plain, no
 * invalid input. Any other call it forwards to the Python step, whose answer it passes on:
 * what is invalid, and what a text means, is defined there alone. Both read the same row of
 * the store, the same table of items and the same ONNX files; compiled.c makes the tensors
 * of both.
 *
 * Its threads share the weights and the processor's caches, and nothing passes from one
 * process to another: that is what it is for.
 */
#define _POSIX_C_SOURCE 200809L /* no newer functions of glibc than Triton's image has */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache_watch.h"
#include "call.h"
#include "clock.h"
#include "metrics.h"
#include "onnx_scorer.h"
#include "python_step.h"
#include "ranker.h"
#include "triton_api.h"
#include "triton_errors.h"
#include "worker.h"

/* Of tritonbackend.h: the first version that has all functions of triton_api.h. */
enum { MIN_API_MAJOR = 1, MIN_API_MINOR = 16 };

#define TEXT_OF(word) #word
#define MARK(number) "srp4ctr native source " TEXT_OF(number)
/* By which native_library.py knows of which sources the library is. Nothing refers to it, and
 * linkers may drop a hidden symbol then. */
TRITON_ENTRY_POINT const char srp4ctr_native_source[] = MARK(SRP4CTR_SOURCE);

/* Add a number of candidates, whose name is `digits`: two hexadecimal ones a byte. */
static int add_number(Ranker *ranker, const char *digits) {
    const size_t bytes = strlen(digits) / 2;
    if (ranker->num_numbers >= MAX_NUMBERS || bytes >= NUMBER_BYTES) return 0;
    char *name = ranker->numbers[ranker->num_numbers++];
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
    int is_valid = 1;
    snprintf(path, sizeof path, "%s/settings.txt", ranker->folder);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    while (fscanf(file, "%63s %2049s", name, value) == 2) {
        const int64_t number = strtoll(value, NULL, 10);
        if (!strcmp(name, "number"))
            is_valid = add_number(ranker, value) && is_valid;
        else if (strlen(value) >= sizeof ranker->version)
            is_valid = 0;
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
    return is_valid && *ranker->python_step && ranker->threads > 0 &&
           ranker->threads <= MAX_THREADS;
}

/* Stop the threads, wait for forwarded calls, and free the ranker. */
static void stop_ranker(Ranker *ranker) {
    pthread_mutex_lock(&ranker->lock);
    ranker->is_stopping = 1;
    pthread_cond_broadcast(&ranker->has_calls);
    pthread_cond_broadcast(&ranker->stops);
    pthread_mutex_unlock(&ranker->lock);
    for (int at = 0; at < ranker->num_started; at++)
        pthread_join(at ? ranker->workers[at - 1] : ranker->watcher, NULL);
    pthread_mutex_lock(&ranker->lock);
    while (ranker->num_forwarded > 0) pthread_cond_wait(&ranker->call_ended, &ranker->lock);
    pthread_mutex_unlock(&ranker->lock);
    replace_cache(ranker, NULL);
    onnx_scorer_close(&ranker->scorer);
    if (ranker->has_counters) counters_close(ranker->python_step);
    if (ranker->allocator)
        discard_error(TRITONSERVER_ResponseAllocatorDelete(ranker->allocator));
    free(ranker);
}

static int start_threads(Ranker *ranker) {
    for (int at = 0; at <= ranker->threads; at++, ranker->num_started++)
        if (pthread_create(at ? ranker->workers + at - 1 : &ranker->watcher, NULL,
                           at ? run_worker : watch_cache, ranker))
            return 0;
    return 1;
}

/* Refuse a server that lacks functions which are used here. */
TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend) {
    uint32_t major = 0, minor = 0;
    char message[160];
    (void)backend;
    TRITONSERVER_Error *error = TRITONBACKEND_ApiVersion(&major, &minor);
    if (error || (major == MIN_API_MAJOR && minor >= MIN_API_MINOR)) return error;
    snprintf(message, sizeof message,
             "the native step needs Triton's backend API %d.%d or a later %d; this server "
             "has %u.%u",
             MIN_API_MAJOR, MIN_API_MINOR, MIN_API_MAJOR, major, minor);
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNSUPPORTED, message);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *model) {
    Ranker *ranker = calloc(1, sizeof *ranker);
    const char *folder = "";
    TRITONBACKEND_ArtifactType kind;
    if (!ranker) return out_of_memory();
    pthread_mutex_init(&ranker->lock, NULL);
    pthread_cond_init(&ranker->has_calls, NULL);
    pthread_cond_init(&ranker->call_ended, NULL);
    pthread_cond_init(&ranker->stops, NULL);
    TRITONSERVER_Error *error = TRITONBACKEND_ModelRepository(model, &kind, &folder);
    if (!error) error = TRITONBACKEND_ModelServer(model, &ranker->server);
    if (!error) error = create_step_allocator(&ranker->allocator);
    if (!error && snprintf(ranker->folder, sizeof ranker->folder, "%s", folder) >=
                      (int)sizeof ranker->folder)
        error = TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL,
                                      "the path of the repository is too long");
    if (!error && !read_settings(ranker))
        error = TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL,
                                      "settings.txt of the native step is wrong");
    if (!error) {
        ranker->has_counters =
            counters_open(&ranker->counters, ranker->python_step, ranker->version);
        ranker->sampled_ns = monotonic_ns();
        if (!start_threads(ranker))
            error = TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE,
                                          "no thread can be started");
        else
            error = TRITONBACKEND_ModelSetState(model, ranker);
    }
    if (error) stop_ranker(ranker);
    return error;
}

TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *model) {
    void *ranker = NULL;
    TRITONSERVER_Error *error = TRITONBACKEND_ModelState(model, &ranker);
    if (!error && ranker) stop_ranker(ranker);
    return error;
}

TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *instance) {
    int *calls = calloc(1, sizeof *calls);
    if (!calls) return out_of_memory();
    return TRITONBACKEND_ModelInstanceSetState(instance, calls);
}

/* Wait for the calls that came by this instance: their statistics name it. */
TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *instance) {
    TRITONBACKEND_Model *model;
    void *state = NULL, *calls = NULL;
    TRITONSERVER_Error *error = TRITONBACKEND_ModelInstanceModel(instance, &model);
    if (!error) error = TRITONBACKEND_ModelState(model, &state);
    if (!error) error = TRITONBACKEND_ModelInstanceState(instance, &calls);
    if (error || !state || !calls) return error;
    Ranker *ranker = state;
    pthread_mutex_lock(&ranker->lock);
    while (*(int *)calls > 0) pthread_cond_wait(&ranker->call_ended, &ranker->lock);
    pthread_mutex_unlock(&ranker->lock);
    free(calls);
    return NULL;
}

/* Queue the calls for the threads; Triton's own thread returns at once. */
TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                   TRITONBACKEND_Request **requests, uint32_t count) {
    TRITONBACKEND_Model *model;
    void *state = NULL, *calls = NULL;
    TRITONSERVER_Error *error = TRITONBACKEND_ModelInstanceModel(instance, &model);
    if (!error) error = TRITONBACKEND_ModelState(model, &state);
    if (!error) error = TRITONBACKEND_ModelInstanceState(instance, &calls);
    if (error) return error;
    Ranker *ranker = state;
    for (uint32_t at = 0; at < count; at++) {
        const Call created = {.request = requests[at],
                              .instance = instance,
                              .instance_calls = calls,
                              .arrived_ns = monotonic_ns(),
                              .ranker = ranker,
                              .references = 1};
        Call *call = malloc(sizeof *call);
        if (!call) {
            respond_error(&created, TRITONSERVER_ERROR_UNAVAILABLE, "out of memory");
            discard_error(TRITONBACKEND_RequestRelease(requests[at],
                                                       TRITONSERVER_REQUEST_RELEASE_ALL));
            continue;
        }
        *call = created;
        pthread_mutex_lock(&ranker->lock);
        ++*call->instance_calls;
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
