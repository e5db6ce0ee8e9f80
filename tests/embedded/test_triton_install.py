"""The stubs' environment: its key, and the errors of a failed build."""

import re
import subprocess
from pathlib import Path

import pytest

from srp4ctr.embedded import triton_install
from srp4ctr.errors import MistakeError


@pytest.mark.parametrize("file", [triton_install.LOCK_FILE, triton_install.SERVER_LOCK])
def test_a_lock_pins_everything_by_hashes(file: Path) -> None:
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE)
    for pinned in re.sub(r"\\\n", "", text).splitlines():
        assert re.match(r"^[A-Za-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", pinned)


def test_the_stubs_have_numpy_below_2() -> None:
    assert "\nnumpy==1." in triton_install.LOCK_FILE.read_text()


def test_a_missing_libpython_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> subprocess.CompletedProcess[bytes]:
        error = b"libpython3.11.so.1.0: cannot open shared object file"
        return subprocess.CompletedProcess([], 127, b"", error)

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(ValueError, match=r"apt install libpython3\.\d+"):
        triton_install._find_libpython(tmp_path, "3.11", ["/nowhere"])


def test_a_python_without_libpython_is_replaced_by_one_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def try_python(root: Path, *which: str) -> str:
        if "--managed-python" not in which:
            raise MistakeError("no shared libpython")
        return "/managed/lib"

    notes: list[str] = []
    monkeypatch.setattr(triton_install, "_try_python", try_python)
    assert triton_install._make_env(tmp_path, notes.append) == "/managed/lib"
    assert notes == ["this Python has no shared libpython: fetching one that has"]


def test_where_no_python_will_do_the_users_own_error_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def try_python(root: Path, *which: str) -> str:
        raise MistakeError("offline" if "--managed-python" in which else "apt install it")

    monkeypatch.setattr(triton_install, "_try_python", try_python)
    with pytest.raises(ValueError, match="apt install it"):
        triton_install._make_env(tmp_path, lambda _: None)


def test_another_platform_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ValueError, match=r"aarch64.*\n?.*compose\.yaml"):
        triton_install._check_platform()
