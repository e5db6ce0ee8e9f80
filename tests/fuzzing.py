"""How many examples a fuzzed test tries: few in a suite, more in a deep run.

``make fuzz`` sets ``FUZZ``; a suite is to be fast, and tries new examples each time.
"""

import os


def examples(few: int) -> int:
    """Return ``few``, or so many times as many in a deep run."""
    return few * int(os.environ.get("FUZZ", "1"))
