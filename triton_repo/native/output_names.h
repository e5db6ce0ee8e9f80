/* Names of what an answer has: its outputs, and what was known of the user. */
#ifndef SRP4CTR_OUTPUT_NAMES_H
#define SRP4CTR_OUTPUT_NAMES_H

/* The head's outputs that are served: one row of Arrays.scores each. A new head adds a line
 * here, and is written, compared and counted. */
#define SCORE_OUTPUTS(X)                                                                   \
    X(CLICK_PROBABILITY, "click_probability")                                              \
    X(RANKING_SCORE, "ranking_score")

/* The outputs in which the two steps' answers are compared, in this order. */
#define COMPARED_OUTPUTS(X)                                                                \
    X(FEATURE_VERSION, "feature_version")                                                  \
    SCORE_OUTPUTS(X)                                                                       \
    X(POSITION, "position")                                                                \
    X(PROPENSITY, "propensity")                                                            \
    X(ITEM_STATUS, "item_status")                                                          \
    X(STATUS, "status")                                                                    \
    X(MODEL_VERSION, "model_version")                                                      \
    X(CALIBRATED, "calibrated")                                                            \
    X(NUMBER_COLUMNS, "number_columns")                                                    \
    X(NUMBER_COLUMN_NAMES, "number_column_names")

#define OUTPUTS(X)                                                                         \
    COMPARED_OUTPUTS(X)                                                                    \
    X(SCORING_CPU_NS, "scoring_cpu_ns")                                                    \
    X(ANSWERED_BY, "answered_by")

#define COUNT_ONE(id, name) +1
#define OUTPUT_ID(id, name) OUTPUT_##id,
enum { OUTPUTS(OUTPUT_ID) NUM_OUTPUTS };
enum { NUM_COMPARED = 0 COMPARED_OUTPUTS(COUNT_ONE), SCORES = 0 SCORE_OUTPUTS(COUNT_ONE) };
enum { FIRST_SCORE = OUTPUT_CLICK_PROBABILITY };
#undef COUNT_ONE
#undef OUTPUT_ID

extern const char *const OUTPUT_NAMES[NUM_OUTPUTS];

/* What was known of a user. */
enum { OK_STATUS, COLD_USER, EMPTY_SEQUENCE, STALE_SEQUENCE, STATUSES };
extern const char *const STATUS_NAMES[STATUSES];

/* Return the output of that name; -1: none. */
int find_output(const char *name);

#endif
