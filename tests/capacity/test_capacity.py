"""The plan's arithmetic by cases computed by hand, its constants by the results."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from srp4ctr.capacity import plan as measured
from srp4ctr.capacity.plan import (
    CORES,
    DISK,
    MEMORY,
    CapacityOptions,
    CapacityPlan,
    MeasuredCost,
)
from srp4ctr.cli.capacity import rounded
from srp4ctr.cli.main import app
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import item_refresher
from srp4ctr.settings import load
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import ModelConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "capacity.md").read_text()
SMALL = ("--users", "1000", "--items", "100", "--events-per-s", "10")


def results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def a_plan(**changed: Any) -> Any:
    given = {"users": 1000, "items": 100, "events_per_s": 10.0, "requests_per_s": 1.0}
    return CapacityPlan(CapacityOptions(**given | changed), load()).document()


def value(made: Any, what: str) -> float:
    (found,) = [line["value"] for line in made["lines"] if what in line["what"]]
    return float(found)


def times(made: Any, what: str) -> float:
    (found,) = [limit["times"] for limit in made["limits"] if what in limit["what"]]
    return float(found)


def total(made: Any, unit: str) -> float:
    return float(sum(line["value"] for line in made["lines"] if line["unit"] == unit))


def test_between_two_lengths_a_figure_is_on_the_line() -> None:
    assert MeasuredCost("", {50: 10.0, 200: 40.0}).at(100) == 20.0
    assert MeasuredCost("", {50: 10.0, 200: 40.0, 1000: 40.0}).at(600) == 40.0


def test_the_line_continues_beyond_the_last_length_and_ends_below_the_first() -> None:
    assert MeasuredCost("", {50: 10.0, 200: 40.0}).at(400) == 80.0
    assert MeasuredCost("", {50: 10.0, 200: 40.0}).at(5) == 10.0


def test_a_request_of_ten_candidates_costs_what_was_measured() -> None:
    made = a_plan(requests_per_s=1e6, candidates=10, utilisation=1.0)
    found = value(made, "encoded once per request")
    assert found == pytest.approx(1e6 * measured.ENCODE_ONCE_S[50][10] * 10 / 1000, abs=1)


def test_workers_are_events_by_a_core_s_rate_at_the_planned_share() -> None:
    per_core_s = 1e6 / measured.WORKER_US.at(50)
    assert value(a_plan(events_per_s=3 * per_core_s), "stream workers") == 5  # 3 / 0.6
    whole = a_plan(events_per_s=3 * per_core_s, utilisation=1.0)
    assert value(whole, "stream workers") == 3
    assert value(whole, "partitions of a topic") == 6


def test_there_are_at_least_four_partitions_unless_given() -> None:
    assert value(a_plan(), "partitions of a topic") == 4
    assert value(a_plan(partitions=9), "partitions of a topic") == 9


def test_memory_and_disk_are_rows_times_bytes_times_copies() -> None:
    made = a_plan(users=10**9, items=10**6, partitions=10, copies=3)
    users = measured.USER_BYTES.at(50)
    shares = measured.SHARE_BYTES.at()
    assert value(made, "Redis: users") == pytest.approx(3 * users)
    assert value(made, "a row per partition") == pytest.approx(3 * shares / 100)
    kafka = value(a_plan(events_per_s=1000.0, retention_days=2.0), "Kafka, 2 days")
    per_event = measured.KAFKA_BYTES.at()
    assert kafka == pytest.approx(1000 * 86_400 * per_event * 2 * 2 / 1e9)


def test_a_server_s_cores_are_requests_by_their_cpu_time() -> None:
    made = a_plan(requests_per_s=60_000.0, candidates=100, history=50)
    cores = 60_000 * measured.ENCODE_ONCE_S[50][100] * 100 / 1000
    tiled = 60_000 * measured.RE_ENCODE_S.at(50) * 100 / 1000
    assert value(made, "encoded once per request") == math.ceil(cores / 0.6)
    assert value(made, "re-encoded per candidate") == math.ceil(tiled / 0.6)
    assert value(made, "replicas of 16") == math.ceil(cores / 0.6 / 16)


def test_each_replica_has_one_table_with_a_share_of_each_partition() -> None:
    few, many = (a_plan(items=10**6, requests_per_s=1e5, partitions=p) for p in (4, 49))
    what, replicas = "a table of items", value(few, "replicas of 16")
    more = replicas * 45 * measured.REFRESHED_BYTES * 1e6 / 1e9
    assert value(many, what) - value(few, what) == pytest.approx(more)
    slow = a_plan(items=10**4, partitions=100, events_per_s=1e9)
    flushes_per_s = 1000.0 / StreamConfig().flush_interval_ms
    assert value(slow, "refreshing the tables") > 0
    assert times(slow, "one refresher") == pytest.approx(
        1e6 * flushes_per_s * measured.REFRESH_US.at() / 1e6
    )


def test_each_process_and_native_step_has_the_items_of_three_bundles() -> None:
    made = a_plan(items=10**6, requests_per_s=1.0, cores=2)
    assert value(made, "replicas of 2") == 1
    copies = 1 + 1  # a process, as one core is enough, and the native step
    wanted = copies * 3 * 1e6 * measured.GRAPHS_BYTES.at() / 1e9
    assert value(made, "graphs of three bundles") == pytest.approx(wanted)


def test_training_hours_are_impressions_and_windows_by_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A refresh from an earlier bundle pre-trains for 2 epochs, and fine-tunes for one.
    for name, number in {"REPLAY": 0.0, "PRETRAIN_EPOCHS": 16}.items():
        monkeypatch.setenv(f"SRP4CTR_TRAINING__{name}", str(number))
    a_day, hours = 1000 * 86_400, "all cores of one machine"
    found = value(a_plan(events_per_s=1000.0, cores=1), hours)
    window_ms = measured.WINDOW_MS.at(50)
    ms = a_day * 0.6 * 0.1435 + a_day * 0.4 / 50 * 2 * window_ms
    assert found == pytest.approx(ms / 3.6e6)
    two = a_plan(events_per_s=1000.0, cores=1, train_days=2.0)
    assert value(two, hours) == pytest.approx(2 * found)
    longer = value(a_plan(events_per_s=1000.0, cores=1, history=200), hours)
    of_length = measured.WINDOW_MS.at(200) / window_ms  # fine-tuning grows as windows do
    ms = a_day * 0.6 * 0.1435 * of_length + a_day * 0.4 / 200 * 2 * window_ms * of_length
    assert longer == pytest.approx(ms / 3.6e6)


def test_a_gpu_counts_only_where_its_speed_is_given() -> None:
    by_cores = value(a_plan(events_per_s=1e5), "all cores of one machine")
    assert value(a_plan(events_per_s=1e5, gpu_times=32.0), "one GPU") == by_cores / 2
    assert not [line for line in a_plan()["lines"] if "GPU" in line["what"]]


def test_the_price_is_of_cores_memory_and_disk() -> None:
    prices = ("price_core_hour", "price_memory_gb_month", "price_disk_gb_month")
    made = a_plan(**dict(zip(prices, (1.0, 10.0, 0.0), strict=True)))
    wanted = total(made, CORES) * 730 + total(made, MEMORY) * 10
    assert made["month"] == pytest.approx(wanted)
    made = a_plan(**dict(zip(prices, (0.0, 0.0, 2.0), strict=True)))
    assert made["month"] == pytest.approx(2 * total(made, DISK))


def test_a_core_hour_costs_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRP4CTR_MONITORING__PRICE_PER_CORE_HOUR", "3")
    monkeypatch.setenv("SRP4CTR_MONITORING__CURRENCY", "EUR")
    made = a_plan(price_memory_gb_month=0.0, price_disk_gb_month=0.0)
    assert made["month"] == pytest.approx(3 * 730 * total(made, CORES))
    assert made["currency"] == "EUR"


def test_the_worst_limit_is_first() -> None:
    made = a_plan(events_per_s=1e6, items=10**7)
    found = [limit["times"] for limit in made["limits"]]
    assert found == sorted(found, reverse=True)
    assert times(made, "monitor counts") == pytest.approx(0.6 * measured.LABEL_US.at())
    assert times(made, "one refresher") == pytest.approx(1.0 * measured.REFRESH_US.at())


def test_settings_change_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    default = a_plan(events_per_s=1e6, items=10**7)
    monkeypatch.setenv("SRP4CTR_STREAMS__CORRECTION_WINDOW_S", "10")
    monkeypatch.setenv("SRP4CTR_MONITORING__WINDOW_S", "60")
    other = a_plan(events_per_s=1e6, items=10**7)
    ratios = {"late clicks": 10 / 86_400, "monitor's window": 1 / 60}
    for what, ratio in ratios.items():
        assert times(other, what) == pytest.approx(ratio * times(default, what)), what


def test_at_a_small_traffic_nothing_breaks() -> None:
    assert [limit for limit in a_plan()["limits"] if limit["times"] > 1.0] == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--requests-per-s", "0"), "--requests-per-s is 0"),
        (("--requests-per-s", "nan"), "--requests-per-s is nan"),
        (("--requests-per-s", "1", "--utilisation", "1.5"), "--utilisation is 1.5"),
        (("--requests-per-s", "1", "--history", "-3"), "--history is -3"),
        (("--requests-per-s", "1", "--partitions", "-1"), "--partitions is -1"),
        (("--requests-per-s", "1", "--gpu-times", "nan"), "--gpu-times is nan"),
        (("--requests-per-s", "1", "--price-disk-gb-month", "-1"), "disk-gb-month is -1"),
    ],
)
def test_what_cannot_be_is_refused_by_the_flag_s_name(
    given: tuple[str, ...], said: str
) -> None:
    refused = CliRunner().invoke(app, ["capacity", *SMALL, *given])
    assert isinstance(refused.exception, ValueError)
    assert said in str(refused.exception)


def test_json_has_the_lines_and_the_limits() -> None:
    command = ["capacity", *SMALL, "--requests-per-s", "1", "--json"]
    found = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert {line["unit"] for line in found["lines"]} >= {CORES, MEMORY, DISK}
    assert list(found["lines"][0]) == ["part", "what", "value", "unit", "source"]
    limit = ["what", "needed", "holds", "unit", "remedy", "source", "times"]
    assert list(found["limits"][0]) == limit
    assert found["limits"][0]["times"] > 0
    assert found["month"] > 0


def test_help_names_every_option_with_its_default() -> None:
    shown = CliRunner().invoke(app, ["capacity", "--help"], catch_exceptions=False).stdout
    for field in fields(CapacityOptions):
        name = "json" if field.name == "as_json" else field.name.replace("_", "-")
        assert f"--{name} " in shown
    assert "[default: 0.08]" in shown


def test_numbers_have_the_digits_that_matter() -> None:
    shown = [rounded(each) for each in (4.0, 0.012345, 123.4, 1234567.0, 2.5e9, 0.0)]
    assert shown == ["4", "0.0123", "123", "1.23 M", "2.5 G", "0"]


def test_the_page_shows_what_its_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    match = re.search(
        r"```console\n\$ srp4ctr (capacity .*?)\n```\n\n```\n(.*?)```", PAGE, re.S
    )
    assert match
    words = match[1].replace("\\\n", " ").split()
    printed = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert [line.rstrip() for line in printed.splitlines()] == match[2].splitlines()


def test_the_footprints_are_the_result_s() -> None:
    found = results("footprints.json")
    rows = {row["length"]: row for row in found["rows"]}
    constants = {
        var.source.split(": ")[1]: var.value
        for var in vars(measured).values()
        if isinstance(var, MeasuredCost) and var.source.startswith("footprints.json")
    }
    assert constants.keys() == rows[50].keys() - {"length"}
    for field, each in constants.items():
        by_length = {length: row[field] for length, row in rows.items()}
        if isinstance(each, Mapping):
            assert each == by_length, field
        else:
            assert each == pytest.approx(sum(by_length.values()) / 2), field


def test_the_serving_times_are_the_result_s() -> None:
    rows = {
        (row["form"], row["length"], row["candidates"]): row["cpu_s_per_1000_candidates"]
        for row in results("serving.json")["rows"]
        if row["callers"] == 4
    }
    for length, each in measured.ENCODE_ONCE_S.items():
        for number, seconds in each.items():
            assert rows["rank_clicks", length, number] == seconds
    assert isinstance(measured.RE_ENCODE_S.value, Mapping)
    for length, seconds in measured.RE_ENCODE_S.value.items():
        assert rows["rank_tiled", length, 100] == seconds
    assert results("serving.json")["rss_mb"] == measured.SERVER_MB.value


def test_the_other_constants_are_the_results() -> None:
    rows = results("folded_training.json")["rows"]
    (ebnerd,) = [row for row in rows if row["data"] == "ebnerd"]
    impressions = ebnerd["requests"] * ebnerd["impressions_per_request"]
    each_ms = 1e3 * ebnerd["folded_s"] / impressions
    assert measured.FIT_MS.value == pytest.approx(each_ms, rel=1e-3)
    labels = results("monitoring.json")
    assert measured.LABEL_US.value == labels["overhead_us_per_event"]
    a_label = labels["memory_mb"] * 1e6 / labels["labels"]
    assert measured.LABEL_BYTES.value == pytest.approx(a_label)
    spilled = results("training_memory.json")["spilled_bytes_an_event"]
    assert measured.SPILLED_BYTES.value == spilled
    assert measured.ITEM_BYTES.value == 4 * ModelConfig().width
    memory = results("serving_memory.json")
    copies = 1 + memory["rows"][0]["python_processes"]
    each = memory["promotion_bytes_an_item"] / copies / measured.LOADED_BUNDLES
    assert measured.GRAPHS_BYTES.value == pytest.approx(each, rel=1e-3)
    assert measured.SWEPT_ROWS.value == item_refresher.KEYS_IN_READ
    assert measured.TURNS == item_refresher.TURNS
    assert measured.SWEEP_EVERY_S * 1000 == item_refresher.SWEEP_EVERY_MS
    assert FeatureConfig().partitions + 1 == measured.ROWS_PER_ITEM_READ


def test_every_constant_names_a_file_that_is_there_or_a_commit() -> None:
    constants = [var for var in vars(measured).values() if isinstance(var, MeasuredCost)]
    sources = [measured.RANK_S, *(constant.source for constant in constants)]
    assert len(sources) > 12
    for source in sources:
        name = source.split(":")[0]
        if re.fullmatch(r"\w+ at [0-9a-f]{8}", name):
            continue
        there = [ROOT / name, ROOT / "benchmarks" / "results" / name]
        assert any(path.is_file() for path in there), source
