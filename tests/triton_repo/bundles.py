"""A tiny bundle whose encoder and head differ from those of any other version."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
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
from srp4ctr.streams.state.sequences import EXPOSURE_LENGTH
from srp4ctr.training.export import retrieval
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import promotion
from srp4ctr.triton_repo.deployment.promotion import Promotion

L, E, D, M = 5, 2, 4, 2
SIZES = {"L": L, "W": EXPOSURE_LENGTH, "E": E, "S": L + 1, "D": D, "A": 1, "M": M}
SIZES["D1"] = D + 1
KNOWN_ITEM = "item-1"
WORDS = vocabulary.build({item_key(KNOWN_ITEM): 9}, [])
STORE_GATE = Gate(gate="skew", passed=True)  # the feature store was checked
TOO_LARGE, BROKEN = 7, 8
_ONNX_TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}

MakeBundle = Callable[..., Path]


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    dims = ["B", *(SIZES.get(s, s) if isinstance(s, str) else s for s in spec.shape)]
    return helper.make_tensor_value_info(spec.name, _ONNX_TYPES[spec.dtype], dims)


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [_value(spec) for spec in inputs],
        [_value(spec) for spec in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    return model


def encoder(mark: float, work: int = 0) -> onnx.ModelProto:
    """Return an encoder that writes ``mark`` into the null slot of its last states.

    ``work`` is the size of a matrix that it multiplies with itself, to take time.
    """
    node = helper.make_node
    nodes = [
        node("Cast", ["history_item_rows"], ["rows"], to=TensorProto.FLOAT),
        node("Slice", ["rows", "zero", "one", "axis1"], ["first"]),  # (B, 1)
        node("Mul", ["first", "zero_f"], ["nothing"]),
        *(_idle_work() if work else []),
        node("Add", ["still_nothing" if work else "nothing", "mark"], ["null_slot"]),
        node("Concat", ["null_slot", "rows"], ["slots"], axis=1),  # (B, S)
        node("Unsqueeze", ["slots", "axis2"], ["column"]),
        node("Mul", ["column", "width"], ["last_states"]),  # (B, S, D)
        node("Unsqueeze", ["last_states", "axis1"], ["layer"]),
        node("Mul", ["layer", "layers"], ["layer_keys"]),  # (B, E, S, D)
        node("Neg", ["layer_keys"], ["layer_values"]),
        node("Sign", ["slots"], ["state_mask"]),
    ]
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "axis1": np.array([1]),
        "axis2": np.array([2]),
        "zero_f": np.array(0, dtype=np.float32),
        "mark": np.array(mark, dtype=np.float32),
        "width": np.ones(D, dtype=np.float32),
        "layers": np.ones((E, 1, 1), dtype=np.float32),
        **_matrix(work),
    }
    return _model(nodes, constants, schema.ENCODER_INPUTS, schema.STATE_TENSORS)


def head(mark: float, work: int = 0, *, fails: bool = False) -> onnx.ModelProto:
    """Return a head that answers about 0.5 to an encoder with the same mark, else not.

    Its query vectors are the history's first two states, its candidate states are rows.
    ``work`` is the size of a matrix that it multiplies with itself, to take time. One that
    ``fails`` does so for ``TOO_LARGE`` candidates, and for ``BROKEN``: see ``_failures``.
    """
    node, nothing = helper.make_node, "still_nothing" if work or fails else "nothing"
    nodes = [
        node("Cast", ["candidate_item_rows"], ["rows"], to=TensorProto.FLOAT),
        node("Mul", ["rows", "small"], ["logits"]),
        node("Gather", ["last_states", "zero"], ["null_slot"], axis=1),  # (B, D)
        node("Gather", ["null_slot", "zeros"], ["encoder_mark"], axis=1),  # (B, 1)
        node("Sub", ["encoder_mark", "mark"], ["mismatch"]),
        node("Add", ["logits", "mismatch"], ["shifted"]),
        node("Sigmoid", ["shifted"], ["probability"]),
        node("Equal", ["candidate_item_rows", "zero"], ["pads"]),
        node("Where", ["pads", "nan", "probability"], ["click_probability"]),
        node("Mul", ["rows", "zero_f"], ["nothing"]),
        *(_failures() if fails else _idle_work() if work else []),
        node("Add", [nothing, "one_f"], ["propensity"]),
        node("Slice", ["last_states", "zeros", "queries", "one"], ["query_vectors"]),
        node("Unsqueeze", ["rows", "minus_one"], ["column"]),
        node("Mul", ["column", "width"], ["candidate_states"]),  # (B, N, D)
    ]
    constants = {
        "small": np.array(1e-3, dtype=np.float32),
        "zero": np.array(0),
        "zeros": np.array([0]),
        "mark": np.array(mark, dtype=np.float32),
        "nan": np.array(np.nan, dtype=np.float32),
        "zero_f": np.array(0, dtype=np.float32),
        "one_f": np.array(1, dtype=np.float32),
        "one": np.array([1]),
        "minus_one": np.array([-1]),
        "queries": np.array([M]),
        "width": np.ones((1, D), dtype=np.float32),
        **_matrix(work),
    }
    return _model(nodes, constants, schema.HEAD_INPUTS, schema.HEAD_OUTPUTS)


def _matrix(work: int) -> dict[str, np.ndarray]:
    return {"matrix": np.ones((work, work), dtype=np.float32)} if work else {}


def _idle_work() -> list[onnx.NodeProto]:
    """Return nodes that multiply a matrix, and add 0 times the product to ``nothing``.

    They depend on an input, or they would be computed only once, at loading.
    """
    node = helper.make_node
    return [
        node("ReduceSum", ["nothing"], ["seed"], keepdims=0),
        node("Add", ["matrix", "seed"], ["square"]),
        node("MatMul", ["square", "square"], ["product"]),
        node("ReduceMin", ["product"], ["least"], keepdims=0),
        node("Mul", ["least", "zero_f"], ["idle"]),
        node("Add", ["nothing", "idle"], ["still_nothing"]),
    ]


def _failures() -> list[onnx.NodeProto]:
    """Return nodes that add 0 to ``nothing``, or fail, by the number of candidates.

    They take more memory than there is, or read a row outside a table.
    """
    node = helper.make_node
    constants = {
        "too_large": TOO_LARGE,
        "broken": BROKEN,
        "a_petabyte": [10**14],
        "empty": [0],
    }
    return [
        *(
            node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))
            for name, value in constants.items()
        ),
        node("Shape", ["candidate_item_rows"], ["count"], start=1),  # (1,): N
        node("Equal", ["count", "too_large"], ["is_too_large"]),
        node("Where", ["is_too_large", "a_petabyte", "empty"], ["length"]),
        node("ConstantOfShape", ["length"], ["zeros_of_length"]),
        node("ReduceSum", ["zeros_of_length"], ["sum"], keepdims=0),
        node("Equal", ["count", "broken"], ["is_broken"]),
        node("Cast", ["is_broken"], ["row"], to=TensorProto.INT64),
        node("Gather", ["empty", "row"], ["read"]),
        node("Cast", ["read"], ["read_f"], to=TensorProto.FLOAT),
        node("Sum", ["nothing", "sum", "read_f"], ["still_nothing"]),
    ]


def retriever() -> onnx.ModelProto:
    """Return a retriever that expects the item whose row is next to the newest one's."""
    node = helper.make_node
    nodes = [
        node("Slice", ["history_item_rows", "last", "end", "axis1"], ["newest"]),  # (B, 1)
        node("Cast", ["newest"], ["row"], to=TensorProto.FLOAT),
        node("Mul", ["row", "zero_f"], ["nothing"]),
        node("Add", ["nothing", "one_f"], ["one"]),
        node("Concat", ["row", *["nothing"] * (D - 1), "one"], ["next_item"], axis=1),
    ]
    constants = {
        "last": np.array([-1]),
        "end": np.array([np.iinfo(np.int64).max]),
        "axis1": np.array([1]),
        "zero_f": np.array(0, dtype=np.float32),
        "one_f": np.array(1, dtype=np.float32),
    }
    return _model(nodes, constants, schema.ENCODER_INPUTS, schema.NEXT_ITEM_TENSORS)


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


def golden(folder: Path) -> dict[str, np.ndarray]:
    """Return two requests and what onnxruntime answers, in place of torch."""
    tensors = inputs_of(schema.MODEL_INPUTS, 2, 3)
    tensors["candidate_item_rows"][1, 2] = 0
    for file in (bundle.ENCODER_FILE, bundle.HEAD_FILE):
        session = onnxruntime.InferenceSession(folder / file)
        names = [each.name for each in session.get_outputs()]
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
    vocabulary, else of one item; ``work`` makes its head slow, or its encoder; ``fails``:
    see ``head``. With the ``names`` of all items in ``words`` it recommends.
    """

    def make(
        version: str,
        *,
        mark: float,
        shift: float = 0.0,
        words: Vocabulary | None = None,
        work: int = 0,
        slow: str = "head",
        fails: bool = False,
        names: Sequence[str] = (),
    ) -> Path:
        folder = bundles_dir / version
        folder.mkdir(parents=True)
        of_encoder, of_head = (work if slow == part else 0 for part in ("encoder", "head"))
        onnx.save(encoder(mark, of_encoder), folder / bundle.ENCODER_FILE)
        onnx.save(head(mark, of_head, fails=fails), folder / bundle.HEAD_FILE)
        tensors = golden(folder)
        tensors["click_probability"] = tensors["click_probability"] + np.float32(shift)
        save_file(tensors, folder / bundle.GOLDEN_FILE)
        save_file({"mark": np.array([mark])}, folder / bundle.WEIGHTS_FILE)
        vocabulary.save(words or WORDS, folder / bundle.VOCABULARY_FILE)
        if names:
            write_retrieval(folder, words or WORDS, names)
        card = BundleManifest(version=version, created_at_ms=1, sizes=SIZES)
        bundle.write_card(folder, card)
        bundle.write_manifest(folder)
        return folder

    return make
