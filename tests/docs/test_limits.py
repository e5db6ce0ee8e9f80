"""Pages state the limits and the statuses of the code."""

import pytest

from srp4ctr.cli.tables.results import STATUS_ADVICE
from srp4ctr.features.online.store import REQUEST_TIMEOUT_S
from srp4ctr.features.tensors.schema import RequestStatus
from srp4ctr.streams.state.duplicates import DUPLICATE_RECORDS
from tests.docs.pages import pages


@pytest.mark.parametrize("page", ["producers", "privacy", "import"])
def test_pages_state_how_many_records_are_remembered(page: str) -> None:
    assert f"{DUPLICATE_RECORDS:,}" in pages()[f"docs/{page}.md"]


@pytest.mark.parametrize("page", ["docs/callers.md", "monitoring/runbook.md"])
def test_pages_state_how_long_a_request_waits_for_the_store(page: str) -> None:
    waits = {0.5: "did not answer within half a second"}  # it tries twice
    assert waits[2 * REQUEST_TIMEOUT_S] in pages()[page]


def test_every_status_is_documented_and_all_but_ok_have_advice() -> None:
    callers = pages()["docs/callers.md"]
    assert [each for each in RequestStatus if f"| `{each}` |" not in callers] == []
    assert STATUS_ADVICE.keys() == {*RequestStatus} - {RequestStatus.OK}
