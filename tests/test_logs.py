"""Every process writes the same lines: time, level, process, message and ids."""

import json
import logging
import os
import re
import subprocess
import sys
import time

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.logs import FORMAT_VARIABLE, LEVEL_VARIABLE, LogConfig, SeldomLog

PROGRAM = """
import logging
from srp4ctr import logs
logs.configure("worker")
log = logging.getLogger("srp4ctr.streams.worker")
log.debug("too much")
log.warning("rejected a record", extra={"partition": 3, "offset": 17})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("a bug")
"""


def lines(program: str = PROGRAM, **variables: str) -> list[str]:
    """Return what a process of its own logs under ``variables``."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_a_line_of_text_has_time_level_process_message_and_ids() -> None:
    first, second, *trace = lines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    where = "worker srp4ctr.streams.worker"
    message = "rejected a record partition=3 offset=17"
    assert re.fullmatch(f"{time} WARNING {where}: {message}", first)
    assert re.fullmatch(f"{time} ERROR {where}: a bug", second)
    assert trace[-1] == "ZeroDivisionError: division by zero"


def test_a_line_of_json_is_one_object_whatever_happened() -> None:
    first, second = map(json.loads, lines(**{FORMAT_VARIABLE: "json"}))
    assert (first["process"], first["level"]) == ("worker", "WARNING")
    assert (first["partition"], first["offset"]) == (3, 17)
    assert first["message"] == "rejected a record"
    assert "ZeroDivisionError" in second["exception"]


def test_the_level_decides_what_is_logged() -> None:
    assert "too much" in lines(**{LEVEL_VARIABLE: "debug"})[0]
    assert len(lines(**{LEVEL_VARIABLE: "error", FORMAT_VARIABLE: "json"})) == 1


def test_an_unknown_format_or_level_names_the_known_ones() -> None:
    with pytest.raises(MistakeError, match=r"logging.format is 'yaml'; one of text, json"):
        LogConfig(format="yaml")
    with pytest.raises(MistakeError, match=r"logging.level is 'loud'; one of debug"):
        LogConfig(level="loud")


REPEATED = """
import logging
from srp4ctr import logs
logs.configure("worker")
for place in range(300):
    logging.getLogger("aiokafka").error("no node with id %s", place)
    logging.getLogger("srp4ctr.streams").warning("ours %s", place)
logs.EVERY_S = 0.0
logging.getLogger("aiokafka").error("no node with id %s", 300)
"""


def test_a_library_does_not_flood_the_log() -> None:
    found = lines(REPEATED)
    assert len([line for line in found if "srp4ctr.streams: ours" in line]) == 300
    theirs = [line.partition("aiokafka: ")[2] for line in found if "aiokafka" in line]
    assert theirs == ["no node with id 0", "no node with id 300 (and 299 times before)"]


def test_an_error_that_comes_with_each_row_is_logged_once_in_ten_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SeldomLog(logging.getLogger("srp4ctr.test"))
    for row in range(300):
        log.error(f"row {row} is damaged")
    now_s = time.monotonic()
    monkeypatch.setattr("srp4ctr.logs.time.monotonic", lambda: now_s + 10.0)
    for _ in range(2):
        log.error("the last")
    assert caplog.messages == ["row 0 is damaged", "the last (and 299 others before)"]


CLOSED = """
import logging
from kafka.errors import Cancelled, NodeNotReadyError
from srp4ctr import logs
logs.configure("demo")
log = logging.getLogger("kafka.cluster")
log.error("Metadata refresh: failed %s", Cancelled())
log.error("Metadata refresh: failed %s", NodeNotReadyError("3"))
log = logging.getLogger("kafka.net.transport")
for action in (lambda: None.recv(4096), lambda: [].remove(1)):
    try:
        action()
    except Exception:
        log.exception("Error receiving network data closing socket")
"""


def test_what_a_closed_client_logs_is_no_error() -> None:
    text = "\n".join(lines(CLOSED))
    assert "NodeNotReadyError" in text
    assert "ValueError" in text
    assert "NoneType" not in text
    assert "Cancelled" not in text


def test_a_line_without_a_traceback_is_logged() -> None:
    program = PROGRAM + 'log.error("again in 2 s", exc_info=False)\n'
    assert "again in 2 s" in lines(program)[-1]
