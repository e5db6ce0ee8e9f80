#define _POSIX_C_SOURCE 200809L
#include "socket_wait.h"

#include <errno.h>
#include <poll.h>

#include "clock.h"

int64_t monotonic_ms(void) { return monotonic_ns() / 1000000; }

int wait_for_socket(int handle, short events, int64_t until_ms) {
    for (;;) {
        struct pollfd polled = {handle, events, 0};
        const int64_t left_ms = until_ms - monotonic_ms();
        if (left_ms <= 0) return 0;
        const int found = poll(&polled, 1, (int)left_ms);
        if (found > 0) return 1; /* or it has an error, which the next call returns */
        if (found < 0 && errno != EINTR) return 0;
    }
}
