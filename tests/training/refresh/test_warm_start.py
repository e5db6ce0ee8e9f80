"""A warm refresh starts from its parent's weights, and trains on new examples."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.tensors import item_fields, vocabulary
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.vectors import vector_text
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.cache import TrainingSet
from srp4ctr.training.evaluation.champion import EarlierBundle, NoBundle
from srp4ctr.training.evaluation.evaluate import split
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.refresh import reports, warm_start
from srp4ctr.training.refresh.reports import RefreshOutcome, RefreshReport
from tests.training.conftest import RECIPE, random_slates, random_windows

COLOURS = [{"colour": c} for c in ("red", "blue") for _ in range(6)]


def words_of(keys: list[int], *more: str) -> Vocabulary:
    profiles = [*COLOURS, *({"colour": c} for c in more for _ in range(6))]
    return vocabulary.build(dict.fromkeys(keys, 9), profiles, num_oov_rows=3)


def a_model(words: Vocabulary, seed: int = 0) -> SRP4CTR:
    torch.manual_seed(seed)
    return SRP4CTR(RECIPE.model, TableSizes.of(words, 6))


def parent_of(folder: Path, model: SRP4CTR, words: Vocabulary) -> EarlierBundle:
    """Return the bundle v1 in ``folder``, with the weights of ``model``."""
    weights = model.state_dict()
    own = {n: t for n, t in weights.items() if not n.startswith("encoder.embedding.")}
    save_file(own, folder / bundle.WEIGHTS_FILE)
    card = BundleManifest(version="v1", created_at_ms=1, sizes={}, boundary_ms=20)
    return EarlierBundle(folder=folder, card=card, vocabulary=words)


@pytest.fixture
def parent(tmp_path: Path) -> EarlierBundle:
    """A bundle of items 10 and 30, red and blue."""
    words = words_of([10, 30])
    return parent_of(tmp_path, a_model(words), words)


def test_known_items_and_values_keep_their_rows_wherever_these_are_now(
    parent: EarlierBundle,
) -> None:
    words = words_of([10, 20, 30], "green")
    model = a_model(words, seed=1)
    assert "of 3 items 2 were known" in warm_start.carry_over(model, words, parent)
    old = load_file(parent.folder / bundle.WEIGHTS_FILE)
    before, after = old[warm_start.ITEMS], model.embedding.items.weight.detach().numpy()
    for keys in ([10], [30], [11]):  # 11 is unknown to both: its shared row
        was, now = parent.vocabulary.item_rows(keys), words.item_rows(keys)
        assert np.array_equal(after[now], before[was])
    # A new item begins as what it was served with.
    shared = parent.vocabulary.item_rows([20])
    assert not parent.vocabulary.is_known(shared).any()
    assert np.array_equal(after[words.item_rows([20])], before[shared])


def test_a_new_value_begins_as_the_mean_of_its_field(parent: EarlierBundle) -> None:
    words = words_of([10], "green")
    model = a_model(words, seed=1)
    warm_start.carry_over(model, words, parent)
    old = load_file(parent.folder / bundle.WEIGHTS_FILE)[warm_start.ATTRIBUTES]
    new = model.embedding.attributes.weight.detach().numpy()

    def row(of: Vocabulary, colour: str) -> int:
        return int(of.attribute_rows({"colour": colour})[0])

    for colour in ("red", "blue"):
        assert np.array_equal(new[row(words, colour)], old[row(parent.vocabulary, colour)])
    mean = (old[row(parent.vocabulary, "red")] + old[row(parent.vocabulary, "blue")]) / 2
    assert new[row(words, "green")] == pytest.approx(mean)


def test_a_model_of_the_same_vocabulary_is_the_parents_to_the_bit(
    parent: EarlierBundle,
) -> None:
    model = a_model(parent.vocabulary, seed=1)
    warm_start.carry_over(model, parent.vocabulary, parent)
    expected = a_model(parent.vocabulary).state_dict()
    found = model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_another_size_leaves_the_model_alone_and_says_so(parent: EarlierBundle) -> None:
    torch.manual_seed(1)
    wider = replace(RECIPE.model, head_width=16)
    model = SRP4CTR(wider, TableSizes.of(parent.vocabulary, 6))
    before = {name: each.clone() for name, each in model.state_dict().items()}
    with pytest.raises(ValueError, match="v1 has another size of head"):
        warm_start.carry_over(model, parent.vocabulary, parent)
    assert all(torch.equal(each, before[n]) for n, each in model.state_dict().items())


def a_dataset(boundary: int = 32) -> TrainingSet:
    """Forty requests, one a millisecond, and twenty-four windows."""
    windows = random_windows()
    return TrainingSet(
        vocabulary=words_of([10, 30]),
        parts=split(random_slates(), boundary),
        windows=windows,
        window_newest_ms=np.arange(len(windows)),
        boundary_ms=boundary,
        exposure_length=20,
        counts={},
    )


def test_new_examples_are_mixed_with_as_many_old_ones() -> None:
    config = RefreshConfig(replay=1.0)
    found = warm_start.since(a_dataset(), 20, config)
    times = found.parts.train.request_at_ms
    assert (times >= 20).sum() == 12
    assert (times < 20).sum() == 12
    assert np.all(np.diff(times) > 0)
    assert (found.window_newest_ms >= 20).sum() == 4
    assert len(found.windows) == 8
    assert len(found.parts.judge) == len(a_dataset().parts.judge)


def a_bundle(
    folder: Path, version: str, outcome: RefreshOutcome, boundary_ms: int = 20
) -> Path:
    """Write a bundle of empty files but for its vocabulary, card and report."""
    path = folder / version
    path.mkdir()
    for name in bundle.CONTENT_FILES:
        (path / name).write_bytes(b"")
    vocabulary.save(words_of([10]), path / bundle.VOCABULARY_FILE)
    card = BundleManifest(
        version=version, created_at_ms=1, sizes={}, boundary_ms=boundary_ms
    )
    bundle.write_card(path, card)
    bundle.write_manifest(path)
    reports.write(RefreshReport(version=version, folder=path, outcome=outcome, gates=()))
    return path


def test_the_newest_bundle_that_was_not_refused_is_gone_on_from(tmp_path: Path) -> None:
    outcomes = (RefreshOutcome.PROMOTED, RefreshOutcome.KEPT, RefreshOutcome.REFUSED)
    made = [a_bundle(tmp_path, f"v{n}", each) for n, each in enumerate(outcomes, start=1)]
    parent = warm_start.find_parent(made, a_dataset())
    assert isinstance(parent, EarlierBundle)
    assert parent.card.version == "v2"
    (made[1] / bundle.WEIGHTS_FILE).write_bytes(b"damaged")
    parent = warm_start.find_parent(made, a_dataset())
    assert isinstance(parent, EarlierBundle)
    assert parent.card.version == "v1"


def test_a_bundle_that_was_rolled_back_is_not_gone_on_from(tmp_path: Path) -> None:
    outcomes = (RefreshOutcome.PROMOTED, RefreshOutcome.PROMOTED, RefreshOutcome.KEPT)
    made = [a_bundle(tmp_path, f"v{n}", each) for n, each in enumerate(outcomes, start=1)]
    for serving, expected in ((made[0], "v1"), (made[1], "v2"), (None, "v2")):
        parent = warm_start.find_parent(made[:2], a_dataset(), serving)
        assert isinstance(parent, EarlierBundle)
        assert parent.card.version == expected
    kept = warm_start.find_parent(made, a_dataset(), made[0])
    assert isinstance(kept, EarlierBundle)
    assert kept.card.version == "v3"  # it waits for its promotion


@pytest.mark.parametrize(
    ("boundary_ms", "why"), [(33, "held out now"), (32, "no request newer")]
)
def test_a_bundle_that_knows_too_much_is_not_gone_on_from(
    tmp_path: Path, boundary_ms: int, why: str
) -> None:
    made = [a_bundle(tmp_path, "v1", RefreshOutcome.PROMOTED, boundary_ms)]
    assert why in str(warm_start.find_parent(made, a_dataset()))


def test_a_bundle_that_reads_other_numbers_of_the_context_is_not_gone_on_from(
    tmp_path: Path,
) -> None:
    made = [a_bundle(tmp_path, "v1", RefreshOutcome.PROMOTED)]
    words = replace(a_dataset().vocabulary, context_numbers=("items_on_page",))
    parent = warm_start.find_parent(made, replace(a_dataset(), vocabulary=words))
    assert parent == NoBundle("v1 has other fields")


def with_users(words: Vocabulary, *towns: str) -> Vocabulary:
    profiles = [{"town": town} for town in towns for _ in range(6)]
    return replace(words, user_fields=item_fields.build(profiles))


def test_values_of_users_keep_their_rows_too(tmp_path: Path) -> None:
    old_words = with_users(words_of([10]), "Ulm", "Bonn")
    old = a_model(old_words)
    parent = parent_of(tmp_path, old, old_words)
    words = with_users(words_of([10]), "Aix", "Ulm", "Bonn")
    model = a_model(words, seed=1)
    warm_start.carry_over(model, words, parent)
    assert model.user_fields is not None
    assert old.user_fields is not None
    for town in ("Ulm", "Bonn"):
        text = f'{{"town": "{town}"}}'
        new, before = words.user_attribute_rows(text), old_words.user_attribute_rows(text)
        moved = model.user_fields.vectors.weight[new]
        assert torch.equal(moved, old.user_fields.vectors.weight[before])


def with_looks(words: Vocabulary, shift: float, former: Vocabulary | None) -> Vocabulary:
    """Return ``words`` with a field of vectors, which a ``shift`` moves elsewhere."""
    vectors = np.random.default_rng(3).normal(size=(60, 16)) + shift
    profiles = [{"look": vector_text(vector.tolist())} for vector in vectors]
    fields = item_fields.build(profiles, (), former.item_fields if former else ())
    return replace(words, item_fields=fields)


@pytest.mark.parametrize("shift", [0.0, 4.0])
def test_codes_keep_their_rows_while_their_codebooks_stay(
    tmp_path: Path, shift: float
) -> None:
    old_words = with_looks(words_of([10]), 0.0, None)
    old = a_model(old_words)
    parent = parent_of(tmp_path, old, old_words)
    words = with_looks(words_of([10, 20]), shift, old_words)
    model = a_model(words, seed=1)
    warm_start.carry_over(model, words, parent)
    before, after = (each.embedding.attributes.weight[2:] for each in (old, model))
    if shift:
        assert torch.allclose(after, before.mean(0).expand_as(after))
    else:
        assert torch.equal(after, before)


def test_a_bundle_without_user_fields_is_no_parent_of_one_with_them() -> None:
    dataset = a_dataset()
    plain, described = dataset.vocabulary, with_users(dataset.vocabulary, "Ulm")
    assert warm_start._fields(plain) != warm_start._fields(described)
