"""Calls of the ensembles → their answers: what the one step does.

In: tensors by name, either ids (``REQUEST_INPUTS``) or the model's own (``MODEL_INPUTS``).
Out: those that the call wants, a ``RefusedError`` for what its caller can fix, or the error
of a failure that is not the caller's. Calls of one shape that come together are answered as
one batch.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from srp4ctr import tracing
from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles.request_log import ServedLog, ServedRequest, text_of
from srp4ctr.features.columns import number_columns
from srp4ctr.features.online.request_features import RequestBatch
from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.caller_numbers import in_order
from srp4ctr.triton_repo.model_names import (
    ANSWERED_BY,
    BY_NATIVE,
    BY_PYTHON,
    EXPERIMENT,
    FETCH_FEATURES,
    NATIVE_ANSWER,
    NOT_SAMPLED,
    PARSED_CACHE,
    SCORING_CPU,
    SERVED_PROBABILITY,
)
from srp4ctr.triton_repo.serving.backlog import Backlog
from srp4ctr.triton_repo.serving.exploration import Policy, apply_policy
from srp4ctr.triton_repo.serving.onnx_scorer import (
    OWN_TENSORS,
    PROBABILITY,
    RANKING,
    SCORED,
    CountPart,
    Tensors,
    alike,
    check_tensors,
)
from srp4ctr.triton_repo.serving.recommender import Recommendations, Recommender
from srp4ctr.triton_repo.serving.refusals import (
    QueuedTooLongError,
    RefusedError,
    Refusing,
    without_frames,
)
from srp4ctr.triton_repo.serving.serving_metrics import RequestStats

LOG = logging.getLogger(__name__)
PROPENSITY = "propensity"
POSITION = "position"
ITEM_IDS = "item_ids"
ITEM_ROWS = "candidate_item_rows"
NUMBERS, NUMBER_NAMES = (spec.name for spec in schema.NUMBER_INPUTS)
_NOTES = ("status", "feature_version", "model_version")
CANNOT_RECOMMEND = (
    "cannot recommend, since its pre-training predicts no items: set training.pretraining "
    "to 'items' or 'both', and run `srp4ctr model refresh`"
)
SPAN = "rank_clicks"  # of a trace
TIMES = "times_ms"  # no output: the requests' own times, else the clock's
_OF_USERS = {spec.name for spec in schema.USER_EMBEDDINGS}
_OF_ITEMS = (SCORED - _OF_USERS) | {
    spec.name for spec in schema.POLICY_TENSORS + schema.ITEM_NOTES
}
_RECOMMENDED = {spec.name for spec in schema.RECOMMENDED_TENSORS}
_PADDING = b""
_OF_SHAPE = Refusing("shape", ValueError)
_OF_CONTENT = Refusing("content", MistakeError)
# Of ids the tensors are ours, and so is a row outside the model's tables.
_OF_TENSORS = Refusing("tensors", ValueError)
_OF_OURS = Refusing("tensors")


class Features(Protocol):
    """Makes tensors of ids: ``request_features.RequestFeatures``."""

    def assemble(
        self, users: Any, items: Any, times: Any, contexts: Any, numbers: Any = None
    ) -> RequestBatch:
        """Return the tensors of B requests of N items each."""
        ...

    def of_candidates(self, users: Any, item_keys: Any, contexts: Any) -> RequestBatch:
        """Return the same of users that were read, and of items by their keys."""
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
    """JSON; with ``traceparent`` where the caller's trace is recorded, NOT_SAMPLED where
    the native step's sample of all calls does not have this one, NATIVE_ANSWER where it has
    answered the call itself."""
    max_wait_s: float = 0.0
    """For how long it may have waited; 0: as long as any."""

    @property
    def is_sample(self) -> bool:
        """Whether drift may be computed from it."""
        return NOT_SAMPLED not in self.parameters

    @property
    def is_answered(self) -> bool:
        """Whether it only reports an answer of the native step."""
        return NATIVE_ANSWER in self.parameters

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for calls that can be one batch."""
        shapes = ((name, *each.shape[1:]) for name, each in sorted(self.given.items()))
        return (self.wanted, self.is_sample, *shapes)


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
    numbers: tuple[str, ...] = ()
    """The names of the bundle's numbers of candidates."""
    calibrated: bool = True
    """False: the bundle was trained on sampled negatives."""
    policy: Policy | None = None
    """None: best first."""
    log: ServedLog | None = None
    recommender: Recommender | None = None
    stats: RequestStats | None = None
    backlog: Backlog | None = None
    """None: no call is refused for waiting."""
    parsed_cache_file: Callable[[], str] = str  # for the native step; "": there is none
    experiment: Callable[[], str] = str  # the canary's; "": there is none

    def close(self) -> None:
        """Stop the background threads."""
        self.features.close()
        if self.recommender is not None:
            self.recommender.close()
        if self.log is not None:
            self.log.close()

    def answer_all(self, calls: Sequence[Call]) -> list[Tensors | Exception]:
        """Return the answer to each call, or its error, which affects no other call."""
        known = list(map(self._known, calls))
        to_rank = [call for call, each in zip(calls, known, strict=True) if each is None]
        made = iter(self._answer_all(to_rank) if to_rank else ())
        return [next(made) if each is None else each for each in known]

    def _known(self, call: Call) -> Tensors | None:
        """Return the answer to a call that ranks nothing; None for any other.

        No metric of requests counts it.
        """
        if call.is_answered:
            self._keep_report(call)
            return {ANSWERED_BY.name: np.array([[BY_NATIVE.encode()]], object)}
        if call.wanted == {PARSED_CACHE.name}:
            return {PARSED_CACHE.name: np.array([[self.parsed_cache_file()]], object)}
        if call.wanted == {EXPERIMENT.name}:
            name = self.experiment().encode()
            return {EXPERIMENT.name: np.array([[name]] * _requests(call), object)}
        return None

    def _answer_all(self, calls: Sequence[Call]) -> list[Tensors | Exception]:
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
            with tracing.answering(traces, SPAN, answered_by=BY_PYTHON):
                made = self._answer_alike(batch)
            answers |= zip(places, made, strict=True)
        if self.backlog is not None:
            self.backlog.end(len(calls) - refused)
        if self.stats is not None:
            self.stats.observe_calls(list(answers.values()), time.perf_counter() - began)
        return [answers[place] for place in range(len(calls))]

    def answer(self, call: Call) -> Tensors:
        """Return what ``call`` wants; ``RefusedError`` for what its caller can fix."""
        began, wanted = time.perf_counter(), call.wanted
        given, found = self._prepared(call)
        is_ids = "user_id" in given
        if found is not None:
            wanted = wanted | {PROBABILITY, POSITION}
        with _OF_CONTENT, tracing.part("assemble"):
            made = self._features(given, found) if is_ids else given
        fetched = _requests(call) if is_ids else 0
        self.count_part(FETCH_FEATURES, fetched, time.perf_counter() - began)
        if self.scorer and wanted & SCORED:
            made = {**made, **self._scored(given, made)}
            if PROBABILITY in wanted:
                self._log(given, made)
            if POSITION in wanted:
                positions, propensities = apply_policy(made[RANKING], self.policy)
                made = {**made, POSITION: positions, PROPENSITY: propensities}
        if is_ids and self.stats is not None:
            self.stats.observe_requests(made, made[TIMES], is_sample=call.is_sample)
        if found is not None:
            made = found.best(made)
        return {name: made[name] for name in call.wanted if name in made}

    def _prepared(self, call: Call) -> tuple[Tensors, Recommendations | None]:
        """Return the checked inputs of ``call``, and the items to rank if it names none."""
        given, is_ids = call.given, "user_id" in call.given
        names_none = is_ids and ITEM_IDS not in given
        finds_items = names_none and bool(call.wanted & _RECOMMENDED)
        if names_none and (finds_items or not call.wanted & _OF_ITEMS):
            # No items: the head runs all the same, on one padding item.
            padding = np.array([[_PADDING]] * len(given["user_id"]), dtype=object)
            given = {**given, ITEM_IDS: padding}
        with _OF_SHAPE:
            self._check(given, ITEM_IDS if is_ids else ITEM_ROWS)
        if not finds_items:
            return given, None
        with _OF_CONTENT, tracing.part("retrieve"):
            if self.recommender is None:
                raise MistakeError(f"bundle {self.version} {CANNOT_RECOMMEND}")
            found = self.recommender(given)
        return {**given, ITEM_IDS: found.item_ids}, found

    def _scored(self, given: Tensors, made: Tensors) -> Tensors:
        """Return the scores of B requests, and what they cost."""
        began_ns, is_ids = time.thread_time_ns(), "user_id" in given
        assert self.scorer is not None
        with _OF_OURS if is_ids else _OF_TENSORS:
            scores = self.scorer(made)
        if is_ids:
            scores = alike(given[ITEM_IDS], scores)
        requests = len(scores[PROBABILITY])
        cost = (time.thread_time_ns() - began_ns) // requests
        if self.stats is not None:
            self.stats.observe_scores(scores[PROBABILITY])
        return {**scores, SCORING_CPU.name: np.array([[cost]] * requests)}

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
        except Exception as error:
            if not isinstance(error, RefusedError):
                LOG.exception("a call failed")
            return without_frames(error)

    def _answer_batch(self, calls: Sequence[Call]) -> list[Tensors]:
        joined = {
            name: np.concatenate([call.given[name] for call in calls])
            for name in calls[0].given
        }
        made = self.answer(replace(calls[0], given=joined))
        ends = np.cumsum([_requests(call) for call in calls])[:-1]
        split = {name: np.split(array, ends) for name, array in made.items()}
        return [{name: split[name][place] for name in made} for place in range(len(calls))]

    def _check(self, given: Tensors, items: str) -> None:
        is_ids = {"user_id", ITEM_IDS} <= given.keys()
        if not (is_ids or given.keys() >= OWN_TENSORS | self.of_users):
            raise ValueError("send user_id and item_ids, or all of the model's tensors")
        check_tensors(given)
        if (NUMBERS in given) != (NUMBER_NAMES in given):
            raise ValueError(f"send {NUMBERS} and {NUMBER_NAMES}, or neither")
        if not 1 <= (count := given[items].shape[1]) <= self.max_candidates:
            raise ValueError(f"{count} {items}; send 1 to {self.max_candidates}")

    def _log(self, given: Tensors, made: Tensors) -> None:
        """Log the requests that have a ``request_id``, if the log samples them."""
        if self.log is None or "request_id" not in given:
            return
        for row, (request_id,) in enumerate(given["request_id"].tolist()):
            if self.log.wants(text_of(request_id)):
                names = OWN_TENSORS | self.of_users
                self.log.put(_served(given, made, row, names))

    def _keep_report(self, report: Call) -> None:
        """Log and trace what the native step has answered; change no answer."""
        try:
            # Copies: the log's thread reads them after the call.
            given = {name: array.copy() for name, array in report.given.items()}
            parameters = json.loads(report.parameters)
            status, version, *times = parameters[NATIVE_ANSWER].split(" ")
            _trace_native(tracing.from_parameters(parameters), list(map(int, times)))
            if SERVED_PROBABILITY.name in given:
                notes = {"status": status, "feature_version": version}
                notes["model_version"] = self.version
                made = {n: np.array([[each]], object) for n, each in notes.items()}
                made[PROBABILITY] = given[SERVED_PROBABILITY.name]
                self._log(given, {**given, **made, TIMES: given["request_time_ms"][:, 0]})
        except Exception:
            LOG.exception("an answer of the native step is neither logged nor traced")

    def _features(self, given: Tensors, found: Recommendations | None) -> Tensors:
        """Return the model's tensors of ids, and the notes of the answer."""
        users, times, contexts = (
            given[name][:, 0].tolist() if name in given else None
            for name in ("user_id", "request_time_ms", "context")
        )
        if found is None:
            batch = self.features.assemble(
                users, given[ITEM_IDS].tolist(), times, contexts, self._numbers(given)
            )
        else:
            chosen = found.candidates
            batch = self.features.of_candidates(chosen.users, chosen.item_keys, contexts)
        texts = {"status": batch.statuses, "feature_version": batch.feature_versions}
        texts["model_version"] = (self.version,) * len(batch.statuses)
        texts[ANSWERED_BY.name] = (BY_PYTHON,) * len(batch.statuses)
        notes = {
            name: np.array(each, dtype=object)[:, None] for name, each in texts.items()
        }
        return {
            **notes,
            **self._number_columns(batch.tensors),
            "calibrated": np.full((len(batch.statuses), 1), self.calibrated, np.uint8),
            "item_status": batch.item_status,
            TIMES: batch.times_ms,
            **batch.tensors,
        }

    def _numbers(self, given: Tensors) -> Any:
        """Return the bundle's numbers of the items to rank (B, N, K); None for none."""
        if not self.numbers or NUMBERS not in given:
            return None
        names = given[NUMBER_NAMES].tolist()
        rows = zip(given[NUMBERS], names, strict=True)
        return np.stack(
            [in_order(row, list(map(text_of, sent)), self.numbers) for row, sent in rows]
        )

    def _number_columns(self, tensors: Tensors) -> Tensors:
        """Return NUMBER_OUTPUTS of the bundle's numbers; {} without any."""
        if not self.numbers:
            return {}
        names = np.array(
            [[column.encode() for column in number_columns(self.numbers)]], object
        )
        features = tensors["candidate_features"]
        return {
            "number_columns": features[..., -names.shape[1] :],
            "number_column_names": names.repeat(len(features), axis=0),
        }


def _served(given: Tensors, made: Tensors, row: int, own: Iterable[str]) -> ServedRequest:
    """Return row ``row`` of a call, as it was answered, and its ``own`` tensors."""
    texts = {
        name: text_of(tensors[name][row, 0])
        for tensors, names in ((given, ("user_id", "request_id")), (made, _NOTES))
        for name in names
    }
    return ServedRequest(
        item_ids=tuple(map(text_of, given[ITEM_IDS][row])),
        time_ms=int(made[TIMES][row]),
        tensors={name: made[name][row : row + 1] for name in own},
        probabilities=made[PROBABILITY][row],
        **texts,
    )


def _trace_native(parent: str, times_ns: Sequence[int]) -> None:
    """Record the spans of a call that the native step has answered, as of this step's."""
    began, read, made, encoded, ended = times_ns
    span = tracing.record(parent, SPAN, began, ended, answered_by=BY_NATIVE)
    parts = {
        "assemble": (began, made),
        "read": (began, read),
        "encode": (made, encoded),
        "score": (encoded, ended),
    }
    for name, times in parts.items():
        tracing.record(span, name, *times)


def _requests(call: Call) -> int:
    return len(next(iter(call.given.values())))
