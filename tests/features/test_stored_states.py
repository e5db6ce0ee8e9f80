"""Encoder states in the online store: whose they are, how exact, and when they are gone."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.stored_states import (
    States,
    StateStore,
    StoredStates,
    digest_of,
    packed,
    unpacked,
)

SIZES = {"E": 2, "S": 11, "D": 4}
VALID = np.array([1, *[0] * 6, *[1] * 4], dtype=np.float32)
ENCODER, HISTORY = b"an encoder", b"a history"


def states_of(scale: float = 1.0) -> States:
    drawn = np.random.default_rng(0)
    keys, values = (drawn.normal(size=(1, 2, 11, 4)) * scale for _ in range(2))
    return {
        "layer_keys": (keys * VALID[:, None]).astype(np.float32),
        "layer_values": (values * VALID[:, None]).astype(np.float32),
        "last_states": (values[:, 0] * VALID[:, None]).astype(np.float32),
        "state_mask": VALID[None],
    }


def value_of(states: States, history: bytes = HISTORY) -> bytes:
    value = packed(states, digest_of(ENCODER, history))
    assert value is not None
    return value


def test_states_come_back_in_half_precision_without_their_padding() -> None:
    states = states_of()
    value = value_of(states)
    assert len(value) == 16 + 8 + 2 + 2 * 5 * (2 * 2 * 4 + 4)
    found = unpacked(value, digest_of(ENCODER, HISTORY), SIZES)
    assert found is not None
    for name, array in states.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("encoder", "history"), [(b"another", HISTORY), (ENCODER, b"moved on")]
)
def test_another_encoder_and_another_history_do_not_meet_them(
    encoder: bytes, history: bytes
) -> None:
    assert unpacked(value_of(states_of()), digest_of(encoder, history), SIZES) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value[:-1],
        lambda value: value + b"\0",
        lambda value: value[:20],
        lambda value: value[:-3] + b"\x7e" + value[-2:],
        lambda value: value[:24] + bytes(2) + value[26:],
        lambda _: b"",
    ],
)
def test_a_value_that_was_damaged_is_none(damage: Callable[[bytes], bytes]) -> None:
    value = damage(value_of(states_of()))
    assert unpacked(value, digest_of(ENCODER, HISTORY), SIZES) is None


def test_what_half_precision_cannot_hold_is_not_stored() -> None:
    assert packed(states_of(scale=1e6), digest_of(ENCODER, HISTORY)) is None


def test_a_value_stays_until_it_is_removed_or_nobody_renews_it(
    store_config: FeatureConfig,
) -> None:
    store = StateStore(store_config, 5.0)
    store.write({"states-a": b"1", "states-b": b"2"}, keep_s=60.0)
    store.write({"states-a": b"3"}, keep_s=0.05)
    store.remove(["states-b"])
    time.sleep(0.2)
    store.write({"states-ü": b"4"}, keep_s=60.0)
    assert store.read(["states-a", "states-b", "states-ü"]) == [None, None, b"4"]


def test_a_key_of_another_s_is_no_value_and_spoils_no_other(
    store_config: FeatureConfig,
) -> None:
    store = StateStore(store_config, 5.0)
    store.write({"states-fine": b"1"}, keep_s=60.0)
    store._client().hset("srp4ctr:states:states-odd", "a", "b")
    assert store.read(["states-odd", "states-fine"]) == [None, b"1"]


def test_a_store_that_is_away_is_asked_once_a_second() -> None:
    asked: list[Sequence[str]] = []
    now_s = 0.0

    def read(users: Sequence[str]) -> Sequence[bytes | None]:
        asked.append(users)
        if now_s < 2.0:
            raise ConnectionError("away")
        return [value_of(states_of())] * len(users)

    stored = StoredStates(read, ENCODER, SIZES, clock=lambda: now_s)
    for now_s in (0.0, 0.5, 0.9, 1.1):  # noqa: B007
        assert not stored.find({HISTORY: "u"})
    assert len(asked) == 2
    now_s = 2.2
    assert stored.find({HISTORY: "u", b"another": "v"}).keys() == {HISTORY}


def test_who_says_not_who_asks_costs_no_read() -> None:
    stored = StoredStates(lambda _: pytest.fail("read"), ENCODER, SIZES)
    assert not stored.find({})
