"""At 80 columns every table shows each figure and each address whole."""

import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.table import Column, Table

from srp4ctr.capacity.plan import CapacityOptions, CapacityPlan
from srp4ctr.cli import capacity
from srp4ctr.cli.tables import models, results, users
from srp4ctr.client.messages import Ranking
from srp4ctr.embedded.addresses import Addresses
from srp4ctr.embedded.stack import StackStatus
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.features.bundles.rule_results import Contrast, RuleResult
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.ops.audit import DONE, FAILED, AuditEntry
from srp4ctr.ops.feature_store import UserRows
from srp4ctr.processes import Running
from srp4ctr.settings import load
from srp4ctr.streams.broker.dead_letters import ReplayReport
from srp4ctr.streams.events.file_import import BadLine, FileReport
from srp4ctr.streams.events.schema import Click, Impression, item_key
from srp4ctr.streams.state.sequences import SHOWN, SequenceElement, sequence_of
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.training.refresh.reports import RefreshOutcome, RefreshReport
from srp4ctr.training.skew.check import Difference, ServedCheck
from tests.cli.terminal import assert_whole, at_80

UUID = "6b3f1c9e-52d7-4f0a-9a41-0d5c8e7f2b16"
TITLE = "Snow White and the Seven Dwarfs: Platinum Edition, Restored (1937)"
MADE_MS = 1_793_534_400_000  # 2026-11-01 12:00 UTC
GATES = (
    Gate(gate="auc", passed=True, value=0.7512, limit=0.5, note="AUC 0.7512"),
    Gate(
        gate="normalised_entropy",
        passed=False,
        value=0.98765,
        limit=0.97531,
        note="the champion v11 has 0.9701; the upper bound of the difference is 0.0123",
    ),
    Gate(gate="champion_auc", passed=None, note="no bundle serves yet"),
)


def a_bundle(version: str, **changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": version,
        "created_at_ms": MADE_MS,
        "window_start_ms": MADE_MS - 10 * 86_400_000,
        "window_end_ms": MADE_MS - 3_600_000,
        "boundary_ms": MADE_MS - 86_400_000,
        "schema_fingerprint": "9f86d081884c7d65",
        "parent": "v117",
        "negatives": "impressions",
        "metrics": {"auc": 0.7512, "gauc": 0.7041, "log_loss": 0.5123, "calibration": 1.02},
        "counts": {"events": 123_456_789, "impressions": 98_765_432},
        "sizes": {"L": 200, "items": 1_234_567},
        "cost": {"folded_flops": 62_345_678, "unfolded_flops": 1_371_604_916},
        "seconds": {"fine-tune": 12_345.6789},
        "notes": ("resumed from a checkpoint at step 12,000 of 48,000",),
        "gates": [
            {
                "gate": gate.gate,
                "passed": gate.passed,
                "value": gate.value,
                "limit": gate.limit,
                "note": gate.note,
            }
            for gate in GATES
        ],
        "outcome": "refused",
        "role": "",
    }
    return found | changed


def test_a_list_of_bundles() -> None:
    shown = at_80(
        models.bundles_table(
            [
                a_bundle("v117", role="serving", parent=""),
                a_bundle("v118", negatives="sampled"),
            ]
        )
    )
    figures = ("0.7512", "0.7041", "0.5123", "1.0200", "62", "2026-11-01 12:00")
    assert_whole(shown, (*figures, "2026-10-22", "v117", "v118", "serving", "refused"))
    assert_whole(shown, ("from v117", "from scratch"))
    assert shown.count("sampled") == 1


def test_one_bundle_and_the_difference_of_two() -> None:
    one, other = a_bundle("v117", negatives="sampled"), a_bundle("v118")
    one["rules"] = [asdict(RULE)]
    other["counts"] = {"events": 223_456_789}
    shown = at_80(*models.bundle_tables(one), models.difference_table(one, other))
    assert_whole(shown, ("negatives are sampled", "a preference", "touched_then_order"))
    assert_whole(shown, ("123,456,789", "1,371,604,916", "12345.6789", "9f86d081884c7d65"))
    assert_whole(
        shown, ("223,456,789", "+100,000,000", "0.9877", "0.9753", "2026-11-01 12:00:00")
    )


def test_a_refresh() -> None:
    report = RefreshReport(
        version="v118",
        folder=Path("v118"),
        outcome=RefreshOutcome.REFUSED,
        gates=GATES,
        notes=("resumed from a checkpoint",),
        metrics={"auc": 0.7512},
        counts={"impressions": 98_765_432},
        seconds={"fine-tune": 12_345.6},
    )
    shown = at_80(*models.report_tables(report))
    assert_whole(shown, ("0.7512", "98,765,432", "12345.6", "0.9877", "0.9753"))
    assert "touched_then_order" not in shown
    shown = at_80(*models.report_tables(replace(report, rules=(RULE,))))
    assert_whole(shown, ("touched_then_order", "0.8352", "0.4991", "0.8123", "0.5012"))
    assert_whole(shown, ("-0.0229 [-0.0312, -0.0146]", "+0.0021 [-0.0102, +0.0144]"))


RULE = RuleResult(
    rule="touched_then_order",
    meaning="what the user acted on last, then the caller's order (order)",
    requests=5_500,
    gauc=0.8352,
    model_gauc=0.8123,
    gauc_difference=Contrast(value=-0.0229, low=-0.0312, high=-0.0146),
    ctr_at_1=0.4991,
    model_ctr_at_1=0.5012,
    ctr_difference=Contrast(value=0.0021, low=-0.0102, high=0.0144),
)


@pytest.mark.parametrize("cluster_ports", [(), (20_011, 20_012, 20_013, 20_014, 20_015)])
def test_a_stack(cluster_ports: tuple[int, ...]) -> None:
    addresses = Addresses(
        data_dir="/srv/clicks/.data",
        broker="noida",
        kafka_port=20_001,
        redis_port=20_002,
        triton_grpc_port=20_003,
        triton_metrics_port=20_004,
        worker_metrics_port=20_005,
        monitor_port=20_006,
        caller_metrics_port=20_007,
        page_port=20_008,
        prometheus_port=20_009,
        intake_port=0,
        intake_metrics_port=0,
        cluster_ports=cluster_ports,
    )
    stores = [f"store-{n}" for n in (1, 2, 3)] if cluster_ports else ["store"]
    names = [*stores, "broker", "triton", "watch", "prometheus", "stream", "monitor"]
    log = "/srv/clicks/.data/logs/a.log"
    running = [Running(name=n, pid=4_194_304, birth="", log=log) for n in names]
    status = StackStatus(addresses=addresses, running=tuple(running), ended=("page",))
    shown = at_80(results.stack_table(status))
    ports = {*range(20_001, 20_007), 20_009, *cluster_ports[:2]}
    assert_whole(shown, [f"127.0.0.1:{port}" for port in ports])
    assert_whole(shown, (*names, "page", "4194304"))


def test_a_ranking() -> None:
    items = (UUID, "i-2")
    ranking = Ranking(
        user_id="u1",
        item_ids=items,
        scores=(0.12345, 0.98765),
        item_statuses=(7, 0),
        propensities=(1.0, 1.0),
        positions=(1, 0),
        model_version="v118",
        status="stale_sequence",
        feature_version="9f86d081884c7d65",
    )
    shown = at_80(results.ranking_table(ranking, {item_key(i): TITLE for i in items}))
    status = ("stale_sequence", "features.sequence_ttl_days")
    assert_whole(shown, ("0.123", "0.988", "i-2", *status, "9f86d081884c7d65"))
    id_column = [line.split("│")[3].strip() for line in shown.splitlines() if "│" in line]
    assert UUID in "".join(id_column)  # it may take several lines


def test_a_file_of_events_and_its_dead_letters() -> None:
    detail = "Expected `int`, got `str` - at `$.occurred_at` of an impression"
    report = FileReport(
        path=Path("/srv/imports/2026-11-01/clicks-from-the-old-system-part-00017.jsonl"),
        counts={"impression": 123_456_789},
        rejected={"too_far_in_the_future": 1_234_567},
        bad_lines=(BadLine(number=98_765_432, reason="malformed", detail=detail),),
    )
    letters = ReplayReport(
        replayed=Counter({"schema_violation": 1_234_567}),
        kept=Counter({"malformed": 89}),
        dropped=7_654_321,
    )
    replayed = (results.replay_table(letters, dry_run=each) for each in (True, False))
    shown = at_80(*results.file_tables(report), *replayed)
    figures = ("123,456,789", "1,234,567", "98765432", "89", "malformed", "7,654,321")
    assert_whole(shown, figures)


def test_a_check_of_the_store() -> None:
    check = FeatureCheck(
        checked_at_ms=0,
        rows=1_234_567,
        wrong_sequences=12_345,
        edits=67_890,
        largest_difference=1234.5,
        behind_s=86_401.5,
        details=(f"user {UUID}: 3 behaviours are missing since offset 123456789",),
    )
    shown = at_80(results.check_table(check))
    assert_whole(shown, ("1,234,567", "12,345", "67,890", "1.23e+03", "86401.5", UUID))


def test_a_check_of_served_requests() -> None:
    differs = Difference(requests=12_345, largest=0.000123)
    check = ServedCheck(
        requests=98_765,
        impressions=1_234_567,
        rescored=98_765,
        onnx_difference=1.2e-7,
        mean_shift=3.4e-5,
        largest_shift=0.012,
        tensors={"candidate_features": differs},
        features={"hours_since_last_click_of_this_item": differs},
    )
    shown = at_80(*results.served_tables(check))
    figures = ("98,765", "1,234,567", "1.2e-07", "3.4e-05", "0.012", "0.000123")
    assert_whole(shown, (*figures, "12,345 (12.5%)"))


def test_a_user() -> None:
    now_ms = time.time_ns() // 1_000_000
    key = item_key("i-1")
    element = SequenceElement(
        occurred_at=now_ms - 7_200_000, item_key=key, action=28, value=4.5
    )
    newest = 1_793_534_400_000_123
    shown_at = SequenceElement(occurred_at=now_ms - 180_000, item_key=key, action=SHOWN)
    user = UserState(
        sequence=sequence_of([element]),
        exposures=sequence_of([shown_at]),
        version_us=newest,
        impressions=(1.25, 12.5, 125.0, 12_345.67),
        clicks=(0.25, 1.5, 12.0, 123.45),
        counted_at_ms=now_ms,
        last_offset=123_456_789,
        attributes='{"age": "34", "towns": ["Ulm", "Köln"]}',
        profile_at_ms=now_ms - 60_000,
    )
    event: dict[str, Any] = {"event_id": UUID, "user_id": "u1", "item_id": "i-1"}
    event |= {"request_id": "r1", "occurred_at": now_ms}
    rows = UserRows(
        user_id=UUID,
        user=user,
        titles={key: TITLE},
        actions={28: "skip"},
        origins={element: f"{UUID}, 11@123456789"},
        counted=(Click(**event), Impression(position=0, **event)),
    )
    shown = at_80(*users.user_tables(rows))
    places = (UUID, "11@123456789", "123456789", str(newest))
    at = (results.clock(element.occurred_at), results.clock(now_ms - 180_000))
    attributes = (results.clock(user.profile_at_ms), "age", "34", "Ulm, Köln")
    figures = ("skip 4.5", "2 h ago", "3 min ago", "12.50", "125.00", "123.45")
    assert_whole(shown, (*places, *at, *figures, *attributes))


def test_the_audit_log() -> None:
    actor = "release-bot@ops-1.example.com"
    place = "behavior-events 11@123456789"
    common: dict[str, Any] = {"at": "2026-11-01T12:00:00.123+00:00", "actor": actor}
    shown = at_80(
        results.audit_table(
            [
                AuditEntry(
                    operation="1",
                    command="model promote --canary",
                    subject="v118",
                    result=FAILED,
                    before="v116, canary v117",
                    after="v116",
                    detail="ConnectionError: no Triton answers at 127.0.0.1:8001",
                    **common,
                ),
                AuditEntry(
                    operation="2",
                    command="features forget",
                    subject=place,
                    result=DONE,
                    **common,
                ),
            ]
        )
    )
    assert_whole(shown, ("2026-11-01 12:00:00", actor, "v118", "11@123456789"))
    assert_whole(shown, ("127.0.0.1:8001", "v116, canary v117 → v116", "done"))


def test_a_figure_that_is_cut_is_found() -> None:
    narrow = Table("a", Column("b", max_width=5))
    narrow.add_row("x" * 100, "123,456,789")
    with pytest.raises(AssertionError):
        assert_whole(at_80(narrow), ["123,456,789"])


def test_a_capacity_plan() -> None:
    options = CapacityOptions(
        users=100_000_000, items=1_000_000, events_per_s=3e6, requests_per_s=2e5
    )
    plan = CapacityPlan(options, load()).document()
    shown = at_80(capacity.needs_table(plan), capacity.limits_table(plan))
    for line in plan["lines"]:
        assert_whole(shown, [capacity.rounded(line["value"]), line["part"]])
    for limit in plan["limits"]:
        keys = ("needed", "holds", "times")
        assert_whole(shown, [capacity.rounded(limit[key]) for key in keys])
