"""What a person types for a time → an instant."""

from datetime import UTC, datetime


def instant(text: str, option: str = "--since") -> datetime:
    """Return the instant in ``text``, ISO 8601, in UTC where it names no other zone.

    Raises ``ValueError`` that says what ``option`` takes.
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{option} {text!r} is no date: write 2026-11-01 or 2026-11-01T12:00"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
