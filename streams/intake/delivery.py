"""Events → Kafka, with an answer for each: acknowledged or not.

One connection is shared by all requests. A thread keeps it: it connects where there is
none, and replaces one that failed, for a producer that has lost a batch may not recover.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, Self

from kafka.errors import KafkaError

from srp4ctr import metrics
from srp4ctr.errors import OutageError, Srp4ctrError
from srp4ctr.streams.broker.clients import reachable
from srp4ctr.streams.broker.producer import EventPublisher, explained
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.pseudonymization import Pseudonyms
from srp4ctr.streams.events.schema import Event

BROKER_UP = metrics.gauge("srp4ctr_intake_broker_up")
_CHECK_S = 2.0  # between two looks at the broker
_GRACE_S = 1.0  # beyond the producer's own timeout, which fails each future
_log = logging.getLogger(__name__)


class Delivery:
    """Publishes for many threads at once; a context manager that disconnects on exit.

    Raises ``MistakeError`` if the broker refuses access. While no broker answers it keeps
    trying, and ``is_up`` is false.
    """

    def __init__(
        self, kafka: KafkaConfig, pseudonyms: Pseudonyms | None, ack_timeout_s: float
    ) -> None:
        self._kafka, self._pseudonyms, self._ack_timeout_s = (
            kafka,
            pseudonyms,
            ack_timeout_s,
        )
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._failed: list[EventPublisher] = []
        self._publisher: EventPublisher | None = None
        self._problem = ""
        try:
            self._publisher = self._connected()
            self._report("")
        except OutageError as error:
            self._report(str(error))
        self._keeper = threading.Thread(
            target=self._keep, name="intake-broker", daemon=True
        )
        self._keeper.start()

    @property
    def is_up(self) -> bool:
        """Whether events can be published now, as far as is known."""
        return self._publisher is not None and not self._problem

    def publish(self, events: Sequence[Event], *, backfill: bool = False) -> list[bool]:
        """Return which of ``events`` Kafka has acknowledged, within the timeout.

        One that it has not may be stored nonetheless: it can be published again.
        """
        acknowledged = [False] * len(events)
        if (publisher := self._publisher) is None:
            return acknowledged
        deadline_s = time.monotonic() + self._ack_timeout_s + _GRACE_S
        sent: list[Any] = []
        error: KafkaError | None = None
        try:
            for event in events:
                sent.append(publisher.submit(event, backfill=backfill))
        except KafkaError as failure:  # too large, or another request failed
            error = failure
        for place, future in enumerate(sent):
            try:
                future.get(timeout=max(0.0, deadline_s - time.monotonic()))
                acknowledged[place] = True
            except KafkaError as failure:
                error = failure
        if error is not None:
            self._discard(publisher, error)
        return acknowledged

    def close(self) -> None:
        """Disconnect; what was published has been answered by then."""
        self._stop.set()
        self._keeper.join(_CHECK_S)
        if self._publisher is not None:
            self._publisher.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> EventPublisher:
        return EventPublisher(
            self._kafka, self._pseudonyms, ack_timeout_s=self._ack_timeout_s
        )

    def _discard(self, publisher: EventPublisher, error: KafkaError) -> None:
        """Use ``publisher`` no more; the next look at the broker replaces it."""
        with self._lock:
            if self._publisher is publisher:  # no other request was faster
                self._publisher = None
                self._failed.append(publisher)
        self._report(explained(error))

    def _keep(self) -> None:
        while not self._stop.wait(_CHECK_S):
            try:
                self._look()
            except (Srp4ctrError, KafkaError) as error:
                self._report(str(error))
            except Exception as error:  # no descriptor is left, or no thread: it may pass
                _log.exception("the broker could not be looked at")
                self._report(repr(error))
            else:
                self._report("")

    def _look(self) -> None:
        """Connect, or see that the broker still answers."""
        with self._lock:
            failed, self._failed = self._failed, []
        for publisher in failed:
            publisher.disconnect()
        if self._publisher is None:
            self._publisher = self._connected()
        else:
            reachable(self._kafka)

    def _report(self, problem: str) -> None:
        if problem and problem != self._problem:
            _log.warning("events cannot be published: %s", problem)
        elif self._problem and not problem:
            _log.warning("events can be published again")
        self._problem = problem
        BROKER_UP.set(not problem)
