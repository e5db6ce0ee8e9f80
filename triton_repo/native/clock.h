/* The clocks that the native step reads, in nanoseconds. */
#ifndef SRP4CTR_CLOCK_H
#define SRP4CTR_CLOCK_H

#include <stdint.h>

int64_t monotonic_ns(void); /* since some start */
int64_t utc_ns(void);       /* since 1970 */
int64_t thread_cpu_ns(void);

#endif
