/* Scores → the outputs of an answer: exploration.py and ranker.py do the same. */
#ifndef SRP4CTR_OUTPUTS_H
#define SRP4CTR_OUTPUTS_H

#include <stddef.h>
#include <stdint.h>

#include "output_names.h"
#include "ranker.h"
#include "triton_api.h"

typedef struct { /* an output of an answer */
    TRITONSERVER_DataType type;
    size_t bytes;
    void *content;
} OutputCopy;

typedef struct { /* where outputs are written: a response, or else the next of `copies` */
    TRITONBACKEND_Response *response;
    OutputCopy *copies;
} OutputSink;

typedef struct { /* what is answered */
    const Ranker *ranker;
    const Arrays *arrays;
    int64_t count;       /* of candidates */
    const char *status;  /* of the user */
    const char *version; /* of the features */
} Answer;

/* Write each candidate's position, best first, equal ones as given, padding last. There is
 * room for twice as many. */
void write_positions(const float *scores, int64_t count, int64_t *positions);

/* Write one of OUTPUT_NAMES; return whether there was memory. */
int write_output(OutputSink *sink, int output, const Answer *answer);

#endif
