"""The click-quality harness on a small shop: split, buckets, resumption, complete rows."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.runner import RUNS, Job, run
from benchmarks.harness.saved_result import merge_rows
from benchmarks.models.baselines import BASELINES
from benchmarks.quality import click_quality
from benchmarks.quality.click_quality import changed
from benchmarks.quality.clicks import click_report
from benchmarks.quality.clicks.click_cutting import split_times
from benchmarks.quality.clicks.click_examples import Examples
from benchmarks.quality.clicks.click_scores import figures, one_score
from benchmarks.quality.clicks.click_sources import Source, of_file
from benchmarks.quality.clicks.variants import request_flops
from srp4ctr.streams.events.schema import Behavior, Click, Impression, ItemUpdate
from srp4ctr.testing import ebnerd
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.model.heads.scores import Scores
from tests.benchmarks.quality.conftest import USERS, shop


def test_bad_lines_are_counted_and_skipped(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = of_file("shop", file)
    assert len(source.events) + len(source.updates) == len(list(shop()))
    assert "2 of" in capsys.readouterr().err


def test_a_file_without_impressions_says_so(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(ValueError, match="no impression"):
        of_file("none", path)


def test_the_three_parts_follow_each_other(examples: Examples) -> None:
    parts = (examples.train, examples.calibrate, examples.judge)
    assert [len(part) for part in parts] == [96, 12, 12]
    newest = [int(part.slates.request_at_ms.max()) for part in parts]
    oldest = [int(part.slates.request_at_ms.min()) for part in parts]
    assert newest[0] < oldest[1] <= newest[1] < oldest[2]


def test_a_given_boundary_leaves_all_after_it_to_the_judge() -> None:
    times = np.arange(100, dtype=np.int64)
    instants = split_times(times, judged_from_ms=60)
    assert (instants.trained_until_ms, instants.judged_from_ms) == (54, 60)


def test_nothing_that_teaches_is_later_than_the_training_part(
    examples: Examples,
) -> None:
    last = int(examples.train.slates.request_at_ms[-1])
    shown = sum(
        1 for each in shop() if isinstance(each, Impression) and each.occurred_at <= last
    )
    assert examples.item_impressions.sum() == shown
    behaviors = [
        each
        for each in shop()
        if isinstance(each, Click | Behavior)
        and each.occurred_at < int(examples.calibrate.slates.request_at_ms[0])
    ]
    windows = examples.windows.tensors["history_item_rows"]
    assert (windows != 0).sum() == len(behaviors)


def test_an_item_first_seen_later_is_new(examples: Examples) -> None:
    assert examples.item_is_new.sum() == 1
    assert examples.item_impressions[examples.item_is_new].sum() == 0


def test_the_slates_size_is_in_the_context_and_nowhere_else(
    examples: Examples,
) -> None:
    sized = examples.with_size()
    assert json.loads(sized.judge.contexts[0]) == {"device": "desk", "in_view": "4"}
    before, after = (each.judge.slates.tensors for each in (examples, sized))
    differing = [name for name in before if not np.array_equal(before[name], after[name])]
    assert differing == ["context_rows"]


def test_the_buckets_of_items_and_of_users_add_up(examples: Examples) -> None:
    part = examples.judge
    even = np.full(int(part.slates.shown.sum()), 0.5)
    found = figures(examples, part, one_score(even))
    assert found["auc"] == 0.5
    assert found["tail_impressions"] + found["head_impressions"] == found["impressions"]
    kinds = ("no_history", "short_history", "long_history")
    assert sum(found[f"{kind}_impressions"] for kind in kinds) == found["impressions"]


def test_what_orders_a_slate_is_judged_by_gauc_and_the_probability_by_the_rest(
    examples: Examples,
) -> None:
    part = examples.judge
    clicked = part.clicked.astype(np.float64)
    even = np.full(len(clicked), clicked.mean())
    found = figures(examples, part, Scores(click=even, ranking=clicked))
    assert (found["gauc"], found["gauc_of_probability"], found["auc"]) == (1.0, 0.5, 0.5)
    assert found["calibration"] == pytest.approx(1.0)


def test_what_is_made_once_a_request_costs_once(examples: Examples) -> None:
    config = RefreshConfig().model
    cost = {
        name: [
            request_flops(BASELINES[name](config, examples.sizes), examples.judge, n)
            for n in (1, 100)
        ]
        for name in ("din", "bst")
    }
    assert cost["din"][1] / cost["din"][0] < 60  # the history's tokens once
    assert cost["bst"][1] / cost["bst"][0] < 30  # its keys and values too


def test_a_run_is_cached_by_its_settings(folder: Path, tmp_path: Path) -> None:
    job = Job(root=tmp_path, folder=folder, variant="dcnv2", config=RefreshConfig())
    first = run(job)
    assert first["figures"]["shop"]["impressions"] == 48
    job.file.write_text(json.dumps({**first, "seed": 7}))
    assert run(job)["seed"] == 7  # it was read, not run
    other = replace(job, config=changed(job.config, ["finetune_learning_rate=0.1"]))
    assert other.file != job.file


def test_settings_are_changed_by_name() -> None:
    config = changed(RefreshConfig(), ["freeze=encoder", "model.width=8"])
    assert (config.freeze, config.model.width) == ("encoder", 8)
    with pytest.raises(TypeError, match="no_such"):
        changed(config, ["no_such=1"])


def test_rows_pair_equal_seeds_and_count_the_failed_ones(tmp_path: Path) -> None:
    def result(variant: str, seed: int, gauc: float) -> dict[str, object]:
        found = {"auc": 0.7, "gauc": gauc, "log_loss": 0.5}
        return {
            "arm": variant,
            "seed": seed,
            "label_share": 1.0,
            "chosen": {},
            "seconds": {"finetune": 1.0},
            "flops": {},
            "figures": {"shop": found},
        }

    results = [result("srp4ctr", seed, 0.6 + seed / 10) for seed in range(3)]
    results += [result("din", seed, 0.5 + seed / 10) for seed in range(2)]
    rows = click_report.rows_of(results, {"srp4ctr": 3, "din": 3})
    din = next(row for row in rows if row["model"] == "din")
    assert (din["seeds"], din["seeds_failed"]) == (2, 1)
    assert din["gauc_minus_srp4ctr"] == pytest.approx(-0.1)
    assert din["gauc_minus_srp4ctr_se"] == pytest.approx(0.0)
    assert din["gauc_se"] == pytest.approx(0.1 / 2)
    kept = tmp_path / "kept.json"
    merge_rows(rows, kept, ("data", "model"))
    merge_rows([{**din, "auc": 0.9}], kept, ("data", "model"))
    merged = json.loads(kept.read_text())["rows"]
    assert [(row["model"], row["auc"]) for row in merged] == [
        ("srp4ctr", 0.7),
        ("din", 0.9),
    ]


def test_the_command_ends_with_one_line_of_json(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    variants = "srp4ctr,lightgbm,srp4ctr-none"
    flags = ["--events", str(file), "--name", "shop", "--arms", variants, "--seeds", "1"]
    flags += ["--quick", "--labels", "50,100", "--resume", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["click_quality", *flags, "--set", "model.width=8"])
    click_quality.main()
    last = capsys.readouterr().out.strip().splitlines()[-1]
    rows = json.loads(last)["rows"]
    found = {(row["data"], row["model"]) for row in rows}
    models = [
        f"{variant}{share}" for variant in variants.split(",") for share in ("", "@50%")
    ]
    assert found == {("shop", model) for model in models}
    encoders = list((tmp_path / "pretrained").glob("*.safetensors"))
    assert len(encoders) == 1  # shared by all


@pytest.mark.skipif(not ebnerd.STREAM.is_file(), reason="needs EB-NeRD")
def test_no_read_of_ebnerd_is_from_a_taught_or_a_judged_week() -> None:
    reads = [read.occurred_at for read in ebnerd.reads()]
    assert 0 < len(reads) < 347_945  # of all that the file holds
    assert max(reads) < ebnerd.began_ms("train") < ebnerd.began_ms("validation")


def test_a_part_keeps_whole_users() -> None:
    events = [each for each in shop() if not isinstance(each, ItemUpdate)]
    whole = Source(name="shop", events=events)
    part = whole.part(len(events) // 2)
    kept = {event.user_id for event in part.events}
    assert 0 < len(kept) < USERS
    assert len(part.events) == sum(event.user_id in kept for event in events)


def test_a_look_at_a_published_test_is_noted_once(folder: Path, tmp_path: Path) -> None:
    published = tmp_path / "published"
    shutil.copytree(folder, published)
    card = json.loads((published / "card.json").read_text()) | {"name": "KuaiRand-Pure"}
    (published / "card.json").write_text(json.dumps(card))
    jobs = [
        Job(root=tmp_path, folder=where, variant="lightgbm", config=RefreshConfig())
        for where in (folder, published)
    ]
    looks = tmp_path / "looks.jsonl"
    for _ in range(2):
        click_quality.note_looks(jobs, looks)
        run(jobs[1])
    (line,) = looks.read_text().splitlines()  # of the published one, before it ran
    noted = json.loads(line)
    assert noted["run"] == jobs[1].file.relative_to(tmp_path / RUNS).as_posix()
    assert noted.keys() >= {"who", "date", "hardware"}
