"""A tiny bundle whose encoder and head differ from those of any other version."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import save_file

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.features.tensors import schema, vocabulary
from srp4ctr.features.tensors.schema import TensorSpec
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.schema import item_key
from srp4ctr.training.export import retrieval
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import promotion
from srp4ctr.triton_repo.deployment.one_server import Promotion
from tests.triton_repo.tiny_graphs import SIZES, D, encoder, head, retriever

KNOWN_ITEM = "item-1"
WORDS = vocabulary.build({item_key(KNOWN_ITEM): 9}, [])
STORE_GATE = Gate(gate="skew", passed=True)  # the feature store was checked

MakeBundle = Callable[..., Path]


def write_retrieval(folder: Path, words: Vocabulary, names: Sequence[str]) -> None:
    """Write a bundle's files of retrieval, for the items ``names`` of ``words``."""
    rows = words.item_rows(words.item_keys)
    vectors = np.zeros((len(rows), D + 1), dtype=np.float32)
    # 2 a b - b b is the greater, the nearer a and b are; of two, the later row wins.
    vectors[:, 0], vectors[:, -1] = 2 * rows, 0.2 * rows - rows**2
    ids = [name.encode() for name in sorted(names, key=item_key)]
    save_file(
        {
            "vectors": vectors,
            "id_letters": np.frombuffer(b"".join(ids), dtype=np.uint8),
            "id_ends": np.cumsum([len(each) for each in ids]),
            "counts": rows,
        },
        folder / bundle.ITEMS_FILE,
    )
    retrieval.write_products(vectors, folder / bundle.PRODUCTS_FILE)
    onnx.save(retriever(), folder / bundle.RETRIEVER_FILE)


def inputs_of(
    specs: tuple[TensorSpec, ...], batch: int, num_candidates: int
) -> dict[str, np.ndarray]:
    """Return ones in the shapes of ``specs``."""
    sizes = {**SIZES, "N": num_candidates}
    return {s.name: np.ones((batch, *s.dims(sizes)), dtype=s.dtype) for s in specs}


def golden(folder: Path, columns: int) -> dict[str, np.ndarray]:
    """Return two requests and what onnxruntime answers, in place of torch.

    ``columns`` are those of a candidate.
    """
    tensors = inputs_of(schema.MODEL_INPUTS, 2, 3)
    tensors["candidate_features"] = np.zeros((2, 3, columns), dtype=np.float32)
    tensors["candidate_item_rows"][1, 2] = 0
    for file in (bundle.ENCODER_FILE, bundle.HEAD_FILE):
        session = onnxruntime.InferenceSession(folder / file)
        names = [output.name for output in session.get_outputs()]
        feeds = {each.name: tensors[each.name] for each in session.get_inputs()}
        tensors |= dict(zip(names, session.run(names, feeds), strict=True))
    return tensors


def promote(
    source: Path, triton: TritonConfig, features: FeatureConfig, *, canary: bool = False
) -> Promotion:
    """Promote a bundle whose feature store was checked; fail where it is refused."""
    done = promotion.promote(source, triton, features, STORE_GATE, canary=canary)
    assert not done.refusal, done.refusal
    return done


def a_check(**found: Any) -> FeatureCheck:
    """Return a check of 200 rows of the feature store, right except for ``found``."""
    return FeatureCheck(checked_at_ms=1, **({"rows": 200} | found))


def make_bundle_in(bundles_dir: Path) -> MakeBundle:
    """Return a function that writes a whole bundle: ``make_bundle("v1", mark=1.0)``.

    ``shift`` makes its golden answers differ from what its model says; ``words`` is its
    vocabulary, else of one item; ``work`` makes its head slow, or its encoder; ``dials``
    are those of ``head``. With the ``names`` of all items in ``words`` it recommends.
    """

    def make(
        version: str,
        *,
        mark: float,
        shift: float = 0.0,
        words: Vocabulary | None = None,
        work: int = 0,
        slow: str = "head",
        names: Sequence[str] = (),
        **dials: bool,
    ) -> Path:
        folder = bundles_dir / version
        folder.mkdir(parents=True)
        of_encoder, of_head = (work if slow == part else 0 for part in ("encoder", "head"))
        onnx.save(encoder(mark, of_encoder), folder / bundle.ENCODER_FILE)
        onnx.save(head(mark, of_head, **dials), folder / bundle.HEAD_FILE)
        sizes = SIZES | {"C": (words or WORDS).candidate_columns.layout.width}
        tensors = golden(folder, sizes["C"])
        tensors["click_probability"] = tensors["click_probability"] + np.float32(shift)
        save_file(tensors, folder / bundle.GOLDEN_FILE)
        save_file({"mark": np.array([mark])}, folder / bundle.WEIGHTS_FILE)
        vocabulary.save(words or WORDS, folder / bundle.VOCABULARY_FILE)
        if names:
            write_retrieval(folder, words or WORDS, names)
        card = BundleManifest(version=version, created_at_ms=1, sizes=sizes)
        bundle.write_card(folder, card)
        bundle.write_manifest(folder)
        return folder

    return make
