"""The same expressions on Spark: what training reads does not depend on the engine."""

import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.features.offline.event_tables import EventLog
from srp4ctr.streams.state.label_join import CLICKED
from srp4ctr.testing.raw_logs import Published, label_of, write_log
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression

MISSING = [
    *(() if find_spec("pyspark") else ("pyspark (pip install 'srp4ctr[spark]')",)),
    *(() if shutil.which("java") else ("Java 17",)),
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
LENGTH, TTL_DAYS = 3, 90.0
MINUTE_MS = 60_000


SMALL = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    # Compiling each query costs more than running it on so few rows.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


@pytest.fixture(scope="module")
def spark() -> Iterator[None]:
    """Give Spark a thread of this machine: the session that the log then takes."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]")
    for name, value in SMALL.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield
    session.stop()


def published() -> list[Published]:
    """Some users' visits: late, repeated and forgotten events, contexts, ties, values.

    The label windows of the last two are open.
    """
    chance = np.random.default_rng(3)
    events: list[Published] = []
    for visit in range(24):
        user, at_ms = f"u{visit % 5}", NOON_MS + visit * MINUTE_MS
        items = [f"i{n}" for n in chance.permutation(9)[:3].tolist()]
        context = {"context": {"hour": str(visit % 3)}} if visit % 2 else {}
        for place, item in enumerate(items):
            shown = an_impression(
                item,
                user_id=user,
                request_id=f"r{visit}",
                at_ms=at_ms + place % 2,
                position=place,
                **context,
            )
            events.append((shown, at_ms))
            if visit < 22:
                events.append((label_of(shown), at_ms + MINUTE_MS))
            elif place == 0:
                label = label_of(shown, clicked=True, revision=CLICKED)
                events.append((label, at_ms + MINUTE_MS))
        clicked = a_click(items[0], user_id=user, request_id=f"r{visit}", at_ms=at_ms + 9)
        late_ms = int(chance.integers(0, 3 * MINUTE_MS))
        acted = a_behavior(items[1], user_id=user, at_ms=at_ms + 9, value=visit / 7)
        events += [(clicked, at_ms + late_ms), (acted, at_ms + 9), (acted, at_ms + 10)]
    wished_ms = NOON_MS + 7 * MINUTE_MS
    events.append((a_forget(user_id="u1", at_ms=wished_ms), wished_ms))
    return events


def cut(log: EventLog) -> tuple[Any, ...]:
    middle_ms = NOON_MS + 12 * MINUTE_MS
    return (
        point_in_time.snapshot(log, LENGTH, TTL_DAYS),
        point_in_time.histories(log, middle_ms),
        point_in_time.item_counts(log, middle_ms),
        point_in_time.request_rows(log),
    )


def assert_same(found: Any, expected: Any, name: str = "") -> None:
    """Both are equal and of one type."""
    if is_dataclass(expected):
        for field in fields(expected):
            place = f"{name}.{field.name}"
            assert_same(getattr(found, field.name), getattr(expected, field.name), place)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype, name
        if expected.dtype.kind == "f":  # decayed counts, added up in another order
            np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(found, expected, err_msg=name)
    else:
        assert found == expected, name


@pytest.mark.usefixtures("spark")
def test_spark_and_duckdb_cut_the_same_from_a_log(tmp_path: Path) -> None:
    log_dir = write_log(tmp_path, published())
    with event_tables.opened(log_dir) as log:
        expected = cut(log)
    with event_tables.opened(log_dir, "spark") as log:
        found = cut(log)
    snapshots = expected[0]
    assert len(snapshots.times_ms) == 20  # two were forgotten, two wait for their labels
    assert snapshots.sequences.item_keys.any()
    for mine, theirs in zip(found, expected, strict=True):
        assert_same(mine, theirs)
