"""Returns a digest of the code that a cached result depends on."""

import ast
import hashlib

from benchmarks import ROOT

# A change of any of these may change what is trained.
TRAINING_CODE = (
    *("training/dataset/batches.py", "training/model", "training/objectives"),
    *(f"training/loop/{name}.py" for name in ("train_step", "trainer")),
)


def code_digest(*paths: str) -> str:
    """Return a digest of the modules at or beneath ``paths``, less comments, docstrings."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted((ROOT / path).rglob("*.py")) or [ROOT / path]:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(body := getattr(node, "body", None), list):
                    node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
            digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    """Return whether ``statement`` is a bare string, which does nothing."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)
