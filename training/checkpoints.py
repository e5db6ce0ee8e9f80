"""Training's state on disk: one safetensors file per stage, replaced whole or not at all.

In: modules and an optimiser at the end of an epoch. Out: a file from which the next epoch
gives exactly what an uninterrupted run gives. No pickle: tensors, and JSON in the header.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a stage stands; ``recipe`` names what may not differ on resuming."""

    epochs_done: int
    losses: tuple[float, ...]
    recipe: str


def save(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write weights, optimiser state and ``progress`` to ``path``, atomically."""
    tensors = {
        f"{name}/{key}": value.detach().cpu().contiguous().clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimiser/{index}/{key}"] = torch.as_tensor(value).cpu().clone()
    header = {
        "epochs_done": progress.epochs_done,
        "losses": progress.losses,
        "recipe": progress.recipe,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"progress": json.dumps(header)})
    os.replace(partial, path)


def load(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    recipe: str,
) -> Progress | None:
    """Restore everything from ``path``; None if there is none or its recipe differs."""
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["progress"])
        if header["recipe"] != recipe:
            return None
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for name, module in modules.items():
        module.load_state_dict(_under(f"{name}/", tensors))
    _restore(optimiser, _under("optimiser/", tensors))
    return Progress(
        epochs_done=header["epochs_done"],
        losses=tuple(header["losses"]),
        recipe=recipe,
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restore(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give each parameter its moments back; settings stay those of the new optimiser."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
