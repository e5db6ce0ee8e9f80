/* Once a second both steps answer a call: the Python step from copies of the inputs, after
 * the client has the native step's answer. Differences between the two are counted. The
 * copies are made before the answer is sent: the memory of a call's inputs is Triton's,
 * which reads the next call into it. */
#ifndef SRP4CTR_COMPARISON_H
#define SRP4CTR_COMPARISON_H

#include "outputs.h"
#include "ranker.h"

typedef struct Comparison Comparison;

/* Return a comparison for `call`, whose answer this is; NULL if there is no memory. */
Comparison *create_comparison(const Call *call, const RankInputs *inputs,
                              const Answer *answer);

/* Let the Python step answer, too, now that the call is answered. */
void send_comparison(Comparison *comparison);

void discard_comparison(Comparison *comparison);

#endif
