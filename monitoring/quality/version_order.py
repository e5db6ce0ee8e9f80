"""Names of versions → which is newer, and which is a control group."""

import re


def version_order(version: str) -> tuple[int, str]:
    """Return the sort key of a version, oldest first: ``v9`` comes before ``v10``."""
    number = re.fullmatch(r"v(\d+)", version)
    return (int(number[1]) if number else -1, version)


def is_bundle(version: str) -> bool:
    """Return whether ``version`` is a bundle's, and not the name of a control group."""
    return version_order(version)[0] >= 0
