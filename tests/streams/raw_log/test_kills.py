"""`kill -9` of writers, compactions and erasures: every row is there, and once."""

import subprocess
import sys

import pytest

from srp4ctr.streams.raw_log.delta_tables import (
    Log,
    check_files,
    created,
    dataset,
    next_offset,
    read_rows,
)
from srp4ctr.streams.raw_log.erasure import erase_forgotten
from tests.fuzzing import examples
from tests.streams.logs import TOPIC
from tests.streams.raw_log.killed_writers import ANN
from tests.structure.source_tree import ROOT


@pytest.mark.parametrize("seed", range(examples(1)))
def test_no_row_is_lost_or_doubled(raw_log: Log, seed: int) -> None:
    program = "tests.streams.raw_log.killed_writers"
    words = [sys.executable, "-m", program, str(raw_log), "12", str(seed)]
    result = subprocess.run(words, check=True, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.startswith("12 ")
    table, before = created(raw_log, TOPIC), dataset(raw_log, TOPIC).count_rows()
    logged = [next_offset(table, partition) or 0 for partition in range(4)]
    assert min(logged) > 0
    erased = erase_forgotten(raw_log)
    rows = [
        (row["partition"], row["offset"], row["user_id"])
        for partition in range(4)
        for some in read_rows(raw_log, TOPIC, partition)
        for row in some
    ]
    assert len(rows) == before - erased.removed
    there = {(partition, offset) for partition, offset, _ in rows}
    assert len(there) == len(rows)
    missing = {(p, o) for p, end in enumerate(logged) for o in range(end)} - there
    assert {offset % 10 for _, offset in missing} <= {0}  # ann's
    assert there <= {(p, o) for p, end in enumerate(logged) for o in range(end)}
    assert (erased.users == 0) == ((0, 400) not in there)
    if erased.users:
        assert [(p, o) for p, o, user in rows if user == ANN and o != 400] == []
    check_files(raw_log)
