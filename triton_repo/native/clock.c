#define _POSIX_C_SOURCE 200809L
#include "clock.h"

#include <time.h>

static int64_t read_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

int64_t monotonic_ns(void) { return read_ns(CLOCK_MONOTONIC); }

int64_t utc_ns(void) { return read_ns(CLOCK_REALTIME); }

int64_t thread_cpu_ns(void) { return read_ns(CLOCK_THREAD_CPUTIME_ID); }
