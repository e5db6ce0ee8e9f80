#include "call.h"

#include <stdbool.h>
#include <stdlib.h>

#include "clock.h"
#include "triton_errors.h"

int respond(const Call *call, const Answer *answer, int64_t *sent_ns) {
    TRITONBACKEND_Response *response;
    TRITONSERVER_Error *error = TRITONBACKEND_ResponseNew(&response, call->request);
    uint32_t outputs = 0;
    int is_complete = 1;
    *sent_ns = monotonic_ns();
    if (error) {
        discard_error(error);
        return 0;
    }
    OutputSink sink = {.response = response};
    discard_error(TRITONBACKEND_RequestOutputCount(call->request, &outputs));
    for (uint32_t at = 0; is_complete && at < outputs; at++) {
        const char *name = "";
        discard_error(TRITONBACKEND_RequestOutputName(call->request, at, &name));
        is_complete = write_output(&sink, find_output(name), answer);
    }
    error = is_complete ? NULL
                        : TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL,
                                                "no memory for the answer");
    *sent_ns = monotonic_ns();
    discard_error(
        TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error));
    discard_error(error);
    return is_complete;
}

void respond_error(const Call *call, TRITONSERVER_Error_Code code, const char *message) {
    TRITONBACKEND_Response *response;
    TRITONSERVER_Error *error = TRITONBACKEND_ResponseNew(&response, call->request);
    if (error) {
        discard_error(error);
        return;
    }
    error = TRITONSERVER_ErrorNew(code, message);
    discard_error(
        TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error));
    discard_error(error);
}

void release_call(Call *call) {
    if (!__atomic_sub_fetch(&call->references, 1, __ATOMIC_ACQ_REL)) free(call);
}

/* Report when the call was taken from the queue (Triton counts what was before as
 * queueing), when it was scored, and its end. */
static void report_statistics(const Call *call, int is_answered) {
    const uint64_t began = (uint64_t)call->began_ns, scoring = (uint64_t)call->scoring_ns,
                   scored = (uint64_t)call->scored_ns, ended = (uint64_t)monotonic_ns();
    discard_error(TRITONBACKEND_ModelInstanceReportStatistics(
        call->instance, call->request, is_answered != 0, began, scoring, scored, ended));
    if (is_answered)
        discard_error(TRITONBACKEND_ModelInstanceReportBatchStatistics(
            call->instance, 1, began, scoring, scored, ended));
}

void end_call(Call *call, int is_answered) {
    report_statistics(call, is_answered);
    discard_error(
        TRITONBACKEND_RequestRelease(call->request, TRITONSERVER_REQUEST_RELEASE_ALL));
    pthread_mutex_lock(&call->ranker->lock);
    if (--*call->instance_calls == 0) pthread_cond_broadcast(&call->ranker->call_ended);
    pthread_mutex_unlock(&call->ranker->lock);
    release_call(call);
}

void refuse_call(Call *call, TRITONSERVER_Error_Code code, const char *message) {
    respond_error(call, code, message);
    end_call(call, 0);
}

int is_cancelled(const Call *call) {
    bool cancelled = false;
    discard_error(TRITONBACKEND_RequestIsCancelled(call->request, &cancelled));
    return cancelled;
}
