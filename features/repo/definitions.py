"""Feast's entities, views and services.

The stream worker writes every view online as events arrive; nothing is materialised.
"""

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Bytes, Int64, String

# Nothing here expires: Feast does not apply a ttl to online reads (ours is
# ``features.sequence_ttl_days``), and an item's attributes of 1997 are true until replaced.
_NEVER_EXPIRES = timedelta(0)

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_key"], value_type=ValueType.INT64)
# An item has counters per partition of the topic: see streams/state/state_store.py.
partition = Entity(name="partition", join_keys=["partition"], value_type=ValueType.INT64)

# Training reads the raw event log (features/offline/point_in_time.py), so these sources
# are never read.
user_log = FileSource(name="user_log", path="behavior-events", timestamp_field="created_at")
item_log = FileSource(name="item_log", path="behavior-events", timestamp_field="created_at")
# Read for training: features/offline/profiles.py writes it; apply() makes the path
# absolute, because Feast's DuckDB reads a relative one from the working directory.
profile_log = FileSource(
    name="profile_log",
    path="item-profiles.parquet",
    timestamp_field="occurred_at",
    created_timestamp_column="created_at",
)


def _view(
    name: str, entities: list[Entity], source: FileSource, **types: Any
) -> FeatureView:
    schema = [Field(name=each, dtype=dtype) for each, dtype in types.items()]
    return FeatureView(
        name=name, entities=entities, ttl=_NEVER_EXPIRES, schema=schema, source=source
    )


# Rows of the stream are packed by features/online/row_codec.py; `features show` unpacks.
user_behavior_sequence = _view(
    "user_behavior_sequence", [user], user_log, user_id=String, packed=Bytes
)
user_profile = _view(  # the attributes are JSON
    "user_profile", [user], user_log, user_id=String, attributes=String
)
item_activity = _view(
    "item_activity",
    [item, partition],
    item_log,
    item_key=Int64,
    partition=Int64,
    packed=Bytes,
)
item_profile = _view(  # the attributes are JSON
    "item_profile",
    [item],
    profile_log,
    item_key=Int64,
    item_id=String,
    attributes=String,
)

user_features = FeatureService(
    name="user_features", features=[user_behavior_sequence, user_profile]
)
item_features = FeatureService(name="item_features", features=[item_activity])
item_profiles = FeatureService(name="item_profiles", features=[item_profile])
