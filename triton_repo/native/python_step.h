/* Requests to the Python step: calls that it answers instead, and others' questions to it.
 * Its answers are passed on as they are, errors included. */
#ifndef SRP4CTR_PYTHON_STEP_H
#define SRP4CTR_PYTHON_STEP_H

#include <stddef.h>
#include <stdint.h>

#include "ranker.h"
#include "triton_api.h"

typedef void (*ResponseCallback)(TRITONSERVER_InferenceResponse *response, uint32_t flags,
                                 void *user_data);
typedef void (*ReleaseCallback)(TRITONSERVER_InferenceRequest *request, uint32_t flags,
                                void *user_data);

typedef struct { /* an output of the Python step's */
    const char *name;
    const int64_t *shape;
    const void *content;
    uint64_t axes;
    size_t bytes;
    TRITONSERVER_DataType type;
} StepOutput;

/* Return what a ranker's allocator is made of; Triton calls its functions. */
TRITONSERVER_Error *create_step_allocator(TRITONSERVER_ResponseAllocator **allocator);

TRITONSERVER_Error *create_step_request(const Ranker *ranker,
                                        TRITONSERVER_InferenceRequest **request);

/* Add an input, whose `content` must stay until the request is released. */
TRITONSERVER_Error *add_step_input(TRITONSERVER_InferenceRequest *request, const char *name,
                                   TRITONSERVER_DataType type, const int64_t *shape,
                                   uint64_t axes, const void *content, uint64_t bytes);

/* Send `request`; it is deleted if the step does not take it. `answered` must call
 * forwarded_call_done at its end, and `released` delete_released_request. */
TRITONSERVER_Error *send_to_python_step(Ranker *ranker,
                                        TRITONSERVER_InferenceRequest *request,
                                        ResponseCallback answered, ReleaseCallback released,
                                        void *user_data);

/* Note that a request to the Python step has ended. */
void forwarded_call_done(Ranker *ranker);

void delete_released_request(TRITONSERVER_InferenceRequest *request, uint32_t flags,
                             void *user_data);

int read_step_output(TRITONSERVER_InferenceResponse *response, uint32_t index,
                     StepOutput *output);

/* Let the Python step answer, for which the call may wait as long as it has `left_us`. One
 * that is not the sample is marked: calls that are forwarded are not as the others. */
void forward_call(Call *call, uint64_t left_us, int is_sample);

/* Cancel the forwarded requests of those calls that their callers have cancelled. */
void cancel_forwarded_calls(Ranker *ranker);

#endif
