"""A new bundle against the one that serves, each by its own vocabulary."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import Gate, failed, skipped
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.evaluation import champion
from srp4ctr.training.evaluation.evaluate import Scored, scored
from srp4ctr.training.evaluation.quality import Difference, Floats
from srp4ctr.training.refresh.pipeline import RefreshOptions, refresh
from srp4ctr.training.refresh.reports import RefreshReport
from tests.training.conftest import RECIPE
from tests.training.logs import write_world

LEVEL = skipped("champion_auc", "nothing is lost")
STREAMS = StreamConfig(sequence_length=6)
LENIENT = replace(
    RECIPE,
    finetune_epochs=12,
    finetune_learning_rate=2e-2,
    held_out_share=0.3,
    min_auc=0.0,
    max_calibration_error=9.0,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FeatureConfig:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def serving(
    world: FeatureConfig, tmp_path_factory: pytest.TempPathFactory
) -> RefreshReport:
    """The bundle that serves: v1."""
    bundles = tmp_path_factory.mktemp("bundles")
    return refresh(replace(LENIENT, bundles_dir=str(bundles)), world, STREAMS)


def against(
    serving: RefreshReport, world: FeatureConfig, **dials: object
) -> dict[str, Gate]:
    """Refresh from scratch by other ``dials``; return the gates by name."""
    bundles = str(serving.folder.parent)
    config: RefreshConfig = replace(LENIENT, bundles_dir=bundles, **dials)  # type: ignore[arg-type]
    options = RefreshOptions(serving=serving.folder, from_scratch=True, force=True)
    report = refresh(config, world, STREAMS, options)
    assert not report.parent
    return {gate.gate: gate for gate in report.gates}


def test_the_first_bundle_has_no_champion(serving: RefreshReport) -> None:
    gates = {gate.gate: gate for gate in serving.gates}
    for entry in champion.GATES:
        assert gates[entry.name].passed is None
        assert gates[entry.name].note == "nothing serves yet"


def test_a_bundle_that_was_trained_too_little_is_refused(
    serving: RefreshReport, world: FeatureConfig
) -> None:
    gates = against(serving, world, finetune_epochs=1, finetune_learning_rate=1e-6)
    refused = {gate.gate for gate in failed(gates.values())}
    assert refused >= {"champion_log_loss", "champion_auc", "champion_gauc"}
    auc = gates["champion_auc"]
    assert auc.value is not None
    assert auc.limit is not None
    assert auc.value < auc.limit


def test_the_champion_scores_with_its_own_vocabulary(
    serving: RefreshReport, world: FeatureConfig
) -> None:
    # On the same log, so that both bundles are evaluated on the same requests.
    gates = against(serving, world, min_item_count=10**6)  # every item is unknown
    said = gates["champion_auc"].note
    assert f"v1 has {serving.metrics['auc']:.4f};" in said
    assert f"v1 has {serving.metrics['log_loss']:.4f};" in gates["champion_log_loss"].note


def test_a_bundle_as_good_is_not_refused(
    serving: RefreshReport, world: FeatureConfig
) -> None:
    gates = against(serving, world)
    for entry in champion.GATES:
        assert gates[entry.name].passed
        assert "difference +0.0000" in gates[entry.name].note


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("tolerance", "is_worse"), [(0.02, False), (0.01, True)])
def test_worse_is_beyond_the_margin_and_the_tolerance(
    sign: float, tolerance: float, is_worse: bool
) -> None:
    difference = Difference(value=-0.03 * sign, standard_error=0.01)
    compared = champion.Comparison(champion=0.7, difference=difference, sign=sign)
    gate = champion._gate("champion_auc", "v1", compared, tolerance, LEVEL)
    assert gate.passed is not is_worse
    assert gate.value == pytest.approx(0.7 - 0.03 * sign)
    assert gate.limit == pytest.approx(0.7 - sign * (0.01645 + tolerance))


def test_what_is_undefined_refuses_no_bundle() -> None:
    difference = Difference(value=float("nan"), standard_error=float("nan"))
    compared = champion.Comparison(champion=0.7, difference=difference, sign=1.0)
    assert champion._gate("champion_auc", "v1", compared, 0.0, LEVEL).passed is None


def test_a_champion_that_was_trained_on_these_requests_is_not_compared(
    serving: RefreshReport, slates: Slates, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = champion.load(serving.folder, 6)
    assert isinstance(found, champion.EarlierBundle)
    judged = scored(slates, *np.full((2, *slates.clicked.shape), 0.5))
    monkeypatch.setattr(champion, "score", lambda *_: judged)
    first_ms = int(slates.request_at_ms[0])
    for boundary_ms, is_compared in ((first_ms + 1, False), (first_ms, True)):
        trained = replace(found, card=replace(found.card, boundary_ms=boundary_ms))
        scores = champion.rescored(trained, slates)
        assert isinstance(scores, Scored) is is_compared


def test_of_one_user_nothing_is_compared() -> None:
    """The margin of error is unknown, and an infinite one would let any bundle pass."""
    clicked, worse = np.array([1.0, 0.0]), np.array([0.1, 0.9])
    alone = Scored(
        clicked=clicked,
        probabilities=worse,
        ranking=worse,
        requests=np.zeros(2, dtype=np.int64),
        users=np.array(["a", "a"]),
    )
    better = replace(alone, probabilities=worse[::-1], ranking=worse[::-1])
    for gate in champion.compare("v1", better, alone, 0.0):
        assert gate.passed is None
        assert "one user" in gate.note


REFRESHES, TOLERANCE = 24, 0.002
USERS, SHOWN = 1600, 25  # impressions of each user


class Quality:
    """Models whose log loss exceeds the best possible one by ``excess``, on new slices."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def two(self, old: float, new: float) -> tuple[Scored, Scored]:
        """Return the scores of two models on one slice; half of their error is shared."""
        count = USERS * SHOWN
        logits = self.rng.normal(-1.0, 1.0, count)
        chances = 1 / (1 + np.exp(-logits))
        clicked = (self.rng.random(count) < chances).astype(np.float64)
        # Log loss grows by half of p (1 - p) times the variance of a logit's error.
        per_variance = 0.5 * (chances * (1 - chances)).mean()
        shared = min(old, new) / 2
        both = logits + self.rng.normal(0, (shared / per_variance) ** 0.5, count)
        scores = [
            both + self.rng.normal(0, ((excess - shared) / per_variance) ** 0.5, count)
            for excess in (old, new)
        ]
        return self._scored(clicked, scores[0]), self._scored(clicked, scores[1])

    def _scored(self, clicked: Floats, logits: Floats) -> Scored:
        return Scored(
            clicked=clicked,
            probabilities=1 / (1 + np.exp(-logits)),
            ranking=logits,
            requests=np.arange(len(logits)) // 5,
            users=np.arange(len(logits)) // SHOWN,
        )


def refreshed(seed: int, change: float) -> tuple[float, int]:
    """Return the excess that serves after 24 refreshes, and how many were refused.

    Each new bundle is worse by ``change`` than the one that serves.
    """
    quality, serving, refused = Quality(seed), 0.002, 0
    gates: tuple[Gate, ...] = ()
    for _ in range(REFRESHES):
        old, new = quality.two(serving, serving + change)
        found = champion.compare("v1", old, new, TOLERANCE, gates)
        if failed(found):
            refused += 1
        else:
            serving, gates = serving + change, found
    return serving, refused


@pytest.mark.parametrize("seed", range(2))
def test_what_refreshes_lose_adds_up(seed: int) -> None:
    serving, refused = refreshed(seed, 0.002)
    assert serving < 0.002 + 4.5 * TOLERANCE  # without a sum it would be 0.048
    assert refused > 2 * REFRESHES / 3


@pytest.mark.parametrize("seed", range(2))
def test_bundles_as_good_as_what_serves_are_not_refused(seed: int) -> None:
    assert refreshed(seed, 0.0)[1] <= REFRESHES / 6  # three gates, each wrong at times


def test_what_was_lost_is_won_back_and_is_kept_where_nothing_is_compared() -> None:
    def gate(value: float, before: Gate) -> Gate:
        found = champion.Comparison(
            champion=0.7, difference=Difference(value=value, standard_error=0.001), sign=1.0
        )
        return champion._gate("champion_auc", "v1", found, TOLERANCE, before)

    worse = gate(-0.003, LEVEL)
    assert worse.passed
    assert worse.lost == pytest.approx(0.003)
    assert not gate(-0.003, worse).passed
    assert "earlier refreshes have used 0.0030" in gate(-0.003, worse).note
    kept = {each.gate: each for each in champion.skip("too few", [worse])}["champion_auc"]
    assert (kept.lost, kept.lost_error) == (worse.lost, worse.lost_error)
    better = gate(0.004, kept)
    assert (better.lost, better.lost_error) == (0.0, 0.0)
    assert gate(-0.003, better).passed


def test_what_cannot_score_this_slice_is_no_champion(
    serving: RefreshReport, tmp_path: Path
) -> None:
    assert "cannot score this slice" in str(champion.load(tmp_path / "gone", 6))
    assert "made for histories of 6" in str(champion.load(serving.folder, 50))
    other = tmp_path / "v1"
    other.mkdir()
    for name in bundle.CONTENT_FILES:
        (other / name).write_bytes((serving.folder / name).read_bytes())
    bundle.write_card(
        other, replace(bundle.read(serving.folder), schema_fingerprint="0" * 16)
    )
    bundle.write_manifest(other)
    assert "trained with feature schema 0000" in str(champion.load(other, 6))
