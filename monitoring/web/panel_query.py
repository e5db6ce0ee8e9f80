"""A panel's query in a URL → Prometheus's parameters, within bounds on their cost."""

from collections.abc import Mapping

from srp4ctr.errors import MistakeError

MAX_QUERY_LENGTH = 8_000
MAX_RANGE_S = 8 * 86_400.0
MAX_POINTS = 2_000  # of a line; Prometheus's own limit is 11,000
MAX_ANSWER_BYTES = 16 * 1024 * 1024
TIMEOUT_S = 10.0


def instant_parameters(given: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of ``query``; ``MistakeError`` for one out of bounds."""
    return _parameters(given, {"time": f"{_number(given, 'time'):.3f}"})


def range_parameters(given: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of ``query_range``; ``MistakeError`` for one out of bounds."""
    start_s, end_s, step_s = (_number(given, name) for name in ("start", "end", "step"))
    length_s = end_s - start_s
    if not 0 < length_s <= MAX_RANGE_S:
        raise MistakeError(f"a range is 0 to {MAX_RANGE_S:g} s long, not {length_s:g}")
    if not step_s >= 1:
        raise MistakeError(f"a step is 1 s at least, not {step_s:g}")
    if length_s / step_s > MAX_POINTS:
        raise MistakeError(f"more than {MAX_POINTS} points: take a longer step")
    times = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:g}"}
    return _parameters(given, times)


def _parameters(given: Mapping[str, str], times: dict[str, str]) -> dict[str, str]:
    query = given.get("query", "")
    if not 0 < len(query) <= MAX_QUERY_LENGTH:
        raise MistakeError(f"a query has 1 to {MAX_QUERY_LENGTH} characters")
    return {"query": query, **times, "timeout": f"{TIMEOUT_S:g}s"}


def _number(given: Mapping[str, str], name: str) -> float:
    try:
        number = float(given.get(name, ""))
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e12:
        raise MistakeError(f"{name} is {given.get(name)!r}; a number is needed")
    return number
