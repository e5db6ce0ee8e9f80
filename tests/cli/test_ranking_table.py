"""A ranking on the terminal is in the order in which the server would show it."""

from srp4ctr.cli.tables import results
from srp4ctr.client.messages import Ranking
from srp4ctr.streams.events.schema import item_key


def test_the_positions_order_the_items_and_not_the_probabilities() -> None:
    ranking = Ranking(
        user_id="u1",
        item_ids=("likely", "first"),
        scores=(0.9, 0.1),
        item_statuses=(0, 0),
        propensities=(1.0, 1.0),
        positions=(1, 0),
        model_version="v1",
        status="ok",
        feature_version="user=1@1,items=1",
    )
    names = {item_key(item_id): item_id for item_id in ranking.item_ids}
    columns = results.ranking_table(ranking, names).columns
    cells = {str(column.header): [*column.cells] for column in columns}
    assert cells["id"] == ["first", "likely"]
    assert cells["click"] == ["0.100", "0.900"]


def test_a_score_that_is_no_probability_is_not_called_a_click() -> None:
    ranking = Ranking(
        user_id="u1",
        item_ids=("i1",),
        scores=(0.000123456,),
        item_statuses=(0,),
        propensities=(1.0,),
        positions=(0,),
        model_version="v1",
        status="cold_user",
        feature_version="items=1",
        calibrated=False,
    )
    table = results.ranking_table(ranking, {item_key("i1"): "One"})
    cells = {str(column.header): [*column.cells] for column in table.columns}
    assert cells["score"] == ["0.000123"]
    assert "click" not in cells
    assert str(table.caption).startswith(results.STATUS_ADVICE["cold_user"])
    assert str(table.caption).endswith(results.UNCALIBRATED)
