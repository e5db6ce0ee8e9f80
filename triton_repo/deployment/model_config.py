"""The tensor tables of ``features/tensors/schema.py`` → Triton's ``config.pbtxt`` files.

Each name, dtype and shape in a configuration is the schema's.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.schema import TensorSpec
from srp4ctr.triton_repo.model_names import (
    ANSWERED_BY,
    BEHAVIOR_ENCODER,
    CANARY_EXPERIMENT,
    CANDIDATE_STATES,
    CLICK_HEAD,
    CLICK_RANKER,
    ENCODE_USER,
    EXPERIMENT,
    FETCH_FEATURES,
    MODEL_INPUTS,
    NATIVE_RANKER,
    PARSED_CACHE,
    RANK_CLICKS,
    RANK_CLICKS_CANARY,
    RECOMMEND_ITEMS,
    SCORE_CLICKS,
    SCORING_CPU,
    SERVED_PROBABILITY,
    step_name,
)

Tensors = tuple[TensorSpec, ...]
NATIVE = "srp4ctr"
"""How the names of our backends begin: ``native_library.py`` has the library."""
_TRITON_TYPES = {
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
    "uint8": "TYPE_UINT8",
    "string": "TYPE_STRING",
}
# On a GPU a short delay lets requests share a run. On a CPU only calls that are queued
# anyway share a batch: measured, 12 % more requests a second with 4 callers, 43 % with 8.
_GPU_DELAY_US = 200
# Batch sizes of a Python step. Without them a batch takes the whole queue, and all of it is
# late: at twice the load that the step can serve, 64 of 447 requests a second were in time.
_PREFERRED_BATCHES = (4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """One model that an ensemble runs."""

    name: str
    inputs: Tensors
    outputs: Tensors
    optional_inputs: Tensors = ()
    backend: str = "python"
    instances: int = 1
    """Processes of a Python step; each answers one call at a time."""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig:
    """A chain of steps; a tensor is passed to each later step with an input of its name."""

    name: str
    steps: tuple[StepConfig, ...]
    inputs: Tensors
    outputs: Tensors
    optional_inputs: Tensors = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What all configurations share: batch size, and sizes of the axes."""

    max_batch_size: int
    sizes: Mapping[str, int]


def one_step(
    version: str,
    parameters: Mapping[str, str],
    instances: int,
    of_users: Tensors = (),
    of_numbers: Tensors = (),
) -> tuple[StepConfig, ...]:
    """Return the one step of bundle ``version`` that does all its work, on a CPU.

    ``of_users`` are the bundle's ``schema.user_tensors``, ``of_numbers`` its
    ``schema.number_tensors``. With three steps all features and states, 258 kB at L = 200,
    pass through the server.
    """
    own = MODEL_INPUTS + of_users
    ranker = StepConfig(
        name=step_name(CLICK_RANKER, version),
        inputs=(),
        optional_inputs=(
            schema.REQUEST_INPUTS
            + schema.OPTIONAL_REQUEST_INPUTS
            + schema.NUMBER_INPUTS
            + schema.RECOMMEND_INPUTS
            + own
            + (SERVED_PROBABILITY,)
        ),
        outputs=(
            schema.HEAD_OUTPUTS
            + schema.RANKING_TENSORS
            + schema.POLICY_TENSORS
            + schema.RECOMMENDED_TENSORS
            + schema.RESPONSE_NOTES
            + of_numbers
            + own
            + (SCORING_CPU, ANSWERED_BY, PARSED_CACHE, EXPERIMENT)
        ),
        instances=instances,
        parameters=parameters,
    )
    return (ranker,)


def native_step(version: str, backend: str, of_numbers: Tensors = ()) -> StepConfig:
    """Return the step that answers RANK_CLICKS natively, alongside ``one_step``.

    It hands what it does not know to that one.
    """
    return StepConfig(
        name=step_name(NATIVE_RANKER, version),
        inputs=schema.REQUEST_INPUTS,
        optional_inputs=schema.OPTIONAL_REQUEST_INPUTS + schema.NUMBER_INPUTS,
        outputs=(
            schema.SCORE_TENSORS
            + schema.RANKING_TENSORS
            + schema.POLICY_TENSORS
            + schema.RESPONSE_NOTES
            + of_numbers
            + (SCORING_CPU, ANSWERED_BY)
        ),
        backend=backend,
    )


def three_steps(
    version: str,
    parameters: Mapping[str, str],
    of_users: Tensors = (),
    of_numbers: Tensors = (),
) -> tuple[StepConfig, ...]:
    """Return fetch, encoder and head of bundle ``version``, the last two on a GPU.

    ``of_users`` and ``of_numbers`` are as of ``one_step``.
    """
    fetch = StepConfig(
        name=step_name(FETCH_FEATURES, version),
        inputs=schema.USER_INPUTS,
        optional_inputs=(
            schema.ITEM_INPUTS + schema.OPTIONAL_REQUEST_INPUTS + schema.NUMBER_INPUTS
        ),
        outputs=MODEL_INPUTS
        + of_users
        + schema.RESPONSE_NOTES
        + of_numbers
        + (EXPERIMENT,),
        parameters=parameters,
    )
    encoder = StepConfig(
        name=step_name(BEHAVIOR_ENCODER, version),
        inputs=schema.ENCODER_INPUTS,
        outputs=schema.STATE_TENSORS,
        backend="onnxruntime",
    )
    head = StepConfig(
        name=step_name(CLICK_HEAD, version),
        inputs=schema.HEAD_INPUTS + of_users,
        outputs=schema.HEAD_OUTPUTS + schema.RANKING_TENSORS,
        backend="onnxruntime",
    )
    return fetch, encoder, head


def ensembles(
    steps: Sequence[StepConfig], native: StepConfig | None = None
) -> tuple[EnsembleConfig, ...]:
    """Return all ``ENSEMBLES`` of ``steps``; the first of three steps reads the features.

    A ``native`` step answers RANK_CLICKS and its canary.

    ``score_clicks`` is for callers with features of their own, ``encode_user`` and
    ``candidate_states`` for those with a click model of their own. ``recommend_items``
    needs the one step, which retrieves and ranks. ``canary_experiment`` says which users
    are the canary's.
    """
    scores = schema.SCORE_TENSORS + schema.RANKING_TENSORS
    of_policy = _among(steps[-1].outputs, schema.POLICY_TENSORS)
    of_users = _among(steps[-1].inputs + steps[-1].optional_inputs, schema.USER_TENSORS)
    of_numbers = _among(steps[0].outputs, schema.NUMBER_OUTPUTS)
    rank = EnsembleConfig(
        name=RANK_CLICKS,
        steps=tuple(steps),
        inputs=schema.REQUEST_INPUTS,
        optional_inputs=schema.OPTIONAL_REQUEST_INPUTS + schema.NUMBER_INPUTS,
        outputs=scores + of_policy + schema.RESPONSE_NOTES + of_numbers,
    )
    score = EnsembleConfig(
        name=SCORE_CLICKS,
        steps=tuple(steps[1:] or steps),
        inputs=MODEL_INPUTS + of_users,
        outputs=scores,
    )
    encode = EnsembleConfig(
        name=ENCODE_USER,
        steps=tuple(steps),
        inputs=schema.USER_INPUTS,
        optional_inputs=schema.OPTIONAL_REQUEST_INPUTS,
        outputs=schema.USER_EMBEDDINGS + schema.REQUEST_NOTES,
    )
    fast = rank if native is None else replace(rank, steps=(native,))
    canary = replace(fast, name=RANK_CLICKS_CANARY)
    all_have = (fast, score, canary, encode, _states(rank), _experiment(encode))
    return all_have if len(steps) > 1 else (*all_have, _recommend(rank))


def _among(tensors: Tensors, table: Tensors) -> Tensors:
    """Return those of ``table`` that are among ``tensors``."""
    return tuple(spec for spec in table if spec in tensors)


def _experiment(encode: EnsembleConfig) -> EnsembleConfig:
    first, of_canary = encode.steps[:1], (EXPERIMENT,)
    return replace(encode, name=CANARY_EXPERIMENT, steps=first, outputs=of_canary)


def _states(rank: EnsembleConfig) -> EnsembleConfig:
    return replace(
        rank,
        name=CANDIDATE_STATES,
        outputs=schema.PROBABILITY_TENSORS
        + schema.USER_EMBEDDINGS
        + schema.CANDIDATE_EMBEDDINGS
        + schema.RESPONSE_NOTES,
    )


def _recommend(rank: EnsembleConfig) -> EnsembleConfig:
    return replace(
        rank,
        name=RECOMMEND_ITEMS,
        inputs=schema.USER_INPUTS,
        optional_inputs=schema.OPTIONAL_REQUEST_INPUTS + schema.RECOMMEND_INPUTS,
        outputs=schema.RECOMMENDED_TENSORS
        + tuple(t for t in rank.outputs if t not in schema.NUMBER_OUTPUTS),
    )


def step_text(step: StepConfig, limits: Limits) -> str:
    """Return the ``config.pbtxt`` of one step."""
    config = _config(step, limits)
    config.backend = step.backend
    for name, value in step.parameters.items():
        config.parameters[name].string_value = value
    # No queue policy: serving/backlog.py has the reason, and refuses what waits too long.
    if step.backend.startswith(NATIVE):  # its own threads, and its own queue
        config.instance_group.add(count=1).kind = ModelInstanceGroup.KIND_CPU
        return str(text_format.MessageToString(config))
    if step.backend != "python":  # Triton's own takes a GPU if there is one
        config.dynamic_batching.max_queue_delay_microseconds = _GPU_DELAY_US
        return str(text_format.MessageToString(config))
    sizes = [size for size in _PREFERRED_BATCHES if size <= limits.max_batch_size]
    config.dynamic_batching.preferred_batch_size[:] = sizes
    for number in range(step.instances):
        # A group for each process, so that a reload may start them one by one. Triton
        # merges groups that differ only in their names: the priority, which is ignored
        # while the rate limiter is off, keeps them apart.
        group = config.instance_group.add(name=f"{step.name}_{number}", count=1)
        group.kind = ModelInstanceGroup.KIND_CPU
        group.rate_limiter.priority = number + 1
    return str(text_format.MessageToString(config))


def ensemble_text(ensemble: EnsembleConfig, limits: Limits) -> str:
    """Return the ``config.pbtxt`` of an ensemble.

    Each step reads what exists by then, and makes what is still needed.
    """
    config = _config(ensemble, limits)
    config.platform = "ensemble"
    known = {each.name for each in ensemble.inputs + ensemble.optional_inputs}
    for place, step in enumerate(ensemble.steps):
        later = (each.inputs for each in ensemble.steps[place + 1 :])
        needed = {each.name for each in itertools.chain(ensemble.outputs, *later)}
        read = {each.name for each in step.inputs + step.optional_inputs} & known
        made = {output.name for output in step.outputs} & needed
        scheduled = config.ensemble_scheduling.step.add(model_name=step.name)
        scheduled.model_version = -1
        scheduled.input_map.update({name: name for name in read})
        scheduled.output_map.update({name: name for name in made})
        known |= made
    return str(text_format.MessageToString(config))


def _config(model: StepConfig | EnsembleConfig, limits: Limits) -> Any:
    """Return the ``ModelConfig`` of ``model``: its name, batch size and tensors."""
    config = ModelConfig(name=model.name, max_batch_size=limits.max_batch_size)
    for spec in model.inputs + model.optional_inputs:
        tensor = config.input.add(name=spec.name, dims=spec.dims(limits.sizes))
        tensor.data_type = DataType.Value(_TRITON_TYPES[spec.dtype])
        tensor.optional = spec in model.optional_inputs
    for spec in model.outputs:
        tensor = config.output.add(name=spec.name, dims=spec.dims(limits.sizes))
        tensor.data_type = DataType.Value(_TRITON_TYPES[spec.dtype])
    return config
