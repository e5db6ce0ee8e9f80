"""Names of versions → which is newer, which is a control group, which have own figures."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol, Self, TypeVar

UNRANKED = "unranked"  # shown without a model
OTHER = "other"
# Producers set the version: a broken one must not create a million time series.
MAX_OTHERS = 16  # names that are no bundle's


class Addable(Protocol):
    """Sums of impressions, to which those of other impressions can be added."""

    def add(self, other: Self) -> None:
        """Add the impressions of ``other``."""


Sums = TypeVar("Sums", bound=Addable)


def version_order(version: str) -> tuple[int, str]:
    """Return the sort key of a version, oldest first: ``v9`` comes before ``v10``."""
    number = re.fullmatch(r"v(\d+)", version)
    return (int(number[1]) if number else -1, version)


def version_name(
    version: str | None, known: Collection[str], bundles: Collection[str]
) -> str:
    """Return the label of ``version``, which is ``OTHER`` for one too many.

    ``known`` have figures already. ``bundles`` may have them, however many others do.
    """
    version = version or UNRANKED
    if version in known or version in bundles:
        return version
    others = sum(each not in bundles for each in known)
    return version if others < MAX_OTHERS else OTHER


def add_by_version(
    parts: Iterable[Mapping[str, Sums]],
    empty: Callable[[], Sums],
    bundles: Collection[str],
) -> dict[str, Sums]:
    """Return the sums of ``parts``, which have other impressions each, by version."""
    total: dict[str, Sums] = {}
    for part in parts:
        for name, sums in part.items():
            version = version_name(name, total, bundles)
            total.setdefault(version, empty()).add(sums)
    return dict(sorted(total.items()))
