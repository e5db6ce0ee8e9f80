"""The C sources are pairs of a header and a unit, each of which compiles separately."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.triton_repo.native.parts import ROOT, STRICT, compile_backend, compiler

FOLDERS = ("features/tensors", "triton_repo/native")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.[ch]"))]
HEADERS = [path for path in FILES if path.suffix == ".h"]
UNITS = [path for path in FILES if path.suffix == ".c"]
WARNINGS = [*STRICT, "-Wstrict-prototypes", "-Wmissing-prototypes", "-DSRP4CTR_SOURCE=0u"]
ANALYZER = "-fanalyzer"  # of gcc


def name(path: Path) -> str:
    return path.name


def complaints(source: Path, *flags: str) -> str:
    """Return what the compiler says of ``source``."""
    command = [*compiler(), *WARNINGS, *flags, "-c", str(source), "-o", "/dev/null"]
    return subprocess.run(command, capture_output=True, text=True).stderr


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flag of the compiler's analyzer, if it has one."""
    empty = tmp_path_factory.mktemp("empty") / "empty.c"
    empty.write_text("extern int number;\n")
    return [] if complaints(empty, ANALYZER) else [ANALYZER]


@pytest.mark.parametrize("header", HEADERS, ids=name)
def test_a_header_compiles_alone_and_twice(header: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.c"
    alone.write_text(f'#include "{header}"\n#include "{header}"\n')
    assert complaints(alone) == ""


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_a_unit_compiles_alone_without_a_warning(unit: Path, analyzer: list[str]) -> None:
    assert complaints(unit, *analyzer) == ""


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_includes_a_unit(path: Path) -> None:
    assert re.findall(r'#include "[^"]*\.c"', path.read_text(encoding="utf-8")) == []


def test_every_unit_has_a_header() -> None:
    entry_points = {"native_ranker"}  # which Triton declares
    assert {unit.stem for unit in UNITS} - {
        header.stem for header in HEADERS
    } == entry_points


def test_the_mark_of_the_sources_survives_a_linker_that_drops_unused_symbols(
    tmp_path: Path,
) -> None:
    library = tmp_path / "library.so"
    unused = ["-fdata-sections", "-ffunction-sections", "-Wl,--gc-sections"]
    compile_backend(ROOT, [*STRICT, *unused, "-DSRP4CTR_SOURCE=7u"], library)
    assert b"srp4ctr native source 7u" in library.read_bytes()
