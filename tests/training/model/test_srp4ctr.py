from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from srp4ctr.features.tensors.schema import STATE_TENSORS
from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import HISTORY_NAMES
from srp4ctr.training.export.bundle_writer import sizes_of
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.model.transformer import TransformerLayer

Maker = Callable[..., dict[str, Tensor]]


def score(model: SRP4CTR, tensors: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model.score({**tensors, **model.encode(tensors)}).click


def test_encoding_once_equals_reencoding_with_padding_and_an_empty_history(
    a_model: SRP4CTR, requests_of: Maker
) -> None:
    tensors = requests_of()
    tensors["candidate_item_rows"][2, 3:] = 0
    folded = score(a_model, tensors)  # (B, N)
    shared = set(HISTORY_NAMES) | {"request_features", "context_rows"}
    for n in range(folded.shape[1]):
        alone = {
            name: tensor if name in shared else tensor[:, n : n + 1]
            for name, tensor in tensors.items()
        }
        unfolded = score(a_model, alone)[:, 0]
        torch.testing.assert_close(
            folded[:, n], unfolded, atol=1e-5, rtol=0, equal_nan=True
        )


def test_another_candidate_changes_no_score(a_model: SRP4CTR, requests_of: Maker) -> None:
    tensors = requests_of()
    before = score(a_model, tensors)
    tensors["candidate_item_rows"][:, 0] = 7
    tensors["candidate_features"][:, 0] += 3.0
    after = score(a_model, tensors)
    assert not torch.allclose(before[:, 0], after[:, 0])
    torch.testing.assert_close(before[:, 1:], after[:, 1:], atol=1e-6, rtol=0)


def test_another_request_changes_no_score(a_model: SRP4CTR, requests_of: Maker) -> None:
    tensors = requests_of()
    alone = {name: tensor[1:2] for name, tensor in tensors.items()}
    torch.testing.assert_close(
        score(a_model, tensors)[1:2], score(a_model, alone), atol=1e-6, rtol=0
    )


def test_the_encoder_reads_the_history_alone(a_model: SRP4CTR, requests_of: Maker) -> None:
    tensors = requests_of()
    history = {name: tensors[name] for name in HISTORY_NAMES}
    whole, alone = a_model.encode(tensors), a_model.encode(history)
    for name, states in whole.items():
        assert torch.equal(states, alone[name])


def test_states_have_the_schemas_shapes(
    a_model: SRP4CTR, requests_of: Maker, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    states = a_model.encode(requests_of(count=3))
    numbers = sizes_of(recipe.model, sizes)
    assert list(states) == [spec.name for spec in STATE_TENSORS]
    for spec in STATE_TENSORS:
        assert states[spec.name].shape == (3, *spec.dims(numbers))


def test_an_empty_history_has_one_valid_state_and_a_finite_score(
    a_model: SRP4CTR, requests_of: Maker
) -> None:
    tensors = requests_of()
    states = a_model.encode(tensors)
    assert states["state_mask"][0].tolist() == [1.0] + [0.0] * 6
    assert torch.isfinite(score(a_model, tensors)[0]).all()


def test_what_the_last_layer_makes_of_behaviours_is_for_pretraining_alone(
    a_model: SRP4CTR, requests_of: Maker
) -> None:
    tensors = requests_of()
    history = [tensors[name] for name in HISTORY_NAMES]
    encoder = a_model.encoder
    last = encoder.layers[-1]
    assert isinstance(last, TransformerLayer)
    with torch.no_grad():
        before, predicted = a_model.encode(tensors), encoder.predictions(*history)
        last.feed_forward.narrow.bias.normal_()
        for name, states in a_model.encode(tensors).items():
            assert torch.equal(states, before[name])
        assert not torch.allclose(encoder.predictions(*history), predicted)


def test_what_stands_in_padding_changes_nothing(
    a_model: SRP4CTR, requests_of: Maker
) -> None:
    tensors = requests_of()
    before = score(a_model, tensors)
    padding = tensors["history_item_rows"] == 0
    tensors["history_attribute_rows"][padding] = 3
    tensors["history_behavior_codes"][padding] = 5
    torch.testing.assert_close(score(a_model, tensors), before, atol=1e-6, rtol=0)


def test_padding_scores_nan_and_an_unknown_item_does_not(
    a_model: SRP4CTR, requests_of: Maker
) -> None:
    tensors = requests_of()
    tensors["candidate_item_rows"][0, 1] = 0
    tensors["candidate_item_rows"][0, 2] = 2  # a hashed row
    tensors["candidate_attribute_rows"][0, 2] = 0
    scores = score(a_model, tensors)
    assert torch.isnan(scores[0, 1])
    assert 0.0 < float(scores[0, 2]) < 1.0
    assert int(torch.isnan(scores).sum()) == 1


def test_serving_scores_as_if_every_candidate_stood_at_the_top(
    a_model: SRP4CTR, requests_of: Maker
) -> None:
    tensors = requests_of()
    with torch.no_grad():
        a_model.head.click.position_bias.weight[0] = 1.0
        top = a_model(tensors, torch.zeros_like(tensors["candidate_item_rows"]))
        third = a_model(tensors, torch.full_like(tensors["candidate_item_rows"], 3))
        served = a_model(tensors)
    for place, logits in enumerate(served):
        assert torch.equal(logits, top[place])
        assert not torch.allclose(logits, third[place])


def test_the_calibration_is_in_the_score(a_model: SRP4CTR, requests_of: Maker) -> None:
    tensors = requests_of()
    with torch.no_grad():
        logits = a_model(tensors).click
    a_model.head.click.calibration_scale.fill_(0.5)
    a_model.head.click.calibration_bias.fill_(-1.0)
    expected = torch.sigmoid(0.5 * logits - 1.0)
    torch.testing.assert_close(score(a_model, tensors), expected)


def test_the_candidate_stream_starts_as_the_encoder(a_model: SRP4CTR) -> None:
    a_model.cross_attention.copy_from(a_model.encoder)
    own, theirs = a_model.cross_attention.state_dict(), a_model.encoder.state_dict()
    assert own
    for name, tensor in own.items():
        assert torch.equal(tensor, theirs[name])
        assert tensor.data_ptr() != theirs[name].data_ptr()


@pytest.mark.parametrize("candidates", [1, 9])
def test_any_number_of_candidates_is_scored(
    a_model: SRP4CTR, requests_of: Maker, candidates: int
) -> None:
    assert score(a_model, requests_of(candidates=candidates)).shape == (4, candidates)


def test_a_request_is_encoded_once_for_all_its_candidates(
    a_model: SRP4CTR, requests_of: Maker
) -> None:
    encoded: list[torch.Size] = []
    a_model.encoder.register_forward_hook(
        lambda _, histories, states: encoded.append(histories[0].shape)
    )
    with torch.no_grad():
        a_model(requests_of(count=3, candidates=9))
    assert encoded == [(3, 6)]


def test_with_tied_weights_candidates_are_tokens_of_one_transformer(
    a_model: SRP4CTR, requests_of: Maker
) -> None:
    """[history ; candidates] under a block mask: all look at the history alone."""
    a_model.cross_attention.copy_from(a_model.encoder)
    tensors = requests_of()
    rows = tensors["candidate_item_rows"]
    with torch.no_grad():
        encoded = a_model.encode(tensors)
        candidates = a_model.embedding.candidates(rows, tensors["candidate_attribute_rows"])
        folded = a_model.cross_attention(
            candidates,
            encoded["layer_keys"],
            encoded["layer_values"],
            encoded["state_mask"],
        )
        history = a_model.embedding.behaviors(
            *(tensors[name] for name in HISTORY_NAMES)
        )  # (B, L, D)
        null = a_model.encoder.null_token.expand(len(rows), 1, -1)
        joint = torch.cat([null, history, candidates], dim=1)  # (B, S + N, D)
        seen = torch.cat([encoded["state_mask"], torch.zeros(rows.shape)], dim=1)
        for layer in a_model.encoder.layers:
            assert isinstance(layer, TransformerLayer)
            joint = layer(joint, layer.key(joint), layer.value(joint), seen)
    together = joint[:, -rows.shape[1] :]
    torch.testing.assert_close(folded, together, atol=1e-5, rtol=0)


def test_a_match_is_the_answer_of_pretraining_to_a_mask_that_history_does_not_see(
    a_model: SRP4CTR, requests_of: Maker
) -> None:
    """So fine-tuning begins with pre-training's prediction."""
    a_model.cross_attention.copy_from(a_model.encoder)
    tensors = requests_of()
    rows, attributes = (tensors[f"candidate_{name}_rows"] for name in ("item", "attribute"))
    with torch.no_grad():
        _, matched = a_model._candidate_states({**tensors, **a_model.encode(tensors)})
        encoded = a_model.encode(tensors)
        hidden = torch.full_like(rows[:, :1], MASK_ROW)
        every = torch.full_like(attributes[:, :1], MASK_ROW)
        mask = a_model.cross_attention(
            a_model.embedding.candidates(hidden, every),
            encoded["layer_keys"],
            encoded["layer_values"],
            encoded["state_mask"],
        )
        vectors = a_model.embedding.item_vectors(rows, attributes)
        expected = (vectors * mask).sum(-1)
    torch.testing.assert_close(matched, expected)
    assert matched.shape == rows.shape
