"""The metrics page of every Triton → totals over all servers, and the state of each.

In: the pages of all servers, read at the same time, and whether they have the model, which
a page does not say: it keeps the counters of unloaded models. Out: totals that only grow,
and which server answers, has the model, and what its own counters say. Each page is read
in a thread of its own: a server that hangs delays no other, and the reader of labels once.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from srp4ctr import metrics
from srp4ctr.errors import OutageError
from srp4ctr.features.bundles.drift_reference import Reference
from srp4ctr.monitoring.cost import triton_counters as of
from srp4ctr.monitoring.cost.triton_counters import Sample, ServingTotals, sample_of
from srp4ctr.monitoring.prometheus import PAGE_TIMEOUT_S, read_metrics
from srp4ctr.monitoring.quality.drift import Drift, FeatureDrift
from srp4ctr.retries import RETRIES

LOG = logging.getLogger(__name__)
RANK_CLICKS = "rank_clicks"
# How long a poll waits for servers that answered the last time, and for those that did not.
PATIENCE_S, LATE_PATIENCE_S = 1.0, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonServer:
    """What is known of one server."""

    name: str
    is_up: bool
    """Its metrics page answered the last poll."""
    is_ready: bool
    """It is up and has loaded ``rank_clicks``."""
    totals: ServingTotals = field(default_factory=ServingTotals)
    drifts: tuple[FeatureDrift, ...] = ()


@dataclass(slots=True)
class _Page:
    """The metrics page of one server."""

    url: str
    drift: Drift
    reading: Future[tuple[Sample, bool]] | None = None
    began_s: float = 0.0
    is_late: bool = False
    is_up: bool = False
    is_ready: bool = False
    has_answered: bool = False


class TritonServers:
    """Adds up the counters of servers, by their names and the addresses of their pages."""

    def __init__(
        self,
        urls: Mapping[str, str],
        window_s: float,
        has_model: Callable[[str], bool | None] | None = None,
    ) -> None:
        """``has_model`` says whether the server of this name has ``rank_clicks`` ready.

        Where it returns None, or is missing, a server with counters of the model is ready.
        """
        self.totals, self._has_model = ServingTotals(), has_model
        self._pages = {name: _Page(url, Drift(window_s)) for name, url in urls.items()}
        self._pool = ThreadPoolExecutor(max(1, len(urls)), "triton-metrics")

    @property
    def is_any_up(self) -> bool:
        """Whether any server answered the last poll."""
        return any(page.is_up for page in self._pages.values())

    def poll(self) -> None:
        """Add the increases of all servers that answer; the next poll tries the others."""
        self._read_pages()
        first, later = dict[of.CounterKey, float](), dict[of.CounterKey, float]()
        absent = set[str]()
        for name, page in self._pages.items():
            sample = self._sample_of(page)
            if sample is None:
                absent.add(name)
                continue
            # The first counts are mostly older than the monitor's start.
            (later if page.has_answered else first).update(sample)
            page.has_answered = True
        self.totals.start_from(first)
        self.totals.add(first | later, absent)
        totals, now_s = self.totals.by_server(), time.monotonic()
        for name, page in self._pages.items():
            own = totals.get(name, ServingTotals())
            page.drift.observe(own.labelled(metrics.FEATURE_BIN), now_s)

    def servers(self, references: Mapping[str, Reference]) -> tuple[TritonServer, ...]:
        """Return each server, with its drift from the versions' ``references``."""
        totals = self.totals.by_server()
        return tuple(
            TritonServer(
                name=name,
                is_up=page.is_up,
                is_ready=page.is_ready,
                totals=totals.get(name, ServingTotals()),
                drifts=tuple(page.drift.feature_drifts(references)),
            )
            for name, page in self._pages.items()
        )

    def _read_pages(self) -> None:
        """Read all pages at once; wait long only for servers that were not late before."""
        for name, page in self._pages.items():
            if page.reading is None:
                page.began_s = time.monotonic()
                page.reading = self._pool.submit(self._read, name, page.url)
        reads = [page for page in self._pages.values() if page.reading]
        wait([p.reading for p in reads if p.reading and not p.is_late], PATIENCE_S)
        wait([p.reading for p in reads if p.reading], LATE_PATIENCE_S)

    def _read(self, name: str, url: str) -> tuple[Sample, bool]:
        sample = sample_of(read_metrics(url), name)
        has_counters = any(key.model == RANK_CLICKS for key in sample)
        has_model = self._has_model(name) if self._has_model else None
        return sample, has_counters and has_model is not False

    def _sample_of(self, page: _Page) -> Sample | None:
        """Return the sample that has been read; None where there is no answer (yet)."""
        if page.reading is None or not page.reading.done():
            page.is_late = True
            if time.monotonic() - page.began_s > PAGE_TIMEOUT_S:
                _set_down(page, "no whole answer in time")
            return None
        reading, page.reading = page.reading, None
        try:
            sample, page.is_ready = reading.result()
        except (OutageError, ValueError) as error:  # away, or no page of metrics (yet)
            RETRIES.labels("poll_triton").inc()
            _set_down(page, str(error))
            return None
        page.is_late, page.is_up = False, True
        return sample


def _set_down(page: _Page, reason: str) -> None:
    if page.is_up:
        LOG.warning("%s: %s", page.url, reason)
    page.is_up = page.is_ready = False
