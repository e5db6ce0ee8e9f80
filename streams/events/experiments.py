"""A canary as an experiment: which users are assigned to it, and what it is called."""

from dataclasses import dataclass
from typing import Self

from srp4ctr.streams.events.schema import in_sample

_SEPARATOR = ":"


@dataclass(frozen=True, slots=True)
class Experiment:
    """A share of the users, 0 to 1, is assigned to ``canary``, all others to ``serving``.

    ``Ranking.impressions`` publishes its name and each user's arm, by which the monitor
    compares the two: a user counts for the version of the arm, whichever answered.
    """

    canary: str
    serving: str
    share: float

    @classmethod
    def named(cls, name: str) -> Self | None:
        """Return the experiment of this ``name``; None if it is not one of a canary."""
        canary, _, rest = name.partition(_SEPARATOR)
        serving, _, share = rest.partition(_SEPARATOR)
        try:
            found = cls(canary, serving, float(share))
        except ValueError:
            return None
        return found if canary and serving and 0.0 < found.share <= 1.0 else None

    @property
    def name(self) -> str:
        """``v8:v7:0.05``: another share is another experiment, with figures of its own."""
        return _SEPARATOR.join((self.canary, self.serving, f"{self.share:.6g}"))

    def arm(self, user_id: str) -> str:
        """Return the version that a user is assigned to: the same in every process.

        Each pair of versions has other users in its canary. They stay while its share
        grows.
        """
        salted = _SEPARATOR.join((self.canary, self.serving, user_id))
        return self.canary if in_sample(salted, self.share) else self.serving
