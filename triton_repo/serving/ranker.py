"""Calls of the ensembles → their answers: what the one step does.

In: tensors by name, either ids (``REQUEST_INPUTS``) or the model's own (``MODEL_INPUTS``).
Out: those that the call wants, or a ``ValueError`` for what its caller can fix. Calls of
one shape that come together are answered as one batch.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.drift_reference import read_reference
from srp4ctr.features.bundles.request_log import ServedLog, ServedRequest
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.request_features import RequestBatch, open_bundle
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo.model_names import FETCH_FEATURES, MODEL_INPUTS
from srp4ctr.triton_repo.serving.exploration import (
    Policy,
    apply_policy,
    best_first,
    policy_of,
)
from srp4ctr.triton_repo.serving.input_validation import check_tensors
from srp4ctr.triton_repo.serving.onnx_scorer import Scorer, Spend, Tensors
from srp4ctr.triton_repo.serving.request_stats import RequestStats
from srp4ctr.triton_repo.serving.serving_metrics import ServingMetrics, spending

PROBABILITY, PROPENSITY = "click_probability", "propensity"
POSITION = "position"
ITEM_IDS, ITEM_ROWS = "item_ids", "candidate_item_rows"
_NOTES = ("status", "feature_version", "model_version")
_LOADING_NICENESS = 5  # a quarter of a busy core; 19 would wait for a training to end
TIMES = "times_ms"  # of no output: when the requests were, by their word or the clock
_OWN = {spec.name for spec in MODEL_INPUTS}
_SCORED = {spec.name for spec in schema.HEAD_OUTPUTS}
_OF_ITEMS = {
    spec.name
    for spec in schema.HEAD_OUTPUTS + schema.POLICY_TENSORS + schema.ITEM_NOTES
    if "N" in spec.shape
}
_PADDING = b""


class RefusedError(ValueError):
    """A call that its caller can mend."""

    def __init__(self, message: str, reason: str) -> None:
        """``reason`` is one of a few words: it becomes a metric's label."""
        super().__init__(message)
        self.reason = reason


class Features(Protocol):
    """What makes tensors of ids: ``features.online.request_features.RequestFeatures``."""

    def assemble(self, users: Any, items: Any, times: Any, contexts: Any) -> RequestBatch:
        """Return the tensors of B requests of N items each."""
        ...

    def close(self) -> None:
        """End what goes on in the background."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one caller sent, B requests, and which outputs it wants."""

    given: Tensors
    wanted: frozenset[str]

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for calls that can be one batch."""
        shapes = ((name, *each.shape[1:]) for name, each in sorted(self.given.items()))
        return (self.wanted, *shapes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranker:
    """Answers calls by one bundle."""

    version: str
    max_candidates: int
    features: Features
    scorer: Callable[[Tensors], Tensors] | None
    """None: the features alone, for encoder and head elsewhere."""
    spend: Spend
    policy: Policy = best_first
    log: ServedLog | None = None
    witness: RequestStats | None = None

    def close(self) -> None:
        """End what goes on in the background."""
        self.features.close()
        if self.log is not None:
            self.log.close()

    def answer_all(self, calls: Sequence[Call]) -> list[Tensors | ValueError]:
        """Return the answer to each call; one that is refused spoils no other."""
        began = time.perf_counter()
        alike: dict[tuple[object, ...], list[int]] = {}
        for place, call in enumerate(calls):
            alike.setdefault(call.shape, []).append(place)
        answers: dict[int, Tensors | ValueError] = {}
        for places in alike.values():
            together = [calls[place] for place in places]
            made: Sequence[Tensors | ValueError]
            try:
                made = self._as_one(together)
            except ValueError:  # whose mistake it was is found one by one
                made = [self._alone(call) for call in together]
            answers |= zip(places, made, strict=True)
        if self.witness is not None:
            self.witness.answered(list(answers.values()), time.perf_counter() - began)
        return [answers[place] for place in range(len(calls))]

    def answer(self, call: Call) -> Tensors:
        """Return what ``call`` wants; raises ``ValueError`` for what its caller can fix."""
        began, given = time.perf_counter(), call.given
        is_ids = "user_id" in given
        if is_ids and ITEM_IDS not in given and not call.wanted & _OF_ITEMS:
            # Of the user alone: the head runs all the same, on one item that is none.
            padding = np.array([[_PADDING]] * len(given["user_id"]), dtype=object)
            given = {**given, ITEM_IDS: padding}
        with _refusing("shape"):
            self._check(given, ITEM_IDS if is_ids else ITEM_ROWS)
        with _refusing("content"):
            made = self._features(given) if is_ids else given
        self.spend(FETCH_FEATURES, _requests(call) * is_ids, time.perf_counter() - began)
        if self.scorer and call.wanted & _SCORED:
            try:
                made = {**made, **self.scorer(made)}
            except Exception as error:  # a row outside the tables is the caller's mistake
                raise RefusedError(str(error), "tensors") from error
            if self.witness is not None:
                self.witness.scored(made[PROBABILITY])
            if PROBABILITY in call.wanted:
                self._log(given, made)
            if POSITION in call.wanted:
                shown = apply_policy(made[PROBABILITY], self.policy)
                made = {**made, **dict(zip((POSITION, PROPENSITY), shown, strict=True))}
        if is_ids and self.witness is not None:
            self.witness.met(made, made[TIMES])
        return {name: made[name] for name in call.wanted if name in made}

    def _alone(self, call: Call) -> Tensors | ValueError:
        try:
            return self.answer(call)
        except ValueError as error:
            return error

    def _as_one(self, calls: Sequence[Call]) -> list[Tensors]:
        """Return the answers to calls of one shape."""
        if len(calls) == 1:
            return [self.answer(calls[0])]
        joined = {
            name: np.concatenate([call.given[name] for call in calls])
            for name in calls[0].given
        }
        made = self.answer(Call(given=joined, wanted=calls[0].wanted))
        ends = np.cumsum([_requests(call) for call in calls])[:-1]
        split = {name: np.split(array, ends) for name, array in made.items()}
        return [{name: split[name][place] for name in made} for place in range(len(calls))]

    def _check(self, given: Tensors, items: str) -> None:
        if not ({"user_id", ITEM_IDS} <= given.keys() or given.keys() >= _OWN):
            raise ValueError("send user_id and item_ids, or all of the model's tensors")
        check_tensors(given)
        if not 1 <= (count := given[items].shape[1]) <= self.max_candidates:
            raise ValueError(f"{count} {items}; send 1 to {self.max_candidates}")

    def _log(self, given: Tensors, made: Tensors) -> None:
        """Keep what was served of the requests that say who they are, if it is asked."""
        if self.log is None or "request_id" not in given:
            return
        for row, (request_id,) in enumerate(given["request_id"].tolist()):
            if self.log.wants(_text(request_id)):
                self.log.put(_served(given, made, row))

    def _features(self, given: Tensors) -> Tensors:
        """Return the model's tensors of ids, and the notes of what they know."""
        users, items = given["user_id"][:, 0].tolist(), given[ITEM_IDS].tolist()
        times, contexts = (
            given[name][:, 0].tolist() if name in given else None
            for name in ("request_time_ms", "context")
        )
        batch = self.features.assemble(users, items, times, contexts)
        texts = {"status": batch.statuses, "feature_version": batch.feature_versions}
        texts["model_version"] = (self.version,) * len(users)
        notes = {name: _column(each) for name, each in texts.items()}
        return {
            **notes,
            "item_status": batch.item_status,
            TIMES: batch.times_ms,
            **batch.tensors,
        }


def opened(
    folder: Path,
    settings: Mapping[str, str],
    environment: Mapping[str, str],
    told: ServingMetrics,
) -> Ranker:
    """Return the ranker of the step in ``folder``, which has answered once.

    ``settings`` are the parameters that ``rendering`` gave the step. The store may have
    moved since: the server's ``environment`` knows. ``told`` hears what is done and met.
    """
    _import_feast()
    config = FeatureConfig(**json.loads(settings["features"])).relocated(environment)
    features, scorer = open_bundle(config, folder), None
    spend = spending(told, settings["model_version"])
    if (folder / bundle.ENCODER_FILE).is_file():
        scorer = Scorer(folder, int(settings["kept_states_bytes"]), spend)
    kept = json.loads(settings["served_log"])
    ranker = Ranker(
        version=settings["model_version"],
        max_candidates=int(settings["max_candidates"]),
        features=features,
        scorer=scorer,
        spend=spend,
        policy=policy_of(**json.loads(settings["exploration"])),
        log=ServedLog(**kept) if kept["share"] else None,
    )
    # Feast's first read takes 33 ms.
    nobody = {name: np.array([[b""]], dtype=object) for name in ("user_id", ITEM_IDS)}
    ranker.answer(Call(given=nobody, wanted=frozenset({PROBABILITY})))
    return replace(
        ranker, witness=RequestStats(ledger=told, reference=read_reference(folder))
    )


@contextmanager
def _refusing(reason: str) -> Iterator[None]:
    """Give a ``ValueError`` the reason that it is counted by."""
    try:
        yield
    except ValueError as error:
        raise RefusedError(str(error), reason) from error


def _import_feast() -> None:
    """Import Feast, seconds of work, in a thread that gives way to who is answering.

    On Linux a thread has a priority of its own; the process keeps its.
    """

    def imports() -> None:
        own = os.getpriority(os.PRIO_PROCESS, 0)  # a lower one than that is refused
        niceness = max(own, _LOADING_NICENESS)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        import srp4ctr.features.online.store  # noqa: F401

    thread = threading.Thread(target=imports)
    thread.start()
    thread.join()


def _served(given: Tensors, made: Tensors, row: int) -> ServedRequest:
    """Return row ``row`` of a call, as it was answered."""
    texts = {
        name: _text(tensors[name][row, 0])
        for tensors, names in ((given, ("user_id", "request_id")), (made, _NOTES))
        for name in names
    }
    return ServedRequest(
        item_ids=tuple(map(_text, given[ITEM_IDS][row])),
        time_ms=int(made[TIMES][row]),
        tensors={name: made[name][row : row + 1] for name in _OWN},
        probabilities=made[PROBABILITY][row],
        **texts,
    )


def _text(value: bytes | str) -> str:
    """Return a text, which comes as bytes; to log one that is none refuses no answer."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _requests(call: Call) -> int:
    return len(next(iter(call.given.values())))


def _column(texts: Sequence[str]) -> NDArray[Any]:
    return np.array([texts], dtype=object).T
