/* Fields of a hash, read from one Redis server over TCP or TLS: the protocol's version 2.
 *
 * A connection is of one thread at a time, and always to the same address. A call blocks
 * for at most twice the timeout: what the server sends, and when, is not ours to trust.
 * Only the resolver, which is called for a host's name, has a time of its own.
 */
#ifndef SRP4CTR_STORE_H
#define SRP4CTR_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "string_view.h"

typedef struct { /* texts end with a zero; an empty user name or password: none */
    char host[256];
    int port, database;
    char username[128], password[512];
    char authority[1024]; /* of TLS: a file, or TLS_SYSTEM_AUTHORITIES; empty: no TLS */
    int64_t timeout_ms;
} StoreAddress;

typedef struct {  /* begins as {-1, NULL, NULL, 0, 0} */
    int socket;   /* -1: not connected */
    void *stream; /* of TLS */
    char *buffer; /* a command, then its answer */
    size_t size, filled;
} StoreConnection;

/* What became of a step. LOST: the peer ended the connection, before it answered.
 * UNREADABLE: it answered, and this key has no hash, or one that is too large. */
enum { STORE_FAILED, STORE_DONE, STORE_LOST, STORE_UNREADABLE };
/* What was received of an answer. LARGE: more than is read. */
enum { STORE_WRONG, STORE_INCOMPLETE, STORE_WHOLE, STORE_LARGE };

/* Read `count` fields of the hash at `key`; return STORE_DONE, or how that failed: the
 * connection is closed then. The values are in its buffer until its next call. */
int store_read(StoreConnection *connection, const StoreAddress *address, const char *key,
               size_t key_length, const StringView *fields, int count, StringView *values);

/* Find the values of an array of `count` in what was received, from its beginning: what was
 * found before may have moved. */
int store_parse(const char *text, size_t filled, int count, StringView *values);

void store_close(StoreConnection *connection);

#endif
