"""Feast's entities, views and services.

The stream worker writes every view online as events arrive; nothing is materialised.
"""

from datetime import timedelta

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
# Read for training: features/offline/item_profiles.py writes it; apply() makes the path
# absolute, because Feast's DuckDB reads a relative one from the working directory.
profile_log = FileSource(
    name="profile_log",
    path="item-profiles.parquet",
    timestamp_field="occurred_at",
    created_timestamp_column="created_at",
)

# Rows of the stream are packed by features/online/row_codec.py; `features show` unpacks.
_PACKED = Field(name="packed", dtype=Bytes)


def _view_of_user(name: str) -> FeatureView:
    return FeatureView(
        name=name,
        entities=[user],
        ttl=_NEVER_EXPIRES,
        schema=[Field(name="user_id", dtype=String), _PACKED],
        source=user_log,
    )


user_behavior_sequence = _view_of_user("user_behavior_sequence")
user_activity = _view_of_user("user_activity")
user_exposures = _view_of_user("user_exposures")
item_activity = FeatureView(
    name="item_activity",
    entities=[item, partition],
    ttl=_NEVER_EXPIRES,
    schema=[
        Field(name="item_key", dtype=Int64),
        Field(name="partition", dtype=Int64),
        _PACKED,
    ],
    source=item_log,
)
item_profile = FeatureView(
    name="item_profile",
    entities=[item],
    ttl=_NEVER_EXPIRES,
    schema=[
        Field(name="item_key", dtype=Int64),
        Field(name="item_id", dtype=String),
        Field(name="attributes", dtype=String),  # JSON
    ],
    source=profile_log,
)

user_features = FeatureService(
    name="user_features",
    features=[user_behavior_sequence, user_activity, user_exposures],
)
item_features = FeatureService(name="item_features", features=[item_activity])
item_profiles = FeatureService(name="item_profiles", features=[item_profile])
