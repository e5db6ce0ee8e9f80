/* Triton's errors and its log. */
#ifndef SRP4CTR_TRITON_ERRORS_H
#define SRP4CTR_TRITON_ERRORS_H

#include "triton_api.h"

static inline void discard_error(TRITONSERVER_Error *error) {
    if (error) TRITONSERVER_ErrorDelete(error);
}

static inline TRITONSERVER_Error *out_of_memory(void) {
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "out of memory");
}

static inline void log_message(TRITONSERVER_LogLevel level, const char *message) {
    discard_error(TRITONSERVER_LogMessage(level, "native_ranker", 0, message));
}

#endif
