"""Counters as a model reads them: scaled, and piecewise linear between quantiles."""

import numpy as np
import torch

from srp4ctr.training.model.embeddings import NumericFeatures, Spans


def test_a_value_fills_the_spans_below_it_and_part_of_its_own() -> None:
    encode = NumericFeatures(1, spans=4)
    encode.fit(torch.arange(0.0, 101.0)[:, None])  # quantiles at 0, 25, 50, 75, 100
    covered = encode(torch.tensor([[60.0]]))[0, 1:] + 0.5
    np.testing.assert_allclose(covered, [1.0, 1.0, 0.4, 0.0], atol=1e-5)


def test_two_values_are_distinguished_and_far_values_are_limited() -> None:
    encode = NumericFeatures(1, spans=16)
    encode.fit(torch.tensor([0.0] * 900 + [1.0] * 100)[:, None])
    zero, one, far = encode(torch.tensor([[0.0], [1.0], [1e9]]))
    assert (zero != one).any()
    torch.testing.assert_close(far[1:], one[1:])
    assert torch.isfinite(far).all()


def test_a_constant_feature_says_nothing() -> None:
    encode = NumericFeatures(2, spans=4)
    encode.fit(torch.stack([torch.full((50,), 7.0), torch.arange(50.0)], dim=1))
    few = encode(torch.tensor([[7.0, 3.0], [7.0, 30.0]]))
    spans = few[:, 2:].reshape(2, 2, 4)  # rows, features, spans
    torch.testing.assert_close(spans[0, 0], spans[1, 0])
    assert (spans[0, 1] != spans[1, 1]).any()


def test_a_constant_feature_says_nothing_of_another_value_in_serving() -> None:
    encode = NumericFeatures(1, spans=4)
    encode.fit(torch.full((50, 1), 7.0))
    once, again = encode(torch.tensor([[7.0], [70.0]]))
    torch.testing.assert_close(once, again)


def test_a_feature_that_is_nearly_always_0_is_cut_where_it_is_not() -> None:
    encode = NumericFeatures(1, spans=16)
    rare = torch.arange(1.0, 41.0)  # 4 % of the rows: no quantile but the last
    encode.fit(torch.cat([torch.zeros(960), rare])[:, None])
    covered = encode(torch.tensor([[10.0], [20.0], [30.0]]))[:, 1:]
    assert len({tuple(row) for row in covered.tolist()}) == 3
    assert (encode.slopes > 0).sum() >= 4


def test_lines_that_are_exported_are_those_of_the_features() -> None:
    """A flat line is left out of the exported graph, and its constant is in the bias."""
    torch.manual_seed(0)
    encode = NumericFeatures(4, spans=8)
    columns = [torch.full((200,), 3.0), torch.arange(200.0), torch.zeros(200)]
    seldom = torch.cat([torch.zeros(190), torch.arange(10.0)])
    encode.fit(torch.stack([*columns, seldom], dim=1))
    layer = torch.nn.Linear(encode.encoded_width, 5)
    spans = Spans(encode)
    weight, bias = spans.folded(layer.weight.t(), layer.bias)
    assert len(weight) < encode.encoded_width / 2
    inputs = torch.tensor([[3.0, 50.0, 0.0, 4.0], [9.0, -5.0, 8.0, 0.0]])
    made = spans(inputs) @ weight + bias
    torch.testing.assert_close(made, layer(encode(inputs)))


def test_features_that_are_all_constant_are_exported() -> None:
    encode = NumericFeatures(2, spans=4)
    encode.fit(torch.ones(20, 2))
    layer = torch.nn.Linear(encode.encoded_width, 3)
    spans = Spans(encode)
    weight, bias = spans.folded(layer.weight.t(), layer.bias)
    inputs = torch.tensor([[1.0, 5.0]])
    torch.testing.assert_close(spans(inputs) @ weight + bias, layer(encode(inputs)))
