"""Event log and a bundle → the bundle's embeddings at each impression, in Parquet.

Inputs for a click model of your own: a row per impression with a matured label has the
outputs of ``encode_user`` and ``candidate_states``, point-in-time correct but for items'
attributes, which are the newest. Requests that the bundle was trained on are left out:
their embeddings would be better than in serving. ``docs/own_model.md`` shows how to use
them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from srp4ctr.atomic_files import replace_file
from srp4ctr.errors import OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.features.offline.profiles import item_updates
from srp4ctr.features.tensors.schema import (
    CANDIDATE_EMBEDDINGS,
    PROBABILITY_TENSORS,
    USER_EMBEDDINGS,
)
from srp4ctr.features.tensors.vocabulary import load as load_vocabulary
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.dataset import examples, item_attributes
from srp4ctr.training.dataset.batches import Arrays, Slates
from srp4ctr.training.export.onnx_export import Outputs, outputs
from srp4ctr.training.loop.progress import ProgressListener

BATCH = 64  # slates at once
STEP = "vectors"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Impressions:
    """What is known of the impressions (M,) of some slates, in the slates' order."""

    slates: Slates
    user_ids: NDArray[np.object_]
    request_ids: NDArray[np.object_]
    item_ids: NDArray[np.object_]
    positions: NDArray[np.int64]
    clicked: NDArray[np.bool_]


def write_vectors(
    folder: Path,
    features: FeatureConfig,
    streams: StreamConfig,
    out: Path,
    progress: ProgressListener,
) -> int:
    """Write the vectors of the bundle in ``folder`` to ``out``; return the rows written.

    ``out`` appears when it is whole. Raises ``OutageError`` where no request is newer yet
    than what the bundle was trained on.
    """
    card = bundle.verify(folder)
    found = _impressions(folder, card, features, streams)
    made = outputs(folder)

    def write(file: BinaryIO) -> None:
        with pq.ParquetWriter(file, _schema(card)) as writer:
            for table in _tables(found, card, made, progress):
                writer.write_table(table)

    replace_file(out, write)
    return len(found.clicked)


def _impressions(
    folder: Path, card: BundleManifest, features: FeatureConfig, streams: StreamConfig
) -> _Impressions:
    vocabulary = load_vocabulary(folder / bundle.VOCABULARY_FILE)
    with event_tables.opened_by(features) as log:
        lengths = streams.sequence_length, features.sequence_ttl_days
        every = point_in_time.request_tables(log, *lengths, streams.exposure_length)
        times_ms = every.times_ms()
        first = int(np.searchsorted(times_ms, card.boundary_ms))
        if first == len(times_ms):
            raise OutageError(
                "no request with a matured label is newer than what "
                f"{card.version} was trained on: wait for some, or refresh less often"
            )
        found = every.read(first, len(times_ms))
        names = {row: name for (_, name), row in point_in_time.request_rows(log).items()}
        items = log.rows(log.events.select("item_key", "item_id").distinct())
        updates = item_updates(log)
    ids = dict(
        zip(items["item_key"].to_pylist(), items["item_id"].to_pylist(), strict=True)
    )
    of = found.candidate_requests
    attributes = item_attributes.of_updates(updates, vocabulary)
    return _Impressions(
        slates=examples.slates(found, vocabulary, attributes),
        user_ids=found.user_ids[of],
        request_ids=np.array([names[first + row] for row in of.tolist()], dtype=object),
        item_ids=np.array([ids[key] for key in found.candidate_item_keys.tolist()], object),
        positions=found.candidate_positions,
        clicked=found.candidate_clicked,
    )


def _schema(card: BundleManifest) -> pa.Schema:
    sizes = card.sizes
    return pa.schema(
        {
            "user_id": pa.string(),
            "request_id": pa.string(),
            "item_id": pa.string(),
            "request_at": pa.timestamp("ms", tz="UTC"),
            "position": pa.int64(),
            "clicked": pa.bool_(),
            "model_version": pa.string(),
            PROBABILITY_TENSORS[0].name: pa.float32(),
            USER_EMBEDDINGS[0].name: pa.list_(pa.float32(), sizes["M"] * sizes["D"]),
            CANDIDATE_EMBEDDINGS[0].name: pa.list_(pa.float32(), sizes["D"]),
        }
    )


def _tables(
    found: _Impressions, card: BundleManifest, made: Outputs, progress: ProgressListener
) -> Iterator[pa.Table]:
    """Yield the rows in chunks of slates."""
    ends = np.cumsum(found.slates.shown.sum(axis=1))
    for begin in range(0, len(found.slates), BATCH):
        slates = found.slates.take(slice(begin, begin + BATCH))
        last = min(begin + BATCH, len(found.slates)) - 1
        rows = slice(int(ends[begin - 1]) if begin else 0, int(ends[last]))
        yield _table(found, slates, rows, card, made(_as_served(slates.tensors)))
        progress(STEP, last + 1, len(found.slates))


def _table(
    found: _Impressions,
    slates: Slates,
    rows: slice,
    card: BundleManifest,
    answer: Arrays,
) -> pa.Table:
    shown = slates.shown
    request = np.nonzero(shown)[0]
    (probability,), (queries,), (states,) = (
        [answer[spec.name] for spec in table]
        for table in (PROBABILITY_TENSORS, USER_EMBEDDINGS, CANDIDATE_EMBEDDINGS)
    )
    columns = {
        "user_id": found.user_ids[rows],
        "request_id": found.request_ids[rows],
        "item_id": found.item_ids[rows],
        "request_at": slates.request_at_ms[request],
        "position": found.positions[rows],
        "clicked": found.clicked[rows],
        "model_version": np.full(len(request), card.version),
        PROBABILITY_TENSORS[0].name: probability[shown],
        USER_EMBEDDINGS[0].name: _lists(queries[request]),
        CANDIDATE_EMBEDDINGS[0].name: _lists(states[shown]),
    }
    return pa.table(columns, schema=_schema(card))


def _lists(vectors: NDArray[Any]) -> pa.FixedSizeListArray:
    flat = vectors.reshape(len(vectors), -1)
    values = pa.array(flat.ravel(), type=pa.float32())
    return pa.FixedSizeListArray.from_arrays(values, flat.shape[1])


def _as_served(tensors: Arrays) -> Arrays:
    """Return ``tensors`` in the schema's own types: slates keep small ones."""
    return {
        name: array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        for name, array in tensors.items()
    }
