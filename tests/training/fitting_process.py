"""A process that trains all stages of the tiny model: to be killed, or one of several.

python -m tests.training.fitting_process FOLDER STEP_SECONDS LARGE_CATALOGUE: writes its
checkpoints into FOLDER, and a line for each step that it begins.
"""

import sys
import time
from pathlib import Path

import torch

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.loop import trainer
from srp4ctr.training.loop.distributed import ALONE, Processes, joined
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model import embeddings
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.feedback import pretrain_on_feedback
from srp4ctr.training.objectives.finetuning import finetune
from srp4ctr.training.objectives.pretraining import pretrain
from tests.training.conftest import RECIPE, SIZES, random_slates, random_windows
from tests.training.feeds import feed_slates, watched_windows


def train(
    folder: Path,
    config: RefreshConfig = RECIPE,
    processes: Processes = ALONE,
    step_seconds: float = 0.0,
) -> SRP4CTR:
    """Return the model after all stages."""

    def report(step: str, done: int, total: int, note: str = "") -> None:
        sys.stdout.write(f"{step} {done}\n")
        sys.stdout.flush()
        time.sleep(step_seconds)

    torch.manual_seed(0)
    model = SRP4CTR(config.model, SIZES)
    options = FitOptions(checkpoints=folder, progress=report, processes=processes)
    pretrain(model, random_windows(), config, options)
    pretrain_on_feedback(model, watched_windows(64), feed_slates(), config, options)
    finetune(model, random_slates(), config, options)
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer.CHECKPOINT_EVERY_S = 0.0
    to, step_seconds, large = sys.argv[1:]
    embeddings.LARGE_CATALOGUE = int(large)
    with joined() as together:
        train(Path(to), RECIPE, together, float(step_seconds))
