"""Checks where the raw log is: whether it answers, and loses no commit to another."""

import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.fs import DeltaStorageHandler

from srp4ctr.ops.doctor.check_result import Finding, is_wrong, not_checked, ok
from srp4ctr.settings import Settings
from srp4ctr.streams.raw_log.delta_tables import outages, store_options

_WRITERS, _COMMITS = 6, 4
_PATIENT = CommitProperties(max_commit_retries=200)  # 15 do not do on a busy machine
_SCHEMA = pa.schema([("writer", pa.int64())])


def commits(settings: Settings) -> Iterator[Finding]:
    """Yield whether all rows are there that several writers commit at the same moment.

    A server without conditional PUT lets them write the same version, and keeps the last.
    """
    check, log = "raw log", settings.features.raw_log
    if "://" not in log and not Path(log).is_dir():
        yield not_checked(check, f"there is no {log} yet", "srp4ctr stream run")
        return
    with outages(log):
        kept, written = _kept(f"{log}/.doctor-{secrets.token_hex(8)}"), _WRITERS * _COMMITS
    if kept == written:
        yield ok(check, f"{log} answers, and keeps what several writers commit at once")
    else:
        do = "a server with conditional PUT (If-None-Match): docs/scaling.md"
        found = f"{log} keeps {kept} of {written} rows that are committed at once"
        yield is_wrong(check, found, do)


def _kept(place: str) -> int:
    """Return how many rows a table has of several writers; it is removed again."""
    table = DeltaTable.create(place, _SCHEMA, storage_options=store_options())

    def write(writer: int) -> None:
        mine = DeltaTable(place, storage_options=store_options())
        rows = pa.table({"writer": [writer]}, schema=_SCHEMA)
        for _ in range(_COMMITS):
            write_deltalake(mine, rows, mode="append", commit_properties=_PATIENT)

    try:
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(write, range(_WRITERS)))
        table.update_incremental()
        return int(table.to_pyarrow_dataset().count_rows())
    finally:
        DeltaStorageHandler(place, store_options()).delete_dir("")
        shutil.rmtree(place, ignore_errors=True)  # of a folder, the empty ones are left
