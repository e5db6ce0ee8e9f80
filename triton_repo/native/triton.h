/* What the native step uses of Triton's C interfaces (tritonserver.h, tritonbackend.h), and
 * of onnxruntime's (onnxruntime_c_api.h): both promise that these stay as they are. */
#include <stddef.h>
#include <stdint.h>

typedef struct TRITONSERVER_Server Server;
typedef struct TRITONSERVER_Error Error;
typedef struct TRITONSERVER_InferenceRequest HandedRequest;
typedef struct TRITONSERVER_InferenceResponse HandedResponse;
typedef struct TRITONSERVER_ResponseAllocator Allocator;
typedef struct TRITONSERVER_InferenceTrace Trace;
typedef struct TRITONSERVER_MetricFamily Family;
typedef struct TRITONSERVER_Metric Metric;
typedef struct TRITONSERVER_Parameter Parameter;
typedef struct TRITONBACKEND_Backend Backend;
typedef struct TRITONBACKEND_Model TritonModel;
typedef struct TRITONBACKEND_ModelInstance Instance;
typedef struct TRITONBACKEND_Request Request_;
typedef struct TRITONBACKEND_Response Response;
typedef struct TRITONBACKEND_Input Input;
typedef struct TRITONBACKEND_Output Output;

enum { API_MAJOR = 1, API_MINOR = 16 }; /* of tritonbackend.h: the first that has them all */
enum { INTERNAL = 1, INVALID = 3, UNAVAILABLE = 4, UNSUPPORTED = 5, CANCELLED = 7 };
enum { T_UINT8 = 2, T_INT64 = 9, T_FP32 = 11, T_TEXTS = 13 }; /* types of tensors */
enum { STRING_PARAMETER = 0, COUNTER = 0, IN_MEMORY = 0, LAST = 1, WHOLE = 1 };
enum { LOG_INFO = 0, LOG_WARNING = 1 };

Error *TRITONSERVER_ErrorNew(int code, const char *message);
void TRITONSERVER_ErrorDelete(Error *error);
int TRITONSERVER_ErrorCode(Error *error);
const char *TRITONSERVER_ErrorMessage(Error *error);
Error *TRITONSERVER_LogMessage(int level, const char *file, int line, const char *message);
Error *TRITONSERVER_MetricFamilyNew(Family **family, int kind, const char *name,
                                    const char *help);
Error *TRITONSERVER_MetricNew(Metric **metric, Family *family, const Parameter **labels,
                              uint64_t count);
Error *TRITONSERVER_MetricIncrement(Metric *metric, double value);
Error *TRITONSERVER_MetricDelete(Metric *metric);
Error *TRITONSERVER_MetricFamilyDelete(Family *family);
Parameter *TRITONSERVER_ParameterNew(const char *name, int type, const void *value);
void TRITONSERVER_ParameterDelete(Parameter *parameter);

Error *TRITONBACKEND_ApiVersion(uint32_t *major, uint32_t *minor);
Error *TRITONBACKEND_ModelRepository(TritonModel *model, int *kind, const char **folder);
Error *TRITONBACKEND_ModelServer(TritonModel *model, Server **server);
Error *TRITONBACKEND_ModelState(TritonModel *model, void **state);
Error *TRITONBACKEND_ModelSetState(TritonModel *model, void *state);
Error *TRITONBACKEND_ModelInstanceModel(Instance *instance, TritonModel **model);
Error *TRITONBACKEND_ModelInstanceState(Instance *instance, void **state);
Error *TRITONBACKEND_ModelInstanceSetState(Instance *instance, void *state);
Error *TRITONBACKEND_ModelInstanceReportStatistics(Instance *instance, Request_ *request,
                                                   _Bool success, uint64_t began_ns,
                                                   uint64_t compute_began_ns,
                                                   uint64_t compute_ended_ns,
                                                   uint64_t ended_ns);
Error *TRITONBACKEND_ModelInstanceReportBatchStatistics(
    Instance *instance, uint64_t requests, uint64_t began_ns, uint64_t compute_began_ns,
    uint64_t compute_ended_ns, uint64_t ended_ns);
Error *TRITONBACKEND_RequestId(Request_ *request, const char **id);
Error *TRITONBACKEND_RequestIsCancelled(Request_ *request, _Bool *is_cancelled);
Error *TRITONBACKEND_RequestInputCount(Request_ *request, uint32_t *count);
Error *TRITONBACKEND_RequestInputByIndex(Request_ *request, uint32_t index, Input **input);
Error *TRITONBACKEND_InputProperties(Input *input, const char **name, int *type,
                                     const int64_t **shape, uint32_t *axes, uint64_t *bytes,
                                     uint32_t *buffers);
Error *TRITONBACKEND_InputBuffer(Input *input, uint32_t index, const void **buffer,
                                 uint64_t *bytes, int *memory, int64_t *memory_id);
Error *TRITONBACKEND_RequestOutputCount(Request_ *request, uint32_t *count);
Error *TRITONBACKEND_RequestOutputName(Request_ *request, uint32_t index,
                                       const char **name);
Error *TRITONBACKEND_RequestParameterCount(Request_ *request, uint32_t *count);
Error *TRITONBACKEND_RequestParameter(Request_ *request, uint32_t index, const char **name,
                                      int *type, const void **value);
Error *TRITONBACKEND_InferenceRequestTimeoutMicroseconds(Request_ *request, uint64_t *us);
Error *TRITONBACKEND_RequestRelease(Request_ *request, uint32_t flags);
Error *TRITONBACKEND_ResponseNew(Response **response, Request_ *request);
Error *TRITONBACKEND_ResponseOutput(Response *response, Output **output, const char *name,
                                    int type, const int64_t *shape, uint32_t axes);
Error *TRITONBACKEND_OutputBuffer(Output *output, void **buffer, uint64_t bytes,
                                  int *memory, int64_t *memory_id);
Error *TRITONBACKEND_ResponseSend(Response *response, uint32_t flags, Error *error);

typedef Error *(*Allocate)(Allocator *, const char *, size_t, int, int64_t, void *, void **,
                           void **, int *, int64_t *);
typedef Error *(*Free)(Allocator *, void *, void *, size_t, int, int64_t);
Error *TRITONSERVER_ResponseAllocatorNew(Allocator **allocator, Allocate allocate,
                                         Free give_back, void *start);
Error *TRITONSERVER_ResponseAllocatorDelete(Allocator *allocator);
Error *TRITONSERVER_InferenceRequestNew(HandedRequest **request, Server *server,
                                        const char *model, int64_t version);
Error *TRITONSERVER_InferenceRequestDelete(HandedRequest *request);
Error *TRITONSERVER_InferenceRequestSetId(HandedRequest *request, const char *id);
Error *TRITONSERVER_InferenceRequestCancel(HandedRequest *request);
Error *TRITONSERVER_InferenceRequestAddInput(HandedRequest *request, const char *name,
                                             int type, const int64_t *shape, uint64_t axes);
Error *TRITONSERVER_InferenceRequestAppendInputData(HandedRequest *request,
                                                    const char *name, const void *content,
                                                    size_t bytes, int memory,
                                                    int64_t memory_id);
Error *TRITONSERVER_InferenceRequestAddRequestedOutput(HandedRequest *request,
                                                       const char *name);
Error *TRITONSERVER_InferenceRequestSetStringParameter(HandedRequest *request,
                                                       const char *name, const char *value);
Error *TRITONSERVER_InferenceRequestSetTimeoutMicroseconds(HandedRequest *request,
                                                           uint64_t us);
Error *TRITONSERVER_InferenceRequestSetReleaseCallback(
    HandedRequest *request, void (*released)(HandedRequest *, uint32_t, void *), void *own);
Error *TRITONSERVER_InferenceRequestSetResponseCallback(
    HandedRequest *request, Allocator *allocator, void *of_allocator,
    void (*answered)(HandedResponse *, uint32_t, void *), void *own);
Error *TRITONSERVER_ServerInferAsync(Server *server, HandedRequest *request, Trace *trace);
Error *TRITONSERVER_InferenceResponseError(HandedResponse *response);
Error *TRITONSERVER_InferenceResponseOutputCount(HandedResponse *response, uint32_t *count);
Error *TRITONSERVER_InferenceResponseOutput(HandedResponse *response, uint32_t index,
                                            const char **name, int *type,
                                            const int64_t **shape, uint64_t *axes,
                                            const void **content, size_t *bytes,
                                            int *memory, int64_t *memory_id, void **own);
Error *TRITONSERVER_InferenceResponseDelete(HandedResponse *response);
