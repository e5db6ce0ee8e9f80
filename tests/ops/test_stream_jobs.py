"""What a worker does before it starts."""

from pathlib import Path

import pytest

from srp4ctr import listening
from srp4ctr.embedded import broker
from srp4ctr.embedded.ports import HOST
from srp4ctr.errors import MistakeError
from srp4ctr.ops import stream_jobs
from srp4ctr.settings import Settings


@pytest.fixture
def evicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The brokers of which the members of a group were evicted."""
    found: list[str] = []

    def prepare(_: Path, bootstrap: str, __: object) -> None:
        found.append(bootstrap)

    monkeypatch.setattr(broker, "prepare_worker", prepare)
    monkeypatch.setattr("srp4ctr.streams.worker.app.run_worker", lambda *_: None)
    monkeypatch.setattr("srp4ctr.streams.worker.app.ensure_topics", lambda _: None)
    return found


def test_a_second_worker_by_mistake_does_not_end_the_first(
    evicted: list[str], tmp_path: Path
) -> None:
    with listening.bound(HOST, 0, "") as taken:
        port = taken.getsockname()[1]
        settings = Settings.model_validate(
            {
                "streams": {"metrics_port": port},
                "embedded": {"data_dir": str(tmp_path)},
            }
        )
        with pytest.raises(MistakeError, match=r"streams\.metrics_port"):
            stream_jobs.run(settings, print)
    assert evicted == []


def test_members_are_evicted_of_no_other_machine_s_broker(
    evicted: list[str], tmp_path: Path
) -> None:
    for bootstrap in ("kafka.example.com:9092", f"{HOST}:9092"):
        settings = Settings.model_validate(
            {
                "kafka": {"bootstrap": bootstrap},
                "streams": {"metrics_port": 0},
                "embedded": {"data_dir": str(tmp_path)},
                "features": {"log_dir": str(tmp_path)},
            }
        )
        stream_jobs.run(settings, print)
    assert evicted == [f"{HOST}:9092"]
