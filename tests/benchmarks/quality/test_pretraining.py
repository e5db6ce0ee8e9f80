import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.harness.figures import table
from benchmarks.quality.leave_last import scores
from benchmarks.quality.leave_last.files import part_of, read
from benchmarks.quality.leave_last.leave_last_out import (
    NEGATIVES,
    TEST,
    VALIDATION,
    LeaveLast,
)
from benchmarks.quality.leave_last.recipe import RECIPE
from benchmarks.quality.leave_last.variants import VARIANTS
from benchmarks.quality.pretraining import COLUMNS, PretrainingRun, execute, summary
from srp4ctr.features import columns
from srp4ctr.testing.ebnerd import DATA

ITEMS, USERS = 150, 120
LOG_COUNT = columns.CANDIDATE.place("item_log_impressions_168h")
BEAUTY = DATA / "s3rec"


def walks() -> dict[int, list[int]]:
    """Users who step from item i to i + 1, each from another beginning."""
    return {
        user: [1 + (user * 7 + step) % ITEMS for step in range(5 + user % 4)]
        for user in range(USERS)
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Walks in the layout of S3-Rec's text files."""
    rng = np.random.default_rng(0)
    lines, drawn = [], []
    for user, items in walks().items():
        others = np.setdiff1d(np.arange(1, ITEMS + 1), items)
        negatives = rng.choice(others, NEGATIVES, replace=False)
        lines.append(" ".join(map(str, [user, *items])))
        drawn.append(" ".join(map(str, [user, *negatives.tolist()])))
    (tmp_path / "walks.txt").write_text("\n".join(lines))
    (tmp_path / "walks_sample.txt").write_text("\n".join(drawn))
    attributes = {str(item): [1 + item % 5, 6] for item in range(1, ITEMS + 1)}
    (tmp_path / "walks_item2attributes.json").write_text(json.dumps(attributes))
    return tmp_path


@pytest.fixture
def data(folder: Path) -> LeaveLast:
    return replace(read(folder, "walks"), length=10)


def test_text_files_and_parquet_files_are_the_same_data(
    folder: Path, data: LeaveLast
) -> None:
    sequences = walks()
    rows = {
        "user_id": list(sequences),
        "items": list(sequences.values()),
        "test_neg_99": data.negatives.tolist(),
    }
    items = {
        "item_id": list(range(1, ITEMS + 1)),
        "attributes": [[1 + item % 5, 6] for item in range(1, ITEMS + 1)],
    }
    pq.write_table(pa.table(rows), folder / "other.parquet")
    pq.write_table(pa.table(items), folder / "other_item_attributes.parquet")
    other = read(folder, "other")
    assert other.profiles == data.profiles
    assert np.array_equal(other.candidates(TEST), data.candidates(TEST))
    mine, theirs = data.histories.behaviors, other.histories.behaviors
    assert np.array_equal(mine.item_keys, theirs.item_keys)


def test_no_answer_is_in_the_training_part(data: LeaveLast) -> None:
    windows = data.windows().tensors["history_item_rows"]
    behaviors = sum(len(items) - 2 for items in walks().values())
    assert (windows != 0).sum() == behaviors
    assert sum(data.popularity[1]) == behaviors
    training_slates = data.training_slates(np.random.default_rng(0), negatives=9, rounds=2)
    trained = {user: items[:-2] for user, items in walks().items()}
    first = data.words.first_known_row
    known = data.words.item_keys
    for row, user in enumerate(training_slates.user_ids.astype(int)):
        history = training_slates.tensors["history_item_rows"][row]
        answer, *others = training_slates.tensors["candidate_item_rows"][row]
        place = int((history != 0).sum())
        assert training_slates.clicked[row].tolist() == [1.0] + [0.0] * 9
        if answer >= first:
            assert known[answer - first] == trained[user][place]
        keys = {known[other - first] for other in others if other >= first}
        assert not keys & set(trained[user])


def test_a_question_knows_the_past_up_to_it(data: LeaveLast) -> None:
    users = np.arange(USERS)
    for place in (VALIDATION, TEST):
        before = data.before(place, users)
        for user, items in walks().items():
            expected = items[:-place][-10:]
            assert before[user][before[user] != 0].tolist() == expected
            assert data.answers(place)[user] == items[-place]


def test_a_count_leaves_out_what_it_helps_to_predict(data: LeaveLast) -> None:
    training_slates = data.training_slates(np.random.default_rng(0), negatives=1, rounds=2)
    seen = np.expm1(training_slates.tensors["candidate_features"][:, 0, LOG_COUNT])
    rows = training_slates.tensors["candidate_item_rows"][:, 0].astype(np.int64)
    first = data.words.first_known_row
    counts = data.times_seen(data.words.item_keys[rows[rows >= first] - first])
    assert np.allclose(seen[rows >= first], counts - 1)


def test_a_share_of_the_labels_is_the_same_slates_in_every_round(data: LeaveLast) -> None:
    every = data.training_slates(np.random.default_rng(0), negatives=1, rounds=2)
    some = data.training_slates(np.random.default_rng(0), negatives=1, rounds=2, share=0.1)
    assert len(some) == 2 * (len(every) // 20)
    answers = some.tensors["candidate_item_rows"][:, 0]
    first, second = np.split(answers, 2)
    assert np.array_equal(first, second)


def test_ranks_count_who_stands_above_and_a_coin_breaks_ties() -> None:
    sure = np.array([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0]])
    assert scores.ranks(sure, seed=0).tolist() == [0, 2]
    equal = scores.ranks(np.zeros((4_000, 3)), seed=0)
    assert abs(equal.mean() - 1.0) < 0.06


def test_the_metrics_of_known_ranks() -> None:
    found = scores.values(np.array([0, 9, 10, 99]))
    assert found["hr10"] == 0.5
    assert found["ndcg10"] == pytest.approx((1.0 + 1.0 / math.log2(11)) / 4)
    assert found["mrr"] == pytest.approx((1 + 1 / 10 + 1 / 11 + 1 / 100) / 4)
    assert found["auc"] == pytest.approx(1 - (0 + 9 + 10 + 99) / 4 / 99)
    assert math.isnan(scores.values(np.array([], dtype=np.int64))["hr10"])


def test_every_variant_is_trained_and_is_in_the_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = RECIPE.shorter(0.01)
    runs = [
        PretrainingRun(
            folder=folder, name="walks", variant=variant, seed=0, users=None, recipe=recipe
        )
        for variant in VARIANTS
    ]
    assert len({run.file for run in runs}) == len(runs)
    for run in runs:
        execute(run)
    results = [json.loads(run.file.read_text()) for run in runs]
    rows = summary(results)
    assert [row["model"] for row in rows] == list(VARIANTS)
    few = replace(runs[-1], recipe=replace(recipe, label_share=0.1))
    assert few.file != runs[-1].file
    execute(few)
    (own,) = summary([json.loads(few.file.read_text())])
    assert own["model"] == f"{runs[-1].variant}@10%"
    assert all(0.0 <= row["hr10"] <= 1.0 for row in rows)
    assert len(table(rows, COLUMNS).splitlines()) == 1 + len(VARIANTS)
    json.dumps(rows, allow_nan=False)


def test_sasrec_finds_a_planted_order(data: LeaveLast) -> None:
    recipe = replace(RECIPE, sasrec_epochs=60, sasrec_batch=8, sasrec_dropout=0.1)
    trained = VARIANTS["sasrec"](data, 0, recipe, lambda *_: None)
    users = np.arange(USERS)
    known = data.times_seen(data.answers(VALIDATION)) > 1
    hits = scores.ranks(trained.scorer(VALIDATION, users), seed=0)[known] < scores.TOP
    assert hits.mean() > 0.5


@pytest.mark.skipif(not BEAUTY.is_dir(), reason=f"{BEAUTY} is absent")
def test_popularity_on_beauty_is_as_published() -> None:
    data = read(BEAUTY, "Beauty")
    users = np.arange(len(data.counts))
    found = scores.values(
        scores.ranks(
            VARIANTS["popularity"](data, 0, RECIPE, lambda *_: None).scorer(TEST, users), 0
        )
    )
    assert found["hr10"] == pytest.approx(0.2898, abs=0.001)
    assert found["auc"] == pytest.approx(0.6245, abs=0.0002)
    assert len(part_of(data, 100).negatives) == 100
