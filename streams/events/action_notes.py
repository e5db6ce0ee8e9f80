"""The actions of a log or a file → sentences on those that the settings should name.

In: names of actions and ``streams.action_codes``. Out: notes for reports, with the lines to
paste into ``settings.toml``.
"""

from collections.abc import Iterable

from srp4ctr.streams.events.schema import ActionCodes, proposed_codes, shared_codes

TABLE = "[streams.action_codes]"
AFTERWARDS = "then restart the workers, run `srp4ctr stream rebuild` and train again"


def shared_code_notes(actions: Iterable[str], codes: ActionCodes) -> list[str]:
    """Return a note if ``actions`` share a hashed code, with the lines that separate them.

    ``codes`` are ``streams.action_codes``.
    """
    groups = list(shared_codes(actions, codes).values())
    if not groups:
        return []
    named = "; ".join(" and ".join(group) for group in groups)
    lines = code_lines((each for group in groups for each in group), codes)
    what = "are one action to the model, because they share a hashed code"
    if not lines:
        return [f"{named} {what}, and all codes of {TABLE} are taken"]
    return [
        f"{named} {what}: add to {TABLE} in settings.toml {', '.join(lines)}; {AFTERWARDS}"
    ]


def code_lines(actions: Iterable[str], codes: ActionCodes) -> list[str]:
    """Return lines of ``TABLE``: a code for each of ``actions`` that has none."""
    return [f"{name} = {code}" for name, code in proposed_codes(actions, codes).items()]
