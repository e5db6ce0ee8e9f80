"""No bundle serves while the feature store is wrong; no server is called before that."""

from pathlib import Path

import pytest

from srp4ctr.errors import OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.ops import promotion_service
from srp4ctr.settings import Settings
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import promotion
from srp4ctr.triton_repo.deployment.one_server import Promotion
from tests.triton_repo.bundles import MakeBundle, a_check


def promote(bundle: Path, **found: int) -> Promotion:
    """Promote to a server that is not there."""
    live = TritonConfig(grpc="127.0.0.1:1", repository=str(bundle.parent / "live"))
    gate = promotion_service.store_gate(a_check(**found), live.max_wrong_features)
    return promotion.promote(bundle, live, FeatureConfig(), gate)


def test_a_wrong_store_refuses_with_its_figures_and_what_to_do(
    make_bundle: MakeBundle,
) -> None:
    bundle = make_bundle("v1", mark=1.0)
    found = promote(bundle, wrong_sequences=1, edits=7, wrong_counters=2)
    assert [gate.passed for gate in found.gates] == [False]
    assert "3 of 200 rows" in found.refusal
    assert "7 edits in 1 sequences" in found.refusal
    assert "max_wrong_features is 0.01" in found.refusal
    assert "`srp4ctr features check`" in found.refusal
    assert "`srp4ctr stream rebuild`" in found.refusal
    assert "serving: nothing yet" in found.refusal
    assert not list((bundle.parent / "live").glob("*_v1"))


@pytest.mark.parametrize("found", [{"wrong_counters": 2}, {"rows": 0}, {}], ids=str)
def test_one_wrong_row_in_a_hundred_and_an_empty_log_pass(
    make_bundle: MakeBundle, found: dict[str, int]
) -> None:
    with pytest.raises(OutageError, match="no Triton answers"):
        promote(make_bundle("v1", mark=1.0), **found)


def test_a_bundle_is_verified_before_the_store_is_checked(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nowhere = Settings(kafka=KafkaConfig(bootstrap="127.0.0.1:1"))
    bundle = make_bundle("v1", mark=1.0)
    (bundle / "encoder.onnx").write_bytes(b"changed")
    with pytest.raises(ValueError, match="has changed"):
        promotion_service.check_and_promote(nowhere, bundle)


def test_the_limit_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"max_wrong_features is 1\.5"):
        TritonConfig(max_wrong_features=1.5)
