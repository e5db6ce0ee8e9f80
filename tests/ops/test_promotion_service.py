"""What a promotion may be: a share is a canary's, an interval is for what is new."""

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.ops.promotion_service import PromotionPlan


@pytest.mark.parametrize(
    ("canary", "share"), [(False, 0.1), (True, 0.0), (True, 1.5), (True, -0.1)]
)
def test_a_share_is_of_users_and_of_a_canary(canary: bool, share: float) -> None:
    with pytest.raises(MistakeError, match="for a canary: srp4ctr model promote v2"):
        PromotionPlan(version="v2", canary=canary, canary_share=share)
