"""Golden requests → proof that a loaded pair answers as in training, and fast enough.

The requests and the probabilities that torch gave them travel in the bundle.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from features import bundle, schema
from features.gates import Gate
from triton_repo import pbtxt
from triton_repo.client import Tensors, infer_inputs

TOLERANCE = 1e-4  # absolute, of a probability
LATENCY = "latency"
SLACK_MS = 1.0
_ROUNDS, _WARM_UP_TURNS, _TIMED_TURNS = 3, 3, 21
_TIMEOUT_S = 30.0
_PROBABILITY = "click_probability"
# Known to nobody: the cold path must answer too.
_PROBE_USER, _PROBE_ITEM = "srp4ctr-probe-user", "srp4ctr-probe-item"


def golden_gate(client: Any, folder: Path, version: str) -> Gate:
    """Hold what the steps of ``version`` answer to what training answered.

    Raises ValueError where it is not even of the same shape.
    """
    golden: Tensors = load_file(folder / bundle.GOLDEN_FILE)
    scores = _score(client, version, golden)
    expected = golden[_PROBABILITY]
    if scores.shape != expected.shape or np.any(np.isnan(scores) != np.isnan(expected)):
        raise ValueError(f"the golden requests of {version} were answered in other places")
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
    client: Any, old: tuple[Path, str], new: tuple[Path, str], max_ratio: float
) -> Gate:
    """Time the golden requests of two loaded bundles (folder and version) in turns.

    Refused is what takes longer at the median and at its best, in each of three rounds: a
    busy machine slows what it likes, a slow bundle is never fast. A millisecond more is
    within what one request differs from the next.
    """
    golden = {name: load_file(folder / bundle.GOLDEN_FILE) for folder, name in (old, new)}
    for _ in range(_ROUNDS):
        seconds = _timed(client, golden)
        before, after = seconds[old[1]], seconds[new[1]]
        limits = [max(max_ratio * ms, ms + SLACK_MS) for ms in before]
        if passed := any(ms <= limit for ms, limit in zip(after, limits, strict=True)):
            break
    return Gate(
        gate=LATENCY,
        passed=passed,
        value=after[0],
        limit=limits[0],
        note=f"the golden requests take {after[0]:.2f} ms (at best {after[1]:.2f}), "
        f"those of {old[1]} {before[0]:.2f} ms (at best {before[1]:.2f}); "
        f"triton.max_latency_ratio is {max_ratio:g}",
    )


def _timed(client: Any, golden: Mapping[str, Tensors]) -> dict[str, tuple[float, float]]:
    """Return the median and the least milliseconds of each version's golden requests."""
    taken: dict[str, list[float]] = {version: [] for version in golden}
    for turn in range(_WARM_UP_TURNS + _TIMED_TURNS):
        for version, tensors in golden.items():
            began = time.perf_counter()
            _score(client, version, tensors)
            if turn >= _WARM_UP_TURNS:
                taken[version].append(1000.0 * (time.perf_counter() - began))
    return {version: (median(each), min(each)) for version, each in taken.items()}


def check_version(client: Any, version: str) -> None:
    """Raise ValueError unless a real ``rank_clicks`` answer is of ``version``."""
    request = {
        "user_id": np.array([[_PROBE_USER]], dtype=object),
        "item_ids": np.array([[_PROBE_ITEM]], dtype=object),
    }
    inputs = infer_inputs(schema.REQUEST_INPUTS, request)
    answer = client.infer(pbtxt.RANK_CLICKS, inputs, client_timeout=_TIMEOUT_S)
    answered_by = answer.as_numpy("model_version").item().decode()
    if answered_by != version:
        raise ValueError(f"{pbtxt.RANK_CLICKS} was answered by {answered_by}")
    if not np.all(np.isfinite(answer.as_numpy(_PROBABILITY))):
        raise ValueError(f"{pbtxt.RANK_CLICKS} has no finite score for an unknown user")


def _score(client: Any, version: str, tensors: Tensors) -> NDArray[Any]:
    """Return the probabilities of ``tensors`` by the steps of ``version``."""
    states = _infer(client, pbtxt.BEHAVIOR_ENCODER, version, tensors)
    answered = _infer(client, pbtxt.CLICK_HEAD, version, {**tensors, **states})
    return answered[_PROBABILITY]


def _infer(client: Any, step: str, version: str, tensors: Tensors) -> Tensors:
    """Return the outputs of one step."""
    is_encoder = step == pbtxt.BEHAVIOR_ENCODER
    inputs = schema.ENCODER_INPUTS if is_encoder else schema.HEAD_INPUTS
    outputs = schema.STATE_TENSORS if is_encoder else schema.SCORE_TENSORS
    answer = client.infer(
        pbtxt.step_name(step, version),
        infer_inputs(inputs, tensors),
        client_timeout=_TIMEOUT_S,
    )
    return {spec.name: answer.as_numpy(spec.name) for spec in outputs}
