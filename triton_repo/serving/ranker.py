"""Calls of the ensembles → their answers: what the one step does.

In: tensors by name, either ids (``REQUEST_INPUTS``) or the model's own (``MODEL_INPUTS``).
Out: those that the call wants, a ``RefusedError`` for what its caller can fix, or the error
of a failure that is not the caller's. Calls of one shape that come together are answered as
one batch.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srp4ctr import tracing
from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles.request_log import ServedLog, ServedRequest
from srp4ctr.features.online.request_features import RequestBatch
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo.model_names import (
    FETCH_FEATURES,
    SCORING_CPU,
)
from srp4ctr.triton_repo.serving.backlog import Backlog
from srp4ctr.triton_repo.serving.exploration import Policy, apply_policy
from srp4ctr.triton_repo.serving.onnx_scorer import (
    OWN_TENSORS,
    CountPart,
    Tensors,
    check_tensors,
)
from srp4ctr.triton_repo.serving.refusals import QueuedTooLongError, RefusedError
from srp4ctr.triton_repo.serving.serving_metrics import RequestStats

LOG = logging.getLogger(__name__)
PROBABILITY, PROPENSITY = "click_probability", "propensity"
POSITION = "position"
ITEM_IDS, ITEM_ROWS = "item_ids", "candidate_item_rows"
_NOTES = ("status", "feature_version", "model_version")
TIMES = "times_ms"  # no output: the requests' own times, else the clock's
_SCORED = {spec.name for spec in schema.HEAD_OUTPUTS}
_OF_ITEMS = {
    spec.name
    for spec in schema.HEAD_OUTPUTS + schema.POLICY_TENSORS + schema.ITEM_NOTES
    if "N" in spec.shape
}
_PADDING = b""


class Features(Protocol):
    """Makes tensors of ids: ``request_features.RequestFeatures``."""

    def assemble(self, users: Any, items: Any, times: Any, contexts: Any) -> RequestBatch:
        """Return the tensors of B requests of N items each."""
        ...

    def close(self) -> None:
        """Stop the background threads."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """B requests that one caller sent, and the outputs that it wants."""

    given: Tensors
    wanted: frozenset[str]
    parameters: str = ""
    """JSON; with ``traceparent`` where the caller's trace is recorded."""
    max_wait_s: float = 0.0
    """For how long it may have waited; 0: as long as any."""

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
    """None: only the features, for encoder and head in other steps."""
    count_part: CountPart
    of_users: frozenset[str] = frozenset()
    """The names of the bundle's ``schema.user_tensors``."""
    policy: Policy | None = None
    """None: best first."""
    log: ServedLog | None = None
    stats: RequestStats | None = None
    backlog: Backlog | None = None
    """None: no call is refused for waiting."""

    def close(self) -> None:
        """Stop the background threads."""
        self.features.close()
        if self.log is not None:
            self.log.close()

    def answer_all(self, calls: Sequence[Call]) -> list[Tensors | Exception]:
        """Return the answer to each call, or its error, which affects no other call."""
        began = time.perf_counter()
        answers = self._late(calls)
        alike: dict[tuple[object, ...], list[int]] = {}
        for place, call in enumerate(calls):
            if place not in answers:
                alike.setdefault(call.shape, []).append(place)
        refused = len(answers)
        for places in alike.values():
            batch = [calls[place] for place in places]
            traces = [tracing.from_parameters(call.parameters) for call in batch]
            with tracing.answering(traces, "rank_clicks"):
                made = self._answer_alike(batch)
            answers |= zip(places, made, strict=True)
        if self.backlog is not None:
            self.backlog.end(len(calls) - refused)
        if self.stats is not None:
            self.stats.observe_calls(list(answers.values()), time.perf_counter() - began)
        return [answers[place] for place in range(len(calls))]

    def answer(self, call: Call) -> Tensors:
        """Return what ``call`` wants; ``RefusedError`` for what its caller can fix."""
        began, given = time.perf_counter(), call.given
        is_ids = "user_id" in given
        if is_ids and ITEM_IDS not in given and not call.wanted & _OF_ITEMS:
            # Only the user is wanted: the head runs all the same, on one padding item.
            padding = np.array([[_PADDING]] * len(given["user_id"]), dtype=object)
            given = {**given, ITEM_IDS: padding}
        with _refusing("shape", ValueError):
            self._check(given, ITEM_IDS if is_ids else ITEM_ROWS)
        with _refusing("content", MistakeError), tracing.part("assemble"):
            made = self._features(given) if is_ids else given
        fetched = _requests(call) if is_ids else 0
        self.count_part(FETCH_FEATURES, fetched, time.perf_counter() - began)
        if self.scorer and call.wanted & _SCORED:
            began_ns = time.thread_time_ns()
            # Of ids the tensors are ours, and so is a row outside the model's tables.
            with _refusing("tensors", *(() if is_ids else (ValueError,))):
                scores = self.scorer(made)
            made = {**made, **(_alike(given[ITEM_IDS], scores) if is_ids else scores)}
            cost = (time.thread_time_ns() - began_ns) // _requests(call)
            made[SCORING_CPU.name] = np.full((_requests(call), 1), cost)
            if self.stats is not None:
                self.stats.observe_scores(made[PROBABILITY])
            if PROBABILITY in call.wanted:
                self._log(given, made)
            if POSITION in call.wanted:
                made = {**made, **self._positions(made[PROBABILITY])}
        if is_ids and self.stats is not None:
            self.stats.observe_requests(made, made[TIMES])
        return {name: made[name] for name in call.wanted if name in made}

    def _late(self, calls: Sequence[Call]) -> dict[int, Tensors | Exception]:
        """Return the refusals of those calls that have waited too long, by their places."""
        if self.backlog is None:
            return {}
        late = self.backlog.begin([call.max_wait_s for call in calls])
        return {
            place: QueuedTooLongError() for place, is_late in enumerate(late) if is_late
        }

    def _answer_alike(self, calls: Sequence[Call]) -> Sequence[Tensors | Exception]:
        """Return the answers to calls of one shape, together if none of them fails."""
        if len(calls) > 1:
            with suppress(Exception):  # of one of them, which is found one by one
                return self._answer_batch(calls)
        return [self._answer_single(call) for call in calls]

    def _answer_single(self, call: Call) -> Tensors | Exception:
        try:
            return self.answer(call)
        except RefusedError as error:
            return error
        except Exception as error:
            LOG.exception("a call failed")
            return error

    def _answer_batch(self, calls: Sequence[Call]) -> list[Tensors]:
        joined = {
            name: np.concatenate([call.given[name] for call in calls])
            for name in calls[0].given
        }
        made = self.answer(Call(given=joined, wanted=calls[0].wanted))
        ends = np.cumsum([_requests(call) for call in calls])[:-1]
        split = {name: np.split(array, ends) for name, array in made.items()}
        return [{name: split[name][place] for name in made} for place in range(len(calls))]

    def _positions(self, probabilities: NDArray[Any]) -> Tensors:
        """Return the place of each item (B, N), and the policy's propensity of it."""
        if self.policy is not None:
            positions, propensities = apply_policy(probabilities, self.policy)
        else:
            order = np.argsort(-probabilities, axis=1, kind="stable")  # NaN sorts last
            positions = np.argsort(order, axis=1)
            propensities = np.ones(probabilities.shape, dtype=np.float32)
        return {POSITION: positions, PROPENSITY: propensities}

    def _check(self, given: Tensors, items: str) -> None:
        is_ids = {"user_id", ITEM_IDS} <= given.keys()
        if not (is_ids or given.keys() >= OWN_TENSORS | self.of_users):
            raise ValueError("send user_id and item_ids, or all of the model's tensors")
        check_tensors(given)
        if not 1 <= (count := given[items].shape[1]) <= self.max_candidates:
            raise ValueError(f"{count} {items}; send 1 to {self.max_candidates}")

    def _log(self, given: Tensors, made: Tensors) -> None:
        """Log the requests that have a ``request_id``, if the log samples them."""
        if self.log is None or "request_id" not in given:
            return
        for row, (request_id,) in enumerate(given["request_id"].tolist()):
            if self.log.wants(_text(request_id)):
                names = OWN_TENSORS | self.of_users
                self.log.put(_served(given, made, row, names))

    def _features(self, given: Tensors) -> Tensors:
        """Return the model's tensors of ids, and the notes of the answer."""
        users, items = given["user_id"][:, 0].tolist(), given[ITEM_IDS].tolist()
        times, contexts = (
            given[name][:, 0].tolist() if name in given else None
            for name in ("request_time_ms", "context")
        )
        batch = self.features.assemble(users, items, times, contexts)
        texts = {"status": batch.statuses, "feature_version": batch.feature_versions}
        texts["model_version"] = (self.version,) * len(users)
        notes = {name: np.array([each], dtype=object).T for name, each in texts.items()}
        return {
            **notes,
            "item_status": batch.item_status,
            TIMES: batch.times_ms,
            **batch.tensors,
        }


def _alike(items: NDArray[Any], scores: Tensors) -> Tensors:
    """Give each further place of an item in its request (B, N) its first place's scores.

    A product of matrices rounds its last rows by another kernel: one step of float32.
    """
    for row, ids in enumerate(items.tolist()):
        if len(set(ids)) < len(ids):  # seldom, and looked for in every request
            first: dict[bytes | str, int] = {}
            places = [first.setdefault(each, place) for place, each in enumerate(ids)]
            for name in _OF_ITEMS & scores.keys():
                scores[name][row] = scores[name][row, places]
    return scores


def _served(given: Tensors, made: Tensors, row: int, own: Iterable[str]) -> ServedRequest:
    """Return row ``row`` of a call, as it was answered, and its ``own`` tensors."""
    texts = {
        name: _text(tensors[name][row, 0])
        for tensors, names in ((given, ("user_id", "request_id")), (made, _NOTES))
        for name in names
    }
    return ServedRequest(
        item_ids=tuple(map(_text, given[ITEM_IDS][row])),
        time_ms=int(made[TIMES][row]),
        tensors={name: made[name][row : row + 1] for name in own},
        probabilities=made[PROBABILITY][row],
        **texts,
    )


def _text(value: bytes | str) -> str:
    """Return a text, which comes as bytes; to log invalid UTF-8 must refuse no answer."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _requests(call: Call) -> int:
    return len(next(iter(call.given.values())))


@contextmanager
def _refusing(reason: str, *mistakes: type[ValueError]) -> Iterator[None]:
    """Refuse a call that raises one of ``mistakes``; ``reason``: what it is counted as."""
    try:
        yield
    except mistakes as error:
        raise RefusedError(str(error), reason) from error
