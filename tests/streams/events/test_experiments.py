"""Which users a canary gets, and what the experiment is called."""

import pytest
import xxhash

from srp4ctr.streams.events.experiments import Experiment

USERS = [f"user-{number}" for number in range(20_000)]


def of_canary(experiment: Experiment) -> set[str]:
    return {user for user in USERS if experiment.arm(user) == experiment.canary}


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0, 0.123456])
def test_a_name_has_the_whole_experiment(share: float) -> None:
    experiment = Experiment("v8", "v7", share)
    assert Experiment.named(experiment.name) == experiment


@pytest.mark.parametrize(
    "name", ["", "v8", "v8:v7", "v8:v7:", "v8:v7:0", "v8:v7:1.5", ":v7:0.1", "a:b:nan"]
)
def test_other_names_are_not_of_a_canary(name: str) -> None:
    assert Experiment.named(name) is None


def test_a_share_of_the_users_is_assigned_and_stays_while_it_grows() -> None:
    small, large = (of_canary(Experiment("v8", "v7", share)) for share in (0.1, 0.3))
    assert small < large
    assert len(small) == pytest.approx(2000, abs=200)
    assert len(large) == pytest.approx(6000, abs=300)
    assert of_canary(Experiment("v8", "v7", 1.0)) == set(USERS)


def test_another_canary_gets_other_users() -> None:
    first, second = (of_canary(Experiment(name, "v7", 0.1)) for name in ("v8", "v9"))
    assert len(first & second) == pytest.approx(200, abs=70)  # by chance


def test_the_rule_is_the_one_of_the_page_for_callers() -> None:
    """In ``docs/callers.md``."""
    experiment = Experiment("v8", "v7", 0.1)
    for user in USERS[:1000]:
        digest = xxhash.xxh3_64_digest(f"v8:v7:{user}")
        signed = int.from_bytes(digest, signed=True)
        is_canary = signed % 1_000_000 < 0.1 * 1_000_000
        assert (experiment.arm(user) == "v8") == is_canary
