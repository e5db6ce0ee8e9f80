"""The native step answers as the Python step does, and hands over what it does not know."""

import itertools
import re
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import InferenceServerClient

from srp4ctr.features.columns import number_columns
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.serving import serving_metrics
from tests.builders import NOON_MS, an_item
from tests.fuzzing import examples
from tests.triton_repo.conftest import Server
from tests.triton_repo.native.native_calls import (
    CONTEXTS,
    DAY_MS,
    ITEMS,
    NO_ATTRIBUTES,
    STEP,
    USERS,
    WORDS,
    answer,
    check_alike,
    counted,
    metrics,
    numbered,
    profile_of,
    sent,
    wait_until_native,
)

pytestmark = [pytest.mark.stack, pytest.mark.triton]


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
    made = sent(users, [items] * rows, at_ms, context)
    if not items or draw(st.booleans()):
        return made
    names = draw(st.lists(st.sampled_from([*WORDS.candidate_numbers, "other"]), max_size=3))
    count = len(items) + draw(st.sampled_from([0, 0, 0, 0, 1]))
    number = st.floats(width=32) | st.sampled_from([0.0, 1.0, 80.5])
    numbers = [draw(number) for _ in range(count * len(names))]
    return numbered(made, names, numbers) if names else made


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


def test_numbers_of_known_texts_need_no_python(
    server: Server, client: InferenceServerClient
) -> None:
    price, way = WORDS.candidate_numbers
    plain = sent(["bea"], [[*ITEMS[:5], ""]], NOON_MS, None)
    numbers = [[80.5, 1], [np.nan, 2], [60, 3], [80.5, np.inf], [7, np.nan], [1, 1]]
    for names in ([price, way], ["other", price], [way, way]):
        tensors = numbered(plain, names, numbers)
        wait_until_native(server, client, tensors)
        check_alike(client, tensors)
    found = answer(client, model_names.RANK_CLICKS, numbered(plain, [price, way], numbers))
    assert [name.decode() for name in found["number_column_names"][0]] == [
        *number_columns([price, way])
    ]
    expected = [[80.5, 0.625, 23.5, 0, 0], [0, 0.5, 0, 0, 1], [60, 0.25, 3, 0, 0]]
    np.testing.assert_allclose(found["number_columns"][0, :3, :5], expected)
    assert not found["number_columns"][0, 5].any()  # it pads
    without = answer(client, model_names.RANK_CLICKS, plain)
    assert without["number_columns"][0, 0].tolist() == [0, 0.5, 0, 0, 1] * 2
    assert without["click_probability"].tolist() != found["click_probability"].tolist()


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


def test_native_counters_are_those_of_the_python_step(
    server: Server, client: InferenceServerClient
) -> None:
    """A bound or status that is spelt otherwise would be a series of its own."""
    wait_until_native(server, client, sent(["ann"], [ITEMS], NOON_MS, None))
    folder = server.plan.repository / STEP
    expected = set(serving_metrics.keys(STEP, "v1", folder))
    found: dict[str, set[tuple[str, ...]]] = {"python": set(), "native": set()}
    for line in metrics(server):
        if name := re.match(r"(srp4ctr_(?!native_)\w+)\{(.*)\} ", line):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name[2]))
            model, source = labels.pop("model"), labels.pop("source", "python")
            found[source].add((name[1], model, "".join(labels.values())))
    assert found["python"] == expected
    assert found["native"] < expected


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
