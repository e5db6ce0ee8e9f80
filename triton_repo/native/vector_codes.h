/* The vectors among users' attributes: vectors.py and vector_codes.py. */
#ifndef SRP4CTR_VECTOR_CODES_H
#define SRP4CTR_VECTOR_CODES_H

#include <stdint.h>

#include "string_view.h"

enum { MIN_DIMENSIONS = 8, MAX_DIMENSIONS = 1024 }; /* as in vectors.py */

/* Read a vector's numbers; return how many they are, 0 for a text that is no vector. */
int64_t read_vector(StringView text, double *numbers);

/* Write the `levels` codes of a vector of `count` numbers: at each level the nearest of
 * `codes`, whose numbers are in `books`. Return how many codes it has, 0 for a vector of no
 * direction; -1 if another code is as near, as numpy may round. */
int64_t encode_vector(const double *books, int64_t levels, int64_t codes,
                      const double *numbers, int64_t count, int64_t *found);

#endif
