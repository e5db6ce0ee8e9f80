/* What the Python step knows, mapped: features/tensors/parsed_cache.py writes it. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { K_FORMAT, K_GENERATION, K_CAPACITY, K_WIDTH, K_FIXED, K_ITEM_KEYS };
enum { K_ITEMS = 6, K_TEXTS, K_KNOWN, K_RULES, K_RULES_BYTES, K_LENGTH, K_EXPOSURES };
enum { K_SLOTS = 13, K_USER_SLOTS, K_TTL, K_REQUEST_WIDTH, K_CANDIDATE_WIDTH };
enum { K_CONTEXT_SLOTS = 18, K_NUMBERS, K_FIELDS, K_STRINGS, K_FIRST_STRING };
enum { HEAD_WORDS = 96, THIS_FORMAT = 6, MOST_STRINGS = 36 };
enum { S_HEAD, S_ITEMS, S_LIBRARY, S_HOST, S_PORT, S_DATABASE, S_USER, S_PASSWORD };
enum { S_AUTHORITY = 8, S_PREFIX, S_SUFFIX, S_FIELDS, LEAST_READ = 6, MOST_READ = 16 };
enum { TABLE_GENERATION, TABLE_UP_TO_DATE }; /* of the table's head, as in item_map.py */
enum { TABLE_WRITES = 2 };                   /* of its file */

typedef struct {
    char *at;
    size_t size;
    ino_t number; /* of the file, which no other has while it is mapped */
} Mapped;

typedef struct {
    Mapped own, items, table_head;
    const int64_t *head;
    Fixed fixed;
    TextRules rules;
    StoreAddress store;
    StoreValue prefix, suffix, fields[MOST_READ];
    int reads; /* fields of a user's row */
    char path[1024], library[1024];
    int users;                    /* threads that use it; guarded by the model's lock */
    int store_outages;            /* in a row */
    int64_t store_rests_until_ns; /* after some of them: the Python step asks it */
} ParsedCache;

static int map_file(const char *path, int protection, Mapped *mapped) {
    const int file = open(path, (protection & PROT_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    struct stat found;
    if (file < 0) return 0;
    void *at = MAP_FAILED;
    if (!fstat(file, &found) && found.st_size > 0)
        at = mmap(NULL, (size_t)found.st_size, protection, MAP_SHARED, file, 0);
    close(file);
    if (at == MAP_FAILED) return 0;
    mapped->at = at;
    mapped->size = (size_t)found.st_size;
    mapped->number = found.st_ino;
    return 1;
}

static void unmap(Mapped *mapped) {
    if (mapped->at) munmap(mapped->at, mapped->size);
    mapped->at = NULL;
}

static StoreValue string_of(const ParsedCache *known, int number) {
    const int64_t *pair = known->head + K_FIRST_STRING + 2 * number;
    return (StoreValue){known->own.at + pair[0], pair[1]};
}

/* Copy a string with its end; return whether it fits. */
static int copy_string(const ParsedCache *known, int number, char *into, size_t size) {
    const StoreValue text = string_of(known, number);
    if (text.length < 0 || (size_t)text.length >= size) return 0;
    memcpy(into, text.at, (size_t)text.length);
    into[text.length] = 0;
    return 1;
}

/* Return whether `count` words of `bytes` each lie in the file from `at` on. */
static int is_inside(const Mapped *mapped, int64_t at, int64_t count, int64_t bytes) {
    return at >= 0 && count >= 0 && bytes > 0 && at % 8 == 0 &&
           (uint64_t)at <= mapped->size &&
           (uint64_t)count <= (mapped->size - (uint64_t)at) / (uint64_t)bytes;
}

static int strings_are_inside(const ParsedCache *known) {
    const int64_t count = known->head[K_STRINGS];
    if (count < S_FIELDS + LEAST_READ || count > MOST_STRINGS ||
        count - S_FIELDS > MOST_READ)
        return 0;
    for (int at = 0; at < count; at++) {
        const int64_t *pair = known->head + K_FIRST_STRING + 2 * at;
        if (!is_inside(&known->own, pair[0], pair[1], 1)) return 0;
    }
    return 1;
}

static int head_is_right(const ParsedCache *known) {
    const int64_t *head = known->head;
    return head[K_FORMAT] == THIS_FORMAT && head[K_LENGTH] > 0 && head[K_EXPOSURES] >= 0 &&
           head[K_WIDTH] == ATTRIBUTES + head[K_SLOTS] && head[K_FIELDS] == FIELDS &&
           is_inside(&known->own, head[K_FIXED], 1, sizeof(Fixed)) &&
           is_inside(&known->own, head[K_ITEM_KEYS], head[K_ITEMS], 8) &&
           is_inside(&known->own, head[K_TEXTS], head[K_CAPACITY], 8) &&
           is_inside(&known->own, head[K_KNOWN], head[K_CAPACITY], 4 * head[K_WIDTH]) &&
           is_inside(&known->own, head[K_RULES], head[K_RULES_BYTES], 1) &&
           head[K_NUMBERS] >= 0 && head[K_CONTEXT_SLOTS] >= 0 && head[K_USER_SLOTS] >= 0 &&
           strings_are_inside(known);
}

/* Return whether the table's arrays lie in its file. */
static int table_is_inside(const ParsedCache *known, const Fixed *fixed) {
    const int64_t capacity = known->head[K_CAPACITY], places = 2 * BUCKET * fixed->half;
    return fixed->half > 0 && fixed->half <= capacity && fixed->shift >= 0 &&
           is_inside(&known->items, (intptr_t)fixed->buckets, places, 8) &&
           is_inside(&known->items, (intptr_t)fixed->bucket_rows, places, 4) &&
           is_inside(&known->items, (intptr_t)fixed->versions, capacity, 8) &&
           is_inside(&known->items, (intptr_t)fixed->halves, 2 * capacity, 8 * COLUMNS);
}

/* Turn the places in the files into addresses; return whether all are in them. */
static int place_arrays(ParsedCache *known) {
    Fixed *fixed = &known->fixed;
    memcpy(fixed, known->own.at + known->head[K_FIXED], sizeof *fixed);
    if (!table_is_inside(known, fixed)) return 0;
    fixed->item_keys = (const int64_t *)(known->own.at + (intptr_t)fixed->item_keys);
    fixed->buckets = (const int64_t *)(known->items.at + (intptr_t)fixed->buckets);
    fixed->bucket_rows = (const int32_t *)(known->items.at + (intptr_t)fixed->bucket_rows);
    fixed->versions = (const int64_t *)(known->items.at + (intptr_t)fixed->versions);
    fixed->halves = (const int64_t *)(known->items.at + (intptr_t)fixed->halves);
    fixed->texts = (const int64_t *)(known->own.at + (intptr_t)fixed->texts);
    fixed->known = (int32_t *)(known->own.at + (intptr_t)fixed->known);
    return 1;
}

static void parsed_cache_close(ParsedCache *known) {
    unmap(&known->own), unmap(&known->items), unmap(&known->table_head);
    free(known);
}

static int read_strings(ParsedCache *known) {
    char path[1024], number[32];
    if (!copy_string(known, S_HEAD, path, sizeof path) ||
        !map_file(path, PROT_READ, &known->table_head) ||
        !copy_string(known, S_ITEMS, path, sizeof path) ||
        !map_file(path, PROT_READ, &known->items) ||
        !copy_string(known, S_LIBRARY, known->library, sizeof known->library) ||
        !copy_string(known, S_HOST, known->store.host, sizeof known->store.host) ||
        !copy_string(known, S_USER, known->store.username, sizeof known->store.username) ||
        !copy_string(known, S_PASSWORD, known->store.password,
                     sizeof known->store.password) ||
        !copy_string(known, S_AUTHORITY, known->store.authority,
                     sizeof known->store.authority) ||
        !copy_string(known, S_PORT, number, sizeof number))
        return 0;
    if (*known->store.authority && !tls_is_there()) {
        say(LOG_WARNING, "the store needs TLS, and there is no libssl.so.3 or .1.1 of "
                         "OpenSSL: the Python step answers");
        return 0;
    }
    known->store.port = atoi(number);
    if (!copy_string(known, S_DATABASE, number, sizeof number)) return 0;
    known->store.database = atoi(number);
    known->store.timeout_ms = 250; /* as store.py's REQUEST_TIMEOUT_S */
    known->prefix = string_of(known, S_PREFIX);
    known->suffix = string_of(known, S_SUFFIX);
    known->reads = (int)known->head[K_STRINGS] - S_FIELDS;
    for (int at = 0; at < known->reads; at++)
        known->fields[at] = string_of(known, S_FIELDS + at);
    return 1;
}

/* Return what the file `path` has, NULL if it is not there or of another release. */
static ParsedCache *parsed_cache_open(const char *path) {
    ParsedCache *known = calloc(1, sizeof *known);
    if (!known) return NULL;
    if (strlen(path) < sizeof known->path) {
        strcpy(known->path, path);
        if (map_file(path, PROT_READ | PROT_WRITE, &known->own) &&
            known->own.size >= 8 * HEAD_WORDS) {
            known->head = (const int64_t *)known->own.at;
            if (head_is_right(known) && read_strings(known) && place_arrays(known) &&
                rules_open(&known->rules, known->own.at + known->head[K_RULES],
                           known->head[K_RULES_BYTES], known->head[K_USER_SLOTS],
                           known->head[K_NUMBERS]))
                return known;
        }
    }
    parsed_cache_close(known);
    return NULL;
}

/* Return whether the table of items is still of the generation that is mapped. */
static int is_current(const ParsedCache *known) {
    const int64_t *head = (const int64_t *)known->table_head.at;
    return __atomic_load_n(head + TABLE_GENERATION, __ATOMIC_ACQUIRE) ==
           known->head[K_GENERATION];
}

/* Return whether `path` is still the file that is mapped. */
static int is_of(const ParsedCache *known, const char *path) {
    struct stat found;
    return !strcmp(path, known->path) && !stat(path, &found) &&
           found.st_ino == known->own.number;
}

/* Return a number that is odd while rows of the table are written, and changes then. */
static int64_t table_writes(const ParsedCache *known) {
    const int64_t *head = (const int64_t *)known->items.at;
    return __atomic_load_n(head + TABLE_WRITES, __ATOMIC_ACQUIRE);
}

static int64_t up_to_date_ms(const ParsedCache *known) {
    const int64_t *head = (const int64_t *)known->table_head.at;
    return __atomic_load_n(head + TABLE_UP_TO_DATE, __ATOMIC_RELAXED);
}
