"""What was measured of one event, user, item, request and label, and where it stands.

Each constant names the file under ``benchmarks/results`` that it is from; a test holds the
two together, so that a benchmark that is run again changes both. They are of one slow CPU:
measure your own machine (``docs/capacity.md`` says how) where it matters.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One figure."""

    value: float
    source: str
    """The file, and the field in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByLength:
    """A figure at some lengths L of histories."""

    values: Mapping[int, float]
    source: str

    def at(self, length: float) -> Measured:
        """Return the figure at ``length``: on the line through its neighbours."""
        return Measured(value=on_line(self.values, length), source=self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByLengthAndCandidates:
    """CPU seconds of a thousand candidates, by L and then by candidates a request."""

    values: Mapping[int, Mapping[int, float]]
    source: str

    def a_request(self, length: int, candidates: int) -> Measured:
        """Return the CPU seconds of one request."""
        of_requests = {
            each: on_line({n: s * n / 1000 for n, s in row.items()}, candidates)
            for each, row in self.values.items()
        }
        return Measured(value=on_line(of_requests, length), source=self.source)


def on_line(values: Mapping[int, float], at: float) -> float:
    """Return the value at ``at``, on the line through the two nearest keys.

    Below the least key it is that key's value: what a small one costs was not measured.
    """
    keys = sorted(values)
    if at <= keys[0] or len(keys) == 1:
        return values[keys[0]]
    above = min(bisect_left(keys, at), len(keys) - 1)
    low, high = keys[above - 1], keys[above]
    return values[low] + (values[high] - values[low]) * (at - low) / (high - low)


_FOOTPRINTS = "footprints.json"

# They grow with L.
WORKER_US_PER_EVENT = ByLength(
    values={50: 97.67, 200: 104.5}, source=f"{_FOOTPRINTS}: worker_us_per_event"
)
BYTES_PER_USER = ByLength(
    values={50: 2691, 200: 6450}, source=f"{_FOOTPRINTS}: bytes_per_user"
)
PRETRAINING_MS_PER_WINDOW = ByLength(
    values={50: 1.511, 200: 7.384}, source=f"{_FOOTPRINTS}: pretraining_ms_per_window"
)
# They do not, or less than two runs differ: means of both lengths.
ITEM_SHARE_BYTES = Measured(value=434.0, source=f"{_FOOTPRINTS}: bytes_per_item_share")
ITEM_PROFILE_BYTES = Measured(value=426.5, source=f"{_FOOTPRINTS}: bytes_per_item_profile")
KAFKA_BYTES_PER_EVENT = Measured(
    value=405.0, source=f"{_FOOTPRINTS}: kafka_bytes_per_event"
)
LOG_BYTES_PER_EVENT = Measured(value=44.0, source=f"{_FOOTPRINTS}: log_bytes_per_event")
STORE_US_PER_EVENT = Measured(value=14.915, source=f"{_FOOTPRINTS}: store_us_per_event")
KAFKA_US_PER_EVENT = Measured(value=47.915, source=f"{_FOOTPRINTS}: kafka_us_per_event")
STORE_US_PER_USER_READ = Measured(
    value=85.0, source=f"{_FOOTPRINTS}: store_us_per_user_read"
)
STORE_US_PER_ITEM_READ = Measured(
    value=24.0, source=f"{_FOOTPRINTS}: store_us_per_item_read"
)
TABLE_TURN_S_PER_MILLION_ITEMS = Measured(
    value=0.822, source=f"{_FOOTPRINTS}: table_turn_s_per_million_items"
)
PARTITIONS_OF_ITEM_READ = 4
"""So many shares, and a profile, were read for ``STORE_US_PER_ITEM_READ``."""

FOLDED = ByLengthAndCandidates(
    values={
        50: {10: 0.43888, 100: 0.06973, 500: 0.02394},
        200: {10: 0.62352, 100: 0.08249, 500: 0.03649},
        1000: {10: 2.67286, 100: 0.34581, 500: 0.0951},
    },
    source="serving.json: cpu_s_per_1000_candidates of rank_clicks, four callers",
)
TILED_S_PER_1000_CANDIDATES = ByLength(
    values={50: 0.61069, 200: 2.88125},
    source="serving.json: cpu_s_per_1000_candidates of rank_tiled, 100 candidates",
)
SERVER_MB = Measured(value=560.5, source="serving.json: rss_mb, two processes that rank")

FINETUNING_MS_PER_IMPRESSION = Measured(
    value=0.1435, source="folded_training.json: folded_s of ebnerd, an impression, L = 50"
)
LABEL_US = Measured(value=21.24, source="monitoring.json: overhead_us_per_event")
LABEL_BYTES = Measured(value=372.1, source="monitoring.json: memory_mb of a million labels")

WAITING_IMPRESSION_BYTES = Measured(
    value=600.0, source="settings.toml: streams.max_kept_impressions"
)
CUT_EVENT_BYTES = Measured(
    value=200.0, source="recorded.json: peak_rss_mb of point_in_time, 10 M"
)
IMPRESSIONS_SHARE, BEHAVIORS_SHARE = 0.6, 0.4
"""Of the events; clicks are among the behaviours that join a sequence. It is the mix that
was measured (``benchmarks/ingest_events.py``, a news site's)."""

ITEM_BYTES_IN_A_FILE = 256
"""An item's embedding in ``encoder.onnx``, and again in ``head.onnx``: D floats."""
TABLE_BYTES_PER_ITEM = 153
"""Of ``features/item_table.py``, with eight slots of attributes."""
MOST_FILE_BYTES = 2**31
"""Of an ONNX file: protobuf reads no more."""
