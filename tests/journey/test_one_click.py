"""One user's click walks the whole way: the executable table of contents.

event → sequence → feature → example → encoder states → score → metric

All in memory but the raw log, which is the offline truth and lies in a folder of files.
Read it first: each part below is the first line of a folder.
"""

from pathlib import Path

import msgspec
import numpy as np
import torch

from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.features.online.request_features import RequestBatch, RequestFeatures
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.monitoring.quality.live_quality import LiveQuality
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent, decode, encode
from srp4ctr.streams.events.schema import UserEvent, item_key
from srp4ctr.streams.state.label_join import ImpressionLabel, LabelJoin
from srp4ctr.streams.state.reducers import fold_users
from srp4ctr.streams.state.sequences import BehaviorSequence
from srp4ctr.testing.raw_logs import write_log
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.dataset import examples, item_attributes
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from tests.builders import NOON_MS, a_behavior, a_click, an_impression
from tests.features.readers import MemoryReader, table_of

LENGTH = 5
WINDOW_MS = 10_000
SHOWN = ("tea", "coffee", "milk")
PUBLISHED: list[UserEvent] = [
    a_behavior("tea", at_ms=NOON_MS - 60_000),
    a_behavior("cup", at_ms=NOON_MS - 30_000, action="buy", value=3.5),
    *(an_impression(item, position=n) for n, item in enumerate(SHOWN)),
    a_click("coffee", at_ms=NOON_MS + 2_000),
]


def events() -> list[UserEvent]:
    """Event: what the producer's bytes say."""
    decoded = [decode(encode(event), event.occurred_at) for event in PUBLISHED]
    return [event for event in decoded if isinstance(event, UserEvent)]


def sequence() -> BehaviorSequence:
    """Event → sequence: the click is a behaviour too; the impressions are not."""
    logged = [
        LoggedEvent(event=event, offset=offset, known_at_ms=event.occurred_at)
        for offset, event in enumerate(events())
    ]
    counted = [(each, True) for each in logged]
    return fold_users({}, counted, StreamConfig(sequence_length=LENGTH))["u1"].sequence


def labels() -> list[ImpressionLabel]:
    """Impression + click → label, once the window has closed."""
    join = LabelJoin(window_ms=WINDOW_MS, correction_ms=WINDOW_MS, max_kept=10)
    decided = [label for e in events() for label in join.add(e, e.occurred_at)]
    return decided + join.advance(idle_until_ms=NOON_MS + WINDOW_MS)


def words() -> Vocabulary:
    """The vocabulary that a bundle would carry."""
    return vocabulary.build({item_key(name): 1 for name in (*SHOWN, "cup")}, [])


def features() -> RequestBatch:
    """Sequence → feature: what a request one minute later is answered from."""
    history = [(e.occurred_at, e.item_key) for e in sequence().elements]
    reader = MemoryReader(histories={"u1": history})
    sizes = {"L": LENGTH, "W": LENGTH}
    served = RequestFeatures(reader, words(), table_of(reader, words()), sizes=sizes)
    return served.assemble(["u1"], [SHOWN], [NOON_MS + 60_000])


def example(log_dir: Path) -> Slates:
    """Feature → example: at the request's own instant, with its matured label."""
    write_log(log_dir, [(event, event.occurred_at) for event in events()])
    write_log(log_dir, [(label, label.matured_at) for label in labels()])
    with event_tables.opened(log_dir) as log:
        snapshots = point_in_time.snapshot(log, LENGTH, ttl_days=90.0)
    return examples.slates(snapshots, words(), item_attributes.of_profiles({}, words()))


def model() -> SRP4CTR:
    """A model as small as it gets, not trained."""
    torch.manual_seed(0)
    sizes = TableSizes.of(words(), LENGTH)
    return SRP4CTR(ModelConfig(width=8, num_queries=2, head_width=8), sizes).eval()


def test_a_click_goes_all_the_way_round(tmp_path: Path) -> None:
    assert events() == PUBLISHED

    keys = [element.item_key for element in sequence().elements]
    assert keys == [item_key("tea"), item_key("cup"), item_key("coffee")]
    clicked = {label.item_id: label.clicked for label in labels()}
    assert clicked == {"tea": False, "coffee": True, "milk": False}

    request = features()
    assert request.statuses == ("ok",)
    seen = request.tensors["history_item_rows"][0].tolist()
    assert seen == [0, 0, *words().item_rows(np.array(keys)).tolist()]

    slates = example(tmp_path)
    assert slates.clicked.tolist() == [[0.0, 1.0, 0.0]]
    known = slates.tensors["history_item_rows"][0]  # not yet the click on its own slate
    assert words().item_rows(np.array(item_key("coffee"))) not in known

    inputs = {name: torch.from_numpy(array) for name, array in request.tensors.items()}
    with torch.no_grad():
        states = model().encode(inputs)  # once a request
        scores = model().score({**inputs, **states}).click  # all candidates at once
    assert states["layer_keys"].shape == (1, 2, LENGTH + 1, 8)
    assert bool(((scores > 0) & (scores < 1)).all())

    quality = LiveQuality(window_ms=3_600_000, label_window_ms=WINDOW_MS)
    for label, score in zip(labels(), scores[0].tolist(), strict=True):
        said = msgspec.structs.replace(label, model_version="v1", score=score)
        quality.add(said, partition=0)
    quality.advance(NOON_MS + 2 * WINDOW_MS)
    (live,) = quality.quality()
    assert (live.model_version, live.impressions, live.clicks) == ("v1", 3, 1)
