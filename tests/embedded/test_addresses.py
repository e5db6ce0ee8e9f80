"""The lines to paste name the running parts, and only those."""

import socket
from pathlib import Path

from srp4ctr.embedded import ports
from srp4ctr.embedded.stack import StackStatus
from tests.embedded.statuses import a_status


def test_what_runs_is_python_and_shell_to_paste(tmp_path: Path) -> None:
    settings, variable, *python = a_status(tmp_path / "a b", "broker", "triton").snippets()
    assert settings == f"settings of this stack: {tmp_path}/a b/stack.toml"
    assert variable == f"export SRP4CTR_EMBEDDED__DATA_DIR='{tmp_path}/a b'"
    assert python == [
        "from srp4ctr import EventPublisher, KafkaConfig",
        'publisher = EventPublisher(KafkaConfig(bootstrap="127.0.0.1:9092"))',
        "from srp4ctr import RankClient",
        'client = RankClient("127.0.0.1:8001")',
    ]


def test_a_part_that_does_not_run_has_no_line(tmp_path: Path) -> None:
    lines = "\n".join(a_status(tmp_path, "kafka").snippets())
    assert "EventPublisher" in lines
    assert "RankClient" not in lines
    assert "http" not in lines
    assert a_status(tmp_path).snippets() == []
    assert StackStatus(addresses=None, running=(), ended=()).snippets() == []


def test_a_page_is_named_while_something_listens_there(tmp_path: Path) -> None:
    with socket.create_server((ports.HOST, 0)) as server:
        port = server.getsockname()[1]
        lines = a_status(tmp_path, "store", monitor_port=port).snippets()
    assert lines[-1] == f"monitor: http://127.0.0.1:{port}/metrics"
