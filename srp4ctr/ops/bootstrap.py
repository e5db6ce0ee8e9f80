"""Prepares empty servers of the real stack: topics, users and their rights, feature views.

Runs at each start (``srp4ctr stack init``) and leaves unchanged what exists.
"""

import signal
from collections.abc import Callable
from pathlib import Path

from srp4ctr.errors import MistakeError
from srp4ctr.processes import ended_by_sigterm
from srp4ctr.retries import retry_during_outage
from srp4ctr.settings import Settings
from srp4ctr.streams.config import password_in

Say = Callable[[str], None]


def initialize_when_up(
    settings: Settings, users: Path | None, say: Say, *, buckets: bool = False
) -> None:
    """Run ``initialize``, repeated while a server does not answer.

    SIGTERM ends it as a failure: what needs the topics must not start.
    """
    with ended_by_sigterm(128 + signal.SIGTERM):
        retry_during_outage(lambda: initialize(settings, users, say, buckets=buckets), say)


def initialize(
    settings: Settings, users: Path | None, say: Say, *, buckets: bool = False
) -> None:
    """Make what the stack needs before its first event, and ``say`` what was made.

    ``users`` holds a file ``kafka_NAME`` per Kafka user, with its password. ``buckets``:
    make those of the raw log and the bundles, with their users' rights. Raises
    ``OutageError`` where a server does not answer, ``MistakeError`` where it refuses us.
    """
    from srp4ctr.features.online import feast_store  # Feast: 3 s
    from srp4ctr.streams.broker.topics import ensure_topics

    created = ensure_topics(settings.kafka)
    say(f"topics: {', '.join(created) or 'all there'}")
    if users is not None:
        from srp4ctr.ops import kafka_acl

        monitoring = settings.monitoring
        files = {user: str(users / f"kafka_{user}") for user in kafka_acl.RIGHTS}
        passwords = {u: password_in(file, "", "--kafka-users") for u, file in files.items()}
        granted = kafka_acl.grant(
            settings.kafka,
            passwords,
            probes=monitoring.probe_interval_s > 0,
            monitor_group=monitoring.group_id if monitoring.share_by == "group" else "",
        )
        say(f"Kafka users: {', '.join(granted)}")
    if buckets:
        say(f"buckets: {', '.join(_make_buckets(settings))}")
    say(f"feature views: {', '.join(feast_store.apply(settings.features))}")
    say(_model_status(settings))


def _make_buckets(settings: Settings) -> list[str]:
    from srp4ctr.ops import bucket_setup

    log, bundles = settings.features.log_uri, settings.training.bundles_uri
    if not log.startswith("s3://") or not bundles.startswith("s3://"):
        raise MistakeError(
            "--buckets: features.log_uri and training.bundles_uri are not both s3://…"
        )
    given = {log: bucket_setup.LOG_GRANTS, bundles: bucket_setup.BUNDLE_GRANTS}
    return bucket_setup.make(given)


def _model_status(settings: Settings) -> str:
    """Return which bundle will serve, and what to type where none does."""
    from srp4ctr.features.bundles.bundle import list_bundles
    from srp4ctr.monitoring.collector.exporter import serving_version

    serving = serving_version(Path(settings.triton.repository))
    if serving:
        return f"model: {serving} serves again once Triton is up"
    bundles = list_bundles(Path(settings.training.bundles_dir))
    if bundles:
        newest = bundles[-1].name
        return f"model: none serves; `srp4ctr model promote {newest}` makes it serve"
    if settings.training.bundles_uri:
        return "model: what serves is known where Triton is: `srp4ctr model list`"
    return (
        "model: none yet; Triton answers NOT_FOUND until the first refresh has promoted "
        "one, which needs labels"
    )
