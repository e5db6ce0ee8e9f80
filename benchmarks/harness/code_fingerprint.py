"""What a kept result depends on besides its settings: the code that learns."""

import ast
import hashlib

from benchmarks import ROOT

# A change of any of these may change what is learnt.
LEARNING_CODE = (
    *(
        "training/dataset/bucket_sampler.py",
        "training/dataset/batches.py",
        "training/objectives/click_loss.py",
    ),
    *(
        "training/objectives/finetuning.py",
        "training/loop/trainer.py",
        "training/objectives/id_dropout.py",
    ),
    *("training/loop/train_step.py", "training/objectives/masking.py", "training/model"),
    *(
        "training/objectives/objective.py",
        "training/objectives/pretraining.py",
        "training/loop/lr_schedule.py",
    ),
    "training/refresh/stages.py",
)


def code_digest(*paths: str) -> str:
    """Return a digest of the modules at or beneath ``paths``, less comments, docstrings."""
    files = [
        file
        for path in paths
        for file in (sorted((ROOT / path).rglob("*.py")) or [ROOT / path])
    ]
    digest = hashlib.sha256()
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(body := getattr(node, "body", None), list):
                node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    """Return whether ``statement`` is a bare string, which does nothing."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
