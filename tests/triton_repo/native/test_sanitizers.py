"""No text and no server makes the parts in C read or write what is not theirs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.triton_repo.native.parts import MORE_FLAGS, ROOT, compiler

FLAGS = "-g -fsanitize=address,undefined -fno-sanitize-recover=all"
FILES = (
    "test_hashes.py",
    "test_store.py",
    "test_store_tls.py",
    "test_texts_fuzz.py",
    "test_user_row_fuzz.py",
)


def test_the_sanitizers_find_nothing(tmp_path: Path) -> None:
    command = [*compiler(), "-print-file-name=libasan.so"]
    runtime = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    if not Path(runtime).is_absolute():  # else it is the name alone
        pytest.skip("the compiler has no sanitizers")
    environment = {
        **os.environ,
        MORE_FLAGS: FLAGS,
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own are many
        "PYTHONMALLOC": "malloc",
    }
    files = [str(Path(__file__).with_name(file)) for file in FILES]
    # The other conftest.py import much, which takes long under the sanitizers.
    options = ["--noconftest", "-p", "tests.triton_repo.native.conftest", "-n", "0"]
    options += ["-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests")]
    options.append("--capture=sys")  # what the sanitizers print is not Python's
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
