"""What a kept result depends on besides its settings: the code that learns."""

import ast
import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A change of any of these may change what is learnt.
LEARNING_CODE = (
    *("training/batch_order.py", "training/batches.py", "training/click_loss.py"),
    *("training/finetuning.py", "training/fitting.py", "training/id_dropout.py"),
    *("training/learner.py", "training/masking.py", "training/model"),
    *("training/objective.py", "training/pretraining.py", "training/schedule.py"),
)


def code_digest(*paths: str) -> str:
    """Return a digest of the modules at or beneath ``paths``, comments left out."""
    files = [
        file
        for path in paths
        for file in (sorted((ROOT / path).rglob("*.py")) or [ROOT / path])
    ]
    digest = hashlib.sha256()
    for file in files:
        digest.update(ast.dump(ast.parse(file.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()
