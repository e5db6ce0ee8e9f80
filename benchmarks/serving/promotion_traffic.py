"""Calls a server all the while, and computes what each answer must be.

The requests are few, and the same at any time: each bundle has one right answer to each.
Callers note every answer; afterwards it is held to that of the bundle which it names.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from benchmarks.harness.callers import Callers, ends_within, wait_for_all
from srp4ctr.client.messages import RankRequest
from srp4ctr.client.rank_client import RankClient
from srp4ctr.features.bundles import bundle
from srp4ctr.features.online.request_features import open_bundle

if TYPE_CHECKING:  # torch: a caller needs none
    from srp4ctr.testing.serving_stack import ServingStack

REQUESTS, CANDIDATES = 16, 100
CALLERS, PER_S = 8, 10.0
DEADLINE_S = 1.0  # the client's own default

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCall:
    """One call as its caller saw it."""

    at_s: float
    """When it was sent, by the machine's monotonic clock."""
    took_s: float
    request: int
    version: str
    """ "" where there was no answer."""
    scores: Scores
    retries: int
    """Tries that failed before: ``RankClient`` made them again."""
    error: str = ""


def called(
    callers: int, address: str, requests: Sequence[RankRequest], act: Callable[[], None]
) -> list[RankedCall]:
    """Let ``callers`` call the server at ``address`` while ``act`` runs.

    Returns every answer, in the order of the questions.
    """
    processes = Callers(callers)
    processes.start(_call, address, requests)
    try:
        act()
    finally:
        found = processes.stop()
    return sorted((each for part in found for each in part), key=lambda each: each.at_s)


def _call(number: int, address: str, requests: Sequence[RankRequest]) -> list[RankedCall]:
    """Call ``PER_S`` times a second until the callers are stopped; return every answer."""
    answers: list[RankedCall] = []
    with RankClient(address) as client:
        client.rank_many([requests[0]], deadline_s=30.0)  # connects
        wait_for_all()
        began = time.monotonic() + number / CALLERS / PER_S
        for turn in count():
            if ends_within(began + turn / PER_S - time.monotonic()):
                break
            answers.append(_answer(client, requests, (number + turn) % REQUESTS))
    return answers


def _answer(client: RankClient, requests: Sequence[RankRequest], place: int) -> RankedCall:
    began, before = time.monotonic(), _retries()
    version, error = "", ""
    scores: tuple[float, ...] = ()
    try:
        [ranking] = client.rank_many([requests[place]], deadline_s=DEADLINE_S)
        version, scores = ranking.model_version, ranking.scores
    except (ConnectionError, ValueError) as failure:
        error = str(failure)
    return RankedCall(
        at_s=began,
        took_s=time.monotonic() - began,
        request=place,
        version=version,
        scores=np.array(scores, dtype=np.float32),
        retries=_retries() - before,
        error=error,
    )


def _retries() -> int:
    counted = REGISTRY.get_sample_value("srp4ctr_retries_total", {"operation": "rank"})
    return int(counted or 0)


def all_requests(at_ms: int) -> list[RankRequest]:
    """Return ``REQUESTS`` requests of different users at one moment: nothing decays."""
    from srp4ctr.testing.serving_stack import item_ids, user_ids

    chance = np.random.default_rng(0)
    items, users = item_ids(), user_ids()
    return [
        RankRequest(
            user_id=users[place],
            item_ids=[str(each) for each in chance.choice(items, CANDIDATES, False)],
            request_time_ms=at_ms,
            context='{"device": "2"}',
        )
        for place in range(REQUESTS)
    ]


def expected(
    stack: "ServingStack", sources: Mapping[str, Path], requests: Sequence[RankRequest]
) -> dict[tuple[str, str], Scores]:
    """Return the probabilities by (encoder, head) of each pair of ``sources``.

    (``REQUESTS``, ``CANDIDATES``), computed by onnxruntime in this process: what a mixture
    of two bundles would answer too.
    """
    features = open_bundle(stack.features, stack.bundle)
    try:
        tensors = features.assemble(
            [request.user_id for request in requests],
            [list(request.item_ids) for request in requests],
            [request.request_time_ms or 0 for request in requests],
            [request.context or "" for request in requests],
        ).tensors
    finally:
        features.close()
    states = {
        name: _run(folder / bundle.ENCODER_FILE, tensors)
        for name, folder in sources.items()
    }
    return {
        (encoder, head): _run(folder / bundle.HEAD_FILE, {**tensors, **states[encoder]})[
            "click_probability"
        ]
        for encoder in sources
        for head, folder in sources.items()
    }


def _run(path: Path, tensors: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    feeds = {each.name: tensors[each.name] for each in session.get_inputs()}
    return dict(zip(names, session.run(names, feeds), strict=True))
