"""What a caller gets when Triton answers, and when nobody does."""

import math

import pytest

from triton_repo.client import RankClient, Ranking


def a_ranking(scores: tuple[float, ...]) -> Ranking:
    return Ranking(
        item_ids=tuple("abcdef"[: len(scores)]),
        scores=scores,
        item_statuses=(0,) * len(scores),
        propensities=(1.0,) * len(scores),
        model_version="v1",
        status="ok",
        feature_version="-",
    )


def test_the_best_item_is_first_and_equals_keep_their_order() -> None:
    assert a_ranking((0.1, 0.3, 0.3, 0.2)).best_first() == ("b", "c", "d", "a")


def test_padding_is_not_ranked() -> None:
    assert a_ranking((0.1, math.nan, 0.3)).best_first() == ("c", "a")


def test_no_server_is_a_connection_error() -> None:
    with (
        RankClient("127.0.0.1:1") as client,
        pytest.raises(ConnectionError, match="UNAVAILABLE"),
    ):
        client.rank("u", ["i"])
