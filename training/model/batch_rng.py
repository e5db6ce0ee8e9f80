"""The random numbers of training: each row has its own in any process or part.

In: the part of a batch that is at hand. Out: uniform numbers for its rows. All processes
have the same seed, draw for the whole batch and keep their part: masks and dropout depend
only on the seed and the row, and two processes train as one would.

Shapes: B rows at hand, of a batch.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

_Drawer = TypeVar("_Drawer", bound=Callable[..., Any])


def untraced(drawer: _Drawer) -> _Drawer:
    """Keep ``drawer`` out of compiled graphs, which would draw other numbers."""
    disabled = torch.compiler.disable(drawer)  # type: ignore[no-untyped-call]
    return cast(_Drawer, disabled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows ``first`` to ``first + rows`` of a batch of ``whole`` rows."""

    first: int
    rows: int
    whole: int


_PART: ContextVar[Part | None] = ContextVar("part", default=None)


@contextmanager
def drawing(seed: int, part: Part) -> Iterator[None]:
    """Seed torch, and let ``uniform`` draw the rows of ``part`` while the block runs."""
    torch.manual_seed(seed)
    token = _PART.set(part)
    try:
        yield
    finally:
        _PART.reset(token)


@untraced
def uniform(rows: int, *shape: int, device: torch.device) -> Tensor:
    """Return numbers in [0, 1), (B, *shape); ``shape`` must not depend on the part."""
    part = _PART.get()
    if part is None:
        return torch.rand(rows, *shape, device=device)
    if part.rows != rows:
        raise ValueError(f"numbers for {rows} rows, of a part of {part.rows}")
    drawn = torch.rand(part.whole, *shape, device=device)
    return drawn[part.first : part.first + rows]


@untraced
def random_bytes(rows: int, *shape: int, device: torch.device) -> Tensor:
    """Return uint8 in [0, 256), (B, *shape); ``shape`` must not depend on the part."""
    part = _PART.get() or Part(first=0, rows=rows, whole=rows)
    count = part.whole * math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64, device=device)
    drawn = words.random_(-(2**63), None).view(torch.uint8)[:count]
    return drawn.view(part.whole, *shape)[part.first : part.first + rows]


@untraced
def draw_salt() -> int:
    """Return a number to make ``uniform_of`` differ from step to step."""
    return int(torch.randint(2**62, ()))


def uniform_of(keys: Tensor, salt: int) -> Tensor:
    """Return a number in [0, 1) for each of ``keys``: equal ones have the same number.

    A key is treated equally in all parts of a batch. Two rounds of multiply and shift, as
    in splitmix64; int64 wraps around.
    """
    mixed = (keys + salt) * -7046029254386353131
    for _ in range(2):
        mixed = (mixed ^ ((mixed >> 29) & 0x7FFFFFFFF)) * -4658895280553007687
    return ((mixed >> 40) & 0xFFFFFF).double() / 2**24
