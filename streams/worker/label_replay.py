"""A partition's recent records → the label state that a worker needs to go on with it.

In: the partition up to the committed offset. Out: the impressions that may still be
clicked, and the labels that may not have been published before it was committed.
"""

from srp4ctr.streams.broker.batch_consumer import now_ms
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.state.partition_state import PartitionState, replay_labels
from srp4ctr.streams.worker.replay import ReplaySource


async def rebuild_labels(
    past: ReplaySource, config: StreamConfig, state: PartitionState
) -> None:
    """Replay into ``state`` what its label join would hold at ``state.next_offset``.

    That is both windows' records, but of the corrections' window no more than
    ``max_kept_impressions``: a day of events, at the default settings, or 250,000.
    """
    end = min(state.next_offset, past.end)
    last_ms = await past.known_ms(end - 1) if end else None
    if last_ms is None:
        return
    window_ms = round(config.label_window_s * 1000)
    since_ms = last_ms - window_ms - round(config.correction_window_s * 1000)
    in_window = await past.offset_since(last_ms - window_ms, end)
    start = max(0, min(in_window, end - config.max_kept_impressions))
    async for events in past.events(since_ms, end, start):
        replay_labels(state, events, now_ms())
