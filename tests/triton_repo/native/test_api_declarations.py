"""Our declarations of Triton's and onnxruntime's functions are those of their headers.

The headers come with no package that is installed here: the folder ``SRP4CTR_HEADERS`` has
them, or the machine, else these tests are skipped.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.triton_repo.native.parts import ROOT, compiler

NATIVE = ROOT / "triton_repo" / "native"
FOLDERS = ("/opt/tritonserver/include", "/usr/include", "/usr/local/include")
ENUM = re.compile(r"(?:typedef )?enum \{(.*?)\}.*?;", re.DOTALL)
TRITON, ONNX = "triton/core/tritonbackend.h", "onnxruntime_c_api.h"


def folder_of(header: str) -> Path:
    """Return the folder that has ``header``."""
    for folder in map(Path, (os.environ.get("SRP4CTR_HEADERS", "/absent"), *FOLDERS)):
        if (folder / header).is_file():
            return folder
    pytest.skip(f"{header} is not on this machine: SRP4CTR_HEADERS names its folder")


def without_enums(header: str) -> tuple[str, str]:
    """Return our header without its enums, and assertions of their numbers."""
    text = (NATIVE / header).read_text(encoding="utf-8")
    numbers = re.findall(r"(\w+) = (\d+)", "".join(ENUM.findall(text)))
    assert numbers
    asserted = [f'_Static_assert({name} == {at}, "{name}");' for name, at in numbers]
    return ENUM.sub("", text), "\n".join(asserted)


def check(source: str, folder: Path, tmp_path: Path) -> None:
    """Compile ``source`` with the headers of ``folder``."""
    (tmp_path / "both.c").write_text(source)
    flags = ["-std=c11", "-Wall", "-Werror", "-fsyntax-only", "-isystem", str(folder)]
    command = [*compiler(), *flags, str(tmp_path / "both.c")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stderr == ""


def test_triton_declares_the_same_functions_and_numbers(tmp_path: Path) -> None:
    ours, numbers = without_enums("triton_api.h")
    folder = folder_of(TRITON)
    texts = [path.read_text() for path in (folder / TRITON).parent.glob("*.h")]
    # Triton's own headers name structs as C++ does, without "struct".
    structs = {name for text in texts for name in re.findall(r"^struct (\w+);", text, re.M)}
    typedefs = "\n".join(f"typedef struct {name} {name};" for name in sorted(structs))
    check(f"{typedefs}\n#include <{TRITON}>\n{ours}\n{numbers}\n", folder, tmp_path)


def test_onnxruntime_has_the_same_functions_at_the_same_places(tmp_path: Path) -> None:
    ours, numbers = without_enums("onnx_api.h")
    places = re.findall(r"ORT_API_FUNCTION\((\w+), (\d+)\)", ours)
    api = ours[ours.index("typedef struct OrtApi {") : ours.index("} OrtApi;")]
    assert [name for name, _ in places] == re.findall(r"\(\*(\w+)\)", api)
    ours = re.sub(r"\bOrtApi(Base)?\b", r"OurApi\1", ours)
    lines = [f"#include <{ONNX}>", ours, numbers]
    for name, place in places:
        at, alike = f"offsetof(OrtApi, {name})", f"__typeof__(((OrtApi *)0)->{name})"
        lines += [
            f'_Static_assert({at} == {place} * sizeof(void *), "place of {name}");',
            f"_Static_assert(_Generic(((OurApi *)0)->{name}, {alike}: 1, default: 0),"
            f' "arguments of {name}");',
        ]
    check("\n".join(lines), folder_of(ONNX), tmp_path)
