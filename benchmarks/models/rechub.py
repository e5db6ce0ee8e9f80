"""Run torch-rechub's models by its own trainer: arrays in a file → logits in a file.

``benchmarks.quality.peer_models`` starts this in an environment that holds torch-rechub and
nothing of ours. Arguments: the file to read, the one to write, and the training's model,
rate, epochs, batch (impressions per step) and seed as JSON. In: ``PART/NAME`` arrays, a row
per impression, and ``rows/NAME``, the size of each table. ``target_X`` is the candidate's,
``history_X`` what DIN compares with it, by the same table; ``profile_X`` goes past the
attention. 0 pads. Out: logits of each part but ``train``, CPU seconds of the training, and
of DIN the FLOPs of 1 and of 100 candidates.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler
from torch.utils.flop_counter import FlopCounterMode
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.ranking import DIEN, DIN
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import TorchDataset

ITEM_WIDTH = 64  # as wide as our variants'
PROFILE_WIDTH = 16
ATTENTION = {"dims": [80, 40]}  # as in the paper, and in our own DIN
HEAD = {"dims": [256, 128]}  # as in the library's examples
WEIGHT_DECAY = 1e-5  # the trainer's own default
SCORED = 4096  # impressions at once; changes no score
HISTORY, UNMET = "history_", "unmet_"
LEAST = 1e-7  # of a probability: DIN gives those, and float32 ends there
Inputs = Mapping[str, Tensor]


def built(name: str, inputs: Inputs, rows: Mapping[str, int]) -> nn.Module:
    """Return the library's model ``name`` over ``inputs``, by how their names begin."""

    def named(kind: str) -> list[str]:
        return sorted(name for name in inputs if name.startswith(kind))

    targets = [
        SparseFeature(name, rows[name], ITEM_WIDTH, padding_idx=0)
        for name in named("target_")
    ]
    histories, unmet = (
        [
            SequenceFeature(
                name=f"{kind}{target.name.removeprefix('target_')}",
                vocab_size=target.vocab_size,
                embed_dim=ITEM_WIDTH,
                pooling="concat",
                shared_with=target.name,
                padding_idx=0,
            )
            for target in targets
        ]
        for kind in (HISTORY, UNMET)
    )
    profiles = [
        SparseFeature(name, rows[name], PROFILE_WIDTH)
        if inputs[name].dim() == 1
        else SequenceFeature(name, rows[name], PROFILE_WIDTH, padding_idx=0)  # their mean
        for name in named("profile_")
    ]
    model: nn.Module = (
        DIEN(profiles, histories, unmet, targets, HEAD)
        if name == "dien"
        else DIN(profiles, histories, targets, HEAD, ATTENTION)
    )
    return model


def with_unmet(inputs: Inputs) -> dict[str, Tensor]:
    """Return ``inputs`` as DIEN takes them: padded behind, with behaviours of others.

    Each has one of a random history beside it, which was seldom met in its own.
    """
    items = inputs[f"{HISTORY}item"]  # (M, L)
    behind = torch.argsort((items == 0).to(torch.int8), dim=1, stable=True)
    met = torch.nonzero(items.flatten()).squeeze(1)
    drawn = torch.randint(max(len(met), 1), items.shape)
    made = dict(inputs)
    for name in [each for each in inputs if each.startswith(HISTORY)]:
        found = inputs[name].flatten()
        own = inputs[name].gather(1, behind)
        other = found[met[drawn]] if len(met) else own
        made[name] = own
        made[f"{UNMET}{name.removeprefix(HISTORY)}"] = other * (own != 0)
    return made


def batches(inputs: Inputs, clicked: Tensor, size: int, shuffles: bool) -> DataLoader[Any]:
    """Return the library's data set, read a batch at a time."""
    rows = TorchDataset(inputs, clicked)
    order = RandomSampler(rows) if shuffles else SequentialSampler(rows)
    # Batch norm cannot learn from the single row that may remain.
    is_left_out = shuffles and len(rows) > size
    return DataLoader(rows, sampler=BatchSampler(order, size, is_left_out), batch_size=None)


def logits(trainer: CTRTrainer, inputs: Inputs) -> NDArray[np.float64]:
    """Return the logit of each row."""
    unknown = torch.zeros(len(inputs["target_item"]))
    found = trainer.predict(trainer.model, batches(inputs, unknown, SCORED, False))
    likely = np.clip(np.array(found, dtype=np.float64), LEAST, 1.0 - LEAST)
    result: NDArray[np.float64] = np.log(likely / (1.0 - likely))
    return result


def flops(model: nn.Module, inputs: Inputs, candidates: int) -> int:
    """Return the counted FLOPs of a request with ``candidates``, a row each."""
    first = {name: values[:1] for name, values in inputs.items()}
    repeats = {name: [candidates, *[1] * (v.dim() - 1)] for name, v in first.items()}
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model({name: values.repeat(repeats[name]) for name, values in first.items()})
    return int(counter.get_total_flops())


def main() -> None:
    """Train on ``train`` and write what becomes of the other parts."""
    inputs, outputs, task = sys.argv[1:]
    fit = json.loads(task)
    torch.set_num_threads(1)
    torch.manual_seed(fit["seed"])
    parts: dict[str, dict[str, Tensor]] = {}
    for key, array in np.load(inputs, allow_pickle=False).items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = torch.from_numpy(array)
    rows = {name: int(size) for name, size in parts.pop("rows").items()}
    train = parts.pop("train")
    clicked = train.pop("clicked")
    is_dien = fit["model"] == "dien"
    if is_dien:
        train = with_unmet(train)
        parts = {part: with_unmet(each) for part, each in parts.items()}
    with tempfile.TemporaryDirectory() as folder:
        trainer = CTRTrainer(
            built(fit["model"], train, rows),
            optimizer_params={"lr": fit["rate"], "weight_decay": WEIGHT_DECAY},
            n_epoch=fit["epochs"],
            model_path=folder,
            loss_mode=not is_dien,  # DIEN returns its auxiliary loss, too
        )
        began = time.process_time()
        trainer.fit(batches(train, clicked, fit["batch"], shuffles=True))
        seconds = time.process_time() - began
    found: dict[str, Any] = {part: logits(trainer, each) for part, each in parts.items()}
    found["seconds"] = seconds
    # torch counts nothing of what is recurrent, which is most of DIEN.
    counted = () if is_dien else (1, 100)
    found["flops"] = [flops(trainer.model, train, candidates) for candidates in counted]
    np.savez(outputs, **found)


if __name__ == "__main__":
    main()
