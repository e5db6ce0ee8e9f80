/* The part of onnxruntime's C interface that the native step uses: a prefix of OrtApi of
 * onnxruntime_c_api.h, which guarantees that functions keep their places. Names are its. */
#ifndef SRP4CTR_ONNX_API_H
#define SRP4CTR_ONNX_API_H

#include <stddef.h>
#include <stdint.h>

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtValue OrtValue;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;

typedef enum { ORT_LOGGING_LEVEL_WARNING = 2 } OrtLoggingLevel;
typedef enum { OrtArenaAllocator = 1 } OrtAllocatorType;
typedef enum { OrtMemTypeDefault = 0 } OrtMemType;
typedef enum {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7
} ONNXTensorElementDataType;

typedef void (*OrtUnused)(void);

typedef struct OrtApi {
    OrtUnused unused_0[2];
    const char *(*GetErrorMessage)(const OrtStatus *status);
    OrtStatus *(*CreateEnv)(OrtLoggingLevel level, const char *name, OrtEnv **env);
    OrtUnused unused_4[3];
    OrtStatus *(*CreateSession)(const OrtEnv *env, const char *path,
                                const OrtSessionOptions *options, OrtSession **session);
    OrtUnused unused_8[1];
    OrtStatus *(*Run)(OrtSession *session, const OrtRunOptions *options,
                      const char *const *input_names, const OrtValue *const *inputs,
                      size_t num_inputs, const char *const *output_names,
                      size_t num_outputs, OrtValue **outputs);
    OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **options);
    OrtUnused unused_11[13];
    OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *options, int threads);
    OrtUnused unused_25[24];
    OrtStatus *(*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *memory, void *content,
                                                 size_t bytes, const int64_t *shape,
                                                 size_t axes,
                                                 ONNXTensorElementDataType type,
                                                 OrtValue **value);
    OrtUnused unused_50[1];
    OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **content);
    OrtUnused unused_52[12];
    OrtStatus *(*GetTensorShapeElementCount)(const OrtTensorTypeAndShapeInfo *shape,
                                             size_t *count);
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value,
                                        OrtTensorTypeAndShapeInfo **shape);
    OrtUnused unused_66[3];
    OrtStatus *(*CreateCpuMemoryInfo)(OrtAllocatorType allocator, OrtMemType type,
                                      OrtMemoryInfo **memory);
    OrtUnused unused_70[23];
    void (*ReleaseStatus)(OrtStatus *status);
    OrtUnused unused_94[1];
    void (*ReleaseSession)(OrtSession *session);
    void (*ReleaseValue)(OrtValue *value);
    OrtUnused unused_97[2];
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *shape);
    void (*ReleaseSessionOptions)(OrtSessionOptions *options);
} OrtApi;

typedef struct OrtApiBase {
    const OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

#define ORT_API_FUNCTION(name, place)                                                      \
    _Static_assert(offsetof(OrtApi, name) == (place) * sizeof(OrtUnused), "place "         \
                                                                          "of " #name)
ORT_API_FUNCTION(GetErrorMessage, 2);
ORT_API_FUNCTION(CreateEnv, 3);
ORT_API_FUNCTION(CreateSession, 7);
ORT_API_FUNCTION(Run, 9);
ORT_API_FUNCTION(CreateSessionOptions, 10);
ORT_API_FUNCTION(SetIntraOpNumThreads, 24);
ORT_API_FUNCTION(CreateTensorWithDataAsOrtValue, 49);
ORT_API_FUNCTION(GetTensorMutableData, 51);
ORT_API_FUNCTION(GetTensorShapeElementCount, 64);
ORT_API_FUNCTION(GetTensorTypeAndShape, 65);
ORT_API_FUNCTION(CreateCpuMemoryInfo, 69);
ORT_API_FUNCTION(ReleaseStatus, 93);
ORT_API_FUNCTION(ReleaseSession, 95);
ORT_API_FUNCTION(ReleaseValue, 96);
ORT_API_FUNCTION(ReleaseTensorTypeAndShapeInfo, 99);
ORT_API_FUNCTION(ReleaseSessionOptions, 100);
#undef ORT_API_FUNCTION

#endif
