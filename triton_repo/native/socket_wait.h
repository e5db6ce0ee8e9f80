/* Waiting for a socket until a time. */
#ifndef SRP4CTR_SOCKET_WAIT_H
#define SRP4CTR_SOCKET_WAIT_H

#include <stdint.h>

int64_t monotonic_ms(void); /* since some start */

/* Wait until the socket is ready for `events` of poll(); return 0 when the time is over. */
int wait_for_socket(int handle, short events, int64_t until_ms);

#endif
