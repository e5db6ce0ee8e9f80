"""The folders and files that the suite treats apart are there: a move would undo it."""

from tests.conftest import LONGEST, TOGETHER
from tests.structure.source_tree import ROOT


def test_every_start_of_a_name_is_that_of_tests() -> None:
    for start in (*LONGEST, *TOGETHER):
        assert list(ROOT.glob(f"{start}*")), start
