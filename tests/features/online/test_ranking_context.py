"""What ``model rank`` prints next to a ranking: titles, and what the store lacks."""

import time
from dataclasses import replace

import pytest

from srp4ctr.client.messages import Ranking
from srp4ctr.embedded import ports
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.store import FeatureStoreSink
from srp4ctr.ops.ranking import context_of
from srp4ctr.settings import Settings
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.counters import Activity, count
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.state_store import ItemProfile
from tests.features.stored import a_user_who_acted

pytestmark = pytest.mark.redis
PAST_MS = 1_700_000_000_000  # 2023-11-14 22:13
ITEM = "of-the-past"


@pytest.fixture
def settings(store_config: FeatureConfig) -> Settings:
    """Settings of a store whose user and item have events of 2023 only."""
    user = count(a_user_who_acted(3, PAST_MS), at_ms=PAST_MS, is_click=False, offset=7)
    counted = count(Activity(), at_ms=PAST_MS - 1, is_click=True, offset=7)
    sink = FeatureStoreSink(store_config)
    shares = {(item_key(ITEM), 1): counted}
    sink.write(Rows(users={"c-past": user, "c-live": user}, shares=shares))
    profile = ItemProfile(
        item_key=item_key(ITEM),
        item_id=ITEM,
        attributes={"title": "A Title"},
        updated_at_ms=PAST_MS,
    )
    sink.write_profiles([profile])
    return Settings(features=store_config)


def a_ranking(user_id: str, item_id: str = ITEM) -> Ranking:
    return Ranking(
        user_id=user_id,
        item_ids=(item_id,),
        scores=(0.5,),
        item_statuses=(0,),
        propensities=(1.0,),
        positions=(0,),
        model_version="v1",
        status="ok",
        feature_version="user=1@1,items=1",
    )


def test_a_ranking_of_an_old_log_as_of_now_says_how_to_pass_the_time(
    settings: Settings,
) -> None:
    context = context_of(settings, a_ranking("c-past"))
    assert context.titles == {item_key(ITEM): "A Title"}
    (note,) = context.notes
    assert note.startswith("the newest event of user c-past is of 2023-11-14 22:13 UTC")
    assert "--at 2023-11-14T22:13, in a call request_time_ms" in note
    (note,) = context_of(settings, a_ranking("c-unknown")).notes
    assert note.startswith("the newest event of these items is of 2023-11-14 22:13 UTC")


def test_the_time_that_was_passed_and_a_live_item_need_no_note(settings: Settings) -> None:
    assert context_of(settings, a_ranking("c-past"), at_ms=PAST_MS).notes == ()
    now = round(time.time() * 1000)
    live = count(Activity(), at_ms=now, is_click=False, offset=8)
    shares = {(item_key("live"), 0): live}
    FeatureStoreSink(settings.features).write(Rows(users={}, shares=shares))
    assert context_of(settings, a_ranking("c-past", "live")).notes == ()
    assert context_of(settings, a_ranking("c-unknown", "unknown")).notes == ()


def test_without_the_store_a_ranking_has_ids_for_titles(settings: Settings) -> None:
    with ports.reserved_ports(1) as (port,):
        away = f"{ports.HOST}:{port}"
    features = replace(settings.features, redis=away)
    context = context_of(Settings(features=features), a_ranking("c-past"))
    assert context.titles == {item_key(ITEM): ITEM}
    (note,) = context.notes
    assert "items have no titles here, because the store does not answer" in note
