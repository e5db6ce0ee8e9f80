"""The names of Triton's models: the ensembles that clients call, and their steps."""

from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.schema import TensorSpec

RANK_CLICKS = "rank_clicks"
SCORE_CLICKS = "score_clicks"
RANK_CLICKS_CANARY = "rank_clicks_canary"
ENCODE_USER = "encode_user"
CANDIDATE_STATES = "candidate_states"
RECOMMEND_ITEMS = "recommend_items"
CANARY_EXPERIMENT = "canary_experiment"
ENSEMBLES = (
    RANK_CLICKS,
    SCORE_CLICKS,
    RANK_CLICKS_CANARY,
    ENCODE_USER,
    CANDIDATE_STATES,
    CANARY_EXPERIMENT,
    RECOMMEND_ITEMS,
)
CLICK_RANKER = "click_ranker"
NATIVE_RANKER = "native_ranker"
FETCH_FEATURES = "fetch_features"
BEHAVIOR_ENCODER = "behavior_encoder"
CLICK_HEAD = "click_head"
STEPS = (CLICK_RANKER, NATIVE_RANKER, FETCH_FEATURES, BEHAVIOR_ENCODER, CLICK_HEAD)

# How the messages of a step begin that failed, for no fault of its caller.
NO_MEMORY, STEP_FAILED = "out of memory", "the step failed"
QUEUED_TOO_LONG = "queued for too long"

# The features of a request, and the inputs of SCORE_CLICKS.
MODEL_INPUTS = schema.MODEL_INPUTS
# An output of the steps only, by which a promotion compares what two bundles cost: of
# CLICK_RANKER the CPU time of encoder and head, by request, other processes left out; of
# NATIVE_RANKER that of the call.
SCORING_CPU = TensorSpec(name="scoring_cpu_ns", dtype="int64", shape=(1,))
# Another: which of the two steps has answered.
ANSWERED_BY = TensorSpec(name="answered_by", dtype="string", shape=(1,))
BY_PYTHON, BY_NATIVE = "python", "native"
# Of CLICK_RANKER: the file of what it knows, for NATIVE_RANKER; "" where there is none.
PARSED_CACHE = TensorSpec(name="parsed_cache_file", dtype="string", shape=(1,))
# The output of CANARY_EXPERIMENT: the name of the experiment, "" while there is none. Its
# model's step reads it from SERVING_FILE in the live repository.
EXPERIMENT = TensorSpec(name="experiment", dtype="string", shape=(1,))
SERVING_FILE = "serving.json"
# A parameter by which NATIVE_RANKER reports to CLICK_RANKER what it has answered: status,
# feature_version, and when it began, had read, assembled, encoded and scored, in UTC ns.
NATIVE_ANSWER = "srp4ctr_native_answer"
# An input of such a report: the probabilities that were answered.
SERVED_PROBABILITY = TensorSpec(name="served_probability", dtype="float32", shape=("N",))
# A parameter of calls that NATIVE_RANKER hands over: no drift is computed from them, but
# from its sample of all calls.
NOT_SAMPLED = "srp4ctr_not_sampled"


def step_name(step: str, version: str) -> str:
    """Return the name of a step of one bundle: ``behavior_encoder_v7``.

    The version is in the *name* because every reload in place was seen to answer some
    requests with an old encoder and a new head.
    """
    return f"{step}_{version}"
