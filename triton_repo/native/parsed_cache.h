/* The Python step's cache of parsed texts, mapped: features/tensors/parsed_cache.py writes
 * it, and item_map.py the table of items that it names. */
#ifndef SRP4CTR_PARSED_CACHE_H
#define SRP4CTR_PARSED_CACHE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../../features/tensors/compiled.h"
#include "store.h"
#include "string_view.h"
#include "text_rules.h"

enum { MAX_STRINGS = 36, MIN_ROW_FIELDS = 2, MAX_ROW_FIELDS = 16 };

typedef struct { /* where a string is in the file, in bytes */
    int64_t start, length;
} StringPlace;

typedef struct { /* the file's first words; of arrays the places in the file, in bytes */
    int64_t format, generation, capacity, width, fixed, item_keys, items, texts, known;
    int64_t rules, rules_bytes, length, exposures, slots, user_slots, ttl_ms;
    int64_t request_width, candidate_width, context_slots, context_numbers, fields;
    int64_t num_strings;
    StringPlace strings[MAX_STRINGS];
    int64_t unused[2];
} CacheHead;

typedef struct {
    char *start;
    size_t size;
    ino_t inode; /* which no other file has while it is mapped */
} MappedFile;

typedef struct {
    MappedFile file, items, table_head;
    const CacheHead *head;
    Fixed fixed;
    TextRules rules;
    StoreAddress store;
    StringView prefix, suffix; /* of a user's key in the store */
    StringView row_fields[MAX_ROW_FIELDS];
    int num_row_fields;
    char path[1024], library[1024]; /* the latter: onnxruntime's */
    int users;                      /* threads that use it; guarded by the ranker's lock */
    int store_outages;              /* in a row */
    int64_t store_retry_at_ns; /* after some of them: until then the Python step reads */
} ParsedCache;

/* Return the mapped file `path`, NULL if it is not there or of another release. */
ParsedCache *parsed_cache_open(const char *path);

void parsed_cache_close(ParsedCache *cache);

/* Return whether the table of items is still of the generation that is mapped. */
int parsed_cache_is_current(const ParsedCache *cache);

/* Return whether `path` is still the file that is mapped. */
int parsed_cache_maps(const ParsedCache *cache, const char *path);

/* Return a number that is odd while rows of the table are written, and changes then. */
int64_t table_writes(const ParsedCache *cache);

/* Return when the table of items was up to date, in UTC. */
int64_t table_updated_ms(const ParsedCache *cache);

#endif
