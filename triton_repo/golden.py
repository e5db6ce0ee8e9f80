"""Golden requests → proof that a loaded encoder and head answer as they did in training.

The requests and the probabilities that torch gave them travel in the bundle.
"""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from features import bundle, schema
from triton_repo import pbtxt
from triton_repo.client import Tensors, infer_inputs

TOLERANCE = 1e-4  # absolute, of a probability
_TIMEOUT_S = 30.0
_PROBABILITY = "click_probability"
# Known to nobody: the cold path must answer too.
_PROBE_USER, _PROBE_ITEM = "srp4ctr-probe-user", "srp4ctr-probe-item"


def check_golden(client: Any, folder: Path, version: str) -> None:
    """Raise ValueError if steps of ``version`` answer the golden requests otherwise."""
    golden: Tensors = load_file(folder / bundle.GOLDEN_FILE)
    states = _infer(client, pbtxt.BEHAVIOR_ENCODER, version, golden)
    answered = _infer(client, pbtxt.CLICK_HEAD, version, {**golden, **states})
    expected, scores = golden[_PROBABILITY], answered[_PROBABILITY]
    if scores.shape != expected.shape or np.any(np.isnan(scores) != np.isnan(expected)):
        raise ValueError(f"the golden requests of {version} were answered in other places")
    worst = float(np.nanmax(np.abs(scores - expected), initial=0.0))
    if worst > TOLERANCE:
        raise ValueError(
            f"served probabilities differ from training's by {worst:.2g}; "
            f"at most {TOLERANCE:g} is accepted"
        )


def check_version(client: Any, version: str) -> None:
    """Raise ValueError unless a real ``rank_clicks`` answer is of ``version``."""
    request = {
        "user_id": np.array([[_PROBE_USER]], dtype=object),
        "item_ids": np.array([[_PROBE_ITEM]], dtype=object),
    }
    inputs = infer_inputs(schema.REQUEST_INPUTS, request)
    answer = client.infer(pbtxt.RANK_CLICKS, inputs, client_timeout=_TIMEOUT_S)
    answered_by = answer.as_numpy("model_version").item().decode()
    if answered_by != version:
        raise ValueError(f"{pbtxt.RANK_CLICKS} was answered by {answered_by}")
    if not np.all(np.isfinite(answer.as_numpy(_PROBABILITY))):
        raise ValueError(f"{pbtxt.RANK_CLICKS} has no finite score for an unknown user")


def _infer(client: Any, step: str, version: str, tensors: Tensors) -> Tensors:
    """Return the outputs of one step."""
    is_encoder = step == pbtxt.BEHAVIOR_ENCODER
    inputs = schema.ENCODER_INPUTS if is_encoder else schema.HEAD_INPUTS
    outputs = schema.STATE_TENSORS if is_encoder else schema.SCORE_TENSORS
    answer = client.infer(
        pbtxt.step_name(step, version),
        infer_inputs(inputs, tensors),
        client_timeout=_TIMEOUT_S,
    )
    return {spec.name: answer.as_numpy(spec.name) for spec in outputs}
