#define _POSIX_C_SOURCE 200809L
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <unistd.h>

#include "socket_wait.h"
#include "tls.h"

enum { STORE_MIN_BYTES = 1 << 14, STORE_MAX_BYTES = 1 << 24 }; /* bytes of the buffer */
enum { STORE_MAX_WAIT_MS = 1 << 29, STORE_MAX_DIGITS = 9 };    /* no int overflows */

/* How long a step may take: it ends at `until_ms`, and the kernel ends a call that has
 * blocked for `timeout_ms`. */
typedef struct {
    int64_t until_ms, timeout_ms;
} StoreLimit;

/* ---- Time ---- */

/* Return the flags of a call that can begin now, or -1 when the time is over. It may block
 * where the kernel ends it early enough; else it waits here, and does not block then. */
static int store_call_flags(int handle, short events, const StoreLimit *limit) {
    if (limit->until_ms - monotonic_ms() >= limit->timeout_ms) return 0;
    return wait_for_socket(handle, events, limit->until_ms) ? MSG_DONTWAIT : -1;
}

/* Return whether a call that returned an error is to be made again. */
static int store_should_retry(int flags) {
    return errno == EINTR || (errno == EAGAIN && flags);
}

/* Return when a call has to end that may take the timeout. */
static int64_t store_call_end_ms(const StoreLimit *limit) {
    const int64_t end_ms = monotonic_ms() + limit->timeout_ms;
    return end_ms < limit->until_ms ? end_ms : limit->until_ms;
}

/* ---- The buffer ---- */

void store_close(StoreConnection *connection) {
    if (connection->stream) tls_close(connection->stream);
    if (connection->socket >= 0) close(connection->socket);
    free(connection->buffer);
    *connection = (StoreConnection){-1, NULL, NULL, 0, 0};
}

/* Make the buffer hold `wanted` bytes in all. */
static int store_grow(StoreConnection *connection, size_t wanted) {
    size_t size = connection->size ? connection->size : STORE_MIN_BYTES;
    if (wanted <= connection->size) return 1;
    if (wanted > STORE_MAX_BYTES) return 0;
    while (size < wanted) size *= 2;
    char *buffer = realloc(connection->buffer, size);
    if (!buffer) return 0;
    connection->buffer = buffer;
    connection->size = size;
    return 1;
}

static int store_append(StoreConnection *connection, const char *text, size_t length) {
    if (length > STORE_MAX_BYTES) return 0;
    if (!store_grow(connection, connection->filled + length)) return 0;
    if (length) memcpy(connection->buffer + connection->filled, text, length);
    connection->filled += length;
    return 1;
}

/* Append a header such as "*3" or "$12". */
static int store_append_header(StoreConnection *connection, char type, size_t number) {
    char text[32];
    const int length = snprintf(text, sizeof text, "%c%zu\r\n", type, number);
    return length > 0 && store_append(connection, text, (size_t)length);
}

static int store_append_word(StoreConnection *connection, const char *word, size_t length) {
    return store_append_header(connection, '$', length) &&
           store_append(connection, word, length) && store_append(connection, "\r\n", 2);
}

/* ---- Sending and receiving ---- */

/* What became of a call of TLS that has moved `count` bytes. */
static int store_tls_step(int count, const StoreLimit *limit) {
    if (count > 0) return STORE_DONE;
    return monotonic_ms() < limit->until_ms ? STORE_LOST : STORE_FAILED;
}

static int store_send_tls(StoreConnection *connection, const StoreLimit *limit) {
    size_t sent = 0;
    int step = STORE_DONE;
    while (step == STORE_DONE && sent < connection->filled) {
        const StoreLimit own = {store_call_end_ms(limit), limit->timeout_ms};
        const int count =
            tls_write(connection->stream, connection->socket, connection->buffer + sent,
                      connection->filled - sent, own.until_ms);
        step = store_tls_step(count, &own);
        if (count > 0) sent += (size_t)count;
    }
    connection->filled = 0;
    return step;
}

/* Send what is in the buffer, which is empty then. */
static int store_send(StoreConnection *connection, const StoreLimit *limit) {
    size_t sent = 0;
    if (connection->stream) return store_send_tls(connection, limit);
    while (sent < connection->filled) {
        const int flags = store_call_flags(connection->socket, POLLOUT, limit);
        if (flags < 0) return STORE_FAILED;
        const ssize_t count = send(connection->socket, connection->buffer + sent,
                                   connection->filled - sent, flags | MSG_NOSIGNAL);
        if (count >= 0)
            sent += (size_t)count;
        else if (!store_should_retry(flags))
            return errno == EAGAIN ? STORE_FAILED : STORE_LOST;
    }
    connection->filled = 0;
    return STORE_DONE;
}

static int store_receive_tls(StoreConnection *connection, const StoreLimit *limit) {
    const StoreLimit own = {store_call_end_ms(limit), limit->timeout_ms};
    const int count = tls_read(connection->stream, connection->socket,
                               connection->buffer + connection->filled,
                               connection->size - connection->filled, own.until_ms);
    if (count > 0) {
        connection->filled += (size_t)count;
        return STORE_DONE;
    }
    return connection->filled ? STORE_FAILED : store_tls_step(count, &own);
}

/* Receive some more of the answer. */
static int store_receive(StoreConnection *connection, const StoreLimit *limit) {
    if (!store_grow(connection, connection->filled + 1)) return STORE_FAILED;
    if (connection->stream) return store_receive_tls(connection, limit);
    for (;;) {
        const int flags = store_call_flags(connection->socket, POLLIN, limit);
        if (flags < 0) return STORE_FAILED;
        const ssize_t count =
            recv(connection->socket, connection->buffer + connection->filled,
                 connection->size - connection->filled, flags);
        if (count > 0) {
            connection->filled += (size_t)count;
            return STORE_DONE;
        }
        if (count < 0 && store_should_retry(flags)) continue;
        if (connection->filled || (count < 0 && errno == EAGAIN)) return STORE_FAILED;
        return STORE_LOST;
    }
}

/* ---- The answer ---- */

/* Read a header of the wanted type, such as "$12", at `*place`, which is after it then. Of
 * negative numbers there is one, -1. */
static int store_header(const char *text, size_t filled, size_t *place, char type,
                        int64_t *number) {
    size_t at = *place;
    int64_t value = 0;
    int digits = 0;
    if (at == filled) return STORE_INCOMPLETE;
    if (text[at++] != type) return STORE_WRONG;
    const int is_negative = at < filled && text[at] == '-';
    if (is_negative) at++;
    for (; at < filled && text[at] >= '0' && text[at] <= '9'; at++) {
        if (++digits > STORE_MAX_DIGITS) return STORE_WRONG;
        value = 10 * value + (text[at] - '0');
    }
    if (at == filled) return STORE_INCOMPLETE;
    if (text[at] != '\r' || !digits || (is_negative && value != 1)) return STORE_WRONG;
    if (++at == filled) return STORE_INCOMPLETE;
    if (text[at] != '\n') return STORE_WRONG;
    *place = at + 1;
    *number = is_negative ? -1 : value;
    return STORE_WHOLE;
}

int store_parse(const char *text, size_t filled, int count, StringView *values) {
    size_t at = 0;
    int64_t number = 0;
    int found = store_header(text, filled, &at, '*', &number);
    if (found != STORE_WHOLE) return found;
    if (number != count) return STORE_WRONG;
    for (int value = 0; value < count; value++) {
        found = store_header(text, filled, &at, '$', &number);
        if (found != STORE_WHOLE) return found;
        values[value] = (StringView){NULL, -1};
        if (number < 0) continue;
        if (number > STORE_MAX_BYTES) return STORE_LARGE;
        const size_t length = (size_t)number;
        if (filled - at < length + 2) return STORE_INCOMPLETE;
        if (text[at + length] != '\r' || text[at + length + 1] != '\n') return STORE_WRONG;
        values[value] = (StringView){text + at, number};
        at += length + 2;
    }
    return at == filled ? STORE_WHOLE : STORE_WRONG; /* and no more */
}

/* ---- Connecting ---- */

/* Send a command whose answer is OK. Its words end with a NULL. */
static int store_command(StoreConnection *connection, const char *const *words,
                         const StoreLimit *limit) {
    static const char OK[] = "+OK\r\n";
    const size_t length = sizeof OK - 1;
    size_t count = 0;
    while (words[count]) count++;
    connection->filled = 0;
    if (!store_append_header(connection, '*', count)) return 0;
    for (; *words; words++)
        if (!store_append_word(connection, *words, strlen(*words))) return 0;
    if (store_send(connection, limit) != STORE_DONE) return 0;
    while (connection->filled < length) {
        if (store_receive(connection, limit) != STORE_DONE) return 0;
        if (connection->filled > length) return 0;
        if (memcmp(connection->buffer, OK, connection->filled)) return 0;
    }
    return 1;
}

/* Say who reads, and of which database. */
static int store_login(StoreConnection *connection, const StoreAddress *address,
                       const StoreLimit *limit) {
    char database[16];
    snprintf(database, sizeof database, "%d", address->database);
    const char *as_user[] = {"AUTH", address->username, address->password, NULL};
    const char *as_default[] = {"AUTH", address->password, NULL};
    const char *select[] = {"SELECT", database, NULL};
    const char *const *auth = *address->username ? as_user : as_default;
    return (!*address->password || store_command(connection, auth, limit)) &&
           (!address->database || store_command(connection, select, limit));
}

/* From here on calls block, each for at most the timeout. */
static int store_set_options(int handle, int64_t timeout_ms) {
    const int yes = 1, flags = fcntl(handle, F_GETFL);
    const struct timeval timeout = {(time_t)(timeout_ms / 1000),
                                    (suseconds_t)(timeout_ms % 1000 * 1000)};
    return flags >= 0 && !fcntl(handle, F_SETFL, flags & ~O_NONBLOCK) &&
           !setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) &&
           !setsockopt(handle, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) &&
           !setsockopt(handle, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

/* Return a socket that is connected, or -1. */
static int store_connect(const struct addrinfo *to, int64_t until_ms, int64_t timeout_ms) {
    const int type = to->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC;
    const int handle = socket(to->ai_family, type, to->ai_protocol);
    if (handle < 0) return -1;
    int error = connect(handle, to->ai_addr, to->ai_addrlen) ? errno : 0;
    if (error == EINPROGRESS || error == EINTR) {
        socklen_t size = sizeof error;
        if (!wait_for_socket(handle, POLLOUT, until_ms) ||
            getsockopt(handle, SOL_SOCKET, SO_ERROR, &error, &size))
            error = ETIMEDOUT;
    }
    if (!error && store_set_options(handle, timeout_ms)) return handle;
    close(handle);
    return -1;
}

/* Return whether the address is one: its texts end. */
static int store_is_valid_address(const StoreAddress *address) {
    return memchr(address->host, 0, sizeof address->host) && *address->host &&
           memchr(address->username, 0, sizeof address->username) &&
           memchr(address->password, 0, sizeof address->password) &&
           memchr(address->authority, 0, sizeof address->authority) && address->port > 0 &&
           address->port < 65536;
}

/* Begin TLS, if the address has an authority. */
static int store_start_tls(StoreConnection *connection, const StoreAddress *address,
                           const StoreLimit *limit) {
    if (!*address->authority) return 1;
    connection->stream =
        tls_open(connection->socket, address->host, address->authority, limit->until_ms);
    return connection->stream != NULL;
}

/* Connect to the first of the host's addresses that answers: each has a fair share of the
 * time that is left. */
static int store_open(StoreConnection *connection, const StoreAddress *address,
                      const StoreLimit *limit) {
    struct addrinfo hints = {.ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char port[16];
    int64_t left = 0;
    snprintf(port, sizeof port, "%d", address->port);
    if (getaddrinfo(address->host, port, &hints, &found)) return 0;
    for (struct addrinfo *each = found; each; each = each->ai_next) left++;
    for (struct addrinfo *each = found; each && connection->socket < 0; left--) {
        const int64_t now_ms = monotonic_ms();
        const int64_t until_ms = now_ms + (limit->until_ms - now_ms) / left;
        connection->socket = store_connect(each, until_ms, limit->timeout_ms);
        each = each->ai_next;
    }
    freeaddrinfo(found);
    return connection->socket >= 0 && store_start_tls(connection, address, limit) &&
           store_login(connection, address, limit);
}

/* ---- Reading ---- */

/* Write the command HMGET into the buffer. */
static int store_write_hmget(StoreConnection *connection, const char *key,
                             size_t key_length, const StringView *fields, int count) {
    connection->filled = 0;
    if (!store_append_header(connection, '*', (size_t)count + 2) ||
        !store_append_word(connection, "HMGET", 5) ||
        !store_append_word(connection, key, key_length))
        return 0;
    for (int field = 0; field < count; field++) {
        const int64_t length = fields[field].length;
        if (length < 0 || length > STORE_MAX_BYTES) return 0;
        if (!store_append_word(connection, fields[field].start, (size_t)length)) return 0;
    }
    return 1;
}

/* Return whether what was received is an error of this key alone. */
static int store_is_wrong_type(const StoreConnection *connection) {
    static const char WRONG_TYPE[] = "-WRONGTYPE";
    const size_t length = sizeof WRONG_TYPE - 1;
    return connection->filled >= length && !memcmp(connection->buffer, WRONG_TYPE, length);
}

/* Send the command in the buffer, and receive its answer. */
static int store_exchange(StoreConnection *connection, int count, StringView *values,
                          const StoreLimit *limit) {
    int step = store_send(connection, limit);
    while (step == STORE_DONE) {
        if (connection->filled == STORE_MAX_BYTES) return STORE_UNREADABLE;
        step = store_receive(connection, limit);
        if (step != STORE_DONE) return step;
        const int found =
            store_parse(connection->buffer, connection->filled, count, values);
        if (found == STORE_WHOLE) return STORE_DONE;
        if (found == STORE_LARGE || store_is_wrong_type(connection))
            return STORE_UNREADABLE;
        if (found == STORE_WRONG) return STORE_FAILED;
    }
    return step;
}

/* Connect if need be, and exchange; once more, if the server has ended what was kept. */
static int store_request(StoreConnection *connection, const StoreAddress *address,
                         const char *key, size_t key_length, const StringView *fields,
                         int count, StringView *values) {
    const int64_t timeout_ms = address->timeout_ms < 1 ? 1 /* 0 would be forever */
                               : address->timeout_ms > STORE_MAX_WAIT_MS
                                   ? STORE_MAX_WAIT_MS
                                   : address->timeout_ms;
    const StoreLimit limit = {monotonic_ms() + 2 * timeout_ms, timeout_ms};
    for (int was_kept = connection->socket >= 0;; was_kept = 0) {
        const int64_t soon_ms = monotonic_ms() + timeout_ms;
        const StoreLimit opening = {soon_ms < limit.until_ms ? soon_ms : limit.until_ms,
                                    timeout_ms};
        if (connection->socket < 0 && !store_open(connection, address, &opening))
            return STORE_FAILED;
        if (!store_write_hmget(connection, key, key_length, fields, count))
            return STORE_FAILED;
        const int step = store_exchange(connection, count, values, &limit);
        if (step != STORE_LOST || !was_kept) return step;
        store_close(connection);
    }
}

int store_read(StoreConnection *connection, const StoreAddress *address, const char *key,
               size_t key_length, const StringView *fields, int count, StringView *values) {
    int step = STORE_FAILED;
    if (count > 0 && store_is_valid_address(address))
        step = store_request(connection, address, key, key_length, fields, count, values);
    if (step == STORE_DONE) return step;
    store_close(connection);
    for (int value = 0; value < count; value++) values[value] = (StringView){NULL, -1};
    return step == STORE_UNREADABLE ? step : STORE_FAILED;
}
