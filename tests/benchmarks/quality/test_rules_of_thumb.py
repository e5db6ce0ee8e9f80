"""Rules of thumb on a generated hotel search: what is read, cut, compared and printed."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import rules_of_thumb
from benchmarks.quality.clicks.click_sources import Source
from benchmarks.quality.one_line_rules import comparisons, trivago
from benchmarks.quality.one_line_rules.comparisons import CTR, GAUC, Figure, Interval
from benchmarks.quality.one_line_rules.log_cutting import Cut, LoggedSet, cut
from srp4ctr.streams.events.schema import Behavior, Click, Impression
from srp4ctr.training.evaluation import rules
from srp4ctr.training.evaluation.evaluate import Scored

VISITS, LIST = 60, 5


def visits() -> pd.DataFrame:
    """Return rows as the file has them: every other visitor clicks the hotel looked at."""
    rows: list[dict[str, object]] = []
    for visit in range(VISITS):
        start = 1_600_000_000 + 600 * visit
        hotels = [str(10 * (visit % 7) + place) for place in range(LIST)]
        looked_at, clicked = hotels[3], hotels[3] if visit % 2 else hotels[0]
        shared = {
            "user_id": f"u{visit}",
            "session_id": f"v{visit}",
            "platform": "AT",
            "city": "Graz",
            "device": "mobile",
            "current_filters": "Sort by Price|Pool" if visit % 3 == 0 else None,
        }
        for step, (action, hotel) in enumerate(
            [("interaction item image", looked_at), ("filter selection", "Pool")]
        ):
            rows.append(
                shared
                | {"timestamp": start, "step": step, "action_type": action}
                | {"reference": hotel, "impressions": None, "prices": None}
            )
        rows.append(
            shared
            | {"timestamp": start, "step": 2, "action_type": "clickout item"}
            | {"reference": clicked, "impressions": [int(each) for each in hotels]}
            | {"prices": [90 - 10 * place for place in range(LIST)]}
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("data")
    (found / trivago.FILE).parent.mkdir()
    visits().to_parquet(found / trivago.FILE)
    return found


@pytest.fixture(scope="module")
def cut_log(folder: Path) -> Cut:
    def read() -> Source:
        return Source(name="visits", events=trivago.events(folder))

    return cut(LoggedSet(name="visits", read=read), folder / "work")


def test_a_click_out_becomes_a_list_and_a_click_after_what_was_looked_at(
    folder: Path,
) -> None:
    first = trivago.events(folder)[: LIST + 2]
    kinds = [type(each) for each in first]
    assert kinds == [Behavior, *[Impression] * LIST, Click]
    looked, shown, click = first[0], first[1], first[-1]
    assert isinstance(looked, Behavior)
    assert isinstance(shown, Impression)
    assert looked.action == "image"
    assert looked.occurred_at < shown.occurred_at < click.occurred_at
    assert shown.context == {
        "platform": "AT",
        "city": "Graz",
        "device": "mobile",
        "sort": "Sort by Price",
        "filters": "Pool",
    }


def test_the_newest_fifth_of_requests_is_judged(cut_log: Cut) -> None:
    parts = cut_log.dataset.parts
    assert [len(each) for each in (parts.train, parts.calibrate, parts.judge)] == [
        45,
        3,
        12,
    ]
    assert parts.calibrate.request_at_ms.max() < parts.judge.request_at_ms.min()


def test_a_rule_has_the_figures_that_the_visits_were_made_with(cut_log: Cut) -> None:
    judge, inputs = cut_log.dataset.parts.judge, cut_log.dataset.rule_inputs
    assert inputs is not None
    scores = {r.name: r.scores[judge.shown] for r in rules.rules_of(judge, inputs)}
    request, _ = np.nonzero(judge.shown)
    scored = Scored(
        clicked=judge.clicked[judge.shown].astype(np.float64),
        probabilities=np.zeros(len(request)),
        ranking=np.zeros(len(request)),
        requests=request,
        users=request,
    )

    def of(metric: str, rule: str) -> float:
        return comparisons.value(metric, scored, scores[rule])

    # Half of the visitors click the hotel that they looked at, the others the first.
    assert of(CTR, "touched_last") == 0.5
    assert of(GAUC, "touched_last") == (1 + 3 / 8) / 2
    assert of(CTR, "shown_order") == 0.5
    assert of(GAUC, "touched_then_order") == (1 + 3 / 4) / 2
    (row,) = [r for r in comparisons.figures([scored], scores) if r.rule == "touched_last"][
        :1
    ]
    assert row.model == 0.5
    assert row.difference.low < row.difference.value == 0.5 - row.value


def test_the_last_line_has_the_best_rules_and_the_worst_margin() -> None:
    def row(metric: str, rule: str, value: float, high: float) -> Figure:
        interval = Interval(value=0.6 - value, low=-1.0, high=high)
        return Figure(metric=metric, rule=rule, value=value, model=0.6, difference=interval)

    found = {
        "hotels": [
            row(GAUC, "shown_order", 0.55, 0.3),
            row(GAUC, "touched_last", 0.7, -0.05),
            row(CTR, "shown_order", 0.3, 0.4),
        ],
        "kuairand": [row("AUC", "popular_2h", 0.5, 0.2)],
    }
    line = json.loads(json.dumps(rules_of_thumb.summary(found)))
    assert line["hotel_gauc"] == 0.6
    assert line["hotel_rule_gauc"] == 0.7
    assert line["hotel_rule_ctr1"] == 0.3
    assert line["news_hit10"] is None
    assert line["worst_margin"] == -0.05
