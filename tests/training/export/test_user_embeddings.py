"""A bundle's vectors at each impression: those of its own request, with its own label."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srp4ctr.errors import OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.features.offline.profiles import item_profiles
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import item_key
from srp4ctr.training.dataset import examples, item_attributes
from srp4ctr.training.export import onnx_export
from srp4ctr.training.export.user_embeddings import write_vectors
from srp4ctr.training.loop.progress import silent
from srp4ctr.training.refresh.pipeline import refresh
from tests.builders import NOON_MS
from tests.training.conftest import RECIPE
from tests.training.logs import write_world

STREAMS = StreamConfig(sequence_length=6)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureConfig:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def folder(features: FeatureConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundles = str(tmp_path_factory.mktemp("bundles"))
    config = replace(RECIPE, bundles_dir=bundles, min_auc=0.0, max_calibration_error=9.0)
    return refresh(config, features, STREAMS).folder


@pytest.fixture(scope="module")
def table(features: FeatureConfig, folder: Path) -> pa.Table:
    out = folder.parent / "vectors.parquet"
    rows = write_vectors(folder, features, STREAMS, out, silent)
    written = pq.read_table(out)
    assert written.num_rows == rows
    return written


def test_each_impression_since_the_training_ended_is_a_row(
    features: FeatureConfig, folder: Path, table: pa.Table
) -> None:
    boundary_ms = bundle.verify(folder).boundary_ms
    with event_tables.opened(Path(features.log_dir)) as log:
        labels = log.rows(log.labels).to_pylist()
        shown = log.rows(log.events.filter(log.events.type == "impression")).to_pylist()
    at = {(e["user_id"], e["request_id"]): e["occurred_at"] for e in shown}
    ids = ("user_id", "request_id", "item_id")
    items = {item_key(each["item_id"]): each["item_id"] for each in shown}
    expected = {
        (label["user_id"], label["request_id"], items[label["item_key"]]): label["clicked"]
        for label in labels
        if at[label["user_id"], label["request_id"]] >= boundary_ms
    }
    found = {tuple(row[i] for i in ids): row["clicked"] for row in table.to_pylist()}
    assert found == expected
    assert len(found) == table.num_rows
    assert len(set(found.values())) == 2


def test_the_vectors_are_those_of_the_request_alone(
    features: FeatureConfig, folder: Path, table: pa.Table
) -> None:
    words = vocabulary.load(folder / bundle.VOCABULARY_FILE)
    with event_tables.opened(Path(features.log_dir)) as log:
        snapshots = point_in_time.snapshot(log, STREAMS.sequence_length, 90.0)
        rows = point_in_time.request_rows(log)
        attributes = item_attributes.of_profiles(
            item_profiles(log, features, NOON_MS + 10**9), words
        )
    made = onnx_export.outputs(folder)
    several = table.to_pylist()
    assert len({str(row["query_vectors"]) for row in several}) > 1
    for row in several:
        alone = snapshots.take(np.array([rows[row["user_id"], row["request_id"]]]))
        tensors = examples.slates(alone, words, attributes).tensors
        answer = made(
            {
                name: array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
                for name, array in tensors.items()
            }
        )
        place = alone.candidate_item_keys.tolist().index(item_key(row["item_id"]))
        for given, expected in (
            (row["query_vectors"], answer["query_vectors"][0].ravel()),
            (row["candidate_states"], answer["candidate_states"][0, place]),
            (row["click_probability"], answer["click_probability"][0, place]),
        ):
            np.testing.assert_allclose(given, expected, atol=1e-5)
        assert row["model_version"] == folder.name
        assert row["request_at"].timestamp() * 1000 == alone.times_ms[0]


def test_a_bundle_that_was_trained_on_everything_is_refused(
    features: FeatureConfig, folder: Path, tmp_path: Path
) -> None:
    card: BundleManifest = bundle.verify(folder)
    taught = tmp_path / "v9"
    taught.mkdir()
    for file in folder.iterdir():
        if file.suffix == ".md":
            continue  # the report is not among the manifest's files
        (taught / file.name).write_bytes(file.read_bytes())
    bundle.write_card(taught, replace(card, version="v9", boundary_ms=NOON_MS * 2))
    bundle.write_manifest(taught)
    out = tmp_path / "vectors.parquet"
    with pytest.raises(OutageError, match="newer than what v9 was trained on"):
        write_vectors(taught, features, STREAMS, out, silent)
    assert not out.exists()
