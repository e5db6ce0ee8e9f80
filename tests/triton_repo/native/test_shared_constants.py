"""Constants that C has to repeat are Python's."""

import re

import pytest

from srp4ctr.features.columns import MAX_NUMBER
from srp4ctr.features.online.packing import MAX_STORED_MS
from srp4ctr.features.online.store import REQUEST_TIMEOUT_S
from srp4ctr.features.tensors.schema import RequestStatus
from tests.structure.source_tree import ROOT

SOURCES = "".join(
    path.read_text()
    for folder in ("triton_repo/native", "features/tensors")
    for path in sorted((ROOT / folder).glob("*.[ch]"))
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"store\.timeout_ms = (\d+);", round(1000 * REQUEST_TIMEOUT_S)),
        (r"MAX_STORED_MS = INT64_C\((\d+)\);", MAX_STORED_MS),
        (r"MAX_CONTEXT_NUMBER = (\w+);", MAX_NUMBER),
        (r"MAX_NUMBER = (\w+);", MAX_NUMBER),
    ],
)
def test_a_number_of_c_is_that_of_python(pattern: str, expected: float) -> None:
    assert list(map(float, re.findall(pattern, SOURCES))) == [expected]


def test_c_answers_with_the_statuses_of_python_in_their_order() -> None:
    """The native step leaves a request to Python where the store is unavailable."""
    (names,) = re.findall(r"\bSTATUS_NAMES\[STATUSES\] = \{([^}]*)\};", SOURCES)
    expected = [each.value for each in RequestStatus]
    assert re.findall(r'"(\w+)"', names) == expected[:-1]
    assert expected[-1] == RequestStatus.STORE_UNAVAILABLE
