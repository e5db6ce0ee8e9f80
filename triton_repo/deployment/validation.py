"""Golden requests → gates: does a loaded pair answer as in training, and fast enough?

The requests' tensors and the probabilities that torch gave them are in the bundle;
``golden_ids.py`` has requests by ids.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from srp4ctr import retries
from srp4ctr.client.channel import infer
from srp4ctr.client.codec import Tensors, infer_inputs, wanted_outputs
from srp4ctr.errors import ArtifactError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import SCORE_TOLERANCES, Gate
from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.schema import TensorSpec
from srp4ctr.triton_repo import model_names

LATENCY = "latency"
# More than this is not within the variation from one request to the next.
_CPU_SLACK_MS, _SLACK_MS = 0.1, 1.0
_WARM_UP_PAIRS, _PAIRS, _MOST_PAIRS = 3, 21, 105
_SURE = 3.0  # standard deviations of the number of pairs on one side of the limit
_TRIES = 8
_TIMEOUT_S = 30.0
PROBABILITY, RANKING = "click_probability", "ranking_score"
_GAP = [field.name for field in schema.BEHAVIOR_FIELDS].index("gap")
Floats = NDArray[np.floating[Any]]
Tables = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
_OF_USERS = set(schema.USER_TENSORS)
# The inputs and outputs of the steps that score; USER_TENSORS where a bundle has them.
_TABLES: Mapping[str, Tables] = {
    model_names.CLICK_RANKER: (
        model_names.MODEL_INPUTS + schema.USER_TENSORS,
        schema.SCORE_TENSORS + schema.RANKING_TENSORS,
    ),
    model_names.BEHAVIOR_ENCODER: (schema.ENCODER_INPUTS, schema.STATE_TENSORS),
    model_names.CLICK_HEAD: (
        schema.HEAD_INPUTS + schema.USER_TENSORS,
        schema.SCORE_TENSORS + schema.RANKING_TENSORS,
    ),
}
SCORES = schema.PROBABILITY_TENSORS + schema.RANKING_TENSORS
# Unknown ones: the cold path must answer too.
_PROBE_USER, _PROBE_ITEM = "srp4ctr-probe-user", "srp4ctr-probe-item"


def golden_gate(client: Any, folders: Sequence[Path], version: str) -> Gate:
    """Compare the scores of the steps in ``folders`` with those of training.

    Raises ``ArtifactError`` where they are not even of the same shape.
    """
    golden = _golden(folders[0])
    made = _made(client, folders, golden)
    worst = _difference(golden[PROBABILITY], made[PROBABILITY], version)
    of_order = _difference(golden[RANKING], made[RANKING], version)
    limit, limit_of_order = SCORE_TOLERANCES[PROBABILITY], SCORE_TOLERANCES[RANKING]
    return Gate(
        gate="golden",
        passed=worst <= limit and of_order <= limit_of_order,
        value=worst,
        limit=limit,
        note=f"served probabilities differ from training's by {worst:.2g}; at most "
        f"{limit:g} is accepted, ranking scores by {of_order:.2g} ({limit_of_order:g})",
    )


def _difference(expected: Floats, made: Floats, version: str) -> float:
    if made.shape != expected.shape or np.any(np.isnan(made) != np.isnan(expected)):
        raise ArtifactError(f"{version} pads its golden requests at other places")
    return float(np.nanmax(np.abs(made - expected), initial=0.0))


def latency_gate(
    client: Any,
    old: tuple[str, Sequence[Path]],
    new: tuple[str, Sequence[Path]],
    max_ratio: float,
    native_ms: Sequence[Callable[[], float]] = (),
) -> Gate:
    """Compare what two loaded bundles (version, folders) cost, request by request.

    ``native_ms`` measure the CPU time in which the native step of either answers the golden
    requests; without them it is the Python step's, or that of the three steps.

    Each pair of golden requests, one to either bundle, is under or over the limit; the new
    one fails if more than half of the pairs are over it. While that might be chance, more
    pairs are measured, and a refusal needs a second look: a busy machine makes single
    requests slow, of both bundles.
    """
    folders = old[1], new[1]
    by_cpu = bool(native_ms) or all(_measures_cpu(folder[0]) for folder in folders)
    slack_ms = _CPU_SLACK_MS if by_cpu else _SLACK_MS
    measured = _in_turns(native_ms) if native_ms else _costs_ms(client, folders, by_cpu)
    pairs, shares = _compared(
        measured, lambda was_ms: max(max_ratio * was_ms, was_ms + slack_ms)
    )
    over = sum(share > 1.0 for share in shares)
    before, after = (median(each) for each in zip(*pairs, strict=True))
    return Gate(
        gate=LATENCY,
        passed=median(shares) <= 1.0,
        value=after,
        limit=after / median(shares),
        note=f"the golden requests take {after:.2f} ms{' of CPU' if by_cpu else ''}"
        f"{' in the native step' if native_ms else ''}, "
        f"those of {old[0]} {before:.2f} ms, and in {over} of {len(pairs)} pairs more than "
        f"triton.max_latency_ratio {max_ratio:g} allows",
    )


def _compared(
    measured: Iterator[tuple[float, float]], allowed_ms: Callable[[float], float]
) -> tuple[list[tuple[float, float]], list[float]]:
    """Return pairs of costs until it is sure on which side of the limit most are.

    And of each pair the share of what is allowed.
    """
    pairs: list[tuple[float, float]] = []
    for _ in islice(measured, _WARM_UP_PAIRS):
        pass
    is_sure = False
    while not is_sure and len(pairs) < _MOST_PAIRS:
        pairs += islice(measured, _PAIRS)
        shares = [ms / allowed_ms(was_ms) for was_ms, ms in pairs]
        lead = 2 * sum(share > 1.0 for share in shares) - len(pairs)
        is_sure = abs(lead) > _SURE * len(pairs) ** 0.5
        is_sure &= lead < 0 or len(pairs) > _PAIRS
    return pairs, shares


def _measures_cpu(folder: Path) -> bool:
    """Return whether the step returns its CPU time: a GPU's does not."""
    return model_names.SCORING_CPU.name in (folder / "config.pbtxt").read_text()


def _costs_ms(
    client: Any, bundles: Sequence[Sequence[Path]], by_cpu: bool
) -> Iterator[tuple[float, float]]:
    """Return the milliseconds of the golden requests of two bundles, measured in turns.

    ``by_cpu``: what the steps measured; else until the answer, with the machine's noise.
    """
    rng = np.random.default_rng()

    def cost_ms(folders: Sequence[Path], golden: Tensors) -> float:
        request = _unseen(golden, rng)
        began = time.perf_counter()
        made = _made(client, folders, request, by_cpu=by_cpu)
        if by_cpu:
            return float(made[model_names.SCORING_CPU.name].sum()) / 1e6
        return 1000.0 * (time.perf_counter() - began)

    return _in_turns([partial(cost_ms, bundle, _golden(bundle[0])) for bundle in bundles])


def _in_turns(costs_ms: Sequence[Callable[[], float]]) -> Iterator[tuple[float, float]]:
    """Yield the costs of two bundles, measured one after the other in random order."""
    rng = np.random.default_rng()
    while True:
        costs = [0.0, 0.0]
        for place in rng.permutation(len(costs_ms)).tolist():
            costs[place] = costs_ms[place]()
        yield costs[0], costs[1]


def _golden(folder: Path) -> Tensors:
    path = folder / bundle.GOLDEN_FILE
    try:
        file: Tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} holds no golden requests: {error}") from error
    own = model_names.MODEL_INPUTS + schema.user_tensors(bundle.read(folder).sizes)
    needed = {spec.name for spec in SCORES + own}
    if missing := sorted(needed - file.keys()):
        raise ArtifactError(f"{path} lacks {', '.join(missing)}")
    return file


def _unseen(tensors: Tensors, rng: np.random.Generator) -> Tensors:
    """Return ``tensors`` with random gaps between the behaviours.

    No states of such histories are cached, so that the encoder's time counts.
    """
    codes = tensors["history_behavior_codes"].copy()
    codes[..., _GAP] = rng.integers(1, schema.NUM_GAP_BUCKETS, codes.shape[:-1])
    return {**tensors, "history_behavior_codes": codes}


def scored(client: Any, folders: Sequence[Path], tensors: Tensors) -> Tensors:
    """Return the SCORES that the graphs of the steps in ``folders`` make."""
    made = _made(client, folders, tensors)
    return {spec.name: made[spec.name] for spec in SCORES}


def check_version(client: Any, name: str, version: str) -> None:
    """Raise ``ArtifactError`` unless ensemble ``name`` is answered by ``version``.

    For an unknown user, so that a rollback needs no feature store: what it serves again was
    compared at its own promotion.
    """
    request = {
        "user_id": np.array([[_PROBE_USER]], dtype=object),
        "item_ids": np.array([[_PROBE_ITEM]], dtype=object),
    }
    inputs = infer_inputs(schema.REQUEST_INPUTS, request)
    answer = infer_patiently(client, name, inputs)
    answered_by = answer.as_numpy("model_version").item().decode()
    if answered_by != version:
        raise ArtifactError(f"{name} was answered by {answered_by}")
    if not np.all(np.isfinite(answer.as_numpy(PROBABILITY))):
        raise ArtifactError(f"{name} has no finite score for an unknown user")


def _made(
    client: Any, folders: Sequence[Path], tensors: Tensors, *, by_cpu: bool = False
) -> Tensors:
    """Return ``tensors`` and what the steps in ``folders`` make of them."""
    for folder in folders:
        if (tables := _TABLES.get(folder.name.rpartition("_")[0])) is not None:
            inputs, outputs = tables
            inputs = tuple(s for s in inputs if s not in _OF_USERS or s.name in tensors)
            if by_cpu:
                outputs = (*outputs, model_names.SCORING_CPU)
            given = infer_inputs(inputs, tensors)
            answer = infer_patiently(client, folder.name, given, outputs)
            made = {spec.name: answer.as_numpy(spec.name) for spec in outputs}
            tensors = {**tensors, **made}
    return tensors


def infer_patiently(
    client: Any,
    model: str,
    inputs: Sequence[Any],
    outputs: Sequence[TensorSpec] | None = None,
) -> Any:
    """Return the answer of ``model``; a server that is only busy is called again.

    None of the calls is of those whose features are compared with training's.
    """
    call = partial(
        infer,
        client,
        model,
        inputs,
        outputs=None if outputs is None else wanted_outputs(outputs),
        parameters={model_names.NOT_SAMPLED: "1"},
        client_timeout=_TIMEOUT_S,
    )
    return retries.retry("promotion", call, attempts=_TRIES)
