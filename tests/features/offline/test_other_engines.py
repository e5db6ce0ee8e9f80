"""The Python of docs/operators.md that reads the raw log by other engines' own readers.

A block is run where what it imports is installed: DuckDB's here, the others by hand.
"""

from pathlib import Path

import pytest

from tests.docs.pages import Block, blocks
from tests.streams.logs import write

BLOCKS = [block for block in blocks("python") if block.page == "docs/operators.md"]
NEEDED = {"import polars": "polars", "pyspark.sql": "delta", "import duckdb": "duckdb"}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_another_engine_reads_the_log(
    block: Block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (library,) = [name for line, name in NEEDED.items() if line in block.text]
    pytest.importorskip(library)
    write(tmp_path / ".data" / "events", 0, 7)
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {})
    said = capfd.readouterr().out
    assert "behavior" in said
    assert "7" in said
