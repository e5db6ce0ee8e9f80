/* A call's life: its response, its end, and its statistics in Triton. */
#ifndef SRP4CTR_CALL_H
#define SRP4CTR_CALL_H

#include <stdint.h>

#include "outputs.h"
#include "ranker.h"
#include "triton_api.h"

/* Send the outputs that the call requests, and note when; return whether all were sent. */
int respond(const Call *call, const Answer *answer, int64_t *sent_ns);

void respond_error(const Call *call, TRITONSERVER_Error_Code code, const char *message);

/* Give the request back to Triton; the call is over. */
void end_call(Call *call, int is_answered);

/* Answer with an error, and end the call. */
void refuse_call(Call *call, TRITONSERVER_Error_Code code, const char *message);

/* Drop a reference; the last one frees the call. */
void release_call(Call *call);

int is_cancelled(const Call *call);

#endif
