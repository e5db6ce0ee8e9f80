"""Updates of items ↔ rows of the raw log."""

import json

import msgspec
import pytest

from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import ITEMS_TOPIC
from srp4ctr.streams.raw_log.log_tables import row_of, schema_of, update_of
from tests.builders import an_item
from tests.streams.records import ARecord


@pytest.mark.parametrize("available", [True, False])
def test_an_items_row_says_whether_it_is_available(available: bool) -> None:
    update = msgspec.structs.replace(an_item(genre=["war"]), available=available)
    row = row_of(ARecord(value=encode(update), topic=ITEMS_TOPIC, key=b"i1"))
    assert row is not None
    read = dict(zip(schema_of(ITEMS_TOPIC).names, row, strict=True))
    assert json.loads(read["attributes"]).get("available") == (
        None if available else "false"
    )
    assert update_of(read) == update


def test_a_tombstone_is_an_update_that_deletes_the_item() -> None:
    row = row_of(ARecord(value=None, topic=ITEMS_TOPIC, key=b"i1", offset=7))
    assert row is not None
    read = dict(zip(schema_of(ITEMS_TOPIC).names, row, strict=True))
    deleted = update_of(read)
    assert (deleted.item_id, deleted.attributes, deleted.available) == ("i1", {}, False)
    assert row_of(ARecord(value=None, topic=ITEMS_TOPIC, key=b"\xff")) is None
