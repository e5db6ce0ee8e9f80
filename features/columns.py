"""Every feature column once: its name, its block, and its place in a tensor.

A block is a run of columns that one formula computes. Code refers to columns by the names
of this table, in numpy and in C: ``c_header`` writes the enum of ``tensors/columns.h``.
``tensors/transforms.py`` has the formulas. The columns of ``request_features`` are the
same in all bundles. Those of ``candidate_features`` begin with ``CANDIDATE``; what follows
depends on a bundle's vocabulary: a log without other actions, or without main fields, has
no columns of them.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from srp4ctr.streams.events.schema import NUMBER_SUFFIXES
from srp4ctr.streams.state.counters import HALF_LIVES_H

HALF_LIVES = tuple(f"{hours:g}h" for hours in HALF_LIVES_H)
NUM_CONTEXT_NUMBERS = 8  # fields of the context that are also read as numbers, at most
MAX_ACTIONS = 8  # with columns of their own: the most frequent ones
MAX_MAIN_FIELDS = 3
MAX_NUMBER = 1e15  # of a context's or a caller's: no later product of float32 overflows
MAX_ACTION_CODES = 128  # a stored code has seven bits


def _by_half_life(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{life}" for life in HALF_LIVES)


@dataclass(frozen=True)
class Layout:
    """The columns of one tensor: blocks one after the other."""

    blocks: Mapping[str, tuple[str, ...]]
    """The columns of each block, by the block's name."""

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """All columns, in order."""
        return tuple(name for names in self.blocks.values() for name in names)

    @functools.cached_property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.names)

    @functools.cached_property
    def parts(self) -> Mapping[str, slice]:
        """The place of each block on the last axis of the tensor."""
        placed, first = {}, 0
        for name, columns in self.blocks.items():
            placed[name] = slice(first, first + len(columns))
            first += len(columns)
        return MappingProxyType(placed)

    def place(self, column: str) -> int:
        """Return the place of one ``column``; ``ValueError`` if there is none."""
        return self.names.index(column)


# Rates are smoothed clicks / impressions; ``log`` is log(1 + x).
REQUEST = Layout(
    {
        "user_click_rate": _by_half_life("user_click_rate"),
        "user_log_impressions": _by_half_life("user_log_impressions"),
        "log_sequence_length": ("log_sequence_length",),
        "log_seconds_since_last_behavior": ("log_seconds_since_last_behavior",),
        "clock": ("hour_sin", "hour_cos"),
        "context_number": tuple(
            f"context_number_{place}" for place in range(1, NUM_CONTEXT_NUMBERS + 1)
        ),
    }
)
CANDIDATE = Layout(
    {
        "item_click_rate": _by_half_life("item_click_rate"),
        "item_log_impressions": _by_half_life("item_log_impressions"),
        "item_log_clicks": _by_half_life("item_log_clicks"),
        # log(1 + 10,000 x the item's share of all clicks)
        "item_click_share": _by_half_life("item_click_share"),
        "item_age": ("item_log_hours_since_first_seen",),
        "user_attribute": (
            "user_attribute_click_share_168h",
            "user_attribute_log_behaviors_168h",
        ),
        "user_item_exposures": (
            "user_item_log_exposures",
            "user_item_log_hours_since_shown",
        ),
        "item_in_sequence": ("item_in_sequence",),
        # What the user did with the candidate: in this visit, in earlier ones, how long
        # ago, one over its rank among the user's items by recency, and whether the newest
        # behaviour was with it.
        "own_item": (
            "item_log_visit_behaviors",
            "item_log_earlier_behaviors",
            "item_log_seconds_since_behavior",
            "item_recency",
            "item_is_last",
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class CandidateColumns:
    """The columns of ``candidate_features`` of one bundle, and what they are of."""

    actions: tuple[tuple[str, int], ...] = ()
    """Names and codes of the actions that have columns of their own."""
    main_fields: tuple[tuple[str, int], ...] = ()
    """Names of item fields, and the attribute slot of each."""
    numbers: tuple[str, ...] = ()
    """Names of the numbers of candidates that callers send."""
    visit_gap_ms: int = 1_800_000
    """A visit ends after so long without a behaviour."""

    @functools.cached_property
    def layout(self) -> Layout:
        """The columns by name."""
        of_actions = (_of_action(name) for name, _ in self.actions)
        of_fields = (_of_field(name) for name, _ in self.main_fields)
        return Layout(
            {
                **CANDIDATE.blocks,
                "own_actions": tuple(name for names in of_actions for name in names),
                "own_fields": tuple(name for names in of_fields for name in names),
                "numbers": number_columns(self.numbers),
            }
        )


def _of_action(name: str) -> tuple[str, ...]:
    return f"item_log_{name}_behaviors", f"item_log_seconds_since_{name}"


def _of_field(name: str) -> tuple[str, ...]:
    return (
        f"{name}_log_visit_behaviors",
        f"{name}_log_earlier_behaviors",
        f"{name}_log_seconds_since_behavior",
        f"{name}_is_last",
    )


def number_columns(numbers: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of ``numbers``: each value, then what ``NUMBER_SUFFIXES`` name."""
    return tuple(f"{name}{end}" for name in numbers for end in ("", *NUMBER_SUFFIXES))


ACTION_WIDTH = len(_of_action(""))
FIELD_WIDTH = len(_of_field(""))
NUMBER_WIDTH = len(number_columns([""]))


def templates() -> list[tuple[str, ...]]:
    """Return all columns that a bundle can have: what a fingerprint covers."""
    of_all = [REQUEST.names, CANDIDATE.names]
    return [*of_all, _of_action("ACTION"), _of_field("FIELD"), number_columns(["NUMBER"])]


def c_header() -> str:
    """Return the text of ``tensors/columns.h``: where each block begins, and widths."""
    lines = [
        "/* Written by `make columns` from features/columns.py; not to be edited here. */",
        "#ifndef SRP4CTR_COLUMNS_H",
        "#define SRP4CTR_COLUMNS_H",
        "",
    ]
    for prefix, layout in (("REQUEST", REQUEST), ("CANDIDATE", CANDIDATE)):
        lines.append("enum {")
        for name, part in layout.parts.items():
            lines.append(f"    {prefix}_{name.upper()} = {part.start},")
        lines += [f"    {prefix}_WIDTH = {layout.width}", "};", ""]
    lines.append(f"enum {{ CANDIDATE_RECENCY = {CANDIDATE.place('item_recency')} }};")
    number = ", ".join(f"NUMBER{end.upper()}" for end in ("_value", *NUMBER_SUFFIXES))
    ends = ", ".join(f'"{end}"' for end in ("", *NUMBER_SUFFIXES))
    lines += [f"enum {{ {number} }};", f"#define NUMBER_ENDS {{{ends}}}", ""]
    sizes = {
        "CONTEXT_NUMBERS": NUM_CONTEXT_NUMBERS,
        "ACTION_WIDTH": ACTION_WIDTH,
        "FIELD_WIDTH": FIELD_WIDTH,
        "NUMBER_WIDTH": NUMBER_WIDTH,
        "MAX_ACTIONS": MAX_ACTIONS,
        "MAX_MAIN_FIELDS": MAX_MAIN_FIELDS,
        "MAX_ACTION_CODES": MAX_ACTION_CODES,
    }
    described = ", ".join(f"{name} = {size}" for name, size in sizes.items())
    half = described.index("MAX_ACTIONS")
    lines += [f"enum {{ {described[: half - 2]} }};", f"enum {{ {described[half:]} }};"]
    return "\n".join([*lines, "", "#endif", ""])
