"""Counters as a model reads them: scaled, and piecewise linear between quantiles."""

import numpy as np
import torch

from srp4ctr.training.model.embeddings import NumericFeatures


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
