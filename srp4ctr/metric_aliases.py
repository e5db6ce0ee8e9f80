"""Renamed metrics → the same figures under their old names, for one release.

Both exporters, the monitor and the stream worker, expose them. Recording rules have their
own group of old names, ``srp4ctr_deprecated`` in ``monitoring/rules/recording.yml``.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.registry import Collector

REMOVED_IN = "0.3.0"
RENAMED = {  # old → new
    "srp4ctr_answer_seconds": "srp4ctr_request_duration_seconds",
    "srp4ctr_item_table_age_seconds": "srp4ctr_item_cache_age_seconds",
    "srp4ctr_label_forgotten_early": "srp4ctr_label_evicted_early",
    "srp4ctr_served_check_age_seconds": "srp4ctr_skew_check_age_seconds",
    "srp4ctr_served_score_shift": "srp4ctr_training_serving_skew",
    "srp4ctr_serving_deaths_total": "srp4ctr_serving_crashes_total",
    "srp4ctr_unfolded_flops_total": "srp4ctr_reencode_flops_total",
}
_OLD_NAMES = {  # a family's name has no suffix
    new.removesuffix("_total"): old.removesuffix("_total") for old, new in RENAMED.items()
}


def deprecated(families: Iterable[Metric]) -> Iterator[Metric]:
    """Yield a copy, under its old name, of each family that has been renamed."""
    for family in families:
        if (old := _OLD_NAMES.get(family.name)) is None:
            continue
        help_text = f"Deprecated: renamed to {family.name}; removed in {REMOVED_IN}."
        copy = Metric(old, help_text, family.type)
        copy.samples = [
            sample._replace(name=old + sample.name.removeprefix(family.name))
            for sample in family.samples
        ]
        yield copy


class DeprecatedNames(Collector):
    """Exposes the metrics of a collector under their old names, in ``registry``."""

    def __init__(self, current: Collector, registry: CollectorRegistry = REGISTRY) -> None:
        self._current = current
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the copies."""
        return deprecated(self._current.collect())
