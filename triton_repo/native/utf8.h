/* UTF-8, as Python decodes it: RFC 3629. */
#ifndef SRP4CTR_UTF8_H
#define SRP4CTR_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum { MAX_ID_CHARACTERS = 256 }; /* MAX_ID_LENGTH of streams/events */

/* Return how many characters (code points) the text has; -1 if it is not UTF-8. */
int64_t count_characters(const unsigned char *text, size_t length);

#endif
