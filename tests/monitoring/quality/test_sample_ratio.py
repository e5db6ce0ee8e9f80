"""Users by arm: evidence of a wrong split, and none of a right one."""

import numpy as np
import pytest

from srp4ctr.monitoring.quality.quality_sums import SettledImpression
from srp4ctr.monitoring.quality.sample_ratio import (
    ACTIVE_MS,
    MAX_EXPERIMENTS,
    MAX_USERS,
    SampleRatio,
    SampleRatios,
)
from srp4ctr.streams.events.experiments import Experiment

SHARE = Experiment("v8", "v7", 0.3)
MISMATCH = np.log(1000)
BUNDLES = [f"v{number}" for number in range(100)]


def seen(user: int, experiment: str, arm: str, at: int = 0) -> SettledImpression:
    return SettledImpression(
        model_version="v7",
        experiment=experiment,
        arm=arm,
        request=(f"u{user}", f"r{at}"),
        user_group=0,
        position=3,  # any one counts
        shown_at=at,
        score=0.1,
        is_click=False,
        is_late_click=False,
    )


def counted(experiment: Experiment, users: int, lost: float = 0.0) -> SampleRatio:
    """Return how ``users`` are split, where a share of the canary's is ``lost``."""
    generator, ratios = np.random.default_rng(3), SampleRatios(BUNDLES)
    for user in range(users):
        arm = experiment.arm(f"u{user}")
        if arm != experiment.canary or generator.random() >= lost:
            ratios.update(seen(user, experiment.name, arm))
    (found,) = ratios.ratios(0)
    return found


def test_the_assigned_split_has_no_evidence_against_it() -> None:
    found = counted(SHARE, 5000)
    assert found.of_canary + found.of_serving == 5000
    assert found.of_canary == pytest.approx(1500, abs=150)
    assert found.evidence < 0


@pytest.mark.parametrize(("share", "lost"), [(0.5, 0.1), (0.3, 0.12), (0.05, 0.25)])
def test_lost_users_of_the_canary_are_evidence(share: float, lost: float) -> None:
    assert counted(Experiment("v8", "v7", share), 16_000, lost).evidence > MISMATCH


@pytest.mark.parametrize(("share", "lost"), [(0.5, 0.08), (0.05, 0.18)])
def test_most_losses_as_large_as_the_page_says_are_found(share: float, lost: float) -> None:
    """In ``docs/monitoring.md``: four of five, once all users are counted that may be."""
    left = share * (1 - lost)
    counts = np.random.default_rng(11).binomial(MAX_USERS, left / (left + 1 - share), 1000)
    experiment = Experiment("v8", "v7", share)
    found = [
        SampleRatio(
            experiment=experiment, of_canary=int(count), of_serving=MAX_USERS - int(count)
        )
        for count in counts
    ]
    power = np.mean([each.evidence > MISMATCH for each in found])
    assert power == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_looking_all_the_time_finds_no_mismatch_that_is_not_there(share: float) -> None:
    """2,000 experiments with a look after each hundred users: one per cent exceed ln 100
    at most, and one per mille ln 1000.
    """
    generator, runs = np.random.default_rng(5), 2000
    canary = generator.binomial(100, share, (runs, MAX_USERS // 100)).cumsum(1)
    experiment, highest = Experiment("v8", "v7", share), np.full(runs, -np.inf)
    for run, row in enumerate(canary):
        looks = (
            SampleRatio(experiment=experiment, of_canary=int(c), of_serving=int(n - c))
            for c, n in zip(row, range(100, 100 * len(row) + 1, 100), strict=True)
        )
        highest[run] = max(each.evidence for each in looks)
    assert (highest > np.log(100)).mean() <= 0.01
    assert (highest > MISMATCH).mean() <= 0.002


def test_with_a_share_of_all_one_other_user_is_enough() -> None:
    experiment = Experiment("v8", "v7", 1.0)
    assert counted(experiment, 100).evidence == 0.0
    one = SampleRatio(experiment=experiment, of_canary=99, of_serving=1)
    assert one.evidence > MISMATCH


def test_a_user_counts_once_and_memory_is_bounded() -> None:
    ratios = SampleRatios(BUNDLES)
    for at in range(3):
        for user in range(MAX_USERS // 2):
            ratios.update(seen(user, SHARE.name, "v7", at))
    (found,) = ratios.ratios(0)
    assert found.of_serving == MAX_USERS // 2
    for user in range(2 * MAX_USERS):
        ratios.update(seen(user, SHARE.name, "v7"))
    (found,) = ratios.ratios(0)
    assert found.of_serving == MAX_USERS


def test_experiments_of_others_have_no_share_to_compare_with() -> None:
    ratios = SampleRatios(BUNDLES)
    ratios.update(seen(1, "spring colours", "blue"))
    assert list(ratios.ratios(0)) == []


def test_experiments_of_invented_versions_displace_none_of_existing_ones() -> None:
    ratios = SampleRatios(["v7", "v8"])
    ratios.update(seen(1, SHARE.name, "v7"))
    for number in range(2 * MAX_EXPERIMENTS):
        ratios.update(seen(1, Experiment(f"x{number}", "v7", 0.1).name, "v7", at=1))
    (found,) = ratios.ratios(1)
    assert found.experiment == SHARE


def test_of_many_experiments_the_newest_are_kept() -> None:
    ratios = SampleRatios(BUNDLES)
    for number in range(100):
        name = Experiment(f"v{number}", "v7", 0.1).name
        ratios.update(seen(1, name, "v7", at=number))
    assert len(ratios.state()) == MAX_EXPERIMENTS
    assert {ratio.experiment.canary for ratio in ratios.ratios(0)} == {
        f"v{number}" for number in range(92, 100)
    }


def test_another_share_begins_again_and_an_ended_experiment_has_no_figures() -> None:
    ratios = SampleRatios(BUNDLES)
    for at, share in ((1, 0.1), (2, 0.2)):
        for user in range(100 * at):
            name = Experiment("v8", "v7", share).name
            ratios.update(seen(user, name, "v7", at=at))
    (found,) = ratios.ratios(2)
    assert (found.experiment.share, found.of_serving) == (0.2, 200)
    assert list(ratios.ratios(ACTIVE_MS + 3)) == []


def test_counts_resume_from_a_snapshot() -> None:
    one, restored = SampleRatios(BUNDLES), SampleRatios(BUNDLES)
    for user in range(500):
        one.update(seen(user, SHARE.name, SHARE.arm(f"u{user}")))
    restored.restore(one.state())
    for each in (one, restored):
        for user in range(300, 900):
            each.update(seen(user, SHARE.name, SHARE.arm(f"u{user}"), at=5))
    assert list(one.ratios(5)) == list(restored.ratios(5))
    assert restored.state() == one.state()
    (found,) = one.ratios(5)
    assert found.of_canary + found.of_serving == 900
