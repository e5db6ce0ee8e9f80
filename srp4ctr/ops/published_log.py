"""Topics → a raw log that holds what had been published: a refresh trains on all of it.

In: the broker's end offsets, and those that the log's tables have reached. Where a worker
is behind, or none runs, a refresh would train without the newest events and not say so.
"""

import logging
import time
from collections.abc import Callable, Mapping

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.settings import Settings, has_service
from srp4ctr.streams.broker.topics import end_offsets
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.raw_log.delta_tables import covered_offsets
from srp4ctr.training.loop.progress import ProgressListener

LOG = logging.getLogger(__name__)
STEP = "wait for the log"
IDLE_S = 15.0
"""A log that does not grow for so long is not waited for: a worker commits every 2 s."""
_LOOK_EVERY_S = 0.5


def wait_until_logged(settings: Settings, progress: ProgressListener) -> str:
    """Return when the log holds what had been published before, and what a report says.

    "" where nothing is missing, or where this process knows no broker: training needs the
    log alone.
    """
    if not has_service("kafka"):
        return ""
    try:
        missing = 0
        for topic in (BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC):
            missing += _wait(_Missing(settings, topic), progress)
    except (MistakeError, OutageError) as error:
        LOG.warning("the log may lack the newest events, for Kafka does not say: %s", error)
        return ""
    if not missing:
        return ""
    return (
        f"{missing:,} published messages are not in the raw log and were not trained on: "
        "is `srp4ctr stream run` running, or were they rejected?"
    )


class _Missing:
    """Says how many of the messages that a topic has now are not in the log yet."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._topic, self._log = topic, settings.features.raw_log
        self._ends: Mapping[int, int] = end_offsets(settings.kafka, topic)

    def __call__(self) -> int:
        reached = (
            end - 1 - covered_offsets(self._log, self._topic, partition)[1]
            for partition, end in self._ends.items()
        )
        return sum(max(each, 0) for each in reached)


def _wait(
    missing: Callable[[], int],
    progress: ProgressListener,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Return how many are ``missing`` at last: 0, or when it has not fallen for a while."""
    first = least = missing()
    fell_at = clock()
    while least and clock() - fell_at < IDLE_S:
        progress(STEP, first - least, first, f"{least:,} messages")
        sleep(_LOOK_EVERY_S)
        if (now := missing()) < least:
            least, fell_at = now, clock()
    if first:
        progress(STEP, first - least, first, "")
    return least
