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
    names = {item_key(each): each for each in ranking.item_ids}
    columns = results.ranking_table(ranking, names).columns
    cells = {str(column.header): [*column.cells] for column in columns}
    assert cells["id"] == ["first", "likely"]
    assert cells["click"] == ["0.100", "0.900"]
