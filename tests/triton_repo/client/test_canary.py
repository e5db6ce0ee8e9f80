"""A second bundle alongside the serving one, for a share of the users, in a real Triton."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from srp4ctr.client.messages import Ranking, RankRequest
from srp4ctr.client.rank_client import RankClient
from srp4ctr.streams.events.experiments import Experiment
from srp4ctr.triton_repo.deployment import promotion
from srp4ctr.triton_repo.deployment.live_repository import Serving, read_serving
from tests.triton_repo import bundles
from tests.triton_repo.bundles import KNOWN_ITEM, MakeBundle, make_bundle_in
from tests.triton_repo.conftest import Server

pytestmark = pytest.mark.triton
USERS = [f"user-{number}" for number in range(40)]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    return make_bundle_in(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def sources(server: Server, make: MakeBundle) -> Sequence[Path]:
    """Two bundles; the first serves, the second is the canary of all users."""
    first, second = (make(f"v{number}", mark=float(number)) for number in (1, 2))
    promote(first, server)
    promote(second, server, share=1.0)
    return first, second


def promote(source: Path, server: Server, *, share: float | None = None) -> Serving:
    """Promote a bundle to all users, or to a ``share`` of them as a canary."""
    triton = replace(server.triton, canary_share=share or 0.0)
    is_canary = share is not None
    return bundles.promote(source, triton, server.features, canary=is_canary).serving


def rankings(server: Server, *, canary: bool = True) -> dict[str, Ranking]:
    """Return the ranking of each user."""
    requests = [RankRequest(user_id=user, item_ids=[KNOWN_ITEM]) for user in USERS]
    with RankClient(server.triton.grpc, canary=canary) as client:
        rankings = [
            ranking
            for start in range(0, len(requests), 20)
            for ranking in client.rank_many(requests[start : start + 20], deadline_s=10.0)
        ]
    assert [ranking.user_id for ranking in rankings] == USERS
    return {ranking.user_id: ranking for ranking in rankings}


def answered_by(server: Server) -> set[str]:
    """Return which bundles answer."""
    return {ranking.model_version for ranking in rankings(server).values()}


def test_the_server_assigns_a_share_of_the_users_to_the_canary(
    server: Server, sources: Sequence[Path]
) -> None:
    assert read_serving(server.plan.repository).canary == "v2"
    assert answered_by(server) == {"v2"}
    assert promote(sources[1], server, share=0.5).canary_share == 0.5
    half = rankings(server)
    arms = {user: Experiment("v2", "v1", 0.5).arm(user) for user in USERS}
    assert set(arms.values()) == {"v1", "v2"}
    assert {user: each.model_version for user, each in half.items()} == arms
    assert {user: each.arm for user, each in half.items()} == arms
    assert {each.experiment for each in half.values()} == {"v2:v1:0.5"}
    [shown] = half[USERS[0]].impressions("r", 1_700_000_000_000)
    assert (shown.experiment, shown.arm) == ("v2:v1:0.5", arms[USERS[0]])


def test_a_caller_may_stay_out_of_the_experiment(
    server: Server, sources: Sequence[Path]
) -> None:
    outside = rankings(server, canary=False).values()
    assert {(each.model_version, each.experiment) for each in outside} == {("v1", None)}


def test_a_canary_without_a_share_gets_no_user(
    server: Server, sources: Sequence[Path]
) -> None:
    promote(sources[1], server, share=0.0)
    found = rankings(server).values()
    assert {(each.model_version, each.arm) for each in found} == {("v1", None)}
    promote(sources[1], server, share=1.0)


def test_a_bundle_that_serves_all_is_no_canary(
    server: Server, sources: Sequence[Path], make: MakeBundle
) -> None:
    with pytest.raises(ValueError, match="v1 serves all"):
        promote(sources[0], server, share=0.1)


def test_a_canary_that_answers_wrongly_is_refused_and_the_old_one_stays(
    server: Server, sources: Sequence[Path], make: MakeBundle
) -> None:
    wrong = make("v8", mark=1.0, shift=0.01)
    triton, features = server.triton, server.features
    refused = promotion.promote(wrong, triton, features, bundles.STORE_GATE, canary=True)
    assert "serving: v1" in refused.refusal
    assert answered_by(server) == {"v2"}


def test_users_of_a_canary_that_ended_are_answered_by_what_serves(
    server: Server, sources: Sequence[Path]
) -> None:
    with RankClient(server.triton.grpc) as client:
        assert client.rank("u", [KNOWN_ITEM]).model_version == "v2"
        assert promotion.end_canary(server.triton) == Serving(serving="v1")
        answers = [client.rank("u", [KNOWN_ITEM]) for _ in range(5)]
        assert {answer.model_version for answer in answers} == {"v1"}
    assert {ranking.experiment for ranking in rankings(server).values()} == {None}
    with pytest.raises(ValueError, match="there is no canary"):
        promotion.end_canary(server.triton)


def test_a_promoted_canary_serves_all_and_is_no_canary_any_more(
    server: Server, sources: Sequence[Path]
) -> None:
    promote(sources[1], server, share=0.5)
    assert promote(sources[1], server) == Serving(serving="v2", previous="v1")
    assert {(e.model_version, e.arm) for e in rankings(server).values()} == {("v2", None)}
    for name in ("rank_clicks_canary", "canary_experiment"):
        assert not (server.plan.repository / name).exists()
