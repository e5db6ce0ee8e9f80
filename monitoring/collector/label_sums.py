"""Labels and impressions → the sums of one monitor's topic, or of one partition of it.

Sums of partitions add up, because all events of a user are in one partition: ``added`` has
the figures of one monitor that reads them all.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from srp4ctr.monitoring.collector.snapshot import (
    NOTHING_READ,
    LabelPosition,
    MonitorState,
    Snapshot,
)
from srp4ctr.monitoring.collector.topic_readers import ReceivedLabel, ShownImpression
from srp4ctr.monitoring.quality.ab_test import AbTest, Difference
from srp4ctr.monitoring.quality.live_quality import (
    LiveQuality,
    qualities_of,
)
from srp4ctr.monitoring.quality.pending_labels import (
    OpenImpressions,
    ProvisionalCounts,
)
from srp4ctr.monitoring.quality.quality_sums import ModelQuality, QualitySums
from srp4ctr.monitoring.quality.sample_ratio import SampleRatio
from srp4ctr.monitoring.quality.version_order import add_by_version


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFigures:
    """The figures that rest on labels and impressions."""

    newest_ms: int = 0
    """When the newest settled impression was shown; 0 before the first."""
    complete_until_ms: int = 0
    """All labels that were published until then are in the figures; 0 if unknown."""
    qualities: tuple[ModelQuality, ...] = ()
    provisional: Mapping[str, ProvisionalCounts]
    differences: tuple[Difference, ...] = ()
    sample_ratios: tuple[SampleRatio, ...] = ()
    undecodable: int = 0


class LabelSums:
    """What labels and impressions have added up to, and up to which label."""

    def __init__(
        self,
        windows: Mapping[str, int],
        expected_difference: float,
        bundles: Collection[str],
    ) -> None:
        """``windows`` are ``window_ms`` and ``label_window_ms``."""
        self.expected_difference, self.bundles = expected_difference, bundles
        self.ab_test = AbTest(expected_difference, bundles)
        self.quality = LiveQuality(**windows, ab_test=self.ab_test, bundles=bundles)
        self.open = OpenImpressions(**windows, bundles=bundles)
        self.position: LabelPosition = NOTHING_READ
        self.undecodable = 0

    def add(self, received: ReceivedLabel) -> None:
        """Add one label."""
        self.quality.add(received.label, received.partition)
        self.open.label(received.label)

    def add_impression(self, shown: ShownImpression) -> None:
        """Add an impression; its label may have arrived already."""
        one = shown.impression
        key = (one.user_id, one.request_id, one.item_id)
        self.open.add(one, shown.known_ms, self.quality.is_clicked(key))

    def settle(self, until_ms: int) -> None:
        """Settle impressions whose label window had closed by ``until_ms``."""
        self.quality.advance(until_ms)
        self.open.advance(until_ms)

    def snapshot(self) -> Snapshot:
        """Return the sums; the next label changes them."""
        state = MonitorState(
            position=self.position,
            undecodable=self.undecodable,
            quality=self.quality.state(),
            ab_test=self.ab_test.state(),
        )
        return Snapshot(state=state, entries=self.quality.entries())

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from ``snapshot``; call it before the first label."""
        state = snapshot.state
        self.position, self.undecodable = state.position, state.undecodable
        self.quality.restore(state.quality, snapshot.entries)
        self.ab_test.restore(state.ab_test)

    def figures(self, serving: str | None) -> LabelFigures:
        """Return the figures; ``serving`` is the serving version."""
        return LabelFigures(
            newest_ms=self.quality.newest_ms,
            complete_until_ms=self.position.complete_until_ms,
            qualities=self.quality.quality(),
            provisional=self.open.counts(),
            differences=self.ab_test.differences(serving) if serving else (),
            sample_ratios=self.ab_test.sample_ratios(),
            undecodable=self.undecodable,
        )


def added(
    parts: Sequence[LabelSums],
    provisional: Sequence[Mapping[str, ProvisionalCounts]],
    serving: str | None,
) -> LabelFigures:
    """Return the figures of all ``parts`` together, of which there is at least one.

    ``provisional`` has the open impressions of each.
    """
    bundles = parts[0].bundles
    ab_test = AbTest(parts[0].expected_difference, bundles)
    for each in parts:
        ab_test.add(each.ab_test)
    by_part = (each.quality.sums for each in parts)
    sums = add_by_version(by_part, QualitySums, bundles)
    return LabelFigures(
        newest_ms=max(each.quality.newest_ms for each in parts),
        complete_until_ms=min(each.position.complete_until_ms for each in parts),
        qualities=qualities_of(sums),
        provisional=add_by_version(provisional, ProvisionalCounts, bundles),
        differences=ab_test.differences(serving) if serving else (),
        sample_ratios=ab_test.sample_ratios(),
        undecodable=sum(each.undecodable for each in parts),
    )
