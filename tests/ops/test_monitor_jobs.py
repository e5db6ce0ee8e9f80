"""The monitor's probe where nothing answers: failures are only counted."""

from dataclasses import replace

from prometheus_client import CollectorRegistry

from srp4ctr import settings
from srp4ctr.embedded.ports import reserved_ports
from srp4ctr.ops.monitor_jobs import probe_factory


def test_a_stack_that_is_away_is_a_failed_probe() -> None:
    with reserved_ports(2) as (kafka, triton):
        pass
    given = settings.load()
    given = given.model_copy(
        update={
            "kafka": replace(given.kafka, bootstrap=f"127.0.0.1:{kafka}"),
            "triton": replace(given.triton, grpc=f"127.0.0.1:{triton}"),
        }
    )
    registry = CollectorRegistry()
    probe = probe_factory(given)(lambda: ["a", "b"], registry)
    assert probe.once() is None
    failed = registry.get_sample_value("srp4ctr_probe_failures_total", {"reason": "rank"})
    assert failed == 1.0
