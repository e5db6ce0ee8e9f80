"""No bundle serves while the feature store is wrong; no server is asked before that."""

from functools import partial
from pathlib import Path

import pytest

from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import promotion
from srp4ctr.triton_repo.deployment.promotion import PromotionError
from tests.triton_repo.bundles import MakeBundle, a_check


def promote(bundle: Path, **found: int) -> None:
    """Promote to a server that is not there."""
    live = TritonConfig(grpc="127.0.0.1:1", repository=str(bundle.parent / "live"))
    promotion.promote(bundle, live, FeatureConfig(), check=partial(a_check, **found))


def test_a_wrong_store_refuses_with_its_figures_and_what_to_do(
    make_bundle: MakeBundle,
) -> None:
    bundle = make_bundle("v1", mark=1.0)
    with pytest.raises(PromotionError) as refusal:
        promote(bundle, wrong_sequences=1, edits=7, wrong_counters=2)
    said = str(refusal.value)
    assert "3 of 200 rows" in said
    assert "7 edits in 1 sequences" in said
    assert "max_wrong_features is 0.01" in said
    assert "`srp4ctr features check`" in said
    assert "`srp4ctr stream rebuild`" in said
    assert "serving: nothing yet" in said
    assert not list((bundle.parent / "live").glob("*_v1"))


@pytest.mark.parametrize("found", [{"wrong_counters": 2}, {"rows": 0}, {}], ids=str)
def test_one_wrong_row_in_a_hundred_and_an_empty_log_are_let_through(
    make_bundle: MakeBundle, found: dict[str, int]
) -> None:
    with pytest.raises(PromotionError, match="no Triton answers"):
        promote(make_bundle("v1", mark=1.0), **found)


def test_a_damaged_bundle_is_told_before_the_store_is_asked(
    make_bundle: MakeBundle,
) -> None:
    bundle = make_bundle("v1", mark=1.0)
    (bundle / "encoder.onnx").write_bytes(b"changed")
    with pytest.raises(ValueError, match="has changed"):
        promote(bundle, wrong_sequences=200)


def test_the_limit_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"max_wrong_features is 1\.5"):
        TritonConfig(max_wrong_features=1.5)
