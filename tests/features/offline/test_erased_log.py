"""After an erasure: the store is right, and training and served requests lack the user."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.features.bundles import request_log
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.consistency.check import check_features
from srp4ctr.features.offline import point_in_time
from srp4ctr.features.offline.event_tables import opened
from srp4ctr.features.online.store import FeatureStoreSink
from srp4ctr.ops.audit import read_entries
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import Impression, UserEvent
from srp4ctr.streams.raw_log.erasure import erase_forgotten
from srp4ctr.testing.raw_logs import Published, label_of, write_log
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression
from tests.features.bundles.builders import a_request
from tests.features.stored import store_events


def a_morning(*users: str) -> list[UserEvent]:
    """Return what each user does: two items shown, one clicked, one viewed."""
    events: list[UserEvent] = []
    for user in users:
        at_ms, of = NOON_MS + len(events) * 1000, {"user_id": user}
        events += [an_impression(f"i{n}", at_ms=at_ms, **of) for n in range(2)]
        events.append(a_click("i1", at_ms=at_ms + 500, **of))
        events.append(a_behavior("i0", at_ms=at_ms + 600, **of))
    return events


def log_of(folder: Path, events: list[UserEvent]) -> Path:
    labels = [label_of(event) for event in events if isinstance(event, Impression)]
    known: list[Published] = [(e, e.occurred_at) for e in events]
    write_log(folder, known, partition=1)
    return write_log(folder, [(label, NOON_MS + 60_000) for label in labels], partition=1)


@pytest.mark.redis
def test_the_store_equals_the_erased_log(
    store_config: FeatureConfig, tmp_path: Path
) -> None:
    at = f"{store_config.redis},db=7"
    config = replace(store_config, redis=at, log_dir=str(tmp_path / "events"))
    events = [*a_morning("ann", "bob"), a_forget(at_ms=NOON_MS + 3_000, user_id="ann")]
    log = log_of(Path(config.log_dir), events)
    sink = FeatureStoreSink(config)
    store_events(sink, events, length=3, partition=1)
    assert erase_forgotten(log).anonymized == 3
    streams = StreamConfig(sequence_length=3)
    features = check_features(config, sink, streams, {1: len(events)})
    assert (features.rows, features.wrong_rows) == (
        2 * 3 + 2 + 1,
        0,
    )  # and the total of all items


def test_training_sees_only_the_other_users(tmp_path: Path) -> None:
    events = [*a_morning("ann", "bob"), a_forget(at_ms=NOON_MS + 3_000, user_id="ann")]
    log = log_of(tmp_path, events)
    erase_forgotten(log)
    with opened(log) as tables:
        requests = point_in_time.snapshot(tables, length=5, ttl_days=90.0)
        histories = point_in_time.histories(tables, NOON_MS * 2)
        counts = point_in_time.item_counts(tables, NOON_MS * 2)
    assert requests.user_ids.tolist() == ["bob"]
    assert histories.user_ids.tolist() == ["bob"]
    np.testing.assert_array_less(0, requests.candidate_activity.first_seen_ms)
    assert sum(counts.values()) == 4 + 3  # ann's view counts no more


def test_the_command_erases_served_requests_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    events = [*a_morning("ann", "bob"), a_forget(at_ms=NOON_MS + 3_000, user_id="ann")]
    log_of(Path(".data/events"), events)
    folder = Path(".data/served")
    for number, user in enumerate(("ann", "bob")):
        request_log.write(folder, replace(a_request(number), user_id=user))
    (folder / "9-odd.npz").write_bytes(b"half a fi")

    def typed(*words: str) -> str:
        done = CliRunner().invoke(app, ["features", "erase-forgotten", *words])
        assert done.exception is None
        return " ".join(done.output.split())

    report = "1 erasure requests; in 2 folders 3 rows removed, 3 anonymized"
    assert typed("--dry-run") == f"dry run: {report}"
    assert read_entries(Path(".data/audit.jsonl")) == ([], 0)
    assert typed() == f"{report}, 1 served requests removed"
    assert "in 0 folders 0 rows" in typed()
    whole = [each for each in request_log.newest(folder, 9) if "odd" not in each.name]
    assert [request_log.read(path).user_id for path in whole] == ["bob"]
    entries, _ = read_entries(Path(".data/audit.jsonl"))
    assert [entry.after for entry in entries] == [
        "2 folders, 1 served requests",
        "0 folders, 0 served requests",
    ]
