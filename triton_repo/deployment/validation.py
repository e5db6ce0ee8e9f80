"""Golden requests → gates: does a loaded pair answer as in training, and fast enough?

The requests and the probabilities that torch gave them are in the bundle.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from srp4ctr.client.codec import Tensors, infer_inputs, wanted_outputs
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.schema import TensorSpec
from srp4ctr.triton_repo import model_names

TOLERANCE = 1e-4  # absolute, of a probability
LATENCY = "latency"
SLACK_MS = 1.0
_ROUNDS, _WARM_UP_TURNS, _TIMED_TURNS = 3, 3, 21
_TIMEOUT_S = 30.0
_PROBABILITY = "click_probability"
_GAP = [field.name for field in schema.BEHAVIOR_FIELDS].index("gap")
Tables = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
# The inputs and outputs of the steps that score.
_TABLES: Mapping[str, Tables] = {
    model_names.CLICK_RANKER: (model_names.MODEL_INPUTS, schema.SCORE_TENSORS),
    model_names.BEHAVIOR_ENCODER: (schema.ENCODER_INPUTS, schema.STATE_TENSORS),
    model_names.CLICK_HEAD: (schema.HEAD_INPUTS, schema.SCORE_TENSORS),
}
# Unknown ones: the cold path must answer too.
_PROBE_USER, _PROBE_ITEM = "srp4ctr-probe-user", "srp4ctr-probe-item"


def golden_gate(client: Any, folders: Sequence[Path], version: str) -> Gate:
    """Compare the scores of the steps in ``folders`` with those of training.

    Raises ValueError where they are not even of the same shape.
    """
    golden = _golden(folders[0])
    scores = _score(client, folders, golden)
    expected = golden[_PROBABILITY]
    if scores.shape != expected.shape or np.any(np.isnan(scores) != np.isnan(expected)):
        raise ValueError(f"{version} pads its golden requests at other places")
    worst = float(np.nanmax(np.abs(scores - expected), initial=0.0))
    return Gate(
        gate="golden",
        passed=worst <= TOLERANCE,
        value=worst,
        limit=TOLERANCE,
        note=f"served probabilities differ from training's by {worst:.2g}; "
        f"at most {TOLERANCE:g} is accepted",
    )


def latency_gate(
    client: Any,
    old: tuple[str, Sequence[Path]],
    new: tuple[str, Sequence[Path]],
    max_ratio: float,
) -> Gate:
    """Time the golden requests of two loaded bundles (version, folders) in turns.

    The new one fails if its median and its minimum are too long in each of three rounds: a
    busy machine slows single requests, a slow bundle all. A millisecond more is within the
    variation from one request to the next.
    """
    for _ in range(_ROUNDS):
        seconds = _timed(client, dict((old, new)))
        before, after = seconds[old[0]], seconds[new[0]]
        limits = [max(max_ratio * ms, ms + SLACK_MS) for ms in before]
        if passed := any(ms <= limit for ms, limit in zip(after, limits, strict=True)):
            break
    return Gate(
        gate=LATENCY,
        passed=passed,
        value=after[0],
        limit=limits[0],
        note=f"the golden requests take {after[0]:.2f} ms (at best {after[1]:.2f}), "
        f"those of {old[0]} {before[0]:.2f} ms (at best {before[1]:.2f}); "
        f"triton.max_latency_ratio is {max_ratio:g}",
    )


def _timed(
    client: Any, steps: Mapping[str, Sequence[Path]]
) -> dict[str, tuple[float, float]]:
    """Return the median and minimum milliseconds of each version's golden requests."""
    taken: dict[str, list[float]] = {version: [] for version in steps}
    rng = np.random.default_rng()
    golden = {name: _golden(each[0]) for name, each in steps.items()}
    for turn in range(_WARM_UP_TURNS + _TIMED_TURNS):
        for version, folders in steps.items():
            request = _unseen(golden[version], rng)
            began = time.perf_counter()
            _score(client, folders, request)
            if turn >= _WARM_UP_TURNS:
                taken[version].append(1000.0 * (time.perf_counter() - began))
    return {version: (median(each), min(each)) for version, each in taken.items()}


def _golden(folder: Path) -> Tensors:
    path = folder / bundle.GOLDEN_FILE
    try:
        found: Tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} holds no golden requests: {error}") from error
    needed = {_PROBABILITY, *(spec.name for spec in model_names.MODEL_INPUTS)}
    if missing := sorted(needed - found.keys()):
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return found


def _unseen(tensors: Tensors, rng: np.random.Generator) -> Tensors:
    """Return ``tensors`` with random gaps between the behaviours.

    No states of such histories are cached, so that the encoder's time counts.
    """
    codes = tensors["history_behavior_codes"].copy()
    codes[..., _GAP] = rng.integers(1, schema.NUM_GAP_BUCKETS, codes.shape[:-1])
    return {**tensors, "history_behavior_codes": codes}


def check_version(client: Any, name: str, version: str) -> None:
    """Raise ValueError unless a real answer of ensemble ``name`` is of ``version``."""
    request = {
        "user_id": np.array([[_PROBE_USER]], dtype=object),
        "item_ids": np.array([[_PROBE_ITEM]], dtype=object),
    }
    inputs = infer_inputs(schema.REQUEST_INPUTS, request)
    answer = client.infer(name, inputs, client_timeout=_TIMEOUT_S)
    answered_by = answer.as_numpy("model_version").item().decode()
    if answered_by != version:
        raise ValueError(f"{name} was answered by {answered_by}")
    if not np.all(np.isfinite(answer.as_numpy(_PROBABILITY))):
        raise ValueError(f"{name} has no finite score for an unknown user")


def _score(client: Any, folders: Sequence[Path], tensors: Tensors) -> NDArray[Any]:
    """Return the probabilities of ``tensors`` by the steps in ``folders``."""
    for folder in folders:
        if (tables := _TABLES.get(folder.name.rpartition("_")[0])) is not None:
            tensors = {**tensors, **_infer(client, folder.name, tables, tensors)}
    return tensors[_PROBABILITY]


def _infer(client: Any, step: str, tables: Tables, tensors: Tensors) -> Tensors:
    """Return the outputs of one step."""
    inputs, outputs = tables
    answer = client.infer(
        step,
        infer_inputs(inputs, tensors),
        outputs=wanted_outputs(outputs),
        client_timeout=_TIMEOUT_S,
    )
    return {spec.name: answer.as_numpy(spec.name) for spec in outputs}
