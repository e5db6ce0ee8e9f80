"""Any call gets a complete answer, or an error message for its caller."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from srp4ctr.features.online.request_features import RequestFeatures
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo.model_names import MODEL_INPUTS
from srp4ctr.triton_repo.serving.onnx_scorer import PROBABILITY, Scorer
from srp4ctr.triton_repo.serving.ranker import Call, Ranker
from srp4ctr.triton_repo.serving.refusals import RefusedError
from tests.features.readers import MemoryReader, table_of
from tests.fuzzing import examples
from tests.triton_repo.bundles import KNOWN_ITEM, WORDS, inputs_of, make_bundle_in
from tests.triton_repo.tiny_graphs import SIZES

MAX_CANDIDATES = 4
WANTED = frozenset(spec.name for spec in schema.SCORE_TENSORS + schema.RESPONSE_NOTES)
NAMES = st.sampled_from(
    [s.name for s in (*schema.REQUEST_INPUTS, *schema.OPTIONAL_REQUEST_INPUTS)]
)
TEXTS = st.one_of(
    st.sampled_from([b"u1", b"", KNOWN_ITEM.encode(), b"\xff\xfe", b"\x00", b"x" * 300]),
    st.binary(max_size=20),
    st.text(max_size=20),
    st.sampled_from(['{"page": "home"}', "{", "[]", '{"a": 1}', '{"a":' * 5_000]),
)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Ranker:
    """The real features, encoder and head, over a store in memory."""
    folder = make_bundle_in(tmp_path_factory.mktemp("bundles"))("v1", mark=1.0)
    reader = MemoryReader(
        histories={"u1": [(1_700_000_000_000, 7)]}, attributes={}, impressions={}
    )
    table = table_of(reader, WORDS)
    return Ranker(
        version="v1",
        max_candidates=MAX_CANDIDATES,
        features=RequestFeatures(reader, WORDS, table, sizes=SIZES),
        scorer=Scorer(folder, 1_000_000, lambda *_: None),
        count_part=lambda *_: None,
    )


def checked(ranker: Ranker, calls: list[Call]) -> list[Any]:
    """Return the answers; each is complete, or an error with a message."""
    answers = ranker.answer_all(calls)
    assert len(answers) == len(calls)
    for call, answer in zip(calls, answers, strict=True):
        if isinstance(answer, Exception):
            assert isinstance(answer, RefusedError)
            assert 5 < len(str(answer)) < 1000
            continue
        shown = answer[PROBABILITY]
        is_ids = "item_ids" in call.given
        of_items = call.given["item_ids" if is_ids else "candidate_item_rows"]
        assert shown.shape == of_items.shape
        is_padding = np.array([not each for each in of_items.ravel().tolist()])
        assert (np.isnan(shown).ravel() == is_padding).all()
        assert ((shown[~np.isnan(shown)] >= 0) & (shown[~np.isnan(shown)] <= 1)).all()
    return answers


def texts(shape: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[Any]:
    return arrays.arrays(np.dtype(object), shape, elements=TEXTS)


odd_arrays = st.one_of(
    texts(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)),
    arrays.arrays(
        st.sampled_from([np.int64, np.float32, np.uint8, np.bool_, np.float64]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    ),
    st.just(np.array([[None, 3.5]], dtype=object)),
)


@st.composite
def likely_calls(draw: st.DrawFn) -> Call:
    """Return a call of the right shapes, with anything in it."""
    rows, items = draw(st.integers(1, 3)), draw(st.integers(0, MAX_CANDIDATES + 1))
    sent: dict[str, Any] = {
        "user_id": draw(texts(st.just((rows, 1)))),
        "item_ids": draw(texts(st.just((rows, items)))),
    }
    if draw(st.booleans()):
        sent["request_time_ms"] = draw(arrays.arrays(np.int64, (rows, 1)))
    for name in draw(st.sets(st.sampled_from(("context", "request_id")))):
        sent[name] = draw(texts(st.just((rows, 1))))
    return Call(given=sent, wanted=WANTED)


odd_calls = st.builds(
    Call,
    given=st.dictionaries(NAMES | st.text(max_size=5), odd_arrays, max_size=4),
    wanted=st.just(WANTED),
)


@settings(deadline=None, max_examples=examples(20))
@given(calls=st.lists(likely_calls() | odd_calls, min_size=1, max_size=4))
def test_a_call_of_ids_is_answered_or_refused(ranker: Ranker, calls: list[Call]) -> None:
    good = Call(
        given={
            "user_id": np.array([[b"u1"]], dtype=object),
            "item_ids": np.array([[KNOWN_ITEM.encode(), b""]], dtype=object),
        },
        wanted=WANTED,
    )
    *_, last = checked(ranker, [*calls, good])
    assert not isinstance(last, Exception)  # the other calls do not matter


@settings(deadline=None, max_examples=examples(20))
@given(data=st.data())
def test_the_models_own_tensors_are_scored_or_refused(
    ranker: Ranker, data: st.DataObject
) -> None:
    sent: dict[str, Any] = inputs_of(MODEL_INPUTS, 2, 3)
    for name in data.draw(st.sets(st.sampled_from(sorted(sent)), min_size=1, max_size=2)):
        same = arrays.arrays(sent[name].dtype, sent[name].shape)
        sent[name] = data.draw(same | odd_arrays)
    (answer,) = ranker.answer_all([Call(given=sent, wanted=frozenset({PROBABILITY}))])
    if isinstance(answer, Exception):
        assert isinstance(answer, RefusedError)
        assert len(str(answer)) > 5
        return
    finite = all(np.isfinite(a).all() for a in sent.values() if a.dtype.kind == "f")
    positive = all((a >= 0).all() for a in sent.values() if a.dtype.kind == "i")
    assert finite
    assert positive
    pads = sent["candidate_item_rows"] == 0
    assert (np.isnan(answer[PROBABILITY]) == pads).all()


@pytest.mark.parametrize("at_ms", [4_102_444_800_001, 1_700_000_000_000_000, 2**63 - 1])
def test_a_time_in_microseconds_is_refused(ranker: Ranker, at_ms: int) -> None:
    sent = {
        "user_id": np.array([[b"u1"]], dtype=object),
        "item_ids": np.array([[b"i"]], dtype=object),
        "request_time_ms": np.array([[at_ms]]),
    }
    (refused,) = ranker.answer_all([Call(given=sent, wanted=WANTED)])
    assert "microseconds" in str(refused)


def test_an_onnx_file_of_other_shapes_does_not_load(tmp_path: Path) -> None:
    from srp4ctr.features.bundles import bundle

    folder = make_bundle_in(tmp_path)("v1", mark=1.0)
    card = (folder / bundle.CARD_FILE).read_text()
    (folder / bundle.CARD_FILE).write_text(card.replace('"A": 1', '"A": 2'))
    with pytest.raises(ValueError, match=r"history_attribute_rows is .*, 1\]; .*, 2\)"):
        Scorer(folder, 1000, lambda *_: None)
    (folder / bundle.HEAD_FILE).replace(folder / bundle.ENCODER_FILE)
    with pytest.raises(ValueError, match="reads"):
        Scorer(folder, 1000, lambda *_: None)
