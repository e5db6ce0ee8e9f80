"""Calls of a server with a native step, compared with those of its Python step."""

import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from srp4ctr.client.codec import infer_inputs
from srp4ctr.features.tensors import item_fields, schema, vocabulary
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.streams.events.schema import ItemUpdate, item_key
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.triton_repo import model_names
from tests.builders import NOON_MS, a_behavior, a_click, a_profile, an_impression
from tests.triton_repo.conftest import Server

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
    candidate_numbers=("price", "Weg in km – ü"),
)
STEP = model_names.step_name(model_names.CLICK_RANKER, "v1")
NO_ATTRIBUTES = ItemStatus.NO_ATTRIBUTES
OUTPUTS = [
    *(spec.name for spec in schema.SCORE_TENSORS + schema.RANKING_TENSORS),
    *(spec.name for spec in schema.POLICY_TENSORS + schema.RESPONSE_NOTES),
    *(spec.name for spec in schema.NUMBER_OUTPUTS),
]
CONTEXTS = [
    "",
    "{}",
    '{"page": "home"}',
    '{"page": "home", "hour": "7.5"}',
    '{"utc_offset_minutes": "330"}',
    '{"page": "ü"}',
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


def numbered(tensors: dict[str, Any], names: list[str], numbers: Any) -> dict[str, Any]:
    """Return ``tensors`` with ``numbers`` (N, K) of the items of each user."""
    rows, encoded = len(tensors["user_id"]), [name.encode() for name in names]
    given = np.asarray(numbers, np.float32).reshape(-1, len(names))
    return {
        **tensors,
        "candidate_numbers": np.stack([given] * rows),
        "candidate_number_names": np.array([encoded] * rows, object).reshape(rows, -1),
    }


def answer(
    client: InferenceServerClient, model: str, tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the outputs of a call, or its error."""
    specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS + schema.NUMBER_INPUTS
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
    return int(
        next(metric for metric in metrics(server) if metric.startswith(name)).split()[1]
    )


def counted(server: Server) -> Counter[str]:
    """Return our metrics' values, added up over their labels."""
    found: Counter[str] = Counter()
    for line in metrics(server):
        if line.startswith("srp4ctr_"):
            name, value = line.rsplit(" ", 1)
            found[name.partition("{")[0]] += round(float(value))
    return found


def outcomes(server: Server) -> Counter[str]:
    """Return how many calls of the native step had which outcome, of all versions."""
    found: Counter[str] = Counter()
    for line in metrics(server):
        if line.startswith("srp4ctr_native_calls{"):
            name, value = line.rsplit(" ", 1)
            found[name.partition('outcome="')[2].partition('"')[0]] += round(float(value))
    return found


def mismatches(server: Server) -> Counter[str]:
    """Return how often each output differed."""
    found: Counter[str] = Counter()
    for line in metrics(server):
        if line.startswith("srp4ctr_native_mismatches{"):
            name, value = line.rsplit(" ", 1)
            found[name.partition('output="')[2].partition('"')[0]] += round(float(value))
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
