/* TLS to the store, by the machine's OpenSSL, which is loaded if a store needs it: 3
 * or 1.1, whose functions stay as they are. The server's certificate must be of the host
 * that is connected to, and signed by an authority of the file, or by one that the machine
 * trusts.
 *
 * The socket does not block: each call ends at the time that it is given.
 */
#ifndef SRP4CTR_TLS_H
#define SRP4CTR_TLS_H

#include <stddef.h>
#include <stdint.h>

#define TLS_SYSTEM_AUTHORITIES "*" /* those that the machine trusts */

/* Return whether there is an OpenSSL. */
int tls_is_available(void);

/* Return a stream over the connected socket, or NULL. */
void *tls_open(int handle, const char *host, const char *authority, int64_t until_ms);

/* Write some bytes; return how many, or less than 1. */
int tls_write(void *stream, int handle, const char *content, size_t bytes,
              int64_t until_ms);

/* Read some bytes; return how many, or less than 1. */
int tls_read(void *stream, int handle, char *content, size_t bytes, int64_t until_ms);

void tls_close(void *stream);

#endif
