/* The ranker's cache of parsed texts: held by threads that use it, and kept up to date. */
#ifndef SRP4CTR_CACHE_WATCH_H
#define SRP4CTR_CACHE_WATCH_H

#include "parsed_cache.h"
#include "ranker.h"

/* Return the cache, which stays until it is released; NULL: none. */
ParsedCache *acquire_cache(Ranker *ranker);

void release_cache(Ranker *ranker, ParsedCache *cache);

/* Use `cache` from now on; NULL: none. */
void replace_cache(Ranker *ranker, ParsedCache *cache);

/* The thread of a Ranker that keeps its cache up to date: it requests the file's path at
 * the start, when the table of items has moved, and when the file is gone, because the
 * Python step's processes have been replaced then. It also cancels forwarded calls. */
void *watch_cache(void *ranker);

#endif
