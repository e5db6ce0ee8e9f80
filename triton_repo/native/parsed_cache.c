#define _POSIX_C_SOURCE 200809L
#include "parsed_cache.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tls.h"
#include "triton_errors.h"

enum { CACHE_FORMAT = 6 };
/* The strings of the head; S_FIELDS and the next are names of fields of a user's row. */
enum { S_HEAD, S_ITEMS, S_LIBRARY, S_HOST, S_PORT, S_DATABASE, S_USER, S_PASSWORD };
enum { S_AUTHORITY = 8, S_PREFIX, S_SUFFIX, S_FIELDS };
enum { TABLE_GENERATION, TABLE_UPDATED }; /* of the table's head, as in item_map.py */
enum { TABLE_WRITES = 2 };                /* of its file */
_Static_assert(sizeof(CacheHead) == 96 * sizeof(int64_t), "as parsed_cache.py has it");

static int map_file(const char *path, int protection, MappedFile *mapped) {
    const int file = open(path, (protection & PROT_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    struct stat status;
    if (file < 0) return 0;
    void *start = MAP_FAILED;
    if (!fstat(file, &status) && status.st_size > 0)
        start = mmap(NULL, (size_t)status.st_size, protection, MAP_SHARED, file, 0);
    close(file);
    if (start == MAP_FAILED) return 0;
    mapped->start = start;
    mapped->size = (size_t)status.st_size;
    mapped->inode = status.st_ino;
    return 1;
}

static void unmap_file(MappedFile *mapped) {
    if (mapped->start) munmap(mapped->start, mapped->size);
    mapped->start = NULL;
}

static StringView cache_string(const ParsedCache *cache, int number) {
    const StringPlace place = cache->head->strings[number];
    return (StringView){cache->file.start + place.start, place.length};
}

/* Copy a string with its end; return whether it fits. */
static int copy_string(const ParsedCache *cache, int number, char *into, size_t size) {
    const StringView text = cache_string(cache, number);
    if (text.length < 0 || (size_t)text.length >= size) return 0;
    memcpy(into, text.start, (size_t)text.length);
    into[text.length] = 0;
    return 1;
}

/* Return whether `count` words of `bytes` each lie in the file from `at` on. */
static int is_in_file(const MappedFile *mapped, int64_t at, int64_t count, int64_t bytes) {
    return at >= 0 && count >= 0 && bytes > 0 && at % 8 == 0 &&
           (uint64_t)at <= mapped->size &&
           (uint64_t)count <= (mapped->size - (uint64_t)at) / (uint64_t)bytes;
}

static int are_valid_strings(const ParsedCache *cache) {
    const int64_t count = cache->head->num_strings;
    if (count < S_FIELDS + MIN_ROW_FIELDS || count > MAX_STRINGS ||
        count - S_FIELDS > MAX_ROW_FIELDS)
        return 0;
    for (int at = 0; at < count; at++) {
        const StringPlace place = cache->head->strings[at];
        if (!is_in_file(&cache->file, place.start, place.length, 1)) return 0;
    }
    return 1;
}

static int is_valid_head(const ParsedCache *cache) {
    const CacheHead *head = cache->head;
    return head->format == CACHE_FORMAT && head->length > 0 && head->exposures >= 0 &&
           head->width == ATTRIBUTES + head->slots && head->fields == FIELDS &&
           is_in_file(&cache->file, head->fixed, 1, sizeof(Fixed)) &&
           is_in_file(&cache->file, head->item_keys, head->items, 8) &&
           is_in_file(&cache->file, head->texts, head->capacity, 8) &&
           is_in_file(&cache->file, head->known, head->capacity, 4 * head->width) &&
           is_in_file(&cache->file, head->rules, head->rules_bytes, 1) &&
           head->context_numbers >= 0 && head->context_slots >= 0 &&
           head->user_slots >= 0 && are_valid_strings(cache);
}

/* Return whether the table's arrays lie in its file. */
static int is_valid_table(const ParsedCache *cache, const Fixed *fixed) {
    const int64_t capacity = cache->head->capacity, places = 2 * BUCKET * fixed->half;
    return fixed->half > 0 && fixed->half <= capacity && fixed->shift >= 0 &&
           is_in_file(&cache->items, (intptr_t)fixed->buckets, places, 8) &&
           is_in_file(&cache->items, (intptr_t)fixed->bucket_rows, places, 4) &&
           is_in_file(&cache->items, (intptr_t)fixed->versions, capacity, 8) &&
           is_in_file(&cache->items, (intptr_t)fixed->halves, 2 * capacity, 8 * COLUMNS);
}

/* Turn the places in the files into addresses; return whether all are in them. */
static int resolve_arrays(ParsedCache *cache) {
    Fixed *fixed = &cache->fixed;
    memcpy(fixed, cache->file.start + cache->head->fixed, sizeof *fixed);
    if (!is_valid_table(cache, fixed)) return 0;
    fixed->item_keys = (const int64_t *)(cache->file.start + (intptr_t)fixed->item_keys);
    fixed->buckets = (const int64_t *)(cache->items.start + (intptr_t)fixed->buckets);
    fixed->bucket_rows =
        (const int32_t *)(cache->items.start + (intptr_t)fixed->bucket_rows);
    fixed->versions = (const int64_t *)(cache->items.start + (intptr_t)fixed->versions);
    fixed->halves = (const int64_t *)(cache->items.start + (intptr_t)fixed->halves);
    fixed->texts = (const int64_t *)(cache->file.start + (intptr_t)fixed->texts);
    fixed->known = (int32_t *)(cache->file.start + (intptr_t)fixed->known);
    return 1;
}

void parsed_cache_close(ParsedCache *cache) {
    unmap_file(&cache->file), unmap_file(&cache->items), unmap_file(&cache->table_head);
    free(cache);
}

static int read_addresses(ParsedCache *cache) {
    char path[1024], number[32];
    if (!copy_string(cache, S_HEAD, path, sizeof path) ||
        !map_file(path, PROT_READ, &cache->table_head) ||
        !copy_string(cache, S_ITEMS, path, sizeof path) ||
        !map_file(path, PROT_READ, &cache->items) ||
        !copy_string(cache, S_LIBRARY, cache->library, sizeof cache->library) ||
        !copy_string(cache, S_HOST, cache->store.host, sizeof cache->store.host) ||
        !copy_string(cache, S_USER, cache->store.username, sizeof cache->store.username) ||
        !copy_string(cache, S_PASSWORD, cache->store.password,
                     sizeof cache->store.password) ||
        !copy_string(cache, S_AUTHORITY, cache->store.authority,
                     sizeof cache->store.authority) ||
        !copy_string(cache, S_PORT, number, sizeof number))
        return 0;
    if (*cache->store.authority && !tls_is_available()) {
        log_message(TRITONSERVER_LOG_WARN,
                    "the store needs TLS, and there is no libssl.so.3 or .1.1 of "
                    "OpenSSL: the Python step answers");
        return 0;
    }
    cache->store.port = atoi(number);
    if (!copy_string(cache, S_DATABASE, number, sizeof number)) return 0;
    cache->store.database = atoi(number);
    cache->store.timeout_ms = 250; /* as store.py's REQUEST_TIMEOUT_S */
    cache->prefix = cache_string(cache, S_PREFIX);
    cache->suffix = cache_string(cache, S_SUFFIX);
    cache->num_row_fields = (int)cache->head->num_strings - S_FIELDS;
    for (int at = 0; at < cache->num_row_fields; at++)
        cache->row_fields[at] = cache_string(cache, S_FIELDS + at);
    return 1;
}

ParsedCache *parsed_cache_open(const char *path) {
    ParsedCache *cache = calloc(1, sizeof *cache);
    if (!cache) return NULL;
    if (strlen(path) < sizeof cache->path) {
        strcpy(cache->path, path);
        if (map_file(path, PROT_READ | PROT_WRITE, &cache->file) &&
            cache->file.size >= sizeof *cache->head) {
            cache->head = (const CacheHead *)cache->file.start;
            if (is_valid_head(cache) && read_addresses(cache) && resolve_arrays(cache) &&
                text_rules_open(&cache->rules, cache->file.start + cache->head->rules,
                                cache->head->rules_bytes, cache->head->user_slots,
                                cache->head->context_numbers))
                return cache;
        }
    }
    parsed_cache_close(cache);
    return NULL;
}

int parsed_cache_is_current(const ParsedCache *cache) {
    const int64_t *head = (const int64_t *)cache->table_head.start;
    return __atomic_load_n(head + TABLE_GENERATION, __ATOMIC_ACQUIRE) ==
           cache->head->generation;
}

int parsed_cache_maps(const ParsedCache *cache, const char *path) {
    struct stat status;
    return !strcmp(path, cache->path) && !stat(path, &status) &&
           status.st_ino == cache->file.inode;
}

int64_t table_writes(const ParsedCache *cache) {
    const int64_t *head = (const int64_t *)cache->items.start;
    return __atomic_load_n(head + TABLE_WRITES, __ATOMIC_ACQUIRE);
}

int64_t table_updated_ms(const ParsedCache *cache) {
    const int64_t *head = (const int64_t *)cache->table_head.start;
    return __atomic_load_n(head + TABLE_UPDATED, __ATOMIC_RELAXED);
}
