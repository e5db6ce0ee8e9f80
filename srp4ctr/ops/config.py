"""Where the audit log is, and which operator it names."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """The file of the audit log, and the operator that it names."""

    log: str = ""
    """Promotions, rollbacks, …; empty: ``audit.jsonl`` next to ``features.log_dir``."""
    actor: str = ""
    """The operator who runs a command; empty: the login and its machine."""
