"""The intake on a real broker: each answer says what is in Kafka."""

import logging
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest

from srp4ctr.embedded.ports import HOST
from srp4ctr.errors import MistakeError
from srp4ctr.streams.config import IntakeConfig, KafkaConfig
from srp4ctr.streams.events.codec import BACKFILL_HEADER, decode, encode
from srp4ctr.streams.events.pseudonymization import Pseudonyms
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    REJECTED_TOPIC,
    Event,
    now_ms,
)
from srp4ctr.streams.intake import server
from srp4ctr.streams.intake.server import serve
from srp4ctr.streams.intake.tokens import Tokens
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from tests.builders import NOON_MS, a_behavior, a_click, an_impression, an_item
from tests.certificates import make_certificates
from tests.streams.intake.service import TOKEN, Service, running

pytestmark = pytest.mark.kafka
ALL = {"rejected": 0, "unacknowledged": 0, "events": []}


@pytest.fixture
def service(kafka: KafkaConfig) -> Iterator[Service]:
    with running(kafka) as made:
        yield made


def lines(*events: Event) -> bytes:
    return b"\n".join(map(encode, events))


def events_on(kafka: KafkaConfig, topic: str) -> list[Any]:
    return [decode(r.value, now_ms()) for r in read_topic(kafka, topic)]


@pytest.mark.parametrize("name", ["port", "metrics_port"])
def test_a_port_that_is_none_is_a_mistake(name: str) -> None:
    ports: dict[str, Any] = {"port": 0, "metrics_port": 0, name: 99999}
    with pytest.raises(MistakeError, match=rf"99999.*intake\.{name}.*: a port is 0"):
        serve(IntakeConfig(**ports), KafkaConfig(), Tokens([TOKEN]), None, lambda _: None)


def test_events_are_in_kafka_when_the_answer_comes(
    kafka: KafkaConfig, service: Service
) -> None:
    shown, click, item = an_impression(), a_click(), an_item()
    assert service.health().json() == {"status": "ok"}
    one = service.post(encode(shown))
    assert (one.status_code, one.json()) == (200, {"accepted": 1, **ALL})
    two = service.post(b"[" + lines(click, item).replace(b"\n", b",") + b"]")
    assert (two.status_code, two.json()) == (200, {"accepted": 2, **ALL})
    three = service.post(lines(*(a_behavior(f"i{n}") for n in range(3))))
    assert (three.status_code, three.json()) == (200, {"accepted": 3, **ALL})
    records = read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert len(records) == 5
    assert {record.key for record in records} == {b"u1"}
    assert {tuple(record.headers) for record in records} == {()}
    assert shown in events_on(kafka, BEHAVIOR_EVENTS_TOPIC)
    (stored,) = read_topic(kafka, ITEMS_TOPIC)
    assert (stored.key, decode(stored.value, now_ms())) == (b"i1", item)


def test_of_a_mixed_body_the_good_are_taken_and_each_bad_one_has_its_reason(
    kafka: KafkaConfig, service: Service
) -> None:
    late = a_click(at_ms=1_700_000_000, event_id="in-seconds")
    answer = service.post(lines(a_click(), late) + b"\n{\n" + lines(an_item()))
    assert answer.status_code == 207
    said = answer.json()
    rejected = said.pop("events")
    assert said == {"accepted": 2, "rejected": 2, "unacknowledged": 0}
    assert [(e["index"], e["event_id"], e["reason"]) for e in rejected] == [
        (1, "in-seconds", "time_in_seconds"),
        (2, None, "broken_json"),
    ]
    assert "is it in seconds?" in rejected[0]["detail"]
    assert events_on(kafka, BEHAVIOR_EVENTS_TOPIC) == [a_click()]
    assert read_topic(kafka, REJECTED_TOPIC) == []
    nothing = service.post(encode(late))
    assert (nothing.status_code, nothing.json()["rejected"]) == (400, 1)
    assert service.post(b"[1,").status_code == 400
    assert service.post(b"").json() == {
        "error": "the body is empty: send an event, an array, or JSON lines"
    }


def test_a_backfill_is_known_since_it_happened(
    kafka: KafkaConfig, service: Service
) -> None:
    assert service.post(encode(a_click()), query="?backfill=true").status_code == 200
    (record,) = read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert record.timestamp == a_click().occurred_at
    assert list(record.headers) == [(BACKFILL_HEADER, b"1")]
    assert service.post(encode(a_click()), query="?backfill=1").status_code == 400


def test_ids_leave_as_pseudonyms(kafka: KafkaConfig) -> None:
    pseudonyms = Pseudonyms(b"k" * 32)
    with running(kafka, pseudonyms=pseudonyms) as service:
        assert service.post(encode(a_click())).status_code == 200
    (record,) = read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert record.key == pseudonyms.of("u1").encode()
    assert b'"u1"' not in record.value


def test_without_a_token_nothing_is_read_and_no_token_is_logged(
    kafka: KafkaConfig, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for token in ("", "guessed-and-wrong", TOKEN[:-1], TOKEN + "x"):
        refused = service.post(encode(a_click()), token=token)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert not token or token not in refused.text
    assert service.post(encode(a_click())).status_code == 200
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("httpcore")]
    assert not [text for text in ours if TOKEN in text or "guessed-and-wrong" in text]
    assert len(read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)) == 1


def test_limits_are_answered_before_anything_is_published(kafka: KafkaConfig) -> None:
    limits = IntakeConfig(max_body_bytes=2_000, max_events=3, max_requests=1)

    def pieces() -> Iterator[bytes]:
        yield from (b" " * 1_500 for _ in range(2))

    with running(kafka, limits) as service:
        assert service.post(b" " * 2_001).status_code == 413
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"{service.url}/events"
        streamed = httpx.post(url, content=pieces(), headers=headers, timeout=60.0)
        assert streamed.status_code == 413
        many = service.post(lines(*(a_click(f"i{n}") for n in range(4))))
        assert many.status_code == 413
        assert "4 events in one request; at most 3" in many.json()["error"]
        assert service.post(lines(*(a_click(f"i{n}") for n in range(3)))).status_code == 200
        assert service.client.get(url).status_code == 405
        assert service.client.get(f"{service.url}/other").status_code == 404
    assert len(read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)) == 3


def test_one_request_too_many_may_come_again(kafka: KafkaConfig) -> None:
    with running(kafka, IntakeConfig(max_requests=1)) as service:
        with slow_request(service) as first:
            refused = until(lambda: service.post(encode(a_click())), 429)
            assert int(refused.headers["retry-after"]) >= 1
            first.sendall(encode(a_click()))
            assert b"200 OK" in first.recv(4096)
        assert service.post(encode(a_click())).status_code == 200


def slow_request(service: Service) -> socket.socket:
    """Return the connection of a request whose body is still to be sent."""
    address = httpx.URL(service.url)
    first = socket.create_connection((address.host, address.port or 0))
    length = len(encode(a_click()))
    first.sendall(
        f"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
    )
    return first


def until(call: Any, status: int) -> httpx.Response:
    """Repeat ``call`` until it is answered with ``status``."""
    deadline = time.monotonic() + 10.0
    while (answer := call()).status_code != status:
        assert time.monotonic() < deadline, answer.text
    assert isinstance(answer, httpx.Response)
    return answer


def test_requests_of_many_clients_are_each_in_kafka_once(
    kafka: KafkaConfig, service: Service
) -> None:
    def post(client: int) -> int:
        sent = [a_behavior(f"i{n}", user_id=f"u{client}") for n in range(20)]
        return sum(
            service.post(lines(*sent[n : n + 5])).status_code for n in (0, 5, 10, 15)
        )

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(post, range(16))) == {4 * 200}
    found = events_on(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert len(found) == len({(e.user_id, e.item_id) for e in found}) == 16 * 20


def test_by_tls_alone(kafka: KafkaConfig, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    config = IntakeConfig(
        certificate_file=str(certificates.certificate), key_file=str(certificates.key)
    )
    with running(kafka, config, authority=certificates.authority) as service:
        assert service.post(encode(a_click())).status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(service.url.replace("https", "http") + "/health")
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{service.url}/health")


def test_a_renewed_certificate_is_served_and_no_connection_ends(
    kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_RENEWAL_POLL_S", 0.1)
    certificates = make_certificates(tmp_path)
    config = IntakeConfig(
        certificate_file=str(certificates.certificate), key_file=str(certificates.key)
    )
    with running(kafka, config, authority=certificates.authority) as service:
        port = int(service.url.rpartition(":")[2])
        old = ssl.get_server_certificate((HOST, port))
        assert service.post(encode(a_click())).status_code == 200
        certificates.key.chmod(0o600)
        key = certificates.key.read_bytes()
        certificates.key.write_bytes(b"half")
        time.sleep(2.5)  # uvicorn polls once a second
        assert ssl.get_server_certificate((HOST, port)) == old
        certificates.key.write_bytes(key)
        certificates.certificate.unlink()
        make_certificates(tmp_path)
        deadline = time.monotonic() + 20.0
        while ssl.get_server_certificate((HOST, port)) == old:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert service.post(encode(a_click())).status_code == 200


def test_what_happened_is_counted(service: Service) -> None:
    names = (
        'srp4ctr_intake_events_total{outcome="accepted"}',
        'srp4ctr_intake_events_total{outcome="time_in_seconds"}',
        'srp4ctr_intake_requests_total{status="207"}',
        'srp4ctr_intake_requests_total{status="401"}',
        "srp4ctr_intake_request_seconds_count",
    )
    before = metrics_of(names)
    service.post(lines(a_click(), a_click(at_ms=1_700_000_000), an_item(at_ms=NOON_MS)))
    service.post(b"", token="")
    after = metrics_of(names)
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 1, 1, 1, 2]
    assert metrics_of(["srp4ctr_intake_broker_up"]) == [1.0]


def metrics_of(names: Sequence[str]) -> list[float]:
    """Return the values of metrics of this process, by their text."""
    page = generate_latest().decode().splitlines()
    found = dict(each.rsplit(" ", 1) for each in page if not each.startswith("#"))
    return [float(found.get(name, 0.0)) for name in names]


def test_a_request_whose_body_stops_is_given_up(
    kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srp4ctr.streams.intake.app._BODY_S", 0.2)
    with running(kafka, IntakeConfig(max_requests=1)) as service:
        with slow_request(service) as first:
            assert b"408" in first.recv(4096)
        assert service.post(encode(a_click())).status_code == 200


def test_headers_without_end_are_not_kept(kafka: KafkaConfig) -> None:
    """No client has shown a token yet."""
    with running(kafka) as service:
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30.0) as connection:
            connection.sendall(b"POST /events HTTP/1.1\r\nHost: a\r\n")
            answer = b""
            try:
                for number in range(1000):
                    connection.sendall(b"x-%d: %s\r\n" % (number, b"y" * 1000))
                answer = connection.recv(1000)
            except ConnectionError:  # it has closed the connection
                answer = b"closed"
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431", b"closed", b"")
