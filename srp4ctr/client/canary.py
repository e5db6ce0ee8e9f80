"""Users → whether their requests go to ``rank_clicks_canary``."""

import time

from srp4ctr.streams.events.schema import in_sample

_REST_S = 5.0


class Canary:
    """The share of users whose requests go to the canary, while there is one."""

    def __init__(self, share: float) -> None:
        """Raise ValueError unless ``share`` is one."""
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"canary_share is {share}; a share of users, 0 to 1")
        self._share = share
        self._rests_until = 0.0

    def takes(self, user_id: str) -> bool:
        """Return whether a request of ``user_id`` goes to the canary now."""
        return time.monotonic() >= self._rests_until and is_canary(user_id, self._share)

    def rest(self) -> None:
        """Send nobody to the canary for some seconds: it was unloaded."""
        self._rests_until = time.monotonic() + _REST_S


def is_canary(user_id: str, share: float) -> bool:
    """Return whether ``user_id`` is among the ``share`` of users that the canary gets.

    The result is the same in every process, and a user stays in as the share grows.
    """
    return share > 0.0 and in_sample(f"canary:{user_id}", share)
