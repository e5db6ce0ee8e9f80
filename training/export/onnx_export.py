"""Trained model → the files that serving runs: ONNX encoder and head, golden requests.

In: a calibrated model and a few real requests. Out: ``encoder.onnx`` and ``head.onnx``,
whose inputs and outputs are the schema's by name with free batch and candidate axes, and
``golden.safetensors``, torch's outputs. A difference above 1e-4 stops the export.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from torch import Tensor, nn

from srp4ctr.errors import ArtifactError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import SCORE_TOLERANCES
from srp4ctr.features.tensors.schema import (
    ENCODER_INPUTS,
    HEAD_INPUTS,
    HEAD_OUTPUTS,
    MODEL_INPUTS,
    RANKING_TENSORS,
    STATE_TENSORS,
    TensorSpec,
    user_tensors,
)
from srp4ctr.training.export.serving_graph import ServingEncoder, ServingHead
from srp4ctr.training.model.heads.scores import Scores
from srp4ctr.training.model.srp4ctr import SRP4CTR

OPSET = 18
FREE_SIZES = ("N", "L", "S")  # of a request and its history, which may be short
SCORES = tuple(SCORE_TOLERANCES)
Arrays = Mapping[str, NDArray[np.generic]]
Outputs = Callable[[Arrays], dict[str, NDArray[np.float32]]]


def export(model: SRP4CTR, sizes: Mapping[str, int], folder: Path) -> None:
    """Write weights and both ONNX files into ``folder``."""
    model = model.eval().cpu()
    save_torch(_weights(model), folder / bundle.WEIGHTS_FILE)
    inputs = sample(sizes, requests=2, candidates=3)
    with torch.no_grad():
        inputs |= model.encode(inputs)
    frozen = copy.deepcopy(model).requires_grad_(False)  # its weights become constants
    encoder, head = ServingEncoder(frozen), ServingHead(frozen)
    encoder_file, head_file = folder / bundle.ENCODER_FILE, folder / bundle.HEAD_FILE
    export_onnx(encoder, inputs, ENCODER_INPUTS, STATE_TENSORS, encoder_file)
    read = HEAD_INPUTS + user_tensors(sizes)
    export_onnx(head, inputs, read, HEAD_OUTPUTS + RANKING_TENSORS, head_file)


def sample(
    sizes: Mapping[str, int], *, requests: int, candidates: int
) -> dict[str, Tensor]:
    """Return the model's inputs, all of row 1, of the right shapes."""
    known = {**sizes, "N": candidates}
    kinds = {"int64": torch.int64, "float32": torch.float32}
    return {
        spec.name: torch.ones((requests, *spec.dims(known)), dtype=kinds[spec.dtype])
        for spec in MODEL_INPUTS + user_tensors(sizes)
    }


@torch.no_grad()
def write_golden(model: SRP4CTR, requests: Arrays, folder: Path) -> None:
    """Write ``requests`` (the schema's inputs) and the outputs of the model in torch."""
    golden = {name: np.ascontiguousarray(array) for name, array in requests.items()}
    tensors = {name: torch.from_numpy(array) for name, array in golden.items()}
    scores = model.score({**tensors, **model.encode(tensors)})
    golden |= {name: each.numpy() for name, each in zip(SCORES, scores, strict=True)}
    save_file(golden, folder / bundle.GOLDEN_FILE)


def scorer(folder: Path) -> Callable[[Arrays], Scores[NDArray[np.float32]]]:
    """Return a function that scores requests by the ONNX files in ``folder``, read once.

    A bundle without ranking scores ranks by the probability.
    """
    made = outputs(folder)

    def score(requests: Arrays) -> Scores[NDArray[np.float32]]:
        found = made(requests)
        probability = found["click_probability"]
        return Scores(probability, found.get("ranking_score", probability))

    return score


def outputs(folder: Path) -> Outputs:
    """Return a function that makes the head's outputs of requests by the same files."""
    encode = _session(folder / bundle.ENCODER_FILE)
    score = _session(folder / bundle.HEAD_FILE)
    return lambda requests: score({**requests, **encode(requests)})


def check(golden: Arrays, outputs: Scores[NDArray[np.float32]]) -> float:
    """Return the probabilities' largest difference from torch.

    ``ArtifactError`` where that or the ranking scores' is above its tolerance.
    """
    of_click, *_ = (
        _difference(name, golden[name].astype(np.float32), made)
        for name, made in zip(SCORES, outputs, strict=True)
    )
    return of_click


def _difference(
    name: str, expected: NDArray[np.float32], made: NDArray[np.float32]
) -> float:
    if np.any(np.isnan(made) != np.isnan(expected)):
        raise ArtifactError("the exported model pads in other places than torch")
    worst = float(np.nanmax(np.abs(made - expected), initial=0.0))
    if worst > SCORE_TOLERANCES[name]:
        raise ArtifactError(
            f"the exported model's {name} differs from torch's by {worst:.2g}; "
            f"at most {SCORE_TOLERANCES[name]:g} is accepted"
        )
    return worst


def export_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    read: Sequence[TensorSpec],
    written: Sequence[TensorSpec],
    path: Path,
) -> None:
    """Write ``module``, whose arguments are ``read`` and results ``written``, in order."""
    is_folded = any(
        isinstance(each, ServingEncoder | ServingHead) for each in module.modules()
    )
    with warnings.catch_warnings(), torch.no_grad():
        # The tracing exporter takes 1 s where the new one takes 10; it is to be removed
        # one day, and warns each time.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs[spec.name] for spec in read),
            str(path),
            input_names=[spec.name for spec in read],
            output_names=[spec.name for spec in written],
            dynamic_axes={spec.name: _free_axes(spec) for spec in (*read, *written)},
            opset_version=OPSET,
            dynamo=False,
            custom_opsets={"com.microsoft": 1} if is_folded else {},
        )
    _declare_unread(path, read)


def _declare_unread(path: Path, table: Sequence[TensorSpec]) -> None:
    """Declare the inputs that the exporter left out because this model does not read them.

    Serving sends all of ``table``, also where the model has parts switched off.
    """
    model = onnx.load(path)
    declared = {each.name for each in model.graph.input}
    kinds = {"int64": onnx.TensorProto.INT64, "float32": onnx.TensorProto.FLOAT}
    for spec in table:
        if spec.name not in declared:
            shape = ["B", *(str(size) for size in spec.shape)]
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(spec.name, kinds[spec.dtype], shape)
            )
    onnx.save(model, path)


def _free_axes(spec: TensorSpec) -> dict[int, str]:
    named = {axis + 1: size for axis, size in enumerate(spec.shape) if size in FREE_SIZES}
    return {0: "B", **named}


def _session(path: Path) -> Outputs:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    read = [each.name for each in session.get_inputs()]

    def run(inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        fed = {name: inputs[name] for name in read}
        return dict(zip(names, session.run(names, fed), strict=True))

    return run


def _weights(model: SRP4CTR) -> dict[str, Tensor]:
    """Return the weights once each: the encoder's embedding is the model's."""
    return {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith("encoder.embedding.")
    }
