"""The plan's arithmetic by cases reckoned by hand, its constants against the results."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from srp4ctr.capacity import constants as measured
from srp4ctr.capacity.constants import (
    ByLength,
    ByLengthAndCandidates,
    Measured,
    on_line,
)
from srp4ctr.capacity.demand import Demand, Dials, Layout, Prices
from srp4ctr.capacity.plan import CORES, DISK, MEMORY, Plan, plan, training_core_hours
from srp4ctr.cli.capacity import _number
from srp4ctr.cli.main import app
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import ModelConfig, RefreshConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "capacity.md").read_text()
SMALL = ("--users", "1000", "--items", "100", "--events-per-s", "10")


def results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def a_demand(**changed: Any) -> Demand:
    given = {"users": 1000, "items": 100, "events_per_s": 10.0, "requests_per_s": 1.0}
    return Demand(**given | changed)


def a_plan(**changed: Any) -> Plan:
    return plan(a_demand(**changed), Prices(), Dials())


def value(made: Plan, what: str) -> float:
    (found,) = [line.value for line in made.lines if what in line.what]
    return found


def times(made: Plan, what: str) -> float:
    (found,) = [limit.times for limit in made.limits if what in limit.what]
    return found


def test_between_two_lengths_a_figure_is_on_the_line() -> None:
    assert on_line({50: 10.0, 200: 40.0}, 100) == 20.0


def test_beyond_the_last_length_the_line_goes_on_and_below_the_first_it_ends() -> None:
    assert on_line({50: 10.0, 200: 40.0}, 400) == 80.0
    assert on_line({50: 10.0, 200: 40.0}, 5) == 10.0


def test_a_request_of_ten_candidates_costs_what_was_measured() -> None:
    found = measured.FOLDED.a_request(50, 10).value
    assert found == pytest.approx(0.43888 * 10 / 1000)


def test_workers_are_events_by_a_core_s_rate_at_the_planned_share() -> None:
    per_core_s = 1e6 / measured.WORKER_US_PER_EVENT.at(50).value
    assert Layout(demand=a_demand(events_per_s=3 * per_core_s)).workers == 5  # 3 / 0.6
    whole = a_demand(events_per_s=3 * per_core_s, utilisation=1.0)
    assert Layout(demand=whole).workers == 3
    assert Layout(demand=whole).partitions == 6


def test_few_events_still_have_four_partitions_and_a_choice_is_kept() -> None:
    assert Layout(demand=a_demand()).partitions == 4
    assert Layout(demand=a_demand(partitions=9)).partitions == 9


def test_memory_and_disk_are_rows_times_bytes_times_copies() -> None:
    made = a_plan(users=10**9, items=10**6, partitions=10, copies=3)
    users = measured.BYTES_PER_USER.at(50).value
    shares = measured.ITEM_SHARE_BYTES.value
    assert value(made, "Redis: users") == pytest.approx(3 * users)
    assert value(made, "a share a partition") == pytest.approx(3 * shares / 100)
    kafka = value(a_plan(events_per_s=1000.0, retention_days=2.0), "Kafka, 2 days")
    per_event = measured.KAFKA_BYTES_PER_EVENT.value
    assert kafka == pytest.approx(1000 * 86_400 * per_event * 2 * 2 / 1e9)


def test_a_server_s_cores_are_requests_by_their_cpu_time() -> None:
    made = a_plan(requests_per_s=60_000.0, candidates=100, history=50)
    assert value(made, "encoded once a request") == 698  # 418.4 / 0.6
    assert value(made, "encoded a candidate") == 610_690 // 100 + 1
    assert value(made, "replicas of 16") == 44  # 697.3 / 16


def test_the_item_tables_read_a_share_of_each_partition() -> None:
    few, many = (
        value(a_plan(items=10**6, requests_per_s=1e5, partitions=p), "of the item")
        for p in (4, 49)
    )
    assert many == pytest.approx(10 * few, abs=10)


def test_training_hours_are_impressions_and_windows_by_their_time() -> None:
    refresh = RefreshConfig(replay=0.0, warm_finetune_epochs=1, warm_pretrain_epochs=2)
    dials = Dials(refresh=refresh)
    one = Layout(demand=a_demand(events_per_s=1000.0), dials=dials)
    found = training_core_hours(one)
    a_day = 1000 * 86_400
    window_ms = measured.PRETRAINING_MS_PER_WINDOW.at(50).value
    ms = a_day * 0.6 * 0.1435 + a_day * 0.4 / 50 * 2 * window_ms
    assert found == pytest.approx(ms / 3.6e6)
    two = Layout(demand=a_demand(events_per_s=1000.0, train_days=2.0), dials=dials)
    assert training_core_hours(two) == pytest.approx(2 * found)


def test_a_gpu_is_reckoned_with_where_someone_has_measured_it() -> None:
    by_cores = value(a_plan(events_per_s=1e5), "all cores of one machine")
    assert value(a_plan(events_per_s=1e5, gpu_times=32.0), "one GPU") == by_cores / 2
    assert not [each for each in a_plan().lines if "GPU" in each.what]


def test_the_price_is_of_cores_memory_and_disk() -> None:
    prices = Prices(core_hour=1.0, memory_gb_month=10.0, disk_gb_month=0.0)
    made = plan(a_demand(), prices, Dials())
    wanted = made.total(CORES) * 730 + made.total(MEMORY) * 10
    assert made.month == pytest.approx(wanted)
    free = Prices(core_hour=0.0, memory_gb_month=0.0, disk_gb_month=2.0)
    made = plan(a_demand(), free, Dials())
    assert made.month == pytest.approx(2 * made.total(DISK))


def test_what_breaks_first_stands_first() -> None:
    made = a_plan(events_per_s=1e6, items=10**7)
    found = [limit.times for limit in made.limits]
    assert found == sorted(found, reverse=True)
    assert times(made, "monitor counts") == pytest.approx(1e6 * 0.6 * 21.24e-6)
    assert times(made, "younger than a minute") == pytest.approx(1e7 / 30_000)


def test_the_settings_count() -> None:
    streams = StreamConfig(correction_window_s=10.0)
    dials = Dials(streams=streams, monitor_window_s=60.0, item_refresh_s=2.0)
    demand = a_demand(events_per_s=1e6, items=10**7)
    default, other = (plan(demand, Prices(), each) for each in (Dials(), dials))
    ratios = {"late clicks": 10 / 86_400, "monitor's window": 1 / 60, "copies": 0.5}
    for what, ratio in ratios.items():
        assert times(other, what) == pytest.approx(ratio * times(default, what)), what


def test_at_a_small_traffic_nothing_breaks() -> None:
    assert [limit.what for limit in a_plan().limits if limit.times > 1.0] == []


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
    asked = ["capacity", *SMALL, "--requests-per-s", "1", "--json"]
    found = json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).stdout)
    assert {each["unit"] for each in found["lines"]} >= {CORES, MEMORY, DISK}
    assert found["limits"][0]["times"] > 0
    assert found["month"] > 0


def test_numbers_have_the_digits_that_matter() -> None:
    shown = [_number(each) for each in (4.0, 0.012345, 123.4, 1234567.0, 2.5e9, 0.0)]
    assert shown == ["4", "0.0123", "123", "1.23 M", "2.5 G", "0"]


def test_the_page_shows_what_its_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    found = re.search(
        r"```console\n\$ srp4ctr (capacity .*?)\n```\n\n```\n(.*?)```", PAGE, re.S
    )
    assert found
    words = found[1].replace("\\\n", " ").split()
    printed = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert [line.rstrip() for line in printed.splitlines()] == found[2].splitlines()


def test_the_footprints_are_the_result_s() -> None:
    found = results("footprints.json")
    rows = {row["length"]: row for row in found["rows"]}
    kinds = Measured, ByLength
    constants = {
        each.source.split(": ")[1]: each
        for each in vars(measured).values()
        if isinstance(each, kinds) and each.source.startswith("footprints.json")
    }
    turn = constants.pop("table_turn_s_per_million_items")
    assert isinstance(turn, Measured)
    assert turn.value == found["table_turn_s_per_million_items"]
    assert constants.keys() == rows[50].keys() - {"length"}
    for field, each in constants.items():
        by_length = {length: row[field] for length, row in rows.items()}
        if isinstance(each, ByLength):
            assert each.values == by_length, field
        else:
            assert each.value == pytest.approx(sum(by_length.values()) / 2), field


def test_the_serving_times_are_the_result_s() -> None:
    rows = {
        (row["form"], row["length"], row["candidates"]): row["cpu_s_per_1000_candidates"]
        for row in results("serving.json")["rows"]
        if row["callers"] == 4
    }
    for length, each in measured.FOLDED.values.items():
        for number, seconds in each.items():
            assert rows["rank_clicks", length, number] == seconds
    for length, seconds in measured.TILED_S_PER_1000_CANDIDATES.values.items():
        assert rows["rank_tiled", length, 100] == seconds
    assert results("serving.json")["rss_mb"] == measured.SERVER_MB.value


def test_the_other_constants_are_the_results() -> None:
    (ebnerd,) = [
        row for row in results("folded_training.json")["rows"] if row["data"] == "ebnerd"
    ]
    each_ms = 1e3 * ebnerd["folded_s"] / ebnerd["requests"]
    assert measured.FINETUNING_MS_PER_IMPRESSION.value == pytest.approx(
        each_ms / ebnerd["impressions_per_request"], rel=1e-3
    )
    labels = results("monitoring.json")
    assert measured.LABEL_US.value == labels["overhead_us_per_event"]
    a_label = labels["memory_mb"] * 1e6 / labels["labels"]
    assert measured.LABEL_BYTES.value == pytest.approx(a_label)
    cut = results("recorded.json")["runs"]["point_in_time"]["figures"]
    assert measured.CUT_EVENT_BYTES.value == 1e6 * cut["peak_rss_mb"] / cut["events"]
    assert 4 * ModelConfig().width == measured.ITEM_BYTES_IN_A_FILE
    assert FeatureConfig().partitions == measured.PARTITIONS_OF_ITEM_READ


def test_every_constant_names_a_file_that_is_there() -> None:
    kinds = Measured, ByLength, ByLengthAndCandidates
    sources = [each.source for each in vars(measured).values() if isinstance(each, kinds)]
    assert len(sources) > 12
    for source in sources:
        name = source.split(":")[0]
        there = [ROOT / name, ROOT / "benchmarks" / "results" / name]
        assert any(path.is_file() for path in there), source
