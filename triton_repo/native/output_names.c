#include "output_names.h"

#include <string.h>

#define NAME(id, name) name,
const char *const OUTPUT_NAMES[NUM_OUTPUTS] = {OUTPUTS(NAME)};
#undef NAME

const char *const STATUS_NAMES[STATUSES] = {"ok", "cold_user", "empty_sequence",
                                            "stale_sequence"};

int find_output(const char *name) {
    for (int output = 0; output < NUM_OUTPUTS; output++)
        if (!strcmp(name, OUTPUT_NAMES[output])) return output;
    return -1;
}
