"""Raw log → sentences for a refresh's report: what its publishers should change, and how.

In: the tables of an ``EventLog``. Out: a sentence for each thing that training cannot
distinguish, or of which it reads only a part.
"""

from collections.abc import Iterator

from ibis import _

from srp4ctr.features.offline.event_tables import EventLog
from srp4ctr.features.offline.visible_events import IS_PERSON
from srp4ctr.features.tensors.vocabulary import parse_context
from srp4ctr.streams.events.action_notes import shared_code_notes

_SAMPLE = 1_000  # requests in which the differing fields are looked for


def notes_of(log: EventLog) -> list[str]:
    """Return notes on shared action codes, and on contexts that differ in a request."""
    acted = log.events.filter(_.type == "behavior", IS_PERSON)
    actions = log.rows(acted.select("action").distinct())["action"].to_pylist()
    return [*shared_code_notes(actions, log.action_codes), *_differing_contexts(log)]


def _differing_contexts(log: EventLog) -> Iterator[str]:
    """Yield a note if impressions of one request have different contexts."""
    shown = log.events.filter(_.type == "impression", IS_PERSON)
    shown = shown.mutate(context=_.context.fill_null(""))
    requests = shown.group_by("user_id", "request_id").aggregate(
        least=_.context.min(), greatest=_.context.max()
    )
    differing = requests.filter(_.least != _.greatest)
    if not (count := log.rows(differing.count()).as_py()):
        return
    total = log.rows(requests.count()).as_py()
    sample = differing.order_by("user_id", "request_id").limit(_SAMPLE)
    fields: set[str] = set()
    for row in log.rows(sample).to_pylist():
        pairs = (parse_context(row[name]).items() for name in ("least", "greatest"))
        fields |= {name for name, _value in set.symmetric_difference(*map(set, pairs))}
    yield (
        f"the context differs within {count:,} of {total:,} requests, in "
        f"{', '.join(sorted(fields))}: training reads the first impression's only. What "
        "differs from item to item is not context: publish it as an attribute or a number "
        "of the item"
    )
