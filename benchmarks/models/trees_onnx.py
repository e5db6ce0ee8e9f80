"""LightGBM on a request's counters → one ONNX file that scores a request's candidates.

The trees are of drawn clicks: what they cost depends on how many and how deep they are,
not on what they learned. onnxruntime runs them, as it runs the other forms: LightGBM's own
Python interface takes longer for one request.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.models.trees import PARAMETERS
from srp4ctr.features import columns

TREES = 200  # of 31 leaves: a usual size
ROWS = 20_000
_CONSTANTS = {
    "width": np.array([columns.REQUEST.width], dtype=np.int64),
    "of_request": np.array([1], dtype=np.int64),
    "zero": np.zeros(1, dtype=np.float32),
    "one": np.ones(1, dtype=np.float32),
    "start": np.array([0], dtype=np.int64),
    "end": np.array([2], dtype=np.int64),
}


def drawn_booster(candidate_width: int) -> lightgbm.Booster:
    """Return ``TREES`` trees that learned clicks drawn from a few of the columns."""
    chance = np.random.default_rng(0)
    width = columns.REQUEST.width + candidate_width
    rows = chance.normal(size=(ROWS, width)).astype(np.float32)
    logit = rows[:, ::4].sum(1) * 0.5 + np.sin(3.0 * rows[:, 1])
    clicked = chance.random(ROWS) < 1.0 / (1.0 + np.exp(-logit))
    data = lightgbm.Dataset(rows, clicked.astype(float))
    return lightgbm.train(dict(PARAMETERS), data, num_boost_round=TREES)


def export_trees(booster: lightgbm.Booster, path: Path) -> None:
    """Write the file: the schema's two tensors of counters → ``SCORE_TENSORS``."""
    node = helper.make_node
    nodes = [
        node("Shape", ["candidate_features"], ["shape"]),
        node("Slice", ["shape", "start", "end"], ["requests_and_items"]),
        node("Concat", ["requests_and_items", "width"], ["wanted"], axis=0),
        node("Unsqueeze", ["request_features", "of_request"], ["request"]),
        node("Expand", ["request", "wanted"], ["requests"]),
        node("Concat", ["requests", "candidate_features"], ["both"], axis=2),
        node("Reshape", ["both", "rows"], ["columns"]),
        node(
            "TreeEnsembleRegressor",
            ["columns"],
            ["logits"],
            domain="ai.onnx.ml",
            **_ensemble(booster),
        ),
        node("Sigmoid", ["logits"], ["flat"]),
        node("Reshape", ["flat", "requests_and_items"], ["click_probability"]),
        node("Mul", ["click_probability", "zero"], ["zeros"]),
        node("Add", ["zeros", "one"], ["propensity"]),
    ]
    value, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    width = booster.num_feature()
    constants = {**_CONSTANTS, "rows": np.array([-1, width], dtype=np.int64)}
    inputs = [
        value("request_features", kind, ["B", columns.REQUEST.width]),
        value("candidate_features", kind, ["B", "N", width - columns.REQUEST.width]),
    ]
    outputs = [value(n, kind, ["B", "N"]) for n in ("click_probability", "propensity")]
    initial = [onnx.numpy_helper.from_array(each, n) for n, each in constants.items()]
    graph = helper.make_graph(nodes, "trees", inputs, outputs, initial)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def _ensemble(booster: lightgbm.Booster) -> dict[str, Any]:
    """Return the attributes of ONNX's operator: a list with an entry for each node."""
    rows = [
        (number, *row)
        for number, tree in enumerate(booster.dump_model()["tree_info"])
        for row in _nodes(tree["tree_structure"], [0])
    ]
    trees, ids, features, values, yes, no = map(list, zip(*rows, strict=True))
    leaves = [place for place, feature in enumerate(features) if feature < 0]
    return {
        "nodes_treeids": trees,
        "nodes_nodeids": ids,
        "nodes_featureids": [max(feature, 0) for feature in features],
        "nodes_values": [
            0.0 if f < 0 else v for f, v in zip(features, values, strict=True)
        ],
        "nodes_modes": ["LEAF" if feature < 0 else "BRANCH_LEQ" for feature in features],
        "nodes_truenodeids": yes,
        "nodes_falsenodeids": no,
        "target_treeids": [trees[leaf] for leaf in leaves],
        "target_nodeids": [ids[leaf] for leaf in leaves],
        "target_weights": [values[leaf] for leaf in leaves],
        "target_ids": [0] * len(leaves),
        "n_targets": 1,
    }


def _nodes(
    node: Mapping[str, Any], counter: list[int]
) -> Iterator[tuple[int, int, float, int, int]]:
    """Yield number, feature (-1: a leaf), threshold or value, and its children."""
    number, counter[0] = counter[0], counter[0] + 1
    if "leaf_value" in node:
        yield number, -1, float(node["leaf_value"]), 0, 0
        return
    yes = counter[0]
    left = list(_nodes(node["left_child"], counter))
    no = counter[0]
    right = list(_nodes(node["right_child"], counter))
    yield number, int(node["split_feature"]), float(node["threshold"]), yes, no
    yield from left
    yield from right
