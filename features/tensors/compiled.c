/* A request's tensors from the store's row of its user and the table of items.
 *
 * The definitions are numpy's, in transforms.py, packing.py and item_map.py: training and
 * the checks use those, and tests hold both equal. compiled.py calls `srp4ctr_assemble`;
 * sizes are its care. L behaviours, W exposures, N candidates, A slots of attributes; key 0
 * and row 0 pad, on the left of histories.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "compiled.h"
#include "key_map.h"

enum { AHEAD = 16 }; /* items that are looked up at a time */
static const int64_t DAY_MS = 86400000;
static const double HOUR_MS = 3600000.0, TWO_PI = 6.283185307179586;
static const double MAX_NUMBER = 1e15; /* as in caller_numbers.py */
static const uint64_t MULTIPLIERS[2] = {UINT64_C(0x9E3779B97F4A7C15),
                                        UINT64_C(0xC2B2AE3D27D4EB4F)};

/* The widths that this source was written for: a behaviour's codes, request_features, and
 * the columns of candidate_features that all bundles have. */
SRP4CTR_EXPORT const int32_t srp4ctr_widths[3] = {FIELDS, REQUEST_WIDTH, CANDIDATE_WIDTH};

uint32_t srp4ctr_source(void) { return SRP4CTR_SOURCE; }

/* ---- transforms.py, and of packing.py what unpacks ---- */

static double age_ms(int64_t then_ms, int64_t at_ms) {
    return then_ms < at_ms ? (double)(at_ms - then_ms) : 0.0;
}

/* Write the rates (LIVES), and the counts as of `at_ms` (COUNTS). */
static void decayed(const Fixed *fixed, const double *counts, int64_t counted_at_ms,
                    int64_t at_ms, float *rates, double *now) {
    const double age = age_ms(counted_at_ms, at_ms);
    for (int life = 0; life < LIVES; life++) {
        const double decay = exp2(age * fixed->decay_per_ms[life]);
        const double impressions = counts[life] * decay;
        const double clicks = counts[LIVES + life] * decay;
        now[life] = impressions;
        now[LIVES + life] = clicks;
        rates[life] = (float)((fmin(clicks, impressions) + fixed->prior_clicks) /
                              (impressions + fixed->prior_impressions));
    }
}

static int64_t gap_bucket(int64_t gap_ms, int64_t buckets) {
    const int64_t seconds = gap_ms / 1000, most = buckets - 3;
    const int64_t bits = seconds > 0 ? 63 - __builtin_clzll((uint64_t)seconds + 1) : 0;
    return 2 + (bits < most ? bits : most);
}

static int64_t value_bucket(double value, int64_t buckets) {
    if (value != value) return 1;
    const double positive = fmin(fmax(value, 0.0), 0x1p62);
    const int64_t bucket = 2 + (int64_t)rint(4.0 * log2(1.0 + positive));
    return bucket < buckets - 1 ? bucket : buckets - 1;
}

/* What a user did or was shown, unpacked: the last of it, oldest first. */
typedef struct {
    int64_t count, *keys, *times, *actions;
    double *values; /* NaN: none */
} Elements;

/* Unpack the last `most` elements that were after `after_ms`. */
static void unpack(const Columns *columns, int64_t after_ms, int64_t most,
                   Elements *elements) {
    const int64_t count = columns->count;
    int64_t first = count > most ? count - most : 0, values = 0;
    for (int64_t from = 0; from < count; from++) {
        int64_t at = from - first, time = 0; /* little-endian, as every machine we know */
        double value = NAN;
        const int code = columns->codes ? columns->codes[from] : 0;
        if (code & HAS_VALUE && values < columns->values_count)
            memcpy(&value, columns->values + 8 * values++, 8);
        if (at < 0) continue;
        memcpy(&time, columns->times + from * columns->time_bytes,
               (size_t)columns->time_bytes);
        time += columns->base_ms;
        if (time <= after_ms) { /* times come in order */
            first = from + 1;
            continue;
        }
        elements->times[at] = time;
        memcpy(elements->keys + at, columns->keys + 8 * from, 8);
        elements->actions[at] = code & ~HAS_VALUE;
        elements->values[at] = value;
    }
    elements->count = count - first;
}

static void write_codes(const Fixed *fixed, const Elements *done, int64_t *codes) {
    for (int64_t at = 0; at < done->count; at++, codes += FIELDS) {
        const int64_t gap_ms = at ? done->times[at] - done->times[at - 1] : 0;
        codes[0] = done->actions[at];
        codes[1] = at ? gap_bucket(gap_ms, fixed->gap_buckets) : 1;
        codes[2] = value_bucket(done->values[at], fixed->value_buckets);
    }
}

/* `kept` behaviours, of which `last_ms` is the newest's time, 0 for none. */
static void write_request(const Fixed *fixed, const Request *request, int64_t kept,
                          int64_t last_ms, const double *numbers) {
    float *features = request->request_features;
    double now[COUNTS];
    decayed(fixed, request->counts, request->counted_at_ms, request->at_ms,
            features + REQUEST_USER_CLICK_RATE, now);
    for (int i = 0; i < LIVES; i++)
        features[REQUEST_USER_LOG_IMPRESSIONS + i] = (float)log1p(now[i]);
    const double since_s = age_ms(last_ms, request->at_ms) / 1000.0;
    int64_t clock_ms = (request->at_ms + request->utc_offset_ms) % DAY_MS;
    if (clock_ms < 0) clock_ms += DAY_MS;
    const double day = (double)clock_ms * (TWO_PI / (double)DAY_MS);
    features[REQUEST_LOG_SEQUENCE_LENGTH] = (float)log1p((double)kept);
    features[REQUEST_LOG_SECONDS_SINCE_LAST_BEHAVIOR] =
        (float)log1p(fmin(since_s, fixed->never_hours * 3600.0));
    features[REQUEST_CLOCK] = (float)sin(day);
    features[REQUEST_CLOCK + 1] = (float)cos(day);
    for (int place = 0; place < CONTEXT_NUMBERS; place++)
        features[REQUEST_CONTEXT_NUMBER + place] = (float)numbers[place];
}

typedef struct {            /* what the user did with an item, or with items of one value */
    int64_t visit, earlier; /* behaviours in this visit, and before it */
    int64_t last_ms, is_last;
    int64_t rank; /* of an item: 1 is the newest one */
} Touches;

typedef struct { /* of one action with one item */
    int64_t count, last_ms;
} ActionTouches;

/* What is counted of a user: behaviours by item, and by item and action; by attribute their
 * weights and those of clicks; exposures by item (how many, and when the last was). */
typedef struct {
    KeyMap done, attributes, shown;
    Touches *items, *values; /* by the places of `done`, of `attributes` */
    ActionTouches *actions;  /* `fixed->actions` for each item */
    double *weights;
    int64_t *exposures;
    float log_never; /* of the seconds since what never was: true of most candidates */
} User;

static int user_make(const Fixed *fixed, User *user, int64_t done, int64_t slots,
                     int64_t shown) {
    memset(user, 0, sizeof *user);
    user->log_never = (float)log1p(fixed->never_hours * 3600.0);
    user->items = calloc((size_t)done + 1, sizeof *user->items);
    user->values = calloc((size_t)(done * slots) + 1, sizeof *user->values);
    user->actions = calloc((size_t)(done * fixed->actions) + 1, sizeof *user->actions);
    user->weights = malloc((size_t)(2 * done * slots + 1) * sizeof *user->weights);
    user->exposures = malloc((size_t)(2 * shown + 1) * sizeof *user->exposures);
    return user->items && user->values && user->actions && user->weights &&
           user->exposures && key_map_init(&user->done, done) &&
           key_map_init(&user->attributes, done * slots) &&
           key_map_init(&user->shown, shown);
}

static void user_free(User *user) {
    key_map_free(&user->done), key_map_free(&user->attributes), key_map_free(&user->shown);
    free(user->items), free(user->values), free(user->actions);
    free(user->weights), free(user->exposures);
}

static void count_touch(Touches *touches, int is_in_visit, int64_t time_ms, int is_last) {
    if (is_in_visit)
        touches->visit++;
    else
        touches->earlier++;
    touches->last_ms = time_ms;
    touches->is_last = is_last;
}

/* Return the place of the first behaviour of the visit that lasts at `at_ms`. */
static int64_t visit_start(const Fixed *fixed, int64_t at_ms, const Elements *done) {
    int64_t at = done->count, following_ms = at_ms;
    while (at && following_ms - done->times[at - 1] <= fixed->visit_gap_ms)
        following_ms = done->times[--at];
    return at;
}

/* Write each item's rank by recency: the newest one has 1. */
static void rank_items(const Elements *done, User *user) {
    int64_t rank = 0;
    for (int64_t at = done->count; at--;) {
        Touches *touches = user->items + key_map_place(&user->done, done->keys[at], -1);
        if (!touches->rank) touches->rank = ++rank;
    }
}

/* Count a behaviour's attributes, whose rows are `attributes`; return how many values
 * there are now. */
static int32_t count_values(const Fixed *fixed, int64_t at_ms, const Elements *done,
                            int64_t at, const int64_t *attributes, int64_t visit,
                            int32_t count, User *user) {
    const int64_t slots = fixed->known_width - ATTRIBUTES;
    const double age = age_ms(done->times[at], at_ms);
    double weight = -1.0;
    for (int64_t slot = 0; slot < slots; slot++) {
        if (!attributes[slot]) continue;
        if (weight < 0.0) weight = exp2(age * fixed->affinity_decay_per_ms);
        const int32_t place = key_map_place(&user->attributes, attributes[slot], count);
        double *sums = user->weights + 2 * place;
        if (place == count) sums[0] = sums[1] = 0.0, count++;
        sums[0] += weight;
        if (done->actions[at] == fixed->click) sums[1] += weight;
        count_touch(user->values + place, at >= visit, done->times[at],
                    at == done->count - 1);
    }
    return count;
}

static void count_done(const Fixed *fixed, int64_t at_ms, const Elements *done,
                       const int64_t *attributes, User *user) {
    const int64_t slots = fixed->known_width - ATTRIBUTES;
    const int64_t visit = visit_start(fixed, at_ms, done);
    int32_t items = 0, values = 0;
    for (int64_t at = 0; at < done->count; at++, attributes += slots) {
        const int32_t place = key_map_place(&user->done, done->keys[at], items);
        if (place == items) items++;
        count_touch(user->items + place, at >= visit, done->times[at],
                    at == done->count - 1);
        const int64_t action = fixed->action_places[done->actions[at]];
        if (action >= 0) {
            ActionTouches *touches = user->actions + place * fixed->actions + action;
            touches->count++;
            touches->last_ms = done->times[at];
        }
        values = count_values(fixed, at_ms, done, at, attributes, visit, values, user);
    }
    rank_items(done, user);
}

static void count_shown(int64_t at_ms, const Elements *shown, User *user) {
    int32_t count = 0;
    for (int64_t at = 0; at < shown->count; at++) {
        if (shown->times[at] >= at_ms) continue; /* the request's own impressions */
        const int32_t place = key_map_place(&user->shown, shown->keys[at], count);
        int64_t *seen = user->exposures + 2 * place;
        if (place == count) seen[0] = seen[1] = 0, count++;
        seen[0]++;
        if (shown->times[at] > seen[1]) seen[1] = shown->times[at];
    }
}

/* Write attribute_affinity and exposure_features. */
static void write_of_both(const Fixed *fixed, int64_t at_ms, User *user, int64_t key,
                          const int64_t *attributes, float *features) {
    static const int64_t never[2] = {0, 0};
    const int64_t slots = fixed->known_width - ATTRIBUTES;
    double acted = 0.0, clicked = 0.0, own = 0.0;
    for (int64_t slot = 0; slot < slots; slot++) {
        if (!attributes[slot]) continue;
        const int32_t place = key_map_place(&user->attributes, attributes[slot], -1);
        own++;
        if (place < 0) continue;
        acted += user->weights[2 * place];
        clicked += user->weights[2 * place + 1];
    }
    acted /= fmax(own, 1.0);
    clicked /= fmax(own, 1.0);
    const int32_t place = key_map_place(&user->shown, key, -1);
    const int64_t *seen = place < 0 ? never : user->exposures + 2 * place;
    const double hours = age_ms(seen[1], at_ms) / HOUR_MS;
    float *affinity = features + CANDIDATE_USER_ATTRIBUTE;
    float *exposures = features + CANDIDATE_USER_ITEM_EXPOSURES;
    affinity[0] = (float)((clicked + fixed->prior_rate) / (acted + 1.0));
    affinity[1] = (float)log1p(acted);
    exposures[0] = (float)log1p((double)seen[0]);
    exposures[1] = (float)log1p(fmin(hours, fixed->never_hours));
}

static float log_count(int64_t count) { return count ? (float)log1p((double)count) : 0.0f; }

/* Return log(1 + seconds since `last_ms`), of what was `count` times. */
static float log_since(const Fixed *fixed, const User *user, int64_t at_ms, int64_t count,
                       int64_t last_ms) {
    if (!count) return user->log_never;
    const double since_s = age_ms(last_ms, at_ms) / 1000.0;
    return (float)log1p(fmin(since_s, fixed->never_hours * 3600.0));
}

static void write_touches(const Fixed *fixed, const User *user, int64_t at_ms,
                          const Touches *touches, float *features) {
    const int64_t count = touches->visit + touches->earlier;
    features[0] = log_count(touches->visit);
    features[1] = log_count(touches->earlier);
    features[2] = log_since(fixed, user, at_ms, count, touches->last_ms);
}

/* Write own_history: what the user did with the item, by action too, and with others of its
 * main fields' values. */
static void write_own_history(const Fixed *fixed, int64_t at_ms, User *user, int64_t key,
                              const int64_t *attributes, float *features) {
    static const Touches none = {0, 0, 0, 0, 0};
    const int32_t place = key_map_place(&user->done, key, -1);
    const Touches *item = place < 0 ? &none : user->items + place;
    float *own = features + CANDIDATE_OWN_ITEM, *next = features + CANDIDATE_WIDTH;
    features[CANDIDATE_ITEM_IN_SEQUENCE] = place < 0 ? 0.0f : 1.0f;
    write_touches(fixed, user, at_ms, item, own);
    features[CANDIDATE_RECENCY] = item->rank ? (float)(1.0 / (double)item->rank) : 0.0f;
    own[4] = (float)item->is_last;
    for (int64_t at = 0; at < fixed->actions; at++, next += ACTION_WIDTH) {
        static const ActionTouches never = {0, 0};
        const ActionTouches *touches =
            place < 0 ? &never : user->actions + place * fixed->actions + at;
        next[0] = log_count(touches->count);
        next[1] = log_since(fixed, user, at_ms, touches->count, touches->last_ms);
    }
    for (int64_t at = 0; at < fixed->main_fields; at++, next += FIELD_WIDTH) {
        const int64_t row = attributes[fixed->main_slots[at]];
        const int32_t value = row ? key_map_place(&user->attributes, row, -1) : -1;
        const Touches *touches = value < 0 ? &none : user->values + value;
        write_touches(fixed, user, at_ms, touches, next);
        next[3] = (float)touches->is_last;
    }
}

/* `all_clicks` (LIVES) are those of all items, as of `at_ms`. */
static void write_candidate(const Fixed *fixed, int64_t at_ms, const int64_t *columns,
                            const double *all_clicks, float *features) {
    double counts[COUNTS], now[COUNTS];
    memcpy(counts, columns + COUNTED, sizeof counts);
    decayed(fixed, counts, columns[COUNTED_AT], at_ms, features + CANDIDATE_ITEM_CLICK_RATE,
            now);
    for (int i = 0; i < LIVES; i++) {
        features[CANDIDATE_ITEM_LOG_IMPRESSIONS + i] = (float)log1p(now[i]);
        features[CANDIDATE_ITEM_LOG_CLICKS + i] = (float)log1p(now[LIVES + i]);
        const double share = fmin(now[LIVES + i] / (all_clicks[i] + 1.0), 1.0);
        features[CANDIDATE_ITEM_CLICK_SHARE + i] = (float)log1p(fixed->share_scale * share);
    }
    const double hours = age_ms(columns[FIRST_SEEN], at_ms) / HOUR_MS;
    features[CANDIDATE_ITEM_AGE] = columns[FIRST_SEEN] > 0 ? (float)log1p(hours) : 0.0f;
}

/* ---- caller_numbers.py ---- */

static int by_value(const void *one, const void *other) {
    const double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

/* Return how many of the sorted values are smaller than `value`, or as small. */
static int64_t count_up_to(const double *sorted, int64_t count, double value,
                           int counts_equal) {
    int64_t low = 0, high = count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (sorted[middle] < value || (counts_equal && sorted[middle] == value))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static double candidate_number(const Fixed *fixed, const Request *request, int64_t at,
                               int64_t number) {
    const double value = request->numbers[at * fixed->numbers + number];
    return value < -MAX_NUMBER ? -MAX_NUMBER : value > MAX_NUMBER ? MAX_NUMBER : value;
}

/* Write the columns of one number. `first` has of each place the first place of its item,
 * `sorted` room for all. */
static void write_list_column(const Fixed *fixed, const Request *request, int64_t number,
                              const int64_t *keys, const int32_t *first, double *sorted) {
    const int64_t width = fixed->candidate_width, behind = fixed->numbers - number;
    int64_t count = 0;
    double sum = 0.0;
    for (int64_t at = 0; request->numbers && at < request->candidates; at++) {
        const double value = candidate_number(fixed, request, at, number);
        if (!keys[at] || first[at] != at || value != value) continue;
        sorted[count++] = value;
        sum += value;
    }
    qsort(sorted, (size_t)count, sizeof *sorted, by_value);
    for (int64_t at = 0; at < request->candidates; at++) {
        float *features =
            request->candidate_features + (at + 1) * width - NUMBER_WIDTH * behind;
        const double value =
            request->numbers ? candidate_number(fixed, request, first[at], number) : NAN;
        if (!keys[at]) continue;
        memset(features, 0, NUMBER_WIDTH * sizeof *features);
        features[NUMBER_RANK] = 0.5f;
        features[NUMBER_MISSING] = 1.0f;
        if (value != value) continue;
        const int64_t smaller = count_up_to(sorted, count, value, 0);
        const int64_t equal = count_up_to(sorted, count, value, 1) - smaller;
        features[NUMBER_VALUE] = (float)value;
        const double below = (double)smaller + 0.5 * (double)(equal - 1);
        features[NUMBER_RANK] = (float)(below / (double)count);
        features[NUMBER_DIFFERENCE] = (float)(value - sum / (double)count);
        features[NUMBER_MISSING] = 0.0f;
    }
}

/* Return the place of the item of the list that the user acted on last; -1: of none. */
static int64_t last_touched(const Fixed *fixed, const Request *request,
                            const int64_t *keys) {
    int64_t last = -1;
    float best = 0.0f;
    for (int64_t at = 0; at < request->candidates; at++) {
        const float *features = request->candidate_features + at * fixed->candidate_width;
        const float recency = features[CANDIDATE_RECENCY];
        if (keys[at] && recency > best) best = recency, last = at;
    }
    return last;
}

/* Write with_from_last of all numbers. */
static void write_from_last(const Fixed *fixed, const Request *request,
                            const int64_t *keys) {
    const int64_t width = fixed->candidate_width;
    const int64_t last = last_touched(fixed, request, keys);
    if (last < 0) return;
    for (int64_t behind = fixed->numbers; behind; behind--) {
        const int64_t number = width - NUMBER_WIDTH * behind;
        const float *of_last = request->candidate_features + last * width + number;
        for (int64_t at = 0; at < request->candidates && !of_last[NUMBER_MISSING]; at++) {
            float *features = request->candidate_features + at * width + number;
            if (keys[at] && !features[NUMBER_MISSING])
                features[NUMBER_FROM_LAST] = features[NUMBER_VALUE] - of_last[NUMBER_VALUE];
        }
    }
}

/* Write the columns of all numbers; return whether there was memory. */
static int write_list_columns(const Fixed *fixed, const Request *request,
                              const int64_t *keys) {
    const size_t count = (size_t)request->candidates;
    if (!fixed->numbers) return 1;
    double *sorted = malloc(count * (sizeof *sorted + sizeof(int32_t)) + 1);
    int32_t *first = (int32_t *)(sorted + count);
    KeyMap places = {0};
    const int has_memory = sorted && key_map_init(&places, request->candidates);
    if (has_memory) {
        for (int64_t at = 0; at < request->candidates; at++)
            first[at] =
                keys[at] ? key_map_place(&places, keys[at], (int32_t)at) : (int32_t)at;
        for (int64_t number = 0; number < fixed->numbers; number++)
            write_list_column(fixed, request, number, keys, first, sorted);
        write_from_last(fixed, request, keys);
    }
    key_map_free(&places), free(sorted);
    return has_memory;
}

static uint8_t status_of(const Fixed *fixed, int64_t item_row, int64_t notes,
                         int64_t first_seen_ms) {
    int64_t status = notes ^ fixed->no_attributes;
    if (item_row < fixed->first_known_row) status |= fixed->unknown_item;
    if (first_seen_ms <= 0) status |= fixed->no_activity;
    return (uint8_t)status;
}

/* ---- item_map.py ---- */

static uint64_t bucket_of(const Fixed *fixed, int64_t key, int half) {
    return ((uint64_t)key * MULTIPLIERS[half] >> fixed->shift) +
           (uint64_t)(half * fixed->half);
}

static int64_t row_of(const Fixed *fixed, int64_t key) {
    for (int half = 0; key && half < 2; half++) {
        const uint64_t first = bucket_of(fixed, key, half) * BUCKET;
        for (uint64_t at = first; at < first + BUCKET; at++)
            if (__atomic_load_n(fixed->buckets + at, __ATOMIC_ACQUIRE) == key)
                return fixed->bucket_rows[at];
    }
    return 0;
}

/* Another process writes: what is read is of one write if the version stayed. */
static void read_row(const Fixed *fixed, int64_t row, int64_t *columns) {
    int64_t version, again;
    do {
        version = __atomic_load_n(fixed->versions + row, __ATOMIC_ACQUIRE);
        memcpy(columns, fixed->halves + (2 * row + (version & 1)) * COLUMNS,
               COLUMNS * sizeof *columns);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        again = __atomic_load_n(fixed->versions + row, __ATOMIC_RELAXED);
    } while (version != again);
}

/* Vocabulary.item_rows */
static int64_t item_row_of(const Fixed *fixed, int64_t key) {
    int64_t low = 0, high = fixed->known_items;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (fixed->item_keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < fixed->known_items && fixed->item_keys[low] == key)
        return fixed->first_known_row + low;
    return fixed->first_shared_row +
           (int64_t)((uint64_t)key % (uint64_t)fixed->shared_rows);
}

/* Return whether what is known of a row is of the text `number`. */
static int is_of_text(const Fixed *fixed, int64_t row, int64_t number) {
    return __atomic_load_n(fixed->texts + row, __ATOMIC_ACQUIRE) == number;
}

/* Look `keys` up. Memory is slow: some items are prefetched before the first is read. Write
 * the model's row of each, its attributes' rows, and its columns and notes unless these are
 * NULL. Return whether all texts are parsed: if not, numpy's way parses them. */
static int look_up(const Fixed *fixed, const int64_t *keys, int64_t count,
                   int64_t *item_rows, int64_t *attributes, int64_t *columns,
                   int64_t *notes) {
    const int64_t slots = fixed->known_width - ATTRIBUTES;
    int is_parsed = 1;
    for (int64_t first = 0; first < count; first += AHEAD) {
        const int64_t end = first + AHEAD < count ? first + AHEAD : count;
        int64_t rows[AHEAD], own[COLUMNS];
        for (int64_t at = first; at < end; at++)
            for (int half = 0; half < 2; half++) {
                const uint64_t place = bucket_of(fixed, keys[at], half) * BUCKET;
                __builtin_prefetch(fixed->buckets + place);
                __builtin_prefetch(fixed->bucket_rows + place);
            }
        for (int64_t at = first; at < end; at++) {
            const int64_t row = rows[at - first] = row_of(fixed, keys[at]);
            __builtin_prefetch(fixed->versions + row);
            __builtin_prefetch(fixed->texts + row);
            __builtin_prefetch(fixed->known + row * fixed->known_width);
            for (int64_t place = 0; place < 2 * COLUMNS; place += 8)
                __builtin_prefetch(fixed->halves + 2 * row * COLUMNS + place);
        }
        for (int64_t at = first; at < end; at++) {
            const int64_t row = rows[at - first];
            int32_t *known = fixed->known + row * fixed->known_width;
            int64_t *into = columns ? columns + at * COLUMNS : own;
            read_row(fixed, row, into);
            is_parsed &= is_of_text(fixed, row, into[TEXT]);
            item_rows[at] = known[ITEM_ROW];
            if (keys[at] && !item_rows[at]) { /* row 0 is that of all others */
                item_rows[at] = item_row_of(fixed, keys[at]);
                if (row) known[ITEM_ROW] = (int32_t)item_rows[at];
            }
            if (notes) notes[at] = known[NOTES];
            for (int64_t slot = 0; slot < slots; slot++)
                attributes[at * slots + slot] = known[ATTRIBUTES + slot];
            /* Another process may have begun to parse the next text meanwhile. */
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            is_parsed &= is_of_text(fixed, row, into[TEXT]);
        }
    }
    return is_parsed;
}

/* Write the clicks (LIVES) of all items together, as of `at_ms`. */
static void read_total(const Fixed *fixed, int64_t at_ms, double *clicks) {
    int64_t columns[COLUMNS];
    double counts[COUNTS];
    read_row(fixed, row_of(fixed, fixed->total_key), columns);
    memcpy(counts, columns + COUNTED, sizeof counts);
    const double age = age_ms(columns[COUNTED_AT], at_ms);
    for (int life = 0; life < LIVES; life++)
        clicks[life] = counts[LIVES + life] * exp2(age * fixed->decay_per_ms[life]);
}

static void write_candidates(const Fixed *fixed, const Request *request, User *user,
                             const int64_t *keys, const int64_t *columns,
                             const int64_t *notes) {
    const int64_t slots = fixed->known_width - ATTRIBUTES;
    double all_clicks[LIVES];
    read_total(fixed, request->at_ms, all_clicks);
    for (int64_t at = 0; at < request->candidates; at++) {
        const int64_t *own = columns + at * COLUMNS;
        float *features = request->candidate_features + at * fixed->candidate_width;
        if (!keys[at]) {
            memset(features, 0, (size_t)fixed->candidate_width * sizeof *features);
            request->item_status[at] = (uint8_t)fixed->padding;
            continue;
        }
        write_candidate(fixed, request->at_ms, own, all_clicks, features);
        const int64_t *attributes = request->item_attributes + at * slots;
        write_of_both(fixed, request->at_ms, user, keys[at], attributes, features);
        write_own_history(fixed, request->at_ms, user, keys[at], attributes, features);
        request->item_status[at] =
            status_of(fixed, request->item_rows[at], notes[at], own[FIRST_SEEN]);
    }
}

int64_t srp4ctr_assemble(const Fixed *fixed, const Request *request, const int64_t *keys,
                         const double *numbers, const char *times, const char *done_keys,
                         const char *codes, const char *values, const char *shown_times,
                         const char *shown_keys) {
    const int64_t slots = fixed->known_width - ATTRIBUTES, length = request->length;
    const int64_t width = length + request->exposures;
    const Columns did = {request->done,
                         request->done_time_bytes,
                         request->done_base_ms,
                         request->done_values,
                         times,
                         done_keys,
                         (const uint8_t *)codes,
                         values};
    const Columns saw = {request->shown,
                         request->shown_time_bytes,
                         request->shown_base_ms,
                         0,
                         shown_times,
                         shown_keys,
                         NULL,
                         NULL};
    const int64_t words = 4 * width + (COLUMNS + 1) * request->candidates + 1;
    int64_t *work = malloc((size_t)words * sizeof *work);
    if (!work) return NO_MEMORY;
    Elements done = {0, work, work + length, work + 2 * length,
                     (double *)(work + 3 * length)};
    int64_t *next = work + 4 * length;
    Elements shown = {0, next, next + request->exposures, next + 2 * request->exposures,
                      (double *)(next + 3 * request->exposures)};
    int64_t *columns = work + 4 * width, *notes = columns + COLUMNS * request->candidates;
    unpack(&did, request->after_ms, length, &done);
    unpack(&saw, 0, request->exposures, &shown);
    const int64_t missing = length - done.count;
    memset(request->history_rows, 0, (size_t)missing * 8);
    memset(request->history_attributes, 0, (size_t)(missing * slots) * 8);
    memset(request->history_codes, 0, (size_t)(missing * FIELDS) * 8);
    int64_t *attributes = request->history_attributes + missing * slots,
            found = NEEDS_PARSING;
    User user;
    if (look_up(fixed, done.keys, done.count, request->history_rows + missing, attributes,
                NULL, NULL) &&
        look_up(fixed, keys, request->candidates, request->item_rows,
                request->item_attributes, columns, notes)) {
        found = NO_MEMORY;
        if (user_make(fixed, &user, done.count, slots, shown.count)) {
            const int64_t last_ms = done.count ? done.times[done.count - 1] : 0;
            count_done(fixed, request->at_ms, &done, attributes, &user);
            count_shown(request->at_ms, &shown, &user);
            write_codes(fixed, &done, request->history_codes + missing * FIELDS);
            write_request(fixed, request, done.count, last_ms, numbers);
            write_candidates(fixed, request, &user, keys, columns, notes);
            if (write_list_columns(fixed, request, keys)) found = done.count;
        }
        user_free(&user);
    }
    free(work);
    return found;
}
