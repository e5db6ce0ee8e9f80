"""New items, and what is known of them: attributes, vectors or nothing."""

from itertools import combinations

import numpy as np

from benchmarks.quality.clicks.click_sources import Source
from benchmarks.quality.clicks.contents import with_contents, with_new_items
from srp4ctr.streams.events.schema import Impression, ItemUpdate, item_key
from srp4ctr.streams.events.vectors import numbers_of
from tests.benchmarks.quality.conftest import shop

EVENTS = [*shop()]
ACTED = [each for each in EVENTS if not isinstance(each, ItemUpdate)]
UPDATES = [each for each in EVENTS if isinstance(each, ItemUpdate)]
SOURCE = Source(
    name="shop",
    events=ACTED,
    updates=UPDATES,
    judged_from_ms=sorted(each.occurred_at for each in ACTED)[len(ACTED) // 2],
)


def items_of(source: Source, *, judged: bool) -> set[str]:
    assert source.judged_from_ms is not None
    return {
        each.item_id
        for each in source.events
        if isinstance(each, Impression)
        and (each.occurred_at >= source.judged_from_ms) is judged
    }


def test_new_items_have_no_event_before_the_judged_days_and_all_after() -> None:
    new = with_new_items(SOURCE, 0.4)
    assert items_of(new, judged=True) == items_of(SOURCE, judged=True)
    unseen = items_of(SOURCE, judged=False) - items_of(new, judged=False)
    assert 0.1 < len(unseen) / len(items_of(SOURCE, judged=False)) < 0.7
    assert new.name == "shop, 40% of items new"


def test_vectors_say_which_items_share_attributes() -> None:
    found = with_contents(SOURCE, "vectors").profiles(2**62)
    known = SOURCE.profiles(2**62)
    vectors = {key: numbers_of(str(each["embedding"])) for key, each in found.items()}
    alike: dict[bool, list[float]] = {True: [], False: []}
    for one, other in combinations(sorted(known), 2):
        a, b = vectors[one], vectors[other]
        assert a is not None
        assert b is not None
        cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        alike[known[one] == known[other]].append(cosine)
    assert np.mean(alike[True]) > np.mean(alike[False]) + 0.2
    assert with_contents(SOURCE, "nothing").profiles(2**62) == {}
    assert with_contents(SOURCE, "attributes").profiles(2**62) == known
    assert item_key(UPDATES[0].item_id) in found
