"""The library of the parts in C, compiled once for all tests of a process."""

from typing import Any

import pytest

from tests.triton_repo.native import parts


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return parts.build(tmp_path_factory.mktemp("native"))
