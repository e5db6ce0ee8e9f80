"""The events that producers publish: what happened, to whom, when.

The wire format (JSON, tag ``type``) is this module's types; ``codec.py`` reads and
writes it. Ids are strings outside; inside, an item is its 64-bit ``item_key``.
"""

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import xxhash

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.vectors import MAX_LENGTH, MAX_NUMBERS, numbers_of, vector_text

BEHAVIOR_EVENTS_TOPIC = "behavior-events"
ITEMS_TOPIC = "items"
REJECTED_TOPIC = "behavior-events.dlq"
LABELS_TOPIC = "impression-labels"

# A user with this prefix is no person: training leaves it out.
INTERNAL_PREFIX = "srp4ctr-"
SYNTHETIC_USERS = f"{INTERNAL_PREFIX}probe-"  # of the end-to-end probe
# In the feature store only, while a bundle is validated: users of golden requests. No event
# may name one.
GOLDEN_USERS = f"{INTERNAL_PREFIX}golden-"
# In the raw log only: the user of rows that were anonymized.
FORGOTTEN_USER = f"{INTERNAL_PREFIX}forgotten"
# The reserved item whose counters are the sum of all items' counters. No event and no
# update may name it.
TOTAL_ITEM = f"{INTERNAL_PREFIX}total"

MAX_ID_LENGTH = 256  # a longer id is a bug of its producer: real ids are under 64
MAX_ACTION_LENGTH = 32
MAX_ATTRIBUTES = 32
MAX_ATTRIBUTE_VALUES = 64
MAX_CONTEXT_FIELDS = 32
MAX_CANDIDATE_NUMBERS = 32  # of one impression
# How the names of a number's relative columns end, in answers and ``Impression.numbers``.
NUMBER_SUFFIXES = ("_rank", "_difference", "_from_last", "_missing")
_SAMPLE_PARTS = 1_000_000
_ACTION = "^[a-z][a-z0-9_]*$"

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
Millis = Annotated[
    int, msgspec.Meta(description="UTC milliseconds since 1970, not seconds")
]
Action = Annotated[
    str, msgspec.Meta(pattern=_ACTION, min_length=1, max_length=MAX_ACTION_LENGTH)
]
AttributeValue = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
# Only the text of a vector may be longer than ``MAX_ID_LENGTH``.
Attributes = Annotated[
    Mapping[
        Id,
        Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LENGTH)]
        | Annotated[
            Sequence[AttributeValue | float],
            msgspec.Meta(
                max_length=MAX_NUMBERS,
                description="Up to 64 texts, or the 8 to 1,024 numbers of an embedding",
            ),
        ],
    ],
    msgspec.Meta(max_length=MAX_ATTRIBUTES),
]
Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Impression(
    msgspec.Struct, tag="impression", frozen=True, kw_only=True, omit_defaults=True
):
    """One item shown to one user at one position of one answer (a slate)."""

    event_id: Id
    request_id: Id
    user_id: Id
    item_id: Id
    position: Annotated[int, msgspec.Meta(ge=0, le=100_000)]  # 0 is the top
    occurred_at: Millis
    model_version: Id | None = None
    experiment: (
        Annotated[
            Id,
            msgspec.Meta(description="In which the user was assigned to `arm`"),
        ]
        | None
    ) = None
    arm: (
        Annotated[
            Id,
            msgspec.Meta(
                description="The version that the user was assigned to, and is counted "
                "for. `model_version` is the one that answered"
            ),
        ]
        | None
    ) = None
    score: Probability | None = None
    propensity: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] | None = None
    context: (
        Annotated[
            dict[Id, Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)]],
            msgspec.Meta(max_length=MAX_CONTEXT_FIELDS),
        ]
        | None
    ) = None
    numbers: (
        Annotated[
            dict[Id, float],
            msgspec.Meta(
                max_length=MAX_CANDIDATE_NUMBERS,
                description="Of this item in this request: a price, the caller's order. "
                "As an answer returned them, or the caller's own values",
            ),
        ]
        | None
    ) = None


class Click(msgspec.Struct, tag="click", frozen=True, kw_only=True, omit_defaults=True):
    """A click on an impression, named by ``request_id`` and ``item_id``."""

    event_id: Id
    request_id: Id
    user_id: Id
    item_id: Id
    occurred_at: Millis


class Behavior(
    msgspec.Struct, tag="behavior", frozen=True, kw_only=True, omit_defaults=True
):
    """Anything else a user does with an item: view, cart, buy, rate, read, …"""

    event_id: Id
    user_id: Id
    item_id: Id
    action: Action
    occurred_at: Millis
    request_id: Id | None = None  # of the impression that led to it
    value: float | None = None  # dwell seconds, a rating, a price: the action says which


class Forget(msgspec.Struct, tag="forget", frozen=True, kw_only=True, omit_defaults=True):
    """A user's erasure request: for all behaviours and attributes until ``occurred_at``."""

    event_id: Id
    user_id: Id
    occurred_at: Millis


class Rebuild(msgspec.Struct, tag="rebuild", frozen=True, kw_only=True, omit_defaults=True):
    """An operator's command to a partition: rebuild the rows from ``since_ms`` on.

    No event: it is in every partition, under a key that no user has.
    """

    event_id: Id
    since_ms: int


def _keep_vectors_as_texts(update: "ItemUpdate | UserUpdate") -> None:
    """Replace lists of numbers by ``vectors.vector_text``.

    Raises ``ValueError`` for a long text that is no vector, or too long a list of texts: in
    the schema vectors make room for both.
    """
    vectors = {}
    for name, value in update.attributes.items():
        if isinstance(value, str):
            if len(value) > MAX_ID_LENGTH and numbers_of(value) is None:
                raise ValueError(_TOO_LONG.format(what="str", most=MAX_ID_LENGTH))
        elif numbers := _numbers(name, value):
            vectors[name] = vector_text(numbers)
    if vectors:
        attributes = {**update.attributes, **vectors}
        msgspec.structs.force_setattr(update, "attributes", attributes)


def _numbers(name: str, value: Any) -> list[float]:
    """Return the numbers of a list; raise ``ValueError`` for what is no list."""
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        kind = type(value).__name__
        raise ValueError(f"the attribute {name!r:.80} is {kind}: a text ('34') or a list")
    parts = list(value)
    numbers = [each for each in parts if not isinstance(each, str)]
    if not numbers and len(parts) > MAX_ATTRIBUTE_VALUES:
        raise ValueError(_TOO_LONG.format(what="array", most=MAX_ATTRIBUTE_VALUES))
    if 0 < len(numbers) < len(parts):
        raise ValueError(f"the list {name!r:.80} has texts and numbers")
    return numbers


_TOO_LONG = "Expected `{what}` of length <= {most} - at `$.attributes[...]`"
# The attribute by which raw log and store keep that an item is not available.
AVAILABLE = "available"
NOT_AVAILABLE = "false"


class ItemUpdate(msgspec.Struct, tag="item", frozen=True, kw_only=True, omit_defaults=True):
    """An item's attributes, whole: a later update replaces an earlier one."""

    event_id: Id
    item_id: Id
    occurred_at: Millis
    attributes: Attributes
    available: bool = True  # false: not to be recommended, until an update says otherwise

    def __post_init__(self) -> None:
        _keep_vectors_as_texts(self)

    def kept_attributes(self) -> dict[str, Any]:
        """Return the attributes as raw log and store keep them: with its availability."""
        if self.available:
            return {**self.attributes}
        return {**self.attributes, AVAILABLE: NOT_AVAILABLE}


class UserUpdate(msgspec.Struct, tag="user", frozen=True, kw_only=True, omit_defaults=True):
    """A user's attributes, whole: a later update replaces an earlier one."""

    event_id: Id
    user_id: Id
    occurred_at: Millis
    attributes: Attributes

    def __post_init__(self) -> None:
        _keep_vectors_as_texts(self)


UserEvent = Impression | Click | Behavior | UserUpdate | Forget
Event = UserEvent | ItemUpdate
COUNTED = (Impression, Click)
"""The events that count at all; a behaviour is in a sequence only."""
COUNTED_TYPES = tuple(str(each.__struct_config__.tag) for each in COUNTED)
"""As the raw log names them."""


def now_ms() -> int:
    """Return the wall clock as events have it."""
    return time.time_ns() // 1_000_000


def json_text(fields: Mapping[str, Any]) -> str:
    """Return attributes or a context as JSON: equal ones are equal texts."""
    return msgspec.json.encode(fields, order="sorted").decode()


def item_key(item_id: str) -> int:
    """Return the 64-bit xxh3 of ``item_id`` as a signed integer, never 0 (0 pads)."""
    unsigned = xxhash.xxh3_64_intdigest(item_id)
    signed = unsigned - (1 << 64) if unsigned >= 1 << 63 else unsigned
    return signed or 1


TOTAL_KEY = item_key(TOTAL_ITEM)


def in_sample(name: str, share: float) -> bool:
    """Return whether ``name`` is in a sample of ``share`` of all names.

    The same in every process and release; a greater share has all of a smaller one.
    """
    return item_key(name) % _SAMPLE_PARTS < sample_parts(share)


def sample_parts(share: float) -> int:
    """Return how many of the millionth parts of all names a sample of ``share`` has."""
    return math.ceil(share * _SAMPLE_PARTS)


# Codes 1..15 are built in, 16..31 are shared by hash, so that a producer may add an action
# without a new release, and 32..63 are given by ``streams.action_codes``. 0 pads.
BUILT_IN_ACTIONS = (
    "click",
    "view",
    "cart",
    "favourite",
    "buy",
    "rate",
    "read",
    "like",
    "dislike",
    "share",
    "hide",
)
FIRST_HASHED_ACTION = 16
NUM_HASHED_ACTIONS = 16
NUM_ACTION_CODES = 64
ASSIGNED_CODES = range(FIRST_HASHED_ACTION + NUM_HASHED_ACTIONS, NUM_ACTION_CODES)
ActionCodes = Mapping[str, int]
"""``streams.action_codes``: actions with a code of their own."""
NO_CODES: ActionCodes = MappingProxyType({})


def action_code(action: str, codes: ActionCodes = NO_CODES) -> int:
    """Return the code of ``action``, 1..63; equal in every process with these ``codes``."""
    if action in BUILT_IN_ACTIONS:
        return BUILT_IN_ACTIONS.index(action) + 1
    return codes.get(action) or hashed_code(action)


def hashed_code(action: str) -> int:
    """Return the code in 16..31 that an action without one of its own shares."""
    return FIRST_HASHED_ACTION + xxhash.xxh3_64_intdigest(action) % NUM_HASHED_ACTIONS


def check_action_codes(codes: ActionCodes) -> None:
    """Raise ``MistakeError`` for a name or a code that ``streams.action_codes`` refuses."""
    first, last = ASSIGNED_CODES[0], ASSIGNED_CODES[-1]
    names: dict[int, str] = {}
    for action, code in codes.items():
        setting = f"streams.action_codes.{action}"
        if not (len(action) <= MAX_ACTION_LENGTH and re.fullmatch(_ACTION, action)):
            raise MistakeError(
                f"{setting}: an action is up to {MAX_ACTION_LENGTH} of a-z, 0-9 and _, and "
                "begins with a letter"
            )
        if action in BUILT_IN_ACTIONS:
            built_in = action_code(action)
            raise MistakeError(
                f"{setting}: {action} has the built-in code {built_in}: remove the line"
            )
        if code not in ASSIGNED_CODES:
            raise MistakeError(f"{setting} is {code}: choose a code from {first} to {last}")
        if code in names:
            raise MistakeError(
                f"{setting} is {code}, as {names[code]} is: each action needs its own code"
            )
        names[code] = action


def names_by_code(actions: Iterable[str], codes: ActionCodes = NO_CODES) -> dict[int, str]:
    """Return the name of each code of ``actions``; several actions may share one."""
    names: dict[int, set[str]] = {}
    for action in actions:
        names.setdefault(action_code(action, codes), set()).add(action)
    return {code: " or ".join(sorted(each)) for code, each in names.items()}


def action_names(actions: Iterable[str], codes: ActionCodes = NO_CODES) -> dict[int, str]:
    """Return the names of the codes that rows may have, of ``actions`` in the log.

    An action of ``codes`` has its hashed code, too, in rows from before it was assigned.
    """
    known = {*actions, *codes}
    return names_by_code(known) | {code: action for action, code in codes.items()}


def action_name(code: int, names: Mapping[int, str]) -> str:
    """Return the action of ``code``; ``names`` are those of ``action_names``."""
    if 0 < code <= len(BUILT_IN_ACTIONS):
        return BUILT_IN_ACTIONS[code - 1]
    other = f"other ({code})" if code >= FIRST_HASHED_ACTION else f"code {code}"
    return names.get(code, other)


def shared_codes(
    actions: Iterable[str], codes: ActionCodes = NO_CODES
) -> dict[int, list[str]]:
    """Return the hashed codes that two or more of ``actions`` share, and these actions."""
    sharing: dict[int, list[str]] = {}
    for action in sorted({*actions}):
        if (code := action_code(action, codes)) not in codes.values():
            sharing.setdefault(code, []).append(action)
    return {code: sharing[code] for code in sorted(sharing) if len(sharing[code]) > 1}


def proposed_codes(actions: Iterable[str], codes: ActionCodes = NO_CODES) -> dict[str, int]:
    """Return a free code of 32..63 for each of ``actions`` that has none of its own.

    Fewer, if there are not as many codes.
    """
    unnamed = sorted({*actions} - {*BUILT_IN_ACTIONS, *codes})
    free = (code for code in ASSIGNED_CODES if code not in codes.values())
    return dict(zip(unnamed, free, strict=False))
