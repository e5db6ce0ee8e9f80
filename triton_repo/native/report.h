/* What the Python step keeps of an answer of the native step: the request in the log of
 * served requests, and the spans of its trace. It gets both after the client has the
 * answer, with the tensors that were scored: nothing is computed again. They are copied
 * before the answer is sent: the memory of a call's inputs is Triton's, which reads the
 * next call into it. */
#ifndef SRP4CTR_REPORT_H
#define SRP4CTR_REPORT_H

#include "outputs.h"
#include "parsed_cache.h"
#include "ranker.h"

typedef struct Report Report;

/* Return the report of a call that is logged or traced; NULL for others, or if there is no
 * memory. */
Report *create_report(const Call *call, const ParsedCache *cache, const RankInputs *inputs,
                      const Arrays *arrays);

/* Send the report of a call that is answered now. */
void send_report(Report *report, const CallTimings *timings, const Answer *answer);

void discard_report(Report *report);

#endif
