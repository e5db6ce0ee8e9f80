"""Items' and users' attributes as of an instant, from the event log.

In: the log of updates. Out: the latest attributes that were known then, for the vocabulary
and the examples of training: of all items at one instant by Feast's point-in-time join on
DuckDB, where an update counts if it happened and was known by the instant; of users and of
items at each request, by the rule of its other features (``point_in_time.py``).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from ibis import _

from srp4ctr.atomic_files import replace_file
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline.event_tables import EventLog, Table, opened
from srp4ctr.features.offline.visible_events import IS_PERSON
from srp4ctr.features.online.row_codec import PROFILES
from srp4ctr.features.tensors.vocabulary import parse_attributes
from srp4ctr.streams.state.state_store import FeatureSink


def item_profiles(
    log: EventLog, config: FeatureConfig, as_of_ms: int
) -> dict[int, Mapping[str, str | tuple[str, ...]]]:
    """Return the attributes of each item_key that was known at ``as_of_ms``, by item_key.

    Raises ``MistakeError`` if the views are not registered (``srp4ctr features apply``).
    """
    from srp4ctr.features.online import feast_store

    known = log.items.filter(_.occurred_at <= as_of_ms, _.created_at <= as_of_ms)
    updates = log.rows(_newest_of(known, "occurred_at", "created_at"))
    if not len(updates):
        return {}
    feast_store.check_profile_log(config)
    write_profile_log(updates, feast_store.profile_log(config))
    store = feast_store.open_store(config)
    found = _as_of(store, np.unique(updates["item_key"].to_numpy()), as_of_ms)
    found = found.sort_values("item_key")  # the engine has no order of its own
    attributes = zip(found["item_key"], found["attributes"], strict=True)
    return {int(key): parse_attributes(text) for key, text in attributes if text}


def item_updates(log: EventLog) -> pa.Table:
    """Return item_key, visible_at and attributes of all that items were known to be.

    By item, and in the order in which it held; what came after a newer update never did.
    """
    updates = log.items.mutate(visible_at=ibis.greatest(_.occurred_at, _.created_at))
    in_order = ("visible_at", "occurred_at", "created_at", "offset")
    by_item: dict[str, Any] = {"group_by": "item_key", "order_by": in_order}
    newest_ms = _.occurred_at.max().over(ibis.window(**by_item, preceding=(None, 0)))
    held = updates.mutate(newest_ms=newest_ms).filter(_.occurred_at == _.newest_ms)
    held = held.mutate(former=_.attributes.lag().over(ibis.window(**by_item)))
    # A catalogue that is published again changes nothing.
    changed = held.filter(_.former.isnull() | (_.attributes != _.former))
    changed = changed.order_by("item_key", *in_order)
    return log.rows(changed.select("item_key", "visible_at", "attributes"))


def profiles_of(log: EventLog, requests: Table) -> Table:
    """Return row and attributes of each request whose user had some by then.

    As ``streams.state.user_state``: the latest, and of two at one instant the greater.
    """
    known = requests.select("row", "user_id", "at_ms").inner_join(
        log.remembered(log.profiles), "user_id"
    )
    known = known.filter(_.visible_at < _.at_ms)
    by_time = (ibis.desc("occurred_at"), ibis.desc("attributes"))
    newest_first = ibis.window(group_by="row", order_by=by_time)
    ranked = known.mutate(rank=ibis.row_number().over(newest_first))
    return ranked.filter(_.rank == 0).select("row", "attributes")


def user_profiles(log: EventLog, before_ms: int) -> list[str]:
    """Return the attributes, as JSON, that users were known to have by ``before_ms``.

    By user_id, so that whatever is fitted to them does not depend on the engine's order.
    """
    users = log.profiles.filter(IS_PERSON).select("user_id").distinct()
    as_requests = users.mutate(
        row=ibis.row_number().over(ibis.window(order_by="user_id")),
        at_ms=ibis.literal(before_ms),
    )
    known = log.rows(profiles_of(log, as_requests).order_by("row"))
    attributes: list[str] = known["attributes"].to_pylist()
    return attributes


def restore_profiles(config: FeatureConfig, sink: FeatureSink) -> int:
    """Store the newest attributes of every item in the log; return how many items.

    Safe while the worker runs: an older update never replaces a newer one.
    """
    with opened(config.raw_log) as log:
        rows = log.rows(_newest_of(log.items, "occurred_at")).to_pylist()
    sink.write_profiles(
        [
            PROFILES.unpack(row["occurred_at"] * 1000, row["item_id"], row["attributes"])
            for row in rows
        ]
    )
    return len(rows)


def _newest_of(items: Table, *times: str) -> Table:
    """Return the newest update of each item by ``times``, and of equal ones the last: a
    correction, as of a catalogue that is imported again. The stream, too, keeps that one.
    """
    newest_first = [ibis.desc(each) for each in (*times, "offset")]
    by_item = ibis.window(group_by="item_key", order_by=newest_first)
    ranked = items.mutate(rank=ibis.row_number().over(by_item))
    return ranked.filter(_.rank == 0).drop("rank")


def write_profile_log(updates: pa.Table, path: Path) -> None:
    """Write ``updates`` in the columns that Feast's view has, whole or not at all."""
    columns = {name: updates[name] for name in ("item_key", "item_id", "attributes")}
    for name in ("occurred_at", "created_at"):
        columns[name] = updates[name].cast(pa.timestamp("ms", tz="UTC"))
    path.parent.mkdir(parents=True, exist_ok=True)  # of a machine that writes no log
    replace_file(path, lambda file: pq.write_table(pa.table(columns), file))


def _as_of(store: Any, item_keys: np.ndarray, as_of_ms: int) -> pd.DataFrame:
    instant = datetime.fromtimestamp(as_of_ms / 1000, tz=UTC)
    wanted = pd.DataFrame({"item_key": item_keys, "event_timestamp": instant})
    answer = store.get_historical_features(
        entity_df=wanted,
        features=["item_profile:item_id", "item_profile:attributes"],
        filter_by_created_timestamp=True,
    )
    return answer.to_df()
