"""ONNX files of a tiny bundle, whose encoder and head distinguish the versions."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from srp4ctr.features import columns
from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.schema import TensorSpec
from srp4ctr.streams.state.sequences import EXPOSURE_LENGTH

L, E, D, M = 5, 2, 4, 2
SIZES = {"L": L, "W": EXPOSURE_LENGTH, "E": E, "S": L + 1, "D": D, "A": 1, "M": M}
SIZES |= {"D1": D + 1, "C": columns.CANDIDATE.width}
TOO_LARGE, BROKEN = 7, 8
_ONNX_TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    # A history may be shorter, and so are its states; a candidate has more columns where
    # the words have main fields, or actions.
    fixed = {name: size for name, size in SIZES.items() if name not in ("L", "S", "C")}
    dims = ["B", *(fixed.get(s, s) if isinstance(s, str) else s for s in spec.shape)]
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
    """Return an encoder that writes ``mark`` into the null slot of its keys.

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
        node("Mul", ["column", "width"], ["states"]),  # (B, S, D)
        node("Unsqueeze", ["states", "axis1"], ["layer"]),
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


def head(
    mark: float, work: int = 0, *, fails: bool = False, reverses: bool = False
) -> onnx.ModelProto:
    """Return a head that answers about 0.5 to an encoder with the same mark, else not.

    Its query vectors are the history's first two states, its candidate states are rows.
    ``work`` is the size of a matrix that it multiplies with itself, to take time. One that
    ``fails`` does so for ``TOO_LARGE`` candidates, and for ``BROKEN``: see ``_failures``.
    It ranks by the probability, or ``reverses`` its order.
    """
    node, nothing = helper.make_node, "still_nothing" if work or fails else "nothing"
    nodes = [
        node("Cast", ["candidate_item_rows"], ["rows"], to=TensorProto.FLOAT),
        node("Mul", ["rows", "small"], ["logits"]),
        node("Gather", ["layer_keys", "zero"], ["states"], axis=1),  # (B, S, D)
        node("Gather", ["states", "zero"], ["null_slot"], axis=1),  # (B, D)
        node("Gather", ["null_slot", "zeros"], ["encoder_mark"], axis=1),  # (B, 1)
        node("Sub", ["encoder_mark", "mark"], ["mismatch"]),
        node("Add", ["logits", "mismatch"], ["shifted"]),
        node("Sigmoid", ["shifted"], ["probability"]),
        node("Equal", ["candidate_item_rows", "zero"], ["pads"]),
        node("Where", ["pads", "nan", "probability"], ["click_probability"]),
        node("Neg" if reverses else "Identity", ["click_probability"], ["ranking_score"]),
        node("Mul", ["rows", "zero_f"], ["nothing"]),
        *(_failures() if fails else _idle_work() if work else []),
        node("Add", [nothing, "one_f"], ["propensity"]),
        node("Slice", ["states", "zeros", "queries", "one"], ["query_vectors"]),
        node("Unsqueeze", ["rows", "minus_one"], ["column"]),
        node("Mul", ["column", "width"], ["candidate_states"]),  # (B, N, D)
    ]
    written = schema.HEAD_OUTPUTS + schema.RANKING_TENSORS
    return _model(nodes, _constants(mark, work), schema.HEAD_INPUTS, written)


def _constants(mark: float, work: int) -> dict[str, np.ndarray]:
    return {
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
