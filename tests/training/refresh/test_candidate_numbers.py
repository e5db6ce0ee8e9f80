"""A refresh learns numbers of candidates, and leaves the position bias out for an order."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig, NumberConfig
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.config import StreamConfig
from srp4ctr.testing.raw_logs import Published, write_log
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.refresh.pipeline import refresh
from tests.builders import NOON_MS, an_impression
from tests.training.logs import a_label

STREAMS = StreamConfig(sequence_length=6)
REQUESTS, SHOWN = 300, 5
POSITION_BIAS = "head.scores.click.position_bias.weight"


def searches(orders: NDArray[np.int64]) -> Iterator[Published]:
    """Yield lists of which the cheapest item is clicked, with ``orders`` (R, N)."""
    chance = np.random.default_rng(3)
    for n in range(REQUESTS):
        at_ms, items = NOON_MS + 1000 * n, chance.permutation(30)[:SHOWN]
        prices = chance.lognormal(4 + n % 3, 0.5, SHOWN)  # expensive and cheap cities
        for place, item in enumerate(items):
            user, request = f"u{n % 40}", f"r{n}"
            numbers = {"price": float(prices[place]), "order": float(orders[n, place])}
            shown = an_impression(
                f"i{item}",
                at_ms=at_ms,
                request_id=request,
                user_id=user,
                position=place,
                numbers=numbers,
            )
            yield shown, at_ms
            clicked = place == int(prices.argmin())
            label = a_label(request, user, f"i{item}", at_ms=at_ms, clicked=clicked)
            yield label, at_ms + 60_000


@pytest.mark.parametrize("is_shown_order", [True, False])
def test_a_price_within_a_list_is_used(
    recipe: RefreshConfig, tmp_path: Path, is_shown_order: bool
) -> None:
    orders = np.tile(np.arange(SHOWN), (REQUESTS, 1))
    if not is_shown_order:
        orders = np.random.default_rng(4).permuted(orders, axis=1)
    write_log(tmp_path / "log", [*searches(orders)])
    declared = (NumberConfig(name="price"), NumberConfig(name="order"))
    features = FeatureConfig(log_dir=str(tmp_path / "log"), candidate_numbers=declared)
    config = replace(
        recipe,
        bundles_dir=str(tmp_path / "bundles"),
        finetune_epochs=6,
        finetune_learning_rate=1e-2,
        batch_requests=32,
        held_out_share=0.3,
        max_calibration_error=0.9,
    )
    report = refresh(config, features, STREAMS)
    card, notes = bundle.verify(report.folder), " ".join(report.notes)
    assert report.metrics["gauc"] > 0.85  # items and users say nothing
    assert card.sizes["J"] == 10
    words = vocabulary.load(report.folder / bundle.VOCABULARY_FILE)
    assert words.candidate_numbers == ("price", "order")
    assert f"price: {REQUESTS * SHOWN:,} of {REQUESTS * SHOWN:,} impressions" in notes
    assert ("no bias of positions was trained" in notes) is is_shown_order
    bias = load_file(report.folder / bundle.WEIGHTS_FILE)[POSITION_BIAS]
    assert bool(bias[1:SHOWN].any()) is not is_shown_order


def test_rules_read_the_order_and_the_price_that_the_model_reads(
    recipe: RefreshConfig, tmp_path: Path
) -> None:
    orders = np.tile(np.arange(SHOWN), (REQUESTS, 1))
    write_log(tmp_path / "log", [*searches(orders)])
    declared = (NumberConfig(name="price"), NumberConfig(name="order"))
    features = FeatureConfig(log_dir=str(tmp_path / "log"), candidate_numbers=declared)
    short = replace(recipe, bundles_dir=str(tmp_path / "bundles"), finetune_epochs=1)
    found = {result.rule: result for result in refresh(short, features, STREAMS).rules}
    assert found["cheapest"].gauc == found["cheapest"].ctr_at_1 == 1.0
    order = found["callers_order"]
    assert order.gates  # the model reads it
    assert order.meaning == "the caller's order (order)"
    assert order.requests == found["cheapest"].requests  # no model ordered any
    assert "shown_order" not in found
