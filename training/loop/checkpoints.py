"""Training's state on disk: one safetensors file per stage, replaced whole or not at all.

In: a module and an optimiser between two steps. Out: a file from which the next step gives
exactly what an uninterrupted run gives. No pickle: tensors, and JSON in the header.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from srp4ctr.atomic_files import replace_file

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a stage is, besides weights and optimiser; changes with every step."""

    curve: Tensor
    """The loss of each step, (steps,) float32; NaN for steps to come."""
    steps_done: int = 0
    is_over: bool = False
    """Whether the stage has ended."""
    validated: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    """The losses of held-out requests after each epoch; none without validation."""
    best_epochs: int = 0
    """Set at the end, if fewer were better: for how many to train the stage again."""


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each once; the tensors themselves."""
    named = dict(module.named_parameters())
    return {n: t.detach() for n, t in (named | dict(module.named_buffers())).items()}


@torch.no_grad()
def restore(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy ``tensors`` into the weights of these names."""
    for name, tensor in weights(module).items():
        tensor.copy_(tensors[name])


def save(
    path: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    recipe: str,
) -> None:
    """Write all of it to ``path``, atomically; a resumed run needs the same ``recipe``."""
    tensors = {"curve": progress.curve, "validated": progress.validated}
    tensors |= _above("weights/", weights(module))
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= _above(f"optimiser/{index}/", state)
    header = {
        "steps_done": progress.steps_done,
        "is_over": progress.is_over,
        "best_epochs": progress.best_epochs,
        "recipe": recipe,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    on_cpu = {n: torch.as_tensor(t).cpu().contiguous() for n, t in tensors.items()}
    content = safetensors_bytes(on_cpu, metadata={"progress": json.dumps(header)})
    replace_file(path, lambda file: file.write(content))


def load(
    path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, recipe: str
) -> Progress | None:
    """Restore everything from ``path``; None if there is none or its recipe differs."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["progress"])
            if header.pop("recipe") != recipe:
                return None
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if _under("weights/", tensors).keys() != weights(module).keys():
            raise ValueError("its weights are of another model")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        # Of another program, or of a disk that lost its end: nothing is lost but time.
        _log.warning("%s cannot be read, the stage begins again: %s", path, error)
        return None
    restore(module, _under("weights/", tensors))
    _restore_moments(optimiser, _under("optimiser/", tensors))
    curve = tensors["curve"].to(next(module.parameters()).device)
    return Progress(curve=curve, validated=tensors["validated"], **header)


def _above(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restore_moments(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Restore each parameter's moments; the new optimiser keeps its own settings."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
