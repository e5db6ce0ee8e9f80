"""A time as text → an instant in UTC."""

from datetime import UTC, datetime


def instant(text: str, option: str = "--since") -> datetime:
    """Return the instant in ``text``, ISO 8601; UTC unless it names another zone.

    Raises ``ValueError`` that names the format of ``option``.
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{option} {text!r} is not a date: write 2026-11-01 or 2026-11-01T12:00"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
