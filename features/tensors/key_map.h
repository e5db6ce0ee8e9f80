/* A set of keys, each with a place: open addressing, at most half full. Key 0 is none. */
#ifndef SRP4CTR_KEY_MAP_H
#define SRP4CTR_KEY_MAP_H

#include <stdint.h>
#include <stdlib.h>

typedef struct {
    int64_t *keys; /* 0: free */
    int32_t *places;
    uint64_t mask;
} KeyMap;

/* Make room for `count` keys; return whether there is memory. */
static inline int key_map_init(KeyMap *map, int64_t count) {
    uint64_t size = 16;
    while (size < 2 * (uint64_t)count) size *= 2;
    map->mask = size - 1;
    map->keys = calloc(size, sizeof *map->keys + sizeof *map->places);
    if (map->keys) map->places = (int32_t *)(map->keys + size);
    return map->keys != NULL;
}

static inline void key_map_free(KeyMap *map) {
    free(map->keys); /* and the places behind */
}

/* Return the place of `key`; an unknown one gets the place `next`, or none if that is
 * negative. */
static inline int32_t key_map_place(KeyMap *map, int64_t key, int32_t next) {
    uint64_t at = ((uint64_t)key * UINT64_C(0x9E3779B97F4A7C15) >> 32) & map->mask;
    while (map->keys[at] && map->keys[at] != key) at = (at + 1) & map->mask;
    if (map->keys[at] == key) return map->places[at];
    if (next >= 0) {
        map->keys[at] = key;
        map->places[at] = next;
    }
    return next;
}

#endif
