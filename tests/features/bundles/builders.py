"""A bundle of small files, and a served request."""

from pathlib import Path

import numpy as np

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.request_log import ServedRequest


def a_bundle(folder: Path, version: str = "v1") -> Path:
    path = folder / version
    path.mkdir(parents=True)
    for name in bundle.CONTENT_FILES:
        (path / name).write_bytes(name.encode())
    card = bundle.BundleManifest(
        version=version, created_at_ms=1_700_000_000_000, sizes={"L": 50}, cost={"x": 1.5}
    )
    bundle.write_card(path, card)
    bundle.write_manifest(path)
    return path


def a_request(number: int = 1, size: int = 3) -> ServedRequest:
    return ServedRequest(
        request_id=f"r{number}",
        user_id="Ünal/1",
        item_ids=("a", "b", ""),
        time_ms=1_700_000_000_000 + number,
        status="ok",
        feature_version="user=1@2",
        model_version="v7",
        tensors={"candidate_features": np.ones((1, size, 2), dtype=np.float32)},
        probabilities=np.array([0.5, 0.25, np.nan], dtype=np.float32),
    )
