"""Settings → a check of the feature store, and the promotion that waits for a good one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from features.check_report import FeatureCheck, write_report
from settings import Settings

if TYPE_CHECKING:  # a stream worker has no tritonclient
    from triton_repo.promotion import Serving


def checked(settings: Settings, sample: int = 200) -> FeatureCheck:
    """Compare the store with the raw log now, and leave the report for the monitor.

    Raises ``ValueError`` where no broker answers or the views are not registered.
    """
    from features.check import check_features
    from features.store import FeatureStoreSink  # Feast: 3–4 s
    from streams.events import BEHAVIOR_EVENTS_TOPIC
    from streams.topics import committed_offsets

    sink = FeatureStoreSink(settings.features)
    streams = settings.streams
    place = (streams.group_id, BEHAVIOR_EVENTS_TOPIC)
    committed = committed_offsets(settings.kafka, *place)  # before the rows are read
    check = check_features(
        settings.features, sink, streams.sequence_length, committed, sample
    )
    write_report(Path(settings.features.log_dir), check)
    return check


def promoter(settings: Settings) -> Callable[[Path], "Serving"]:
    """Return what serves the bundle in a folder: training hands it the folder."""
    from triton_repo.promotion import promote

    return lambda folder: promote(
        folder, settings.triton, settings.features, check=partial(checked, settings)
    )
