"""``python -m benchmarks NAME``: run one benchmark, whichever folder it is in."""

import runpy
import sys

from benchmarks import FOLDER
from srp4ctr.features.online import feast_import

OPENINGS = ('"""Claim: ', '"""Question: ')


def modules() -> dict[str, str]:
    """Return name → module of each benchmark: its docstring is a claim or a question."""
    return {
        path.stem: ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
        for path in sorted(FOLDER.rglob("*.py"))
        if path.read_text(encoding="utf-8").startswith(OPENINGS)
    }


def main() -> None:
    """Run the benchmark that the first argument names, with the arguments after it."""
    known = modules()
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        sys.exit("which benchmark? one of: " + ", ".join(sorted(known)))
    module = known[sys.argv.pop(1)]
    feast_import.lightly()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
