"""Checks of the raw log's place: its readers, and that no commit overwrites another."""

import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.fs import DeltaStorageHandler

from srp4ctr.ops.doctor.check_result import (
    Finding,
    is_loopback,
    is_open,
    is_wrong,
    not_checked,
    ok,
)
from srp4ctr.settings import Settings
from srp4ctr.streams.raw_log.delta_tables import (
    LOGGED_TOPICS,
    outages,
    skipped_offsets,
    store_options,
    stored_rows,
)

_TIMEOUT_S = 5.0
_WRITERS, _COMMITS = 6, 4
_PATIENT = CommitProperties(max_commit_retries=200)  # 15 do not do on a busy machine
_SCHEMA = pa.schema([("writer", pa.int64())])


def anonymous(settings: Settings) -> Iterator[Finding]:
    """Yield whether clients without a key may list the buckets, and may listen."""
    check, bundles = "bucket access", settings.training.bundles_uri
    both = [urlsplit(each) for each in (settings.features.log_uri, bundles)]
    buckets = sorted({each.netloc for each in both if each.scheme == "s3"})
    region = os.environ.get("AWS_REGION", "us-east-1")
    aws = f"https://s3.{region}.amazonaws.com"
    server = urlsplit(os.environ.get("AWS_ENDPOINT_URL", aws).rstrip("/"))
    listed = [bucket for bucket in buckets if _is_listed(f"{server.geturl()}/{bucket}")]
    if listed:
        found = f"clients without a key may list {', '.join(listed)}"
        yield is_open(check, found, "remove the bucket's public rules")
    elif buckets:
        yield ok(check, f"{server.netloc} requires a key for {', '.join(buckets)}")
    if buckets and server.scheme == "http" and not is_loopback(server.netloc):
        yield is_open(check, "events and models are not encrypted", "https, with TLS")


def _is_listed(url: str) -> bool:
    try:
        urlopen(f"{url}?list-type=2", timeout=_TIMEOUT_S).close()
    except HTTPError as error:
        if error.code in (401, 403):
            return False
        raise
    return True


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


def holes(settings: Settings) -> Iterator[Finding]:
    """Yield whether the log lacks records that Kafka dropped before they were in it."""
    check, log = "log holes", settings.features.raw_log
    holes = {topic: skipped_offsets(log, topic) for topic in LOGGED_TOPICS}
    skipped = sum(sum(hole.values()) for hole in holes.values())
    where = ", ".join(f"{t} {p}" for t, each in holes.items() for p in each)
    found = f"{log} lacks {skipped:,} records that Kafka dropped ({where})"
    if skipped > settings.features.known_lost_records:
        do = (
            "if their producers still have them: srp4ctr events publish --backfill; then "
            f"features.known_lost_records = {skipped}"
        )
        yield is_wrong(check, found, do)
    elif skipped:
        yield ok(check, f"{found}, as features.known_lost_records says")
    else:
        yield ok(check, f"{log} has all records that Kafka had")


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
        return int(stored_rows(table).count_rows())
    finally:
        DeltaStorageHandler(place, store_options()).delete_dir("")
        shutil.rmtree(place, ignore_errors=True)  # of a folder, the empty ones are left
