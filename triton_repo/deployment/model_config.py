"""The tensor tables of ``features/tensors/schema.py`` → Triton's ``config.pbtxt`` files.

Nothing is written by hand twice: a name, dtype or shape in a configuration is the
schema's. The text is Triton's own protobuf text format (``ModelConfig``).
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.schema import TensorSpec

RANK_CLICKS = "rank_clicks"
SCORE_CLICKS = "score_clicks"
RANK_CLICKS_CANARY = "rank_clicks_canary"
ENCODE_USER = "encode_user"
CANDIDATE_STATES = "candidate_states"
ENSEMBLES = (
    *(RANK_CLICKS, SCORE_CLICKS, RANK_CLICKS_CANARY),
    *(ENCODE_USER, CANDIDATE_STATES),
)
# Of Triton's protocols those that change a server: who only asks needs none of them.
CONTROLS = "model-repository,model-config,shared-memory,trace,logging"
CONTROL_HEADER = "srp4ctr-control"
CLICK_RANKER = "click_ranker"
FETCH_FEATURES = "fetch_features"
BEHAVIOR_ENCODER = "behavior_encoder"
CLICK_HEAD = "click_head"
STEPS = (CLICK_RANKER, FETCH_FEATURES, BEHAVIOR_ENCODER, CLICK_HEAD)

# What becomes of a request's ids, and what a caller of score_clicks sends.
MODEL_INPUTS = schema.HISTORY_TENSORS + schema.REQUEST_TENSORS + schema.CANDIDATE_TENSORS

_TRITON_TYPES = {
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
    "uint8": "TYPE_UINT8",
    "string": "TYPE_STRING",
}
# On a GPU a short wait lets requests share a run; an empty queue does not wait. On a CPU
# only calls that wait anyway are answered together: measured, with 4 callers 12 % more
# requests a second, with 8 callers 43 %.
_GPU_DELAY_US = 200
# Requests that a shell answers together if so many wait. Without it all are taken that
# wait, and then each is late: of 447 a second 64 were in time, at twice that load.
_TOGETHER = (4, 8)
_MAX_QUEUE = 1000  # where all processes hang: Triton looks at the time when one is free


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """One model that an ensemble runs."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    optional_inputs: tuple[TensorSpec, ...] = ()
    backend: str = "python"
    instances: int = 1
    """Of a shell: each is a process, and answers one call at a time."""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig:
    """A chain of steps; a tensor goes to every later step that has an input of its name."""

    name: str
    steps: tuple[StepConfig, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    optional_inputs: tuple[TensorSpec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the configurations share: what a step takes, and the numbers of the symbols."""

    max_batch_size: int
    max_wait_ms: float
    """A call that waited so long for a step is refused."""
    sizes: Mapping[str, int]


def step_name(step: str, version: str) -> str:
    """Return the name of a step of one bundle: ``behavior_encoder_v7``.

    The version is in the *name* because every reload in place was seen to answer some
    requests with an old encoder and a new head.
    """
    return f"{step}_{version}"


def one_step(
    version: str, parameters: Mapping[str, str], instances: int
) -> tuple[StepConfig, ...]:
    """Return the step that does all of bundle ``version``, for a CPU.

    Three steps pass the states, 258 kB at L = 200, and all features through the server.
    """
    ranker = StepConfig(
        name=step_name(CLICK_RANKER, version),
        inputs=(),
        optional_inputs=(
            schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS + MODEL_INPUTS
        ),
        outputs=(
            schema.HEAD_OUTPUTS
            + schema.POLICY_TENSORS
            + schema.RESPONSE_NOTES
            + MODEL_INPUTS
        ),
        instances=instances,
        parameters=parameters,
    )
    return (ranker,)


def three_steps(version: str, parameters: Mapping[str, str]) -> tuple[StepConfig, ...]:
    """Return fetch, encoder and head of bundle ``version``, the last two on a GPU."""
    fetch = StepConfig(
        name=step_name(FETCH_FEATURES, version),
        inputs=schema.USER_INPUTS,
        optional_inputs=schema.ITEM_INPUTS + schema.OPTIONAL_REQUEST_INPUTS,
        outputs=MODEL_INPUTS + schema.RESPONSE_NOTES,
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
        inputs=schema.HEAD_INPUTS,
        outputs=schema.HEAD_OUTPUTS,
        backend="onnxruntime",
    )
    return fetch, encoder, head


def ensembles(steps: Sequence[StepConfig]) -> tuple[EnsembleConfig, ...]:
    """Return ``ENSEMBLES``. The first of several steps is the features'.

    ``score_clicks`` is for callers with features of their own, ``encode_user`` and
    ``candidate_states`` for those with a click model of their own.
    """
    of_policy = tuple(t for t in schema.POLICY_TENSORS if t in steps[-1].outputs)
    rank = EnsembleConfig(
        name=RANK_CLICKS,
        steps=tuple(steps),
        inputs=schema.REQUEST_INPUTS,
        optional_inputs=schema.OPTIONAL_REQUEST_INPUTS,
        outputs=schema.SCORE_TENSORS + of_policy + schema.RESPONSE_NOTES,
    )
    score = EnsembleConfig(
        name=SCORE_CLICKS,
        steps=tuple(steps[1:] or steps),
        inputs=MODEL_INPUTS,
        outputs=schema.SCORE_TENSORS,
    )
    encode = EnsembleConfig(
        name=ENCODE_USER,
        steps=tuple(steps),
        inputs=schema.USER_INPUTS,
        optional_inputs=schema.OPTIONAL_REQUEST_INPUTS,
        outputs=schema.USER_EMBEDDINGS + schema.REQUEST_NOTES,
    )
    states = replace(
        rank,
        name=CANDIDATE_STATES,
        outputs=schema.PROBABILITY_TENSORS
        + schema.USER_EMBEDDINGS
        + schema.CANDIDATE_EMBEDDINGS
        + schema.RESPONSE_NOTES,
    )
    return rank, score, replace(rank, name=RANK_CLICKS_CANARY), encode, states


def step_text(step: StepConfig, limits: Limits) -> str:
    """Return the ``config.pbtxt`` of one step."""
    is_python = step.backend == "python"
    batching = f"max_queue_delay_microseconds: {_GPU_DELAY_US}"
    if is_python:
        together = [count for count in _TOGETHER if count <= limits.max_batch_size]
        batching = f"preferred_batch_size: {together}"
    policy = (
        f"max_queue_size: {_MAX_QUEUE} allow_timeout_override: true "
        f"default_timeout_microseconds: {round(limits.max_wait_ms * 1000)}"
    )
    return _lines(
        f"name: {_quoted(step.name)}",
        f"backend: {_quoted(step.backend)}",
        f"max_batch_size: {limits.max_batch_size}",
        *_tensors("input", step.inputs, limits),
        *_tensors("input", step.optional_inputs, limits, optional=True),
        *_tensors("output", step.outputs, limits),
        *_parameters(step.parameters),
        # A shell runs on the CPU; Triton's own backend takes a GPU where there is one.
        *(_groups(step) if is_python else []),
        f"dynamic_batching {{ {batching} default_queue_policy {{ {policy} }} }}",
    )


def ensemble_text(ensemble: EnsembleConfig, limits: Limits) -> str:
    """Return the ``config.pbtxt`` of an ensemble."""
    return _lines(
        f"name: {_quoted(ensemble.name)}",
        'platform: "ensemble"',
        f"max_batch_size: {limits.max_batch_size}",
        *_tensors("input", ensemble.inputs, limits),
        *_tensors("input", ensemble.optional_inputs, limits, optional=True),
        *_tensors("output", ensemble.outputs, limits),
        "ensemble_scheduling {",
        *_schedule(ensemble),
        "}",
    )


def _schedule(ensemble: EnsembleConfig) -> Iterable[str]:
    """Yield the steps; each reads what there is by then, and makes what is still needed."""
    there = {each.name for each in ensemble.inputs + ensemble.optional_inputs}
    for place, step in enumerate(ensemble.steps):
        later = (each.inputs for each in ensemble.steps[place + 1 :])
        needed = {each.name for each in itertools.chain(ensemble.outputs, *later)}
        made = {each.name for each in step.outputs} & needed
        yield f"  step {{ model_name: {_quoted(step.name)} model_version: -1"
        for tensor in step.inputs + step.optional_inputs:
            if tensor.name in there:
                yield f"    input_map {{ {_key_value(tensor.name, _quoted(tensor.name))} }}"
        for name in sorted(made):
            yield f"    output_map {{ {_key_value(name, _quoted(name))} }}"
        yield "  }"
        there |= made


def _groups(step: StepConfig) -> Iterable[str]:
    """Yield a group for each process: a step may be given them one after another.

    Triton takes groups that say the same for one, whatever their names: the priority, which
    it does not heed while its rate limiter is off, tells them apart.
    """
    for number in range(step.instances):
        name = _quoted(f"{step.name}_{number}")
        order = f"rate_limiter {{ priority: {number + 1} }}"
        yield f"instance_group [ {{ name: {name} count: 1 kind: KIND_CPU {order} }} ]"


def _tensors(
    kind: str, specs: Sequence[TensorSpec], limits: Limits, *, optional: bool = False
) -> Iterable[str]:
    flag = " optional: true" if optional else ""
    for spec in specs:
        dims = ", ".join(map(str, spec.dims(limits.sizes)))
        shape = f"data_type: {_TRITON_TYPES[spec.dtype]} dims: [ {dims} ]"
        yield f"{kind} [ {{ name: {_quoted(spec.name)} {shape}{flag} }} ]"


def _parameters(parameters: Mapping[str, str]) -> Iterable[str]:
    for name, value in parameters.items():
        text = f"{{ string_value: {_quoted(value)} }}"
        yield f"parameters {{ {_key_value(name, text)} }}"


def _key_value(key: str, value: str) -> str:
    return f"key: {_quoted(key)} value: {value}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"
