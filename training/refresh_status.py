"""How the last refresh ended: the file that tells the monitor of it. No torch."""

from pathlib import Path

import msgspec

from srp4ctr.features.whole_files import replace_text

STATUS_FILE = "refresh.json"
"""In the bundles' folder."""


class RefreshStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The last refresh, and the last that ended in order."""

    ended_at_ms: int
    seconds: float
    error: str = ""
    """Why it ended before it knew what to do with a bundle; "": it ended in order."""
    last_success_ms: int = 0
    """When the last one ended in order, be its bundle refused or nothing new; 0: never."""
    interval_s: float = 0.0
    """Another one begins so often; 0: when somebody asks for it."""
    version: str = ""
    outcome: str = ""
    gates: dict[str, bool] = {}
    """Of its bundle, less those that were skipped."""


def write_status(bundles_dir: Path, status: RefreshStatus) -> None:
    """Write ``status`` as JSON, whole or not at all."""
    bundles_dir.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(status).decode())
    replace_text(bundles_dir / STATUS_FILE, text + "\n")


def read_status(bundles_dir: Path) -> RefreshStatus | None:
    """Return the status in ``bundles_dir``; None if there is none, or another release's."""
    try:
        content = (bundles_dir / STATUS_FILE).read_bytes()
        return msgspec.json.decode(content, type=RefreshStatus)
    except (OSError, msgspec.DecodeError):
        return None
