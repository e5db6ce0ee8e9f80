"""Triton's metrics page → a ``Sample`` of the inference counters.

Failures are added up over their reasons.
"""

from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from srp4ctr.monitoring.cost.triton_counters import (
    COUNTERS,
    RUNS,
    STEP_COUNTERS,
    CounterKey,
    Sample,
)

# The single-step model reports its parts under the counters of separate steps.
PARTS = {
    "srp4ctr_part_runs": RUNS,
    "srp4ctr_part_us": "nv_inference_request_duration_us",
}
TIMEOUT_S = 2.0  # a page of 10 models takes 2 ms; a hanging server must not block labels


def fetch(url: str) -> Sample:
    """Return the counters at ``url``; raises ``OSError`` if no server answers."""
    with urlopen(url, timeout=TIMEOUT_S) as answer:
        return parse(answer.read().decode())


def parse(text: str) -> Sample:
    """Return the inference counters in ``text``; raises ``ValueError`` if it is not one."""
    sample: dict[CounterKey, float] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            name = each.name.removesuffix("_total")  # the parser adds it to counters
            name = PARTS.get(name, name)
            if name in COUNTERS and "model" in each.labels:
                label = each.labels.get(STEP_COUNTERS.get(name, ""), "")
                key = CounterKey(name, each.labels["model"], label)
                sample[key] = sample.get(key, 0.0) + each.value
    return sample
