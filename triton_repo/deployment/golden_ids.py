"""Golden requests by their ids → a gate: does each step answer as training's code would?

The tensors are computed from the stored rows by ``features/consistency/golden.py``, and
scored by the graphs that ``validation.golden_gate`` has compared with torch. The answers
are those of the steps to ids, as clients send them: the native step's where there is one,
and the Python step's.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.utils import InferenceServerException

from srp4ctr.client.codec import Tensors, infer_inputs
from srp4ctr.errors import ArtifactError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import SCORE_TOLERANCES, Gate
from srp4ctr.features.config import FeatureConfig, ttl_ms_of
from srp4ctr.features.consistency import golden
from srp4ctr.features.consistency.golden import GoldenRequest, GoldenUsers, StoredItems
from srp4ctr.features.tensors import schema, vocabulary
from srp4ctr.features.tensors.schema import TensorSpec
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import validation
from srp4ctr.triton_repo.deployment.validation import (
    RANKING,
    SCORES,
    Floats,
)

if TYPE_CHECKING:
    from srp4ctr.features.online.store import OnlineViews

GATE = "golden_ids"
_INPUTS = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS + schema.NUMBER_INPUTS
_TRIES = 3  # of a request whose cost is measured
# How long the native step may take to load what it reads.
_PATIENCE_S, _POLL_S = 20.0, 0.05
Answer = Callable[[GoldenRequest], Tensors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far an answer is from what is expected."""

    of: str
    """The step or ensemble, and the request."""
    scores: float
    """As a share of what is accepted."""
    note: str = ""
    """What else differs; "" if nothing does."""

    @property
    def is_right(self) -> bool:
        """Whether the answer is accepted."""
        return self.scores <= 1.0 and not self.note

    def __str__(self) -> str:
        return f"{self.of} {self.note or f'{self.scores:.3g} times what is accepted'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenIds:
    """The golden requests of a loaded bundle, whose users are stored."""

    client: Any
    folders: Sequence[Path]
    users: GoldenUsers
    refresh_s: float
    """How long the server's table of items may take to be refreshed."""

    def gate(self) -> Gate:
        """Compare the answers of the bundle's steps with those of training's code.

        Then again, once the users have acted: a step that keeps rows would not notice. What
        the native step answers is compared from its first answer on. Raises
        ``ArtifactError`` where it does not answer all requests.
        """
        answers: dict[str, Answer] = {}
        if native := native_folder(self.folders):
            for request in self.users.requests:  # of no item: those are met below
                self._answer_natively(native.name, request.without_items())
            answers[native.name] = partial(self._answer_natively, native.name)
        answers[self.folders[0].name] = self._answer_by_python
        requests = self.users.requests
        found = self._differences(answers, requests)
        changed = [request.changed() for request in requests]
        golden.store(self.users.views, changed)
        found += self._differences(answers, changed)
        golden.store(self.users.views, requests)
        wrong = [str(each) for each in found if not each.is_right]
        return Gate(
            gate=GATE,
            passed=not wrong,
            value=max(each.scores for each in found),
            limit=1.0,
            note=f"{len(wrong)} of {len(found)} answers to golden ids are not those of "
            f"training's code{': ' * bool(wrong)}{'; '.join(wrong[:3])}",
        )

    def check(self, name: str) -> None:
        """Raise ``ArtifactError`` unless ensemble ``name`` answers as training's code."""
        answers = {name: partial(self._answer, name)}
        for difference in self._differences(answers, self.users.requests):
            if not difference.is_right:
                raise ArtifactError(f"not the answer of training's code: {difference}")

    def native_costs(self, old: Sequence[Path]) -> list[Callable[[], float]]:
        """Return what measures the native step of ``old`` steps, and that of these.

        [] where one of the bundles has none, or the old one's cannot answer: another
        release may have rendered it.
        """
        before, now = native_folder(old), native_folder(self.folders)
        if before is None or now is None:
            return []
        try:
            for request in self.users.requests:
                self._answer_natively(before.name, request)
        except (ArtifactError, InferenceServerException):
            return []
        return [partial(self.cpu_ms, before), partial(self.cpu_ms, now)]

    def cpu_ms(self, native: Path) -> float:
        """Return the CPU time in which the native step answers all requests."""
        return sum(self._cpu_ns(native, request) for request in self.users.requests) / 1e6

    def _cpu_ns(self, native: Path, request: GoldenRequest) -> float:
        """Send ``request`` until the native step has answered it itself."""
        for _ in range(_TRIES):  # it hands over what the store does not answer in time
            made = self._infer(native.name, request, (model_names.SCORING_CPU,))
            cost = made[model_names.SCORING_CPU.name]
            if cost is not None:
                return float(cost.sum())
        raise ArtifactError(
            f"{native.name} hands golden requests over {_TRIES} times: `srp4ctr doctor` "
            "says whether its feature store answers"
        )

    def _differences(
        self, answers: Mapping[str, Answer], requests: Sequence[GoldenRequest]
    ) -> list[Difference]:
        """Return how each of ``answers`` to ``requests`` differs from what is expected.

        Items' counters change while users are served. So a score may be anything between
        what the rows from before the answers give, and those from after them. Nothing is
        tried again: a fault may pass once a text is parsed or a row is read.
        """
        before = self.users.read_items()
        self._wait_for_table(next(iter(answers.values())))
        made = [
            (f"{name} for {request.name}", request, answer(request))
            for name, answer in answers.items()
            for request in requests
        ]
        after = self.users.read_items()
        states = [before] if after == before else [before, after]
        return [self._difference(*each, states) for each in made]

    def _wait_for_table(self, answer: Answer) -> None:
        """Return when the server's table of items has been read since this call.

        Twice, for what is published first may have been read before.
        """
        until_s = time.monotonic() + _PATIENCE_S + self.refresh_s
        versions = set[bytes]()
        while len(versions) <= 2:
            if time.monotonic() > until_s:
                raise ArtifactError(
                    "the server's table of items is not refreshed: `srp4ctr doctor` says "
                    "whether its feature store answers"
                )
            made = answer(self.users.requests[0].without_items())
            note: bytes = made["feature_version"].item()
            versions.add(note.rpartition(b"items=")[2])
            time.sleep(_POLL_S)

    def _difference(
        self, of: str, request: GoldenRequest, made: Tensors, states: Sequence[StoredItems]
    ) -> Difference:
        """Return how far ``made`` is from what ``states`` of the store give."""
        expected = [self.users.tensors(request, items) for items in states]
        scored = [self._scores(each.tensors) for each in expected]
        apart = [
            _outside(made[score.name], [scores[score.name] for scores in scored])
            / SCORE_TOLERANCES[score.name]
            for score in SCORES
        ]
        note = ""
        if model_names.ANSWERED_BY.name in made and not _is_in_order(made):
            note = "is not in the order of its scores"
        statuses = [each.item_status.tolist() for each in expected]
        if (of_items := made["item_status"].tolist()) not in statuses:
            note = f"has item_status {of_items}, to be {statuses[0]}"
        if (status := made["status"].item().decode()) != expected[0].status:
            note = f"has status {status!r}, to be {expected[0].status!r}"
        return Difference(of=of, scores=max(apart), note=note)

    def _scores(self, tensors: Tensors) -> Tensors:
        """Return what the graphs make of ``tensors``."""
        specs = schema.MODEL_INPUTS + schema.USER_TENSORS
        typed = {
            s.name: tensors[s.name].astype(s.dtype) for s in specs if s.name in tensors
        }
        return validation.scored(self.client, self.folders, typed)

    def _answer_natively(self, native: str, request: GoldenRequest) -> Tensors:
        """Return the first answer that the step ``native`` computes.

        It hands over what the Python step has not parsed yet. Raises ``ArtifactError``
        if it does so for too long.
        """
        until_s = time.monotonic() + _PATIENCE_S
        wanted = (
            *SCORES,
            *schema.POLICY_TENSORS,
            *schema.RESPONSE_NOTES,
            model_names.ANSWERED_BY,
        )
        while True:
            made = self._infer(native, request, wanted)
            by: bytes = made[model_names.ANSWERED_BY.name].item()
            if by.decode() == model_names.BY_NATIVE:
                return made
            if time.monotonic() > until_s:
                raise ArtifactError(
                    f"{native} hands the golden request of {request.name} to the Python "
                    "step: Triton's log says why; with triton.native = false the Python "
                    "step answers all"
                )
            time.sleep(_POLL_S)

    def _answer(self, name: str, request: GoldenRequest) -> Tensors:
        """Return the answer of the step or ensemble ``name``."""
        return self._infer(name, request, SCORES + schema.RESPONSE_NOTES)

    def _answer_by_python(self, request: GoldenRequest) -> Tensors:
        """Return the answer of the Python step, or of the three steps one after another."""
        first = self.folders[0].name
        if first.startswith(model_names.CLICK_RANKER):
            return self._answer(first, request)
        of_users = schema.USER_TENSORS if self.users.known.user_fields else ()
        wanted = model_names.MODEL_INPUTS + of_users + schema.RESPONSE_NOTES
        made = self._infer(first, request, wanted)
        return {**made, **self._scores(made)}

    def _infer(
        self, name: str, request: GoldenRequest, wanted: Sequence[TensorSpec]
    ) -> dict[str, Any]:
        inputs = request.inputs(self.users.known.candidate_numbers)
        given = infer_inputs(_INPUTS, inputs)
        answer = validation.infer_patiently(self.client, name, given, wanted)
        return {spec.name: answer.as_numpy(spec.name) for spec in wanted}


@contextmanager
def stored_users(
    client: Any, folders: Sequence[Path], features: FeatureConfig, max_candidates: int
) -> Iterator[GoldenIds]:
    """Yield the golden requests of the bundle in ``folders``, whose users are stored.

    Raises ``OutageError`` where the feature store does not answer.
    """
    from srp4ctr.features.online.store import OnlineViews  # Redis: another extra

    folder, views = folders[0], OnlineViews(features)
    known = vocabulary.load(folder / bundle.VOCABULARY_FILE)
    sizes = bundle.read(folder).sizes
    ttl_ms = ttl_ms_of(features.sequence_ttl_days)
    described, others = _items_by_attributes(views, known)
    items = bundle.read_golden_items(folder) or described
    candidates = golden.candidates_of(items, max_candidates)
    requests = golden.golden_requests(
        known, candidates, others, length=sizes["L"], ttl_ms=ttl_ms
    )
    users = GoldenUsers(
        requests=requests,
        views=views,
        known=known,
        partitions=features.partitions,
        lengths=(sizes["L"], sizes["W"]),
        ttl_ms=ttl_ms,
    )
    with golden.stored(views, requests):
        yield GoldenIds(
            client=client,
            folders=folders,
            users=users,
            refresh_s=features.item_refresh_s,
        )


def native_folder(folders: Sequence[Path]) -> Path | None:
    """Return the native step's of the ``folders`` of a bundle; None where it has none."""
    begins = model_names.NATIVE_RANKER
    return next((folder for folder in folders if folder.name.startswith(begins)), None)


def _items_by_attributes(
    views: "OnlineViews", known: Vocabulary
) -> tuple[tuple[str, ...], list[int]]:
    """Return the ids of known items with attributes in the store, and keys of others."""
    if not len(known.item_keys):
        return (), []
    rows = np.linspace(0, len(known.item_keys) - 1, 8 * golden.MOST_ITEMS)
    keys = known.item_keys[np.unique(rows.round().astype(int))].tolist()
    profiles = views.read_profiles(keys)
    described = tuple(profiles[key].item_id for key in keys if key in profiles)
    others = [key for key in keys if key not in profiles]
    return described, others[: golden.MOST_ITEMS]


def _is_in_order(made: Tensors) -> bool:
    """Return whether the positions (1, N) are those of the scores, best first."""
    scores, positions = made[RANKING][0], made["position"][0]
    if sorted(positions.tolist()) != list(range(len(positions))):
        return False
    ordered = np.nan_to_num(scores[np.argsort(positions)], nan=-np.inf)  # padding is last
    return bool((ordered[1:] <= ordered[:-1]).all())


def _outside(made: Floats, expected: Sequence[Floats]) -> float:
    """Return how far ``made`` is outside the range of ``expected``; padding is NaN.

    The range counts twice as wide: what is read of several rows is of no single instant.
    """
    for each in expected:
        if made.shape != each.shape or np.any(np.isnan(made) != np.isnan(each)):
            return float("inf")
    low, high = np.min(expected, axis=0), np.max(expected, axis=0)
    apart = np.maximum(low - made, made - high) - (high - low)
    return max(float(np.nanmax(apart, initial=0.0)), 0.0)
