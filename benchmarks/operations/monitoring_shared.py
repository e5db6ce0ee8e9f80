"""Two monitors that share partitions, beside one that reads all of the same labels.

Apache Kafka has the labels; each monitor is a process. Measured are the CPU time that
labels take in the one monitor and in each of the two, and what the pages of the two show
from the moment when one of them is killed until the other one has taken its partitions
over. Labels are published while it does; then its figures are compared with those of the
monitor that reads all. ``monitoring`` calls this.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import say
from benchmarks.operations.running_monitors import (
    RunningMonitor,
    label_topic,
    publish_labels,
    running_monitors,
    sources_of,
)
from srp4ctr.monitoring.collector.exporter import MonitorSources
from srp4ctr.monitoring.config import MonitorConfig

PARTITIONS = 8
SPAN_MS = 6 * 3_600_000  # of the labels' times
LATER = 10_000  # labels that come after a monitor was killed
# The two add up what the other one has written every five seconds.
SETTLED_S, TIMEOUT_S = 20.0, 600.0
POLL_S = 0.1
IMPRESSIONS = "srp4ctr_matured_impressions"
# Sums of numbers in another order differ in the last digits.
TOLERANCE = 1e-9
ALONE, SHARING = MonitorConfig(share_by=""), MonitorConfig(share_by="group")
_FIGURES = ("matured", "online", "live", "calibration", "click", "expected", "compared")


def measure(count: int, folder: Path) -> dict[str, float]:
    """Return what ``count`` labels cost one monitor and two, and what a kill changed."""
    folder.mkdir()
    with label_topic(folder, PARTITIONS) as kafka:
        return _measure(sources_of(kafka, folder), count)


def _measure(sources: MonitorSources, count: int) -> dict[str, float]:
    with running_monitors(sources, (ALONE, SHARING, SHARING)) as (single, *pair):
        _wait_until_current((single, *pair))
        before = [each.cpu_s() for each in (single, *pair)]
        now_ms = round(time.time() * 1000)
        say(f"{count:,} labels for one monitor, and for two that share them")
        publish_labels(sources.kafka, count, now_ms - SPAN_MS, now_ms)
        before_kill = _wait_until_equal(single, pair)
        one_s, *two_s = (
            each.cpu_s() - spent
            for each, spent in zip((single, *pair), before, strict=True)
        )
        say(f"CPU time of one {one_s:.1f} s; of two {two_s[0]:.1f} s and {two_s[1]:.1f} s")
        leader, other = sorted(pair, key=lambda each: not each.shows_figures())
        replaced = _kill(sources, leader, other, single)
        replaced["shared_figures_differ"] += before_kill
        return {
            "shared_cpu_ratio": round(max(two_s) / one_s, 3),
            "shared_total_ratio": round(sum(two_s) / one_s, 3),
            **replaced,
        }


def _kill(
    sources: MonitorSources,
    leader: RunningMonitor,
    other: RunningMonitor,
    single: RunningMonitor,
) -> dict[str, float]:
    """Kill the one that shows the figures; return what the other one then showed."""
    expected, killed_s = _impressions(leader), time.time()
    leader.process.kill()
    counts: list[float] = []
    while not other.shows_figures():
        if time.time() > killed_s + TIMEOUT_S:
            raise TimeoutError(f"no figures {TIMEOUT_S:.0f} s after a monitor was killed")
        time.sleep(POLL_S)
    away_s = time.time() - killed_s
    while other.current_until_s() < killed_s:
        counts.append(_impressions(other))
        time.sleep(POLL_S)
    replaced_s = time.time() - killed_s
    say(f"figures were away for {away_s:.1f} s, and current after {replaced_s:.1f} s")
    now_ms = round(time.time() * 1000)
    publish_labels(sources.kafka, LATER, now_ms - 60_000, now_ms)
    differing = _wait_until_equal(single, [other])
    return {
        "figures_away_s": round(away_s, 1),
        "replaced_s": round(replaced_s, 1),
        "false_counts": sum(count != expected for count in counts),
        "shared_figures": len(_figures(single)),
        "shared_figures_differ": differing,
    }


def _impressions(monitor: RunningMonitor) -> float:
    """Return how many impressions the figures rest on."""
    page = monitor.page().items()
    return sum(value for name, value in page if name.startswith(IMPRESSIONS))


def _figures(monitor: RunningMonitor) -> dict[str, float]:
    """Return the figures that labels make."""
    prefixes = tuple(f"srp4ctr_{figure}" for figure in _FIGURES)
    return {
        name: value
        for name, value in monitor.page().items()
        if name.startswith(prefixes) and "_created" not in name
    }


def _wait_until_current(monitors: tuple[RunningMonitor, ...]) -> None:
    """Return when the first monitor and one of the others have read all."""
    began_s = time.time()
    while sum(monitor.current_until_s() > began_s for monitor in monitors) < 2:
        if time.time() > began_s + TIMEOUT_S:
            raise TimeoutError(f"monitors are not current after {TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)


def _wait_until_equal(single: RunningMonitor, pair: list[RunningMonitor]) -> int:
    """Wait for all labels; return how many figures of the two then differ from one's."""
    _wait_until_current((single, *pair))
    ends = time.monotonic() + SETTLED_S
    while True:
        expected = _figures(single)
        shown = max(map(_figures, pair), key=len)
        differing = _differing(expected, shown)
        if not differing or time.monotonic() > ends:
            break
        time.sleep(POLL_S)
    for name in differing[:5]:
        say(f"{name}: {expected.get(name)} of one monitor, {shown.get(name)} of two")
    return len(differing)


def _differing(expected: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    """Return the names that are missing in one of the two, or have another value."""
    differing = sorted(expected.keys() ^ found.keys())
    for name in sorted(expected.keys() & found.keys()):
        one, other = expected[name], found[name]
        equal = one == other or abs(one - other) <= TOLERANCE * abs(one)
        if not equal and not (one != one and other != other):  # NaN
            differing.append(name)
    return differing
