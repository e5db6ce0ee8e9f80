from collections import Counter

import numpy as np
import pytest

from benchmarks.quality.clicks import long_taste
from benchmarks.quality.clicks.long_taste import CATEGORIES, WITH_TASTE, WITHOUT_TASTE
from srp4ctr.streams.events.schema import Behavior, Click, Impression, item_key
from srp4ctr.training.evaluation import quality


def category(item_id: str) -> int:
    return int(item_id.lstrip("metnw")) % CATEGORIES


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Behavior | Impression | Click]:
    monkeypatch.setattr(long_taste, "USERS", 40)
    return [*long_taste.events()]  # type: ignore[list-item]


def test_only_the_older_behaviours_of_a_user_have_a_taste(
    events: list[Behavior | Impression | Click],
) -> None:
    done = [each for each in events if isinstance(each, Behavior) and each.user_id == "u3"]
    assert len(done) == WITH_TASTE + WITHOUT_TASTE
    assert done == sorted(done, key=lambda each: each.occurred_at)
    older = Counter(category(each.item_id) for each in done[:WITH_TASTE])
    newer = Counter(category(each.item_id) for each in done[WITH_TASTE:])
    favourites = [name for name, _ in older.most_common(2)]
    assert sum(older[name] for name in favourites) > 0.2 * WITH_TASTE
    assert sum(newer[name] for name in favourites) < 0.1 * WITHOUT_TASTE


def test_items_of_a_request_are_new_and_come_after_all_behaviours(
    events: list[Behavior | Impression | Click],
) -> None:
    shown = [each for each in events if isinstance(each, Impression)]
    met = {each.item_id for each in events if isinstance(each, Behavior)}
    assert not met & {each.item_id for each in shown}
    latest = max(each.occurred_at for each in events if isinstance(each, Behavior))
    assert latest <= min(each.occurred_at for each in shown)
    pairs = Counter((each.request_id, each.item_id) for each in shown)
    assert max(pairs.values()) == 1
    named = {update.item_id for update in long_taste.item_updates()}
    assert {each.item_id for each in shown} | met <= named
    assert len({item_key(each) for each in named}) == 2 * long_taste.ITEMS


def test_the_best_auc_is_that_of_the_true_probabilities() -> None:
    draw = np.random.default_rng(0)
    liked = draw.random(200_000) < long_taste.SHOWN_SHARE
    liked |= draw.random(200_000) < long_taste.FAVOURITES / CATEGORIES
    rate = np.where(liked, long_taste.LIKED_RATE, long_taste.CLICK_RATE)
    clicked = (draw.random(200_000) < rate).astype(np.float32)
    assert quality.auc(clicked, rate) == pytest.approx(long_taste.best_auc(), abs=0.004)
