/* The inputs of a call, and the tensors of it. A call that the native step does not read is
 * not invalid: the Python step decides what is. */
#ifndef SRP4CTR_REQUEST_H
#define SRP4CTR_REQUEST_H

#include <stdint.h>

#include "parsed_cache.h"
#include "ranker.h"
#include "triton_api.h"
#include "user_row.h"

/* Return the next of the strings, and move on; a length of -1 if they are cut off. */
StringView next_string(StringTensor *strings);

/* Read the inputs of a request; return whether the native step answers such ones. */
int read_inputs(const Ranker *ranker, TRITONBACKEND_Request *request, RankInputs *inputs);

/* Read the numbers, ids, context and user of a call into `arrays`, which are allocated, and
 * `user`; return whether all could be read. If not, the worker's outcome says what. */
int read_call(const Ranker *ranker, Worker *worker, ParsedCache *cache, RankInputs *inputs,
              UserRow *user, Arrays *arrays);

/* Compute the tensors of a request; return how many behaviours it has, or less than 0. */
int64_t assemble_tensors(const ParsedCache *cache, const RankInputs *inputs,
                         const UserRow *user, const Arrays *arrays);

/* Score the candidates by the behaviours; return whether that succeeded. */
int score_tensors(const Ranker *ranker, const ParsedCache *cache, int64_t behaviors,
                  int64_t count, const Arrays *arrays, int64_t *encoded_ns);

/* Return OK_STATUS to STALE_SEQUENCE. */
int user_status(const UserRow *user, int64_t behaviors);

#endif
