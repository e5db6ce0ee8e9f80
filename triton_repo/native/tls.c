#define _POSIX_C_SOURCE 200809L
#include "tls.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "socket_wait.h"

/* Triton has another library's functions of the same names: ours must use their own. */
#if defined RTLD_DEEPBIND && !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
enum { TLS_LOADING = RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND };
#else
enum { TLS_LOADING = RTLD_NOW | RTLD_LOCAL };
#endif
enum { TLS_WANTS_READ = 2, TLS_WANTS_WRITE = 3, TLS_VERIFY_PEER = 1, TLS_SET_NAME = 55 };

typedef struct { /* of libssl, and of libcrypto */
    const void *(*client_method)(void);
    void *(*context_new)(const void *method);
    void (*context_free)(void *context);
    int (*load_authorities)(void *context, const char *file, const char *folder);
    int (*load_system_authorities)(void *context);
    void (*set_verify)(void *context, int mode, void *callback);
    void *(*stream_new)(void *context);
    void (*stream_free)(void *stream);
    int (*set_socket)(void *stream, int handle);
    void *(*parameters)(void *stream);
    int (*expect_address)(void *parameters, const char *address);
    int (*expect_name)(void *parameters, const char *name, size_t length);
    long (*control)(void *stream, int command, long number, void *content);
    int (*connect)(void *stream);
    int (*read)(void *stream, void *content, int bytes);
    int (*write)(void *stream, const void *content, int bytes);
    int (*error)(const void *stream, int result);
    void (*clear_errors)(void);
} Tls;

static Tls tls;
static int tls_is_loaded;
static pthread_once_t tls_once = PTHREAD_ONCE_INIT;

static void tls_load(void) {
    static const char *const NAMES[] = {
        "TLS_client_method",
        "SSL_CTX_new",
        "SSL_CTX_free",
        "SSL_CTX_load_verify_locations",
        "SSL_CTX_set_default_verify_paths",
        "SSL_CTX_set_verify",
        "SSL_new",
        "SSL_free",
        "SSL_set_fd",
        "SSL_get0_param",
        "X509_VERIFY_PARAM_set1_ip_asc",
        "X509_VERIFY_PARAM_set1_host",
        "SSL_ctrl",
        "SSL_connect",
        "SSL_read",
        "SSL_write",
        "SSL_get_error",
        "ERR_clear_error",
    };
    enum { COUNT = sizeof NAMES / sizeof *NAMES };
    _Static_assert(sizeof(Tls) == COUNT * sizeof(void *), "a name for each function");
    void *library = dlopen("libssl.so.3", TLS_LOADING);
    if (!library) library = dlopen("libssl.so.1.1", TLS_LOADING);
    if (!library) return;
    for (int at = 0; at < COUNT; at++) {
        void *found = dlsym(library, NAMES[at]);
        if (!found) return;
        memcpy((char *)&tls + (size_t)at * sizeof found, &found, sizeof found);
    }
    tls_is_loaded = 1;
}

int tls_is_available(void) { return !pthread_once(&tls_once, tls_load) && tls_is_loaded; }

/* Wait for what a call, whose result this is, wants; return whether to make it again. */
static int tls_wait(void *stream, int handle, int result, int64_t until_ms) {
    const int error = tls.error(stream, result);
    if (error == TLS_WANTS_READ) return wait_for_socket(handle, POLLIN, until_ms);
    return error == TLS_WANTS_WRITE && wait_for_socket(handle, POLLOUT, until_ms);
}

static int tls_expect_host(void *stream, const char *host) {
    void *parameters = tls.parameters(stream);
    if (tls.expect_address(parameters, host)) return 1;
    char name[256];
    strcpy(name, host); /* of a StoreAddress: it fits */
    return tls.expect_name(parameters, host, 0) &&
           tls.control(stream, TLS_SET_NAME, 0, name) == 1;
}

static void *tls_new_stream(const char *authority) {
    void *context = tls.context_new(tls.client_method()), *stream = NULL;
    if (!context) return NULL;
    tls.set_verify(context, TLS_VERIFY_PEER, NULL);
    const int is_known = strcmp(authority, TLS_SYSTEM_AUTHORITIES)
                             ? tls.load_authorities(context, authority, NULL)
                             : tls.load_system_authorities(context);
    if (is_known == 1) stream = tls.stream_new(context);
    tls.context_free(context); /* the stream keeps it */
    return stream;
}

void *tls_open(int handle, const char *host, const char *authority, int64_t until_ms) {
    sigset_t broken_pipe;
    if (!tls_is_available()) return NULL;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE); /* OpenSSL writes without MSG_NOSIGNAL */
    pthread_sigmask(SIG_BLOCK, &broken_pipe, NULL);
    fcntl(handle, F_SETFL, fcntl(handle, F_GETFL) | O_NONBLOCK);
    tls.clear_errors();
    void *stream = tls_new_stream(authority);
    if (!stream) return NULL;
    int result = tls_expect_host(stream, host) && tls.set_socket(stream, handle) ? 0 : -1;
    while (!result) {
        tls.clear_errors();
        const int found = tls.connect(stream);
        if (found == 1)
            result = 1;
        else if (!tls_wait(stream, handle, found, until_ms))
            result = -1;
    }
    if (result == 1) return stream;
    tls.stream_free(stream);
    return NULL;
}

int tls_write(void *stream, int handle, const char *content, size_t bytes,
              int64_t until_ms) {
    for (;;) {
        tls.clear_errors();
        const int count = tls.write(stream, content, (int)bytes);
        if (count > 0 || !tls_wait(stream, handle, count, until_ms)) return count;
    }
}

int tls_read(void *stream, int handle, char *content, size_t bytes, int64_t until_ms) {
    for (;;) {
        tls.clear_errors();
        const int count = tls.read(stream, content, (int)bytes);
        if (count > 0 || !tls_wait(stream, handle, count, until_ms)) return count;
    }
}

void tls_close(void *stream) { tls.stream_free(stream); }
