"""A second bundle alongside the serving one, for a share of the users, in a real Triton."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from srp4ctr.client.messages import RankRequest
from srp4ctr.client.rank_client import RankClient, is_canary
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
    """Two bundles; the first serves, the second is the canary."""
    first, second = (make(f"v{number}", mark=float(number)) for number in (1, 2))
    promote(first, server)
    promote(second, server, canary=True)
    return first, second


def promote(source: Path, server: Server, *, canary: bool = False) -> Serving:
    return bundles.promote(source, server.triton, server.features, canary=canary).serving


def answered_by(server: Server, share: float) -> dict[str, str]:
    """Return which bundle answers each user."""
    requests = [RankRequest(user_id=user, item_ids=[KNOWN_ITEM]) for user in USERS]
    with RankClient(server.triton.grpc, canary_share=share) as client:
        found = [
            ranking
            for start in range(0, len(requests), 20)
            for ranking in client.rank_many(requests[start : start + 20], deadline_s=10.0)
        ]
    assert [ranking.user_id for ranking in found] == USERS
    return {ranking.user_id: ranking.model_version for ranking in found}


def test_a_share_of_the_users_is_answered_by_the_canary(
    server: Server, sources: Sequence[Path]
) -> None:
    assert read_serving(server.plan.repository).canary == "v2"
    assert set(answered_by(server, 0.0).values()) == {"v1"}
    assert set(answered_by(server, 1.0).values()) == {"v2"}
    half = answered_by(server, 0.5)
    assert set(half.values()) == {"v1", "v2"}
    assert half == {user: "v2" if is_canary(user, 0.5) else "v1" for user in USERS}


def test_a_bundle_that_serves_all_is_no_canary(
    server: Server, sources: Sequence[Path], make: MakeBundle
) -> None:
    with pytest.raises(ValueError, match="v1 serves all"):
        promote(sources[0], server, canary=True)


def test_a_canary_that_answers_wrongly_is_refused_and_the_old_one_stays(
    server: Server, sources: Sequence[Path], make: MakeBundle
) -> None:
    wrong = make("v8", mark=1.0, shift=0.01)
    triton, features = server.triton, server.features
    refused = promotion.promote(wrong, triton, features, bundles.STORE_GATE, canary=True)
    assert "serving: v1" in refused.refusal
    assert set(answered_by(server, 1.0).values()) == {"v2"}


def test_users_of_a_canary_that_ended_are_answered_by_what_serves(
    server: Server, sources: Sequence[Path]
) -> None:
    with RankClient(server.triton.grpc, canary_share=1.0) as client:
        assert client.rank("u", [KNOWN_ITEM]).model_version == "v2"
        assert promotion.end_canary(server.triton) == Serving(serving="v1")
        answers = [client.rank("u", [KNOWN_ITEM]) for _ in range(5)]
        assert {each.model_version for each in answers} == {"v1"}
    with pytest.raises(ValueError, match="there is no canary"):
        promotion.end_canary(server.triton)


def test_a_promoted_canary_serves_all_and_is_no_canary_any_more(
    server: Server, sources: Sequence[Path]
) -> None:
    promote(sources[1], server, canary=True)
    assert promote(sources[1], server) == Serving(serving="v2", previous="v1")
    assert set(answered_by(server, 0.5).values()) == {"v2"}
    assert not (server.plan.repository / "rank_clicks_canary").exists()


def test_a_share_of_users_is_the_same_users_and_grows() -> None:
    small, large = (
        {u for u in map(str, range(5000)) if is_canary(u, s)} for s in (0.1, 0.3)
    )
    assert small < large
    assert len(small) == pytest.approx(500, abs=100)
    assert len(large) == pytest.approx(1500, abs=150)
    with pytest.raises(ValueError, match="canary_share is 5"):
        RankClient("127.0.0.1:1", canary_share=5)
