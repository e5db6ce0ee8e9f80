"""Events → Kafka, for producers in Python.

In: events, or raw payloads that may not be events. Out: records on the right topic
under the right key, all acknowledged when ``flush`` returns.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

from kafka import KafkaProducer
from kafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from kafka.producer.transaction_manager import TransactionState

from srp4ctr import tracing
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.streams.broker.clients import connect
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import (
    BACKFILL_HEADER,
    MAX_MESSAGE_BYTES,
    RejectedEvent,
    checked,
    decode,
    encode,
    event_key,
    event_topic,
)
from srp4ctr.streams.events.pseudonymization import Pseudonyms
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, Event, now_ms

MAX_REQUEST_BYTES = 4 * 1024 * 1024
_LINGER_MS = 10
_MAX_WAITING = 10_000  # events that the broker has not acknowledged
_LATER_S = 10.0  # than its time to be acknowledged, which Kafka's own client ends
_REQUEST_MS = 30_000  # at most, as the next one; kafka-python's own
_BLOCK_MS = 60_000
BACKFILL_HEADERS = ((BACKFILL_HEADER, b"1"),)
_HINTS = (
    (
        InvalidTimestampError,
        ". Its record is more than five minutes ahead of the broker's clock: set this "
        "machine's clock (NTP), then publish again",
    ),
    (
        (MessageSizeTooLargeError, RecordListTooLargeError),
        f". The stream takes events up to {MAX_MESSAGE_BYTES} bytes",
    ),
    (
        (TopicAuthorizationFailedError, ClusterAuthorizationFailedError),
        ". kafka.sasl_username needs an ACL for WRITE on the topic",
    ),
)
_NO_TOPIC = (
    ". No broker answers any more, or it has no such topic: `srp4ctr stack init` makes them"
)


def disconnect(producer: KafkaProducer) -> None:
    """Close ``producer`` at once; what is not acknowledged yet is given up."""
    try:
        producer.close(timeout=1.0)
    except KafkaError:  # it closes nothing while no broker takes what is left
        producer._sender.force_close()
        with suppress(KafkaError):
            producer.close(timeout=1.0)


def renewing(producer: KafkaProducer) -> KafkaProducer:
    """Return ``producer``, which requests a new producer id once its own is dropped.

    It is dropped where a batch that was sent is not acknowledged in time. kafka-python
    3.0.12 then never requests another: nothing more is sent, and each event times out.
    """
    manager = producer._transaction_manager
    reset = manager.reset_producer_id

    def reset_state() -> None:
        reset()
        if manager._current_state == TransactionState.READY:
            manager._current_state = TransactionState.UNINITIALIZED

    manager.reset_producer_id = reset_state
    return producer


class EventPublisher:
    """Publishes events; a context manager that waits for every acknowledgement on exit.

    With ``pseudonyms`` no user's id leaves this process. After ``ack_timeout_s`` an event
    that was not acknowledged is given up. Raises ``OutageError`` where no broker answers.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        pseudonyms: Pseudonyms | None = None,
        *,
        ack_timeout_s: float = 120.0,
    ) -> None:
        self._pseudonyms, self._ack_timeout_s = pseudonyms, ack_timeout_s
        self._process, self._is_closed = os.getpid(), False
        timeout_ms = round(ack_timeout_s * 1000)
        producer = connect(
            KafkaProducer,
            kafka,
            linger_ms=_LINGER_MS,
            batch_size=256 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
            acks="all",
            enable_idempotence=True,
            delivery_timeout_ms=timeout_ms,
            request_timeout_ms=min(_REQUEST_MS, timeout_ms - _LINGER_MS),
            max_block_ms=min(_BLOCK_MS, timeout_ms),
            allow_auto_create_topics=False,  # they would lack their settings
            metrics_enabled=False,
        )
        self._producer = renewing(producer)
        self._failure: BaseException | None = None
        self._waiting: deque[Any] = deque()  # what is not acknowledged, the oldest first
        self.published = 0
        """Messages sent to the broker so far."""
        self.withheld = 0
        """Messages that were no event and might have held a user's id."""

    def publish(self, event: Event, *, backfill: bool = False) -> None:
        """Send ``event``, known now or, with ``backfill``, since it happened.

        Raises ``MistakeError`` for one that the stream would reject, and the error of an
        earlier event that the broker refused: ``event`` may then not be sent.
        """
        self._keep(lambda: self.submit(checked(event, now_ms()), backfill=backfill))

    def submit(self, event: Event, *, backfill: bool = False) -> Any:
        """Send ``event`` as ``publish`` does; return the future of its acknowledgement.

        It is not checked. What becomes of it is in the future, and in no other call. Raises
        ``KafkaError`` where it cannot be sent.
        """
        hidden = self._pseudonyms.hide(event) if self._pseudonyms else event
        return self._submit(hidden, encode(hidden), backfill)

    def publish_raw(
        self, payload: bytes, *, key: bytes | None = None, backfill: bool = False
    ) -> None:
        """Send ``payload`` to the topic of its event.

        What is no event goes to ``behavior-events`` under ``key``: the worker rejects it
        as a dead letter. With pseudonyms it is withheld, and an event is sent with the
        declared fields only.
        """
        event = decode(payload, now_ms())
        if not isinstance(event, RejectedEvent):
            if self._pseudonyms:
                self.publish(event, backfill=backfill)
            else:
                self._keep(lambda: self._submit(event, payload, backfill))
        elif self._pseudonyms:
            self.withheld += 1
        else:
            self.send(BEHAVIOR_EVENTS_TOPIC, payload, key, None)

    def flush(self, timeout_s: float = 60.0) -> None:
        """Return when the broker has acknowledged everything.

        Raises ``MistakeError`` for what it refused, else ``OutageError``.
        """
        try:
            self._producer.flush(timeout=timeout_s)
        except KafkaError as error:
            self._keep_failure(error)
        self._raise_failure()

    def close(self) -> None:
        """Flush and disconnect."""
        try:
            self.flush()
        finally:
            self.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:  # the caller's error matters more than unsent events
            self.disconnect()

    def disconnect(self) -> None:
        """Disconnect at once; what is not acknowledged yet is given up."""
        self._is_closed = True
        disconnect(self._producer)

    def send(
        self,
        topic: str,
        payload: bytes | None,
        key: bytes | None,
        at_ms: int | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Send a record as it is, known since ``at_ms``, or now where that is None."""
        self._keep(lambda: self._append(topic, payload, key, at_ms, headers))

    def _submit(self, event: Event, payload: bytes, backfill: bool) -> Any:
        at_ms = event.occurred_at if backfill else None
        headers = BACKFILL_HEADERS if backfill else ()
        topic = event_topic(event)
        with tracing.span("EventPublisher.publish", topic=topic):
            if traceparent := tracing.traceparent():
                headers = (*headers, (tracing.HEADER, traceparent.encode()))
            return self._append(topic, payload, event_key(event), at_ms, headers)

    def _append(
        self,
        topic: str,
        payload: bytes | None,
        key: bytes | None,
        at_ms: int | None,
        headers: Sequence[tuple[str, bytes]],
    ) -> Any:
        if at_ms is not None:  # brokers refuse a record from the future
            at_ms = min(at_ms, now_ms())
        sent = self._producer.send(
            topic, payload, key, headers=list(headers), timestamp_ms=at_ms
        )
        self.published += 1
        return sent

    def _keep(self, send: Callable[[], Any]) -> None:
        """Call ``send`` and keep its failure, which the next call or ``flush`` raises."""
        self._check_usable()
        self._raise_failure()
        try:
            sent = send()
            sent.add_errback(self._keep_failure)
            self._wait_for_room(sent)
        except KafkaError as error:  # too large, or no broker knows the topic
            self._keep_failure(error)
            self._raise_failure()

    def _check_usable(self) -> None:
        """Raise ``MistakeError`` once closed, and in a child: it has no sending thread."""
        if self._is_closed:
            raise MistakeError("the publisher is closed")
        if os.getpid() != self._process:
            raise MistakeError(
                "this EventPublisher was made before a fork: make one in each process"
            )

    def _wait_for_room(self, sent: Any) -> None:
        """Return once few enough events wait for the broker.

        kafka-python's buffer has no bound: a file that is read faster than the broker
        takes it would fill the memory, and its events' time to be acknowledged would end
        before they are sent.
        """
        waiting = self._waiting
        waiting.append(sent)
        while waiting and (waiting[0].is_done or len(waiting) > _MAX_WAITING):
            oldest = waiting.popleft()
            if not oldest.is_done:
                oldest.get(timeout=self._ack_timeout_s + _LATER_S)

    def _keep_failure(self, error: BaseException) -> None:
        self._failure = self._failure or error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            kind = MistakeError if _hint(failure) else OutageError
            raise kind(explained(failure)) from failure


def explained(failure: BaseException) -> str:
    """Return why the broker did not take an event, and what to do about it."""
    has_waited = isinstance(failure, KafkaTimeoutError) and "metadata" in str(failure)
    hint = _NO_TOPIC if has_waited else _hint(failure)
    return f"the broker did not take an event: {failure!r}{hint}"


def _hint(failure: BaseException) -> str:
    return next((hint for kind, hint in _HINTS if isinstance(failure, kind)), "")
