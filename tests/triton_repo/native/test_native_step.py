"""The native step answers as the Python step does, and hands over what it does not know."""

import itertools
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from srp4ctr.client.codec import infer_inputs
from srp4ctr.features.tensors import item_fields, schema, vocabulary
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.streams.events.schema import ItemUpdate, item_key
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.triton_repo import model_names
from tests.builders import NOON_MS, a_behavior, a_click, a_profile, an_impression, an_item
from tests.features.stored import store_events
from tests.fuzzing import examples
from tests.triton_repo.bundles import promote
from tests.triton_repo.conftest import Server
from tests.triton_repo.real_bundles import a_bundle
from tests.triton_repo.tiny_graphs import L

pytestmark = [pytest.mark.stack, pytest.mark.triton]

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
ITEMS = [f"item-{number}" for number in range(9)]  # of which the last ones are unknown
USERS = ["ann", "bea", "cid", "dan", "eve", "nobody", "", "Zoë 漢字"]
WORDS = replace(
    vocabulary.build(
        {item_key(item): 9 for item in ITEMS[:6]},
        [{"colour": colour, "tags": (colour, "all")} for colour in ("red", "blue")] * 9,
    ),
    user_fields=item_fields.build([{"town": town} for town in ("Ulm", "Bonn")] * 6),
    context_numbers=("hour",),
)
STEP = model_names.step_name(model_names.CLICK_RANKER, "v1")
NO_ATTRIBUTES = ItemStatus.NO_ATTRIBUTES
OUTPUTS = [
    *(spec.name for spec in schema.SCORE_TENSORS + schema.RANKING_TENSORS),
    *(spec.name for spec in schema.POLICY_TENSORS + schema.RESPONSE_NOTES),
]
CONTEXTS = [
    *("", "{}", '{"page": "home"}', '{"page": "home", "hour": "7.5"}'),
    *('{"utc_offset_minutes": "330"}', '{"page": "ü"}'),
]


def events() -> Iterator[Any]:
    """Yield what the users have done; the times of cid's need eight bytes."""
    for place, user in enumerate(USERS[:3]):
        for number in range(2 + 3 * place):
            age_ms = number * (60 * DAY_MS if user == "cid" else HOUR_MS)
            at_ms = NOON_MS - age_ms - 1000
            item = ITEMS[(number + place) % len(ITEMS)]
            request = f"{user}-{number}"
            yield an_impression(item, at_ms=at_ms, user_id=user, request_id=request)
            if number % 2:
                yield a_click(item, at_ms=at_ms + 1, user_id=user, request_id=request)
            yield a_behavior(item, at_ms=at_ms + 2, user_id=user, value=1.5 * number)
    yield a_behavior(ITEMS[0], at_ms=NOON_MS - 200 * DAY_MS, user_id="dan")
    yield an_impression(ITEMS[1], at_ms=NOON_MS - 5, user_id="eve")
    for user, town in (("ann", "Ulm"), ("bea", "Bonn"), ("eve", "Rome")):
        yield a_profile(user_id=user, town=town, at_ms=NOON_MS - DAY_MS)


@pytest.fixture(scope="module")
def client(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InferenceServerClient]:
    """A client of a server with a native step, whose users and items are stored."""
    from srp4ctr.features.online.store import FeatureStoreSink

    sink = FeatureStoreSink(server.features)
    store_events(sink, sorted(events(), key=lambda e: e.occurred_at), length=L)
    described = [an_item(item, at_ms=NOON_MS, colour="red") for item in ITEMS[:4]]
    sink.write_profiles([profile_of(update) for update in described])
    source = a_bundle(tmp_path_factory.mktemp("bundles") / "v1", WORDS)
    triton = replace(server.triton, max_candidates=12)
    promote(source, triton, server.features)
    with InferenceServerClient(server.triton.grpc) as found:
        yield found


def profile_of(update: ItemUpdate) -> ItemProfile:
    """Return the row of an item that was updated so."""
    return ItemProfile(
        item_key=item_key(update.item_id),
        item_id=update.item_id,
        attributes=update.kept_attributes(),
        updated_at_ms=update.occurred_at,
    )


def sent(
    users: list[str], items: list[list[str]], at_ms: int | None, context: str | None
) -> dict[str, Any]:
    """Return the tensors of a call; ``surrogateescape`` for bytes that are no text."""

    def texts(given: list[Any]) -> Any:
        encoded = [
            [part.encode("utf-8", "surrogateescape") for part in row] for row in given
        ]
        return np.array(encoded, dtype=object)

    made = {"user_id": texts([[user] for user in users]), "item_ids": texts(items)}
    if at_ms is not None:
        made["request_time_ms"] = np.full((len(users), 1), at_ms)
    if context is not None:
        made["context"] = texts([[context]] * len(users))
    return made


def answer(
    client: InferenceServerClient, model: str, tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the outputs of a call, or its error."""
    specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
    wanted = [InferRequestedOutput(name) for name in OUTPUTS]
    try:
        found = client.infer(model, infer_inputs(specs, dict(tensors)), outputs=wanted)
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return {name: found.as_numpy(name) for name in OUTPUTS}


def check_alike(client: InferenceServerClient, tensors: Mapping[str, Any]) -> None:
    """Compare the native step's answer with the Python step's, some time apart."""
    found = answer(client, model_names.RANK_CLICKS, tensors)
    expected = answer(client, STEP, tensors)
    assert found.keys() == expected.keys(), (found, expected)
    for name, value in expected.items():
        if isinstance(value, str):
            assert found[name].replace("in ensemble 'rank_clicks', ", "") == value
        elif name == "feature_version":  # the table of items may have moved on
            both = (found[name], value)
            users = [[e.split(b"items=")[0] for e in each[:, 0]] for each in both]
            assert users[0] == users[1]
        elif value.dtype.kind == "f":
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
        else:
            assert found[name].tolist() == value.tolist(), name


def metrics(server: Server) -> list[str]:
    """Return the lines of Triton's metrics."""
    url = f"http://127.0.0.1:{server.plan.metrics_port}/metrics"
    with urllib.request.urlopen(url) as opened:
        lines: list[str] = opened.read().decode().splitlines()
    return lines


def python_calls(server: Server) -> int:
    """Return how many calls the Python step has answered."""
    name = f'nv_inference_request_success{{model="{STEP}",version="1"}} '
    return int(next(each for each in metrics(server) if each.startswith(name)).split()[1])


def counted(server: Server) -> Counter[str]:
    """Return our metrics' values, added up over their labels."""
    found: Counter[str] = Counter()
    for line in metrics(server):
        if line.startswith("srp4ctr_"):
            name, value = line.rsplit(" ", 1)
            found[name.partition("{")[0]] += round(float(value))
    return found


def is_native(server: Server, client: InferenceServerClient, tensors: Any) -> bool:
    """Return whether a call is answered without the Python step; one a second is not."""
    before = python_calls(server)
    for _ in range(3):
        answer(client, model_names.RANK_CLICKS, tensors)
    return python_calls(server) - before < 2


def wait_until_native(server: Server, client: InferenceServerClient, tensors: Any) -> None:
    """Return when such calls are answered natively, fail where they never are."""
    until_s = time.monotonic() + 20.0
    while not is_native(server, client, tensors):
        assert time.monotonic() < until_s, "it never is"
        time.sleep(0.1)


odd_texts = st.sampled_from(
    ["", "\udcff\udcfe", "\0", "x" * 256, "x" * 257, "é" * 130, "é" * 256, "item-1 "]
)
item_lists = st.lists(
    st.sampled_from([*ITEMS, "", "never stored"]) | st.text(max_size=5), max_size=13
)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """Return a call of one or two users, mostly as callers send them."""
    rows = draw(st.sampled_from([1, 1, 1, 2]))
    users = [draw(st.sampled_from(USERS) | odd_texts) for _ in range(rows)]
    items = draw(item_lists)
    if draw(st.integers(0, 9)) == 0:
        items.append(draw(odd_texts))
    times = st.sampled_from([None, NOON_MS, NOON_MS + 90 * DAY_MS, 0, -1, 10**15])
    at_ms = draw(times | st.integers(NOON_MS - DAY_MS, NOON_MS + DAY_MS))
    odd_contexts = st.sampled_from(["{", "[]", '{"a": 1}', '{"hour": "x"}', "\udcff"])
    context = draw(st.none() | st.sampled_from(CONTEXTS) | odd_contexts)
    if at_ms in (None, 0):  # each step would read the clock
        at_ms = NOON_MS
    return sent(users, [items] * rows, at_ms, context)


@settings(
    deadline=None,
    max_examples=examples(150),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tensors=calls())
def test_any_call_is_answered_as_the_python_step_answers_it(
    client: InferenceServerClient, tensors: dict[str, Any]
) -> None:
    check_alike(client, tensors)
    check_alike(client, tensors)  # the first one may have taught something


@pytest.mark.parametrize("user", [*USERS, "someone new"])
def test_calls_of_known_texts_need_no_python(
    server: Server, client: InferenceServerClient, user: str
) -> None:
    for context, items in itertools.product(CONTEXTS[1:4], (ITEMS, [*ITEMS[::-1], ""])):
        tensors = sent([user], [items], NOON_MS, context)
        wait_until_native(server, client, tensors)
        check_alike(client, tensors)
    without = {name: tensors[name] for name in ("user_id", "item_ids")}
    wait_until_native(server, client, without)
    found = answer(client, model_names.RANK_CLICKS, without)
    assert np.isfinite(found["click_probability"][0, :-1]).all()


def test_a_table_of_items_that_grows_is_followed(
    server: Server, client: InferenceServerClient
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    many = [f"more-{number}" for number in range(100)]
    tensors = sent(["bea"], [[*ITEMS, "more-7"]], NOON_MS, None)
    wait_until_native(server, client, tensors)
    updates = [an_item(item, at_ms=NOON_MS, colour="blue") for item in many]
    sink = FeatureStoreSink(server.features)
    sink.write_profiles([profile_of(update) for update in updates])
    until_s = time.monotonic() + 20.0
    while answer(client, STEP, tensors)["item_status"][0, -1] & NO_ATTRIBUTES:
        assert time.monotonic() < until_s
        time.sleep(0.1)
    check_alike(client, tensors)
    wait_until_native(server, client, tensors)
    check_alike(client, tensors)


def test_the_store_may_close_connections(
    server: Server, client: InferenceServerClient
) -> None:
    host, _, port = server.features.redis.partition(":")
    tensors = sent(["bea"], [ITEMS], NOON_MS, None)
    wait_until_native(server, client, tensors)
    Redis(host=host, port=int(port)).client_kill_filter(_type="normal", skipme=True)
    found = answer(client, model_names.RANK_CLICKS, tensors)
    assert found["status"].item() == b"ok"
    wait_until_native(server, client, tensors)


def test_native_answers_are_counted_with_those_of_python(
    server: Server, client: InferenceServerClient
) -> None:
    tensors = sent(["ann"], [[*ITEMS[:3], ""]], NOON_MS, None)
    wait_until_native(server, client, tensors)
    names = {
        "srp4ctr_candidates": 3,
        "srp4ctr_answers": 1,
        "srp4ctr_request_status": 1,
        "srp4ctr_table_reads": 1,
        "srp4ctr_feature_age": 1,
        "srp4ctr_item_status": 3,
    }
    time.sleep(2.1)  # the Python step counts once a second
    before = counted(server)
    for _ in range(20):
        answer(client, model_names.RANK_CLICKS, tensors)
    time.sleep(2.1)
    after = counted(server)
    for name, each in names.items():
        assert after[name] - before[name] >= 20 * each, name
    assert after["srp4ctr_candidates"] - before["srp4ctr_candidates"] <= 63
