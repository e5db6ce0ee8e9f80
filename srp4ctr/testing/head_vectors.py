"""Returns what SRP4CTR's blocks hand to the click head, alongside the probabilities."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from srp4ctr.training.model.srp4ctr import SRP4CTR


def score_with_vectors(
    model: SRP4CTR, inputs: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (B, N) of ``HEAD_INPUTS``, query vectors, candidate states.

    The outputs of the querying transformer (B, M, D) and of the uni cross-attention (B, N,
    D) are taken at the click head: nothing is computed twice.
    """
    caught: dict[nn.Module, Tensor] = {}
    blocks = model.querying, model.cross_attention
    hooks = [block.register_forward_hook(_catcher(caught)) for block in blocks]
    try:
        probability = model.score(inputs).click
    finally:
        for hook in hooks:
            hook.remove()
    queries, candidates = (caught[block] for block in blocks)
    return probability, queries, candidates[:, :-1]  # the last is a [MASK]: SRP4CTR


def _catcher(caught: dict[nn.Module, Tensor]) -> Callable[..., None]:
    def catch(module: nn.Module, _: object, output: Tensor) -> None:
        caught[module] = output

    return catch
