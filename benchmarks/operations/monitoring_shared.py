"""Two monitors that share partitions, beside one that reads all of the same labels.

Apache Kafka has the labels; each monitor is a process. Measured are the CPU time that
labels take in the one monitor and in each of the two, and what the pages of the two show
from the moment when one of them is killed until the other one has taken its partitions
over. Labels are published while it does; then its figures are compared with those of the
monitor that reads all. ``monitoring`` calls this.
"""

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from benchmarks import say
from benchmarks.operations.verdict_restart import publish_labels
from srp4ctr import processes
from srp4ctr.embedded import apache_kafka, ports
from srp4ctr.monitoring.collector.exporter import MonitorSources
from srp4ctr.monitoring.collector.service import run_monitor
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.prometheus import read_metrics
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig

PARTITIONS = 8
WINDOW_S, LABEL_WINDOW_S = 24 * 3600.0, 1800.0
SPAN_MS = 6 * 3_600_000  # of the labels' times
LATER = 10_000  # labels that come after a monitor was killed
# The two add up what the other one has written every five seconds.
SETTLED_S, TIMEOUT_S = 20.0, 600.0
POLL_S = 0.1
BEHIND, IMPRESSIONS = "srp4ctr_figures_behind_seconds", "srp4ctr_matured_impressions"
# Sums of numbers in another order differ in the last digits.
TOLERANCE = 1e-9
_FIGURES = ("matured", "online", "live", "calibration", "click", "expected", "compared")


def measure(count: int, folder: Path) -> dict[str, float]:
    """Return what ``count`` labels cost one monitor and two, and what a kill changed."""
    folder.mkdir()
    with ports.reserved_ports(2) as (port, controller_port):
        broker = apache_kafka.start(folder, port, controller_port, tied=True)
    try:
        kafka = KafkaConfig(bootstrap=f"127.0.0.1:{port}", partitions=PARTITIONS)
        ensure_topics(kafka)
        return _measure(_sources(kafka, folder), count)
    finally:
        processes.stop(broker, folder)


def _measure(sources: MonitorSources, count: int) -> dict[str, float]:
    with _monitors(sources, ("", "group", "group")) as (single, *pair):
        _wait_until_current((single, *pair))
        before = [each.cpu_s() for each in (single, *pair)]
        now_ms = round(time.time() * 1000)
        say(f"{count:,} labels for one monitor, and for two that share them")
        _publish(sources.kafka, count, now_ms - SPAN_MS)
        before_kill = _wait_until_equal(single, pair)
        one_s, *two_s = (
            each.cpu_s() - spent
            for each, spent in zip((single, *pair), before, strict=True)
        )
        say(f"CPU time of one {one_s:.1f} s; of two {two_s[0]:.1f} s and {two_s[1]:.1f} s")
        leader, other = sorted(pair, key=lambda each: not each.shows_figures())
        replaced = _kill(leader, other, single)
        replaced["shared_figures_differ"] += before_kill
        return {
            "shared_cpu_ratio": round(max(two_s) / one_s, 3),
            "shared_total_ratio": round(sum(two_s) / one_s, 3),
            **replaced,
        }


def _kill(leader: "_Monitor", other: "_Monitor", single: "_Monitor") -> dict[str, float]:
    """Kill the one that shows the figures; return what the other one then showed."""
    expected, killed_s = leader.impressions(), time.time()
    leader.process.kill()
    counts: list[float] = []
    while not other.shows_figures():
        if time.time() > killed_s + TIMEOUT_S:
            raise TimeoutError(f"no figures {TIMEOUT_S:.0f} s after a monitor was killed")
        time.sleep(POLL_S)
    away_s = time.time() - killed_s
    while other.current_until_s() < killed_s:
        counts.append(other.impressions())
        time.sleep(POLL_S)
    replaced_s = time.time() - killed_s
    say(f"figures were away for {away_s:.1f} s, and current after {replaced_s:.1f} s")
    _publish(single.kafka, LATER, round(time.time() * 1000) - 60_000)
    differing = _wait_until_equal(single, [other])
    return {
        "figures_away_s": round(away_s, 1),
        "replaced_s": round(replaced_s, 1),
        "false_counts": sum(count != expected for count in counts),
        "shared_figures": len(single.figures()),
        "shared_figures_differ": differing,
    }


@dataclass(slots=True)
class _Monitor:
    """A process of a monitor, and what its page shows."""

    process: BaseProcess
    url: str
    kafka: KafkaConfig
    _last: dict[str, float] = field(default_factory=dict)

    def cpu_s(self) -> float:
        """Return the CPU seconds that the process has taken."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def page(self) -> dict[str, float]:
        """Return every sample of the page; none while it does not answer."""
        try:
            found = read_metrics(self.url)
        except (OSError, ValueError):
            return {}
        return {
            f"{sample.name}{sorted(sample.labels.items())}": sample.value
            for family in found
            for sample in family.samples
        }

    def shows_figures(self) -> bool:
        """Return whether it exports the figures of all partitions."""
        return any(name.startswith(BEHIND) for name in self.page())

    def current_until_s(self) -> float:
        """Return the Unix time until which all labels are in the figures; 0: unknown."""
        behind = [v for name, v in self.page().items() if name.startswith(BEHIND)]
        return time.time() - behind[0] if behind else 0.0

    def impressions(self) -> float:
        """Return how many impressions the figures rest on."""
        page = self.page().items()
        return sum(value for name, value in page if name.startswith(IMPRESSIONS))

    def figures(self) -> dict[str, float]:
        """Return the figures that labels make."""
        prefixes = tuple(f"srp4ctr_{each}" for each in _FIGURES)
        return {
            name: value
            for name, value in self.page().items()
            if name.startswith(prefixes) and "_created" not in name
        }


def _sources(kafka: KafkaConfig, folder: Path) -> MonitorSources:
    return MonitorSources(
        kafka=kafka,
        triton_metrics={"triton": "http://127.0.0.1:9/metrics"},
        repository=folder,
        bundles_dir=folder / "bundles",
        label_window_s=LABEL_WINDOW_S,
        feature_check=folder / "feature-check.json",
        shared_folder=folder / "monitors",
    )


@contextmanager
def _monitors(
    sources: MonitorSources, shared_by: tuple[str, ...]
) -> Iterator[list[_Monitor]]:
    """Run a monitor for each of ``shared_by``; kill those that are left at the end."""
    spawn, monitors = multiprocessing.get_context("spawn"), []
    with ports.reserved_ports(len(shared_by)) as numbers:
        pass
    try:
        for port, share_by in zip(numbers, shared_by, strict=True):
            own = replace(sources, snapshot=sources.repository / f"{port}.snapshot")
            process = spawn.Process(target=_run, args=(own, port, share_by), daemon=True)
            process.start()
            url = f"http://127.0.0.1:{port}/metrics"
            monitors.append(_Monitor(process=process, url=url, kafka=sources.kafka))
        yield monitors
    finally:
        for each in monitors:
            each.process.kill()
            each.process.join()


def _run(sources: MonitorSources, port: int, share_by: str) -> None:
    config = MonitorConfig(port=port, window_s=WINDOW_S, share_by=share_by)  # type: ignore[arg-type]
    run_monitor(sources, config, threading.Event())


def _publish(kafka: KafkaConfig, count: int, since_ms: int) -> None:
    """Publish labels that have matured since ``since_ms``."""
    until_ms = round(time.time() * 1000)
    asyncio.run(publish_labels(kafka, count, since_ms, until_ms))


def _wait_until_current(monitors: tuple[_Monitor, ...]) -> None:
    """Return when the first monitor and one of the others have read all."""
    began_s = time.time()
    while sum(each.current_until_s() > began_s for each in monitors) < 2:
        if time.time() > began_s + TIMEOUT_S:
            raise TimeoutError(f"monitors are not current after {TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)


def _wait_until_equal(single: _Monitor, pair: list[_Monitor]) -> int:
    """Wait for all labels; return how many figures of the two then differ from one's."""
    _wait_until_current((single, *pair))
    ends = time.monotonic() + SETTLED_S
    while True:
        expected = single.figures()
        shown = max((each.figures() for each in pair), key=len)
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
