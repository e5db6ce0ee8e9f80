#include "python_step.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "clock.h"
#include "triton_errors.h"

static const char NOT_SAMPLED[] = "srp4ctr_not_sampled"; /* as in model_names.py */

static TRITONSERVER_Error *
allocate_buffer(TRITONSERVER_ResponseAllocator *allocator, const char *name, size_t bytes,
                TRITONSERVER_MemoryType memory, int64_t memory_id, void *user_data,
                void **buffer, void **buffer_data, TRITONSERVER_MemoryType *actual_memory,
                int64_t *actual_memory_id) {
    (void)allocator, (void)name, (void)memory, (void)memory_id, (void)user_data;
    *actual_memory = TRITONSERVER_MEMORY_CPU;
    *actual_memory_id = 0;
    *buffer_data = NULL;
    *buffer = malloc(bytes ? bytes : 1);
    return *buffer ? NULL : out_of_memory();
}

static TRITONSERVER_Error *free_buffer(TRITONSERVER_ResponseAllocator *allocator,
                                       void *buffer, void *buffer_data, size_t bytes,
                                       TRITONSERVER_MemoryType memory, int64_t memory_id) {
    (void)allocator, (void)buffer_data, (void)bytes, (void)memory, (void)memory_id;
    free(buffer);
    return NULL;
}

TRITONSERVER_Error *create_step_allocator(TRITONSERVER_ResponseAllocator **allocator) {
    return TRITONSERVER_ResponseAllocatorNew(allocator, allocate_buffer, free_buffer, NULL);
}

void delete_released_request(TRITONSERVER_InferenceRequest *request, uint32_t flags,
                             void *user_data) {
    (void)flags, (void)user_data;
    discard_error(TRITONSERVER_InferenceRequestDelete(request));
}

void forwarded_call_done(Ranker *ranker) {
    pthread_mutex_lock(&ranker->lock);
    if (--ranker->num_forwarded == 0) pthread_cond_broadcast(&ranker->call_ended);
    pthread_mutex_unlock(&ranker->lock);
}

int read_step_output(TRITONSERVER_InferenceResponse *response, uint32_t index,
                     StepOutput *output) {
    TRITONSERVER_MemoryType memory;
    int64_t memory_id;
    void *buffer_data;
    TRITONSERVER_Error *error = TRITONSERVER_InferenceResponseOutput(
        response, index, &output->name, &output->type, &output->shape, &output->axes,
        &output->content, &output->bytes, &memory, &memory_id, &buffer_data);
    discard_error(error);
    return !error;
}

static int copy_outputs(TRITONSERVER_InferenceResponse *response,
                        TRITONBACKEND_Response *into) {
    uint32_t count = 0;
    discard_error(TRITONSERVER_InferenceResponseOutputCount(response, &count));
    for (uint32_t at = 0; at < count; at++) {
        StepOutput output;
        TRITONBACKEND_Output *created;
        void *place;
        TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
        int64_t memory_id = 0;
        if (!read_step_output(response, at, &output)) return 0;
        TRITONSERVER_Error *error = TRITONBACKEND_ResponseOutput(
            into, &created, output.name, output.type, output.shape, (uint32_t)output.axes);
        if (!error)
            error = TRITONBACKEND_OutputBuffer(created, &place, output.bytes, &memory,
                                               &memory_id);
        discard_error(error);
        if (error || memory != TRITONSERVER_MEMORY_CPU) return 0;
        memcpy(place, output.content, output.bytes);
    }
    return 1;
}

/* ---- Forwarded calls, which their callers may cancel meanwhile ---- */

static void add_forwarded_call(Call *call) {
    Ranker *ranker = call->ranker;
    pthread_mutex_lock(&ranker->lock);
    call->references = 3;
    call->next = ranker->forwarded_calls;
    ranker->forwarded_calls = call;
    ranker->num_forwarded++; /* its request's; send_to_python_step adds the answer's */
    pthread_mutex_unlock(&ranker->lock);
}

/* From here on the call is answered: it is not cancelled any more. */
static void remove_forwarded_call(Call *call) {
    Ranker *ranker = call->ranker;
    pthread_mutex_lock(&ranker->lock);
    Call **place = &ranker->forwarded_calls;
    while (*place && *place != call) place = &(*place)->next;
    if (*place) *place = call->next;
    pthread_mutex_unlock(&ranker->lock);
}

/* Let `request` be cancelled with its call, now that Triton has it. */
static void set_forwarded_request(Call *call, TRITONSERVER_InferenceRequest *request) {
    pthread_mutex_lock(&call->ranker->lock);
    if (!call->is_released) call->forwarded = request;
    pthread_mutex_unlock(&call->ranker->lock);
    release_call(call);
}

static void on_forwarded_release(TRITONSERVER_InferenceRequest *request, uint32_t flags,
                                 void *user_data) {
    Call *call = user_data;
    Ranker *ranker = call->ranker;
    pthread_mutex_lock(&ranker->lock);
    call->is_released = 1;
    call->forwarded = NULL;
    pthread_mutex_unlock(&ranker->lock);
    delete_released_request(request, flags, NULL);
    release_call(call);
    forwarded_call_done(ranker);
}

void cancel_forwarded_calls(Ranker *ranker) {
    pthread_mutex_lock(&ranker->lock);
    for (Call *call = ranker->forwarded_calls; call; call = call->next)
        if (call->forwarded && is_cancelled(call))
            discard_error(TRITONSERVER_InferenceRequestCancel(call->forwarded));
    pthread_mutex_unlock(&ranker->lock);
}

/* Answer a call as the Python step has. */
static void on_step_response(TRITONSERVER_InferenceResponse *response, uint32_t flags,
                             void *user_data) {
    Call *call = user_data;
    Ranker *ranker = call->ranker;
    call->scored_ns = monotonic_ns();
    remove_forwarded_call(call);
    TRITONSERVER_Error *failure =
        response ? TRITONSERVER_InferenceResponseError(response) : NULL;
    int is_answered = 0;
    (void)flags;
    if (!response) {
        respond_error(call, TRITONSERVER_ERROR_INTERNAL, "the Python step sent no answer");
    } else if (failure) {
        respond_error(call, TRITONSERVER_ErrorCode(failure),
                      TRITONSERVER_ErrorMessage(failure));
        discard_error(failure);
    } else {
        TRITONBACKEND_Response *into = NULL;
        TRITONSERVER_Error *error = TRITONBACKEND_ResponseNew(&into, call->request);
        if (!error) {
            failure = copy_outputs(response, into) ? NULL : out_of_memory();
            error = TRITONBACKEND_ResponseSend(into, TRITONSERVER_RESPONSE_COMPLETE_FINAL,
                                               failure);
            is_answered = !error && !failure;
            discard_error(failure);
        }
        discard_error(error);
    }
    if (response) discard_error(TRITONSERVER_InferenceResponseDelete(response));
    end_call(call, is_answered);
    forwarded_call_done(ranker);
}

static TRITONSERVER_Error *copy_input(TRITONBACKEND_Input *input,
                                      TRITONSERVER_InferenceRequest *request) {
    const char *name;
    const int64_t *shape;
    TRITONSERVER_DataType type;
    uint32_t axes, buffers;
    uint64_t bytes;
    TRITONSERVER_Error *error =
        TRITONBACKEND_InputProperties(input, &name, &type, &shape, &axes, &bytes, &buffers);
    if (!error)
        error = TRITONSERVER_InferenceRequestAddInput(request, name, type, shape, axes);
    for (uint32_t at = 0; !error && at < buffers; at++) {
        const void *content;
        TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
        int64_t memory_id = 0;
        uint64_t size;
        error = TRITONBACKEND_InputBuffer(input, at, &content, &size, &memory, &memory_id);
        if (!error)
            error = TRITONSERVER_InferenceRequestAppendInputData(request, name, content,
                                                                 size, memory, memory_id);
    }
    return error;
}

/* Copy the id, inputs, requested outputs and parameters. */
static TRITONSERVER_Error *copy_request(TRITONBACKEND_Request *from,
                                        TRITONSERVER_InferenceRequest *request) {
    uint32_t inputs = 0, outputs = 0, parameters = 0;
    const char *id = NULL;
    TRITONSERVER_Error *error = TRITONBACKEND_RequestId(from, &id);
    if (!error && id && *id) error = TRITONSERVER_InferenceRequestSetId(request, id);
    if (!error) error = TRITONBACKEND_RequestInputCount(from, &inputs);
    for (uint32_t at = 0; !error && at < inputs; at++) {
        TRITONBACKEND_Input *input;
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
        TRITONSERVER_ParameterType type;
        error = TRITONBACKEND_RequestParameter(from, at, &name, &type, &value);
        if (!error && type == TRITONSERVER_PARAMETER_STRING)
            error = TRITONSERVER_InferenceRequestSetStringParameter(request, name, value);
    }
    return error;
}

TRITONSERVER_Error *create_step_request(const Ranker *ranker,
                                        TRITONSERVER_InferenceRequest **request) {
    return TRITONSERVER_InferenceRequestNew(request, ranker->server, ranker->python_step,
                                            -1);
}

TRITONSERVER_Error *add_step_input(TRITONSERVER_InferenceRequest *request, const char *name,
                                   TRITONSERVER_DataType type, const int64_t *shape,
                                   uint64_t axes, const void *content, uint64_t bytes) {
    TRITONSERVER_Error *error =
        TRITONSERVER_InferenceRequestAddInput(request, name, type, shape, axes);
    if (!error)
        error = TRITONSERVER_InferenceRequestAppendInputData(request, name, content, bytes,
                                                             TRITONSERVER_MEMORY_CPU, 0);
    return error;
}

TRITONSERVER_Error *send_to_python_step(Ranker *ranker,
                                        TRITONSERVER_InferenceRequest *request,
                                        ResponseCallback answered, ReleaseCallback released,
                                        void *user_data) {
    TRITONSERVER_Error *error =
        TRITONSERVER_InferenceRequestSetReleaseCallback(request, released, user_data);
    if (!error)
        error = TRITONSERVER_InferenceRequestSetResponseCallback(request, ranker->allocator,
                                                                 NULL, answered, user_data);
    pthread_mutex_lock(&ranker->lock);
    ranker->num_forwarded++;
    pthread_mutex_unlock(&ranker->lock);
    if (!error) error = TRITONSERVER_ServerInferAsync(ranker->server, request, NULL);
    if (error) {
        discard_error(TRITONSERVER_InferenceRequestDelete(request));
        forwarded_call_done(ranker);
    }
    return error;
}

void forward_call(Call *call, uint64_t left_us, int is_sample) {
    Ranker *ranker = call->ranker;
    TRITONSERVER_InferenceRequest *request = NULL;
    TRITONSERVER_Error *error = create_step_request(ranker, &request);
    if (!error)
        error = TRITONSERVER_InferenceRequestSetTimeoutMicroseconds(request, left_us);
    if (!error) error = copy_request(call->request, request);
    if (!error && !is_sample)
        error = TRITONSERVER_InferenceRequestSetStringParameter(request, NOT_SAMPLED, "1");
    call->scoring_ns = call->scored_ns = monotonic_ns();
    if (error && request) {
        discard_error(TRITONSERVER_InferenceRequestDelete(request));
    } else if (!error) {
        add_forwarded_call(call);
        error = send_to_python_step(ranker, request, on_step_response, on_forwarded_release,
                                    call);
        if (!error) {
            set_forwarded_request(call, request);
            return;
        }
        remove_forwarded_call(call);
        call->references = 1;
        forwarded_call_done(ranker);
    }
    refuse_call(call, TRITONSERVER_ErrorCode(error), TRITONSERVER_ErrorMessage(error));
    discard_error(error);
}
