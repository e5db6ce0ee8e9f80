"""The native step's outputs are those of the schema."""

import re

from srp4ctr.features.tensors import schema
from tests.triton_repo.native.parts import ROOT

HEADER = ROOT / "triton_repo" / "native" / "output_names.h"
NOTES = schema.POLICY_TENSORS + schema.RESPONSE_NOTES + schema.NUMBER_OUTPUTS


def listed(macro: str) -> list[str]:
    """Return the names in a list of the header, those of lists in it included."""
    text = HEADER.read_text(encoding="utf-8").replace("\\\n", " ")
    [line] = re.findall(rf"#define {macro}\(X\) (.*)", text)
    matches = re.findall(r'X\(\w+, "(\w+)"\)|(\w+_OUTPUTS)\(X\)', line)
    return [name for own, other in matches for name in ([own] if own else listed(other))]


def test_the_scores_are_those_of_the_head_in_its_order() -> None:
    expected = schema.PROBABILITY_TENSORS + schema.RANKING_TENSORS
    assert listed("SCORE_OUTPUTS") == [spec.name for spec in expected]


def test_every_output_of_the_schema_is_written_and_compared() -> None:
    expected = schema.SCORE_TENSORS + schema.RANKING_TENSORS + NOTES
    assert sorted(listed("COMPARED_OUTPUTS")) == sorted(spec.name for spec in expected)
