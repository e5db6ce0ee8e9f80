"""The doctor says whether anyone receives alerts: real Prometheus and Alertmanager."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from srp4ctr.embedded.config import EmbeddedConfig
from srp4ctr.errors import OutageError
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.prometheus import get
from srp4ctr.ops.doctor import alerts
from srp4ctr.settings import Settings
from tests.structure.source_tree import ROOT

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "monitoring/alertmanager.yml").read_text())
PARTS = ("prometheus", "prometheus-alertmanager")
needs_both = pytest.mark.skipif(
    any(shutil.which(part) is None for part in PARTS),
    reason="Prometheus or Alertmanager is not installed (Debian: prometheus-alertmanager)",
)
HOOK = [{"url": "http://127.0.0.1:9/"}]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(*command: str, ready: str) -> Iterator[None]:
    """Run ``command`` until the end of the block; ``ready`` is the URL of its readiness."""
    program = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(150):
            with suppress(OutageError):
                if get(ready, 1.0).status == 200:
                    break
            time.sleep(0.1)
        else:
            raise OutageError(f"{command[0]} is not ready")
        yield
    finally:
        program.terminate()
        program.wait(10)


def wait_for_discovery(port: int) -> None:
    """Wait until Prometheus has its Alertmanager: it does so every 5 seconds."""
    for _ in range(150):
        answer = get(f"http://127.0.0.1:{port}/api/v1/alertmanagers", 1.0)
        if b"/api/v2/alerts" in answer.body:
            return
        time.sleep(0.1)
    raise OutageError("Prometheus found no Alertmanager")


@contextmanager
def stack(folder: Path, config: Mapping[str, Any] | None) -> Iterator[Settings]:
    """Run Prometheus, and Alertmanager with ``config`` if it is given."""
    port, manager = free_port(), free_port()
    targets = [f"127.0.0.1:{manager}"] if config else []
    sends_to = {"alertmanagers": [{"static_configs": [{"targets": targets}]}]}
    (folder / "p.yml").write_text(yaml.safe_dump({"alerting": sends_to}))
    (folder / "a.yml").write_text(yaml.safe_dump(config))
    settings = Settings(
        monitoring=MonitorConfig(prometheus_url=f"http://127.0.0.1:{port}"),
        embedded=EmbeddedConfig(data_dir=str(folder / "data")),
    )
    prometheus = (
        "prometheus",
        f"--config.file={folder / 'p.yml'}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={folder / 'p'}",
    )
    alertmanager = (
        "prometheus-alertmanager",
        f"--config.file={folder / 'a.yml'}",
        f"--web.listen-address=127.0.0.1:{manager}",
        f"--storage.path={folder / 'a'}",
        "--cluster.listen-address=",
    )
    with running(*prometheus, ready=f"http://127.0.0.1:{port}/-/ready"):
        if config is None:
            yield settings
            return
        with running(*alertmanager, ready=f"http://127.0.0.1:{manager}/-/ready"):
            wait_for_discovery(port)
            yield settings


def with_channels(*names: str) -> dict[str, Any]:
    """Return our configuration, with a webhook in the receivers of ``names``."""
    receivers = [
        {**receiver, "webhook_configs": HOOK} if receiver["name"] in names else receiver
        for receiver in CONFIG["receivers"]
    ]
    return {**CONFIG, "receivers": receivers}


@needs_both
def test_our_configuration_as_it_is_reaches_no_receiver(tmp_path: Path) -> None:
    with stack(tmp_path, CONFIG) as settings:
        found, switch = alerts.receivers(settings)
    assert found.state == "wrong"
    assert found.found.startswith("no one receives alerts: in Alertmanager 127.0.0.1:")
    assert "pages go to the empty receiver page" in found.found
    assert "tickets go to the empty receiver ticket" in found.found
    assert "docs/monitoring.md#attach-a-receiver" in found.do
    assert switch.state == "not checked"
    assert "receiver watchdog" in switch.do


@needs_both
def test_with_channels_all_is_well(tmp_path: Path) -> None:
    with stack(tmp_path, with_channels("page", "ticket", "watchdog")) as settings:
        assert [receiver.state for receiver in alerts.receivers(settings)] == ["ok", "ok"]


@needs_both
def test_one_empty_receiver_is_named(tmp_path: Path) -> None:
    with stack(tmp_path, with_channels("page")) as settings:
        found, _ = alerts.receivers(settings)
    assert found.state == "wrong"
    assert "tickets go to the empty receiver ticket" in found.found
    assert "pages go" not in found.found


@needs_both
def test_a_prometheus_without_an_alertmanager_reaches_no_receiver(tmp_path: Path) -> None:
    with stack(tmp_path, None) as settings:
        (found,) = alerts.receivers(settings)
    assert found.state == "wrong"
    assert "knows no Alertmanager" in found.found


def test_without_prometheus_it_is_not_checked(tmp_path: Path) -> None:
    settings = Settings(
        monitoring=MonitorConfig(prometheus_url=f"http://127.0.0.1:{free_port()}"),
        embedded=EmbeddedConfig(data_dir=str(tmp_path)),
    )
    (found,) = alerts.receivers(settings)
    assert found.state == "not checked"


@pytest.mark.parametrize(
    ("child", "found"),
    [
        ({"matchers": ['severity="page"'], "receiver": "b"}, ["b"]),
        ({"matchers": ['severity=~"page|ticket"'], "receiver": "b"}, ["b"]),
        ({"matchers": ["severity!=page"], "receiver": "b"}, ["a"]),
        ({"match": {"severity": "page"}, "receiver": "b"}, ["b"]),
        ({"match_re": {"severity": "p.*"}, "receiver": "b"}, ["b"]),
        ({"routes": [{"receiver": "c"}]}, ["c"]),
        ({"matchers": ['severity="page"']}, ["a"]),
    ],
)
def test_an_alert_is_routed_as_alertmanager_does(
    child: dict[str, Any], found: list[str]
) -> None:
    tree = {"receiver": "a", "routes": [child]}
    assert alerts.receivers_of(tree, {"severity": "page"}) == found


def test_a_route_that_continues_adds_receivers() -> None:
    routes = [{"receiver": "b", "continue": True}, {"receiver": "c"}, {"receiver": "d"}]
    assert alerts.receivers_of({"receiver": "a", "routes": routes}, {}) == ["b", "c"]
