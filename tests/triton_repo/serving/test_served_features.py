"""No skew: Triton serves the tensors that the raw log gives at the same versions.

A stream is replayed through the worker while requests are made, and the answers of the step
``click_ranker`` are kept. Then the same tensors are computed from the log only, at the
versions that each answer names. The age of those versions is measured separately.
"""

import itertools
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput

from srp4ctr.client.codec import infer_inputs
from srp4ctr.embedded import ports, triton_server
from srp4ctr.features.tensors import schema, vocabulary
from srp4ctr.features.tensors.item_fields import MIN_ATTRIBUTE_ITEMS
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    Event,
    ItemUpdate,
    item_key,
)
from srp4ctr.streams.raw_log.delta_tables import covered_offsets, dataset
from srp4ctr.streams.state.counters import HALF_LIVES_H
from srp4ctr.streams.state.sequences import EXPOSURE_LENGTH
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import TritonConfig
from tests.live_stream import LiveStream, live_stream
from tests.triton_repo.bundles import make_bundle_in, promote
from tests.triton_repo.conftest import Server
from tests.triton_repo.offline import OfflineLog, Request, Tensors, Versions, versions_in
from tests.triton_repo.tiny_graphs import L
from tests.triton_repo.visits import COLOURS, ITEMS, USERS, now_ms, slates, traffic

pytestmark = [pytest.mark.stack, pytest.mark.triton]

WORDS = vocabulary.build(  # two of the items it does not know
    {item_key(item): 1 for item in ITEMS[:6]},
    [{"colour": colour} for colour in COLOURS] * MIN_ATTRIBUTE_ITEMS,
)
STEPS, REQUESTS_A_STEP, QUIET_REQUESTS = 4, 40, 5
SHORTEST_HALF_LIFE_MS = min(HALF_LIVES_H) * 3_600_000
SHARES = WORDS.candidate_columns.layout.parts["item_click_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The features that the step ``click_ranker`` made of the ids."""

    request: Request
    versions: Versions
    status: str
    tensors: Tensors


@dataclass(slots=True, kw_only=True)
class Step:
    """Requests during which no item's counters or attributes changed.

    All items' total did, but during the first ``QUIET_REQUESTS``.
    """

    committed: Mapping[int, int]
    """The next offset of each partition that the item table stands for."""
    known_ms: int
    answers: list[Answer] = field(default_factory=list)
    ended: dict[int, int] = field(default_factory=dict)
    """The next offset of each partition after the last request."""
    ended_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A stream, and a Triton that serves what it stores."""

    live: LiveStream
    client: InferenceServerClient
    profiles: Any
    """``OnlineViews``: Feast is imported late."""

    def rank(self, user_id: str, items: Sequence[str], page: str = "home") -> Answer:
        """Return the features of a user and ``items``, now."""
        request = Request(
            user_id=user_id,
            item_ids=tuple(items),
            at_ms=now_ms(),
            context={"page": page, "utc_offset_minutes": "330" if page == "home" else "0"},
        )
        given = {
            "user_id": np.array([[user_id]], dtype=object),
            "item_ids": np.array([request.item_ids], dtype=object),
            "request_time_ms": np.array([[request.at_ms]]),
            "context": np.array([[json.dumps(request.context)]], dtype=object),
        }
        specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
        step = model_names.step_name(model_names.CLICK_RANKER, "v1")
        names = [spec.name for spec in model_names.MODEL_INPUTS + schema.RESPONSE_NOTES]
        wanted = [InferRequestedOutput(name) for name in names]
        answer = self.client.infer(step, infer_inputs(specs, given), outputs=wanted)
        tensors = {name: answer.as_numpy(name) for name in names}
        assert tensors.pop("model_version").item() == b"v1"
        assert tensors.pop("calibrated").item() == 1
        return Answer(
            request=request,
            versions=versions_in(tensors.pop("feature_version").item().decode()),
            status=tensors.pop("status").item().decode(),
            tensors=tensors,
        )

    def settle(self, published: Sequence[Event]) -> Step:
        """Return when the item table stands for all of ``published``."""
        committed = self.live.wait_until_stored()
        updates = [event for event in published if isinstance(event, ItemUpdate)]
        until(lambda: all(map(self._is_stored, updates)))
        known_ms = now_ms()
        requested_ms = now_ms()
        until(lambda: self.rank("nobody", ITEMS).versions.items > requested_ms)
        return Step(committed=committed, known_ms=known_ms)

    def _is_stored(self, update: ItemUpdate) -> bool:
        key = item_key(update.item_id)
        profiles = self.profiles.read_profiles([key])
        return key in profiles and profiles[key].updated_at_ms >= update.occurred_at


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    from srp4ctr.features.online.store import OnlineViews

    folder = tmp_path_factory.mktemp("skew")
    with (
        live_stream(folder, L) as live,
        ports.reserved_ports(2) as (grpc, metrics),
    ):
        plan = triton_server.ServerPlan(
            repository=folder / "triton",
            redis=live.features.redis,
            registry=live.features.registry,
            grpc_port=grpc,
            metrics_port=metrics,
        )
        triton = TritonConfig(
            grpc=f"{ports.HOST}:{grpc}",
            repository=str(plan.repository),
            instances=1,  # each has a table of its own, as old as its own last turn
            native=False,
        )
        server = Server(folder, plan, triton, live.features)
        server.start()
        try:
            bundle = make_bundle_in(folder / "bundles")("v1", mark=1.0, words=WORDS)
            promote(bundle, triton, live.features)
            with InferenceServerClient(triton.grpc) as client:
                profiles = OnlineViews(live.features)
                yield Serving(live=live, client=client, profiles=profiles)
        finally:
            server.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def steps(serving: Serving) -> list[Step]:
    """Replay the stream and keep every answer."""
    rng, found = random.Random(11), []
    for number in range(STEPS):
        published = list(slates(number, rng))
        serving.live.publish(published)
        step = serving.settle(published)
        step.answers.extend(a_request(serving, rng) for _ in range(QUIET_REQUESTS))
        with traffic(serving.live, number):
            for _ in range(REQUESTS_A_STEP - QUIET_REQUESTS):
                step.answers.append(a_request(serving, rng))
                time.sleep(0.02)
        step.ended.update(serving.live.wait_until_stored())
        step.ended_ms = now_ms()
        found.append(step)
    return found


def a_request(serving: Serving, rng: random.Random) -> Answer:
    user, page = rng.choice([*USERS, "nobody"]), rng.choice(["home", "search"])
    return serving.rank(user, rng.sample(ITEMS, 4), page)


@pytest.fixture(scope="module")
def log(serving: Serving, steps: Sequence[Step]) -> OfflineLog:
    """The log when it holds all that was published."""
    features = serving.live.features
    ends, log_dir = serving.live.wait_until_stored(), Path(features.log_dir)
    for partition, end in ends.items():
        place = (log_dir, BEHAVIOR_EVENTS_TOPIC, partition)
        until(lambda place=place, end=end: covered_offsets(*place)[1] == end - 1)  # type: ignore[misc]
    assert dataset(log_dir, ITEMS_TOPIC).count_rows()
    return OfflineLog(
        log_dir=log_dir,
        words=WORDS,
        length=L,
        exposure_length=EXPOSURE_LENGTH,
        ttl_days=features.sequence_ttl_days,
    )


def test_every_served_value_equals_that_of_the_log(
    steps: Sequence[Step], log: OfflineLog
) -> None:
    compared = 0
    for step in steps:
        for number, answer in enumerate(step.answers):
            request, versions = answer.request, answer.versions
            expected = log.user_tensors(request, versions) | log.item_tensors(
                request, versions, step.committed, step.known_ms
            )
            if number >= QUIET_REQUESTS:  # by the total then, or by one before the end
                ended = log.item_tensors(request, versions, step.ended, step.known_ms)
                shares = answer.tensors["candidate_features"][..., SHARES]
                most = expected["candidate_features"][..., SHARES]
                least = ended["candidate_features"][..., SHARES]
                # The total of the end has decayed until then, and is not turned back.
                halvings = (step.ended_ms - request.at_ms) / SHORTEST_HALF_LIFE_MS
                assert (shares <= most + 1e-6).all()
                assert (shares >= least - math.log(2.0) * halvings - 1e-6).all()
                most[...] = shares
            assert expected.keys() == answer.tensors.keys()
            for name, tensor in expected.items():
                np.testing.assert_allclose(
                    answer.tensors[name], tensor, rtol=1e-6, atol=1e-6, err_msg=name
                )
                compared += tensor.size
            assert answer.status == log.status(request, versions)
    assert compared > STEPS * REQUESTS_A_STEP * 100


def test_at_other_versions_the_log_has_other_values(
    steps: Sequence[Step], log: OfflineLog
) -> None:
    differ = {"user": 0, "exposures": 0, "items": 0}
    for before, step in itertools.pairwise(steps):
        for answer in step.answers:
            request, versions = answer.request, answer.versions
            older = replace(versions, user=versions.user - 30)
            user = log.user_tensors(request, older)["history_behavior_codes"]
            differ["user"] += (user != answer.tensors["history_behavior_codes"]).any()
            unshown = replace(versions, user=versions.user - 100)
            others = {
                "exposures": (unshown, step.committed, step.known_ms),
                "items": (versions, before.committed, step.known_ms),
            }
            for name, other in others.items():
                made = log.item_tensors(request, *other)["candidate_features"]
                gap = made - answer.tensors["candidate_features"]
                differ[name] += np.abs(gap).max() > 1e-3
    assert min(differ.values()) > REQUESTS_A_STEP


def test_the_answers_were_not_all_alike(steps: Sequence[Step]) -> None:
    answers = [answer for step in steps for answer in step.answers]
    statuses = {answer.status for answer in answers}
    assert statuses >= {"ok", "cold_user", "stale_sequence"}
    seen = {(answer.request.user_id, answer.versions.user) for answer in answers}
    assert len(seen) > STEPS * len(USERS) * 2  # they changed meanwhile
    features = np.concatenate(
        [answer.tensors["candidate_features"][0] for answer in answers]
    )
    assert (np.ptp(features, axis=0) > 0).all()


def test_the_age_of_the_served_versions_is_measured(
    steps: Sequence[Step],
    log: OfflineLog,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    behind = [
        log.behind_ms(answer.request, answer.versions)
        for step in steps
        for answer in step.answers
    ]
    for share in (50, 99):
        figure = float(np.percentile(behind, share))
        record_testsuite_property(f"served_features_behind_ms_p{share}", figure)
        sys.stderr.write(f"served features were behind by {figure:.0f} ms (p{share})\n")
    assert min(behind) == 0
