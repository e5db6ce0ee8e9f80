"""Pseudonyms: the same id, the same pseudonym, and no id on Kafka."""

import hashlib
import hmac
import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import decode, encode
from srp4ctr.streams.events.pseudonymization import Pseudonyms, read_pseudonyms
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, SYNTHETIC_USERS
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from tests.builders import NOON_MS, a_click, a_forget, a_profile, an_impression, an_item

KEY = b"k" * 32
NAMES = Pseudonyms(KEY)


def test_a_pseudonym_is_what_the_page_says_it_is() -> None:
    expected = hmac.new(KEY, "zoë".encode(), hashlib.sha256).hexdigest()[:32]
    assert NAMES.of("zoë") == f"p-{expected}"
    assert NAMES.of("zoë") != Pseudonyms(b"j" * 32).of("zoë")
    assert len({NAMES.of(str(number)) for number in range(10_000)}) == 10_000


def test_a_pseudonym_is_replaced_like_any_id() -> None:
    """Who calls oneself by another's pseudonym must not become that other."""
    assert NAMES.of(NAMES.of("ann")) != NAMES.of("ann")


def test_a_probe_keeps_its_name_and_an_item_has_no_user() -> None:
    assert NAMES.of(f"{SYNTHETIC_USERS}1") == f"{SYNTHETIC_USERS}1"
    assert NAMES.hide(an_item()) == an_item()


def test_events_differ_by_their_user_alone() -> None:
    hidden = NAMES.hide(an_impression(score=0.5))
    assert hidden == an_impression(score=0.5, user_id=NAMES.of("u1"))
    described = NAMES.hide(a_profile(age="34"))
    assert described == msgspec.structs.replace(a_profile(age="34"), user_id=NAMES.of("u1"))


def test_a_key_is_read_without_its_line_break_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY + b"\n")
    pseudonyms = read_pseudonyms(str(tmp_path / "key"))
    assert pseudonyms == NAMES
    assert "kkk" not in repr(pseudonyms)
    assert read_pseudonyms("") is None


@pytest.mark.parametrize("content", [None, b"short-secret", b""])
def test_a_key_that_is_none_is_named_by_its_file(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="pseudonym_key_file") as error:
        read_pseudonyms(str(path))
    assert str(path) in str(error.value)
    assert "short-secret" not in str(error.value)


@pytest.mark.kafka
def test_no_id_reaches_kafka(kafka: KafkaConfig) -> None:
    unknown = json.loads(encode(a_click(user_id="ann"))) | {"email": "ann@example"}
    with EventPublisher(kafka, NAMES) as publisher:
        publisher.publish(an_impression(user_id="ann"))
        publisher.publish(a_forget(user_id="ann"))
        publisher.publish_raw(json.dumps(unknown).encode())
        publisher.publish_raw(b'{"type": "purchase", "user_id": "ann"}', key=b"ann")
    assert (publisher.published, publisher.withheld) == (3, 1)
    records = read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert len(records) == 3
    for record in records:
        assert b"ann" not in (record.value or b"") + (record.key or b"")
        event = decode(record.value, NOON_MS * 2)
        assert event.user_id == NAMES.of("ann")  # type: ignore[union-attr]


@pytest.mark.kafka
def test_a_file_is_published_under_pseudonyms(
    kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "mine.jsonl").write_bytes(encode(a_click(user_id="ann")) + b"\nann\n")
    monkeypatch.setenv("SRP4CTR_KAFKA__BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("SRP4CTR_STREAMS__PSEUDONYM_KEY_FILE", "key")
    done = CliRunner().invoke(app, ["events", "publish", "mine.jsonl"])
    published = f"published 1 messages to {kafka.bootstrap} under pseudonyms"
    assert f"{published}, 1 bad lines withheld" in done.output
    (record,) = read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert record.key == NAMES.of("ann").encode()
