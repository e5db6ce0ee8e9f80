/* One served bundle, its calls, and what a thread has for a call. */
#ifndef SRP4CTR_RANKER_H
#define SRP4CTR_RANKER_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "metrics.h"
#include "onnx_scorer.h"
#include "parsed_cache.h"
#include "store.h"
#include "triton_api.h"

enum { MAX_THREADS = 64 };
enum { MAX_INPUTS = 8 };                       /* of a call that the native step answers */
enum { MAX_NUMBERS = 8, NUMBER_BYTES = 1025 }; /* as in config.py; of a name */

typedef struct Ranker Ranker;

typedef struct Call { /* one request of Triton's */
    TRITONBACKEND_Request *request;
    TRITONBACKEND_ModelInstance *instance;
    int *instance_calls; /* how many calls the instance has; guarded by the ranker's lock */
    int64_t arrived_ns, began_ns;  /* in the queue; with a thread */
    int64_t scoring_ns, scored_ns; /* the graphs, or the Python step */
    Ranker *ranker;
    struct Call *next; /* in the queue, or among the forwarded calls */
    TRITONSERVER_InferenceRequest *forwarded; /* to be cancelled; guarded by the lock */
    int is_released;                          /* the forwarded request; guarded as well */
    int references; /* the answer's; of a forwarded call its sender's and its request's */
} Call;

struct Ranker {
    TRITONSERVER_Server *server;
    char numbers[MAX_NUMBERS][NUMBER_BYTES]; /* the names of its candidates' numbers */
    int64_t num_numbers;
    char folder[2048], python_step[512], version[256], encoder[256], head[256];
    int64_t max_candidates, max_wait_us, threads;
    int64_t logged_parts; /* of SAMPLE_PARTS of the requests with an id */
    unsigned char is_calibrated;
    TRITONSERVER_ResponseAllocator *allocator;
    Counters counters;
    int has_counters;
    OnnxScorer scorer;
    pthread_mutex_t lock;
    pthread_cond_t has_calls, call_ended, stops;
    Call *first, *last, *forwarded_calls;
    int is_stopping, is_requesting_path, num_forwarded, num_started;
    ParsedCache *cache;
    char cache_path[1024]; /* of the cache that the Python step has now */
    int64_t sampled_ns;
    pthread_t workers[MAX_THREADS], watcher;
};

typedef struct {
    const char *content; /* of each string its length in four bytes, and its bytes */
    int64_t bytes, count;
} StringTensor;

typedef struct { /* the inputs of a call */
    StringTensor user, items, context, number_names, request_id;
    const char *numbers; /* of items by names, float; NULL: none */
    int64_t numbered_items, numbers_of_item;
    int64_t at_ms;
} RankInputs;

typedef struct { /* a request's tensors, in a worker's memory */
    int64_t *keys, *history_rows, *history_attributes, *history_codes, *item_rows;
    int64_t *item_attributes, *context, *user_rows, *positions;
    float *request_features, *candidate_features, *scores, *numbers;
    uint8_t *item_status;
    int64_t candidate_width, cpu_ns;  /* of the call until it is scored */
    int64_t generation, table_writes; /* of the table, before its rows were read */
} Arrays;

typedef struct { /* when the steps of a call were, and its CPU time */
    int64_t began_ns, read_ns, assembled_ns, encoded_ns, ended_ns, cpu_ns;
} CallTimings;

typedef struct { /* a thread's own memory */
    int outcome; /* of its call: ANSWERED to OTHER_CALL */
    StoreConnection connection;
    char *memory;
    size_t size;
} Worker;

#endif
