import pytest
import torch

from srp4ctr.training.model.dropout import Dropout, Part, drawing
from srp4ctr.training.model.embeddings import ContextEmbedding
from srp4ctr.training.model.transformer import FeedForward


def test_a_share_is_dropped_and_the_rest_makes_up_for_it() -> None:
    torch.manual_seed(0)
    dropped = Dropout(0.3)(torch.ones(200, 50, 64))
    assert abs(float((dropped == 0).float().mean()) - 0.3) < 0.003
    assert abs(float(dropped.mean()) - 1.0) < 0.003
    # Number by number: no whole channel or position is dropped.
    assert not (dropped == 0).all(dim=1).any()
    assert not (dropped == 0).all(dim=2).any()


def test_nothing_is_dropped_when_serving_or_at_no_rate() -> None:
    states = torch.rand(4, 3, 8)
    assert torch.equal(Dropout(0.5).eval()(states), states)
    assert torch.equal(Dropout(0.0)(states), states)


@pytest.mark.filterwarnings("default")  # torch.compile's own
def test_a_compiled_stage_drops_the_same() -> None:
    """All of torch.compile but its C++ compiler, which takes a minute."""
    block = FeedForward(8, 0.5)
    compiled = torch.compile(block, backend="aot_eager", dynamic=True)
    for rows in (4, 6):
        states, part = torch.rand(rows, 3, 8), Part(first=0, rows=rows, whole=rows)
        with drawing(5, part):
            plain = block(states)
        with drawing(5, part):
            torch.testing.assert_close(compiled(states), plain)


def test_a_part_of_a_batch_drops_what_the_whole_does() -> None:
    states = torch.rand(10, 3, 7)
    with drawing(5, Part(first=0, rows=10, whole=10)):
        whole = Dropout(0.4)(states)
    for first, rows in ((0, 4), (4, 6)):
        with drawing(5, Part(first=first, rows=rows, whole=10)):
            part = Dropout(0.4)(states[first : first + rows])
        assert torch.equal(part, whole[first : first + rows])


def test_a_value_of_the_context_moves_all_logits_by_its_own_bias() -> None:
    context = ContextEmbedding()
    rows = torch.tensor([[3, 5, 0], [5, 0, 0], [0, 0, 0]])
    assert not context.bias(rows).any()
    with torch.no_grad():
        context.biases.weight[3] = 1.0
        context.biases.weight[5] = 0.25
    assert context.bias(rows).tolist() == [[1.25], [0.25], [0.0]]
    assert not context(rows)[2].any()
