"""Items' attributes as of a request: a search in a table against a scan of it."""

import random

import numpy as np
import pyarrow as pa

from srp4ctr.features.tensors.vocabulary import build
from srp4ctr.streams.events.schema import item_key
from srp4ctr.training.dataset import item_attributes

COLOURS = ("red", "blue", "green")
WORDS = build({}, [{"colour": colour} for colour in COLOURS for _ in range(5)])


def row_of(colour: str) -> int:
    return int(WORDS.attribute_rows({"colour": colour})[0])


def updates(*rows: tuple[int, int, str]) -> pa.Table:
    """Return ``rows`` of a key, a time and a colour as the log's table has them."""
    keys, times, colours = zip(*rows, strict=True)
    texts = [f'{{"colour": "{colour}"}}' for colour in colours]
    columns = {"item_key": keys, "visible_at": times, "attributes": texts}
    return pa.table(columns)


def test_an_item_without_a_profile_has_no_attributes() -> None:
    known = item_attributes.of_profiles({item_key("i1"): {"colour": "red"}}, WORDS)
    keys = np.array([item_key("i1"), item_key("i2"), 0])
    assert known.of(keys)[:, 0].tolist() == [row_of("red"), 0, 0]
    assert known.of(keys, np.int64(5))[:, 0].tolist() == [row_of("red"), 0, 0]


def test_a_request_sees_the_newest_update_before_it() -> None:
    draw = random.Random(5)
    rows = sorted(
        (draw.randrange(-9, 9), draw.randrange(10, 60), draw.choice(COLOURS))
        for _ in range(60)
    )
    known = item_attributes.of_updates(updates(*rows), WORDS)
    keys = np.arange(-11, 11)
    for at_ms in range(12, 65):  # from the first update on
        expected = []
        for key in keys.tolist():
            seen = [colour for k, at, colour in rows if k == key and at < at_ms]
            expected.append(row_of(seen[-1]) if seen else 0)
        assert known.of(keys, np.int64(at_ms))[:, 0].tolist() == expected


def test_each_request_of_many_has_its_own_time() -> None:
    known = item_attributes.of_updates(updates((4, 10, "red"), (4, 20, "blue")), WORDS)
    found = known.of(np.array([[4, 5], [4, 0]]), np.array([[20], [21]]))
    assert found[..., 0].tolist() == [[row_of("red"), 0], [row_of("blue"), 0]]


def test_before_all_updates_an_item_has_its_first_one() -> None:
    """Events that are imported are older than the catalogue; later items are new."""
    known = item_attributes.of_updates(
        updates((4, 10, "red"), (4, 20, "blue"), (5, 30, "green")), WORDS
    )
    keys = np.array([4, 5])
    at = {at_ms: known.of(keys, np.int64(at_ms))[:, 0].tolist() for at_ms in (1, 10, 11)}
    assert at[1] == at[10] == [row_of("red"), row_of("green")]
    assert at[11] == [row_of("red"), 0]


def test_where_there_is_no_update_no_item_has_attributes() -> None:
    none = updates((4, 10, "red")).slice(0, 0)
    known = item_attributes.of_updates(none, WORDS)
    assert known.of(np.array([[4, 0]]), np.array([[9]])).tolist() == [[[0], [0]]]
