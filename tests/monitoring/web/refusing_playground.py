"""A playground without a stack: one ranking, and errors of each kind."""

from collections.abc import Sequence

from srp4ctr.monitoring.web.playground import (
    ClickEffect,
    Offer,
    RankedItem,
    ShownItem,
    ShownRanking,
    ShownUser,
)

RANKING = ShownRanking(
    request_id="r1",
    items=(
        RankedItem(
            item=ShownItem(item_id="i1", title="One", attributes={}), score=0.5, notes=""
        ),
    ),
    model_version="v1",
    calibrated=True,
    status="ok",
    advice="",
    feature_version="user=1@1",
    latency_ms=3.0,
    cost=None,
)


class Refusing:
    """A playground whose parts fail, each with another kind of error."""

    def offer(self) -> Offer:
        raise ConnectionError("The store is away.")

    def user(self, user_id: str) -> ShownUser:
        return ShownUser(user_id=user_id, attributes={}, behaviors=(), advice="Nobody.")

    def rank(
        self, user_id: str, item_ids: Sequence[str], count: int, draw: int
    ) -> ShownRanking:
        if user_id == "broken":
            raise KeyError("a mistake of ours")
        return RANKING

    def recommend(self, user_id: str, count: int) -> ShownRanking:
        return self.rank(user_id, [], count, 0)

    def click(self, request_id: str, item_id: str) -> ClickEffect:
        raise ValueError("Nothing is promoted yet.")

    def close(self) -> None:
        pass
