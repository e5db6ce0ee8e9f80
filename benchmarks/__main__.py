"""``python -m benchmarks NAME``: run one benchmark, whichever folder it is in."""

import runpy
import sys

from benchmarks import FOLDER


def modules() -> dict[str, str]:
    """Return name → module of each file that can be run by itself."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8"):
            dotted = path.relative_to(FOLDER.parent).with_suffix("").parts
            found[path.stem] = ".".join(dotted)
    return found


def main() -> None:
    """Run the benchmark that the first argument names, with the arguments after it."""
    known = modules()
    del known["__main__"]
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        sys.exit("which benchmark? one of: " + ", ".join(sorted(known)))
    module = known[sys.argv.pop(1)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
