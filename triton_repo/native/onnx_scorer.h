/* The bundle's two ONNX files, run by onnxruntime's library, which is opened by its path:
 * encoder, then head, as triton_repo/serving/onnx_scorer.py does. */
#ifndef SRP4CTR_ONNX_SCORER_H
#define SRP4CTR_ONNX_SCORER_H

#include <stdint.h>

#include "onnx_api.h"

enum { MAX_AXES = 4 };

typedef struct { /* begins with zeros */
    const OrtApi *ort;
    OrtMemoryInfo *memory;
    OrtSession *encoder, *head;
} OnnxScorer;

typedef struct { /* a tensor of one request */
    const char *name;
    ONNXTensorElementDataType type;
    void *content;
    int64_t bytes, axes, shape[MAX_AXES];
} Tensor;

/* Open `library` and the two files; return whether that succeeded. What was opened stays
 * open: onnxruntime's library must not be closed while the server runs. */
int onnx_scorer_open(OnnxScorer *scorer, const char *library, const char *encoder,
                     const char *head);

void onnx_scorer_close(OnnxScorer *scorer);

/* Score `candidates` items: write SCORES rows of them to `scores`, and when the encoder had
 * ended. Return whether that succeeded. */
int onnx_scorer_run(const OnnxScorer *scorer, const Tensor *history, int num_history,
                    const Tensor *inputs, int num_inputs, float *scores, int64_t candidates,
                    int64_t *encoded_ns);

#endif
