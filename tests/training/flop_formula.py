"""The FLOPs of inference by arithmetic: an independent check of torch's counter."""

from srp4ctr.features import columns
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.export.bundle_writer import RequestCost
from srp4ctr.training.model.embeddings import (
    CONTEXT_WIDTH,
    FIELD_SIZES,
    FIELD_WIDTH,
    NUM_SPANS,
    USER_FIELD_WIDTH,
    TableSizes,
)
from srp4ctr.training.model.heads.crosses import NUM_CROSS_LAYERS
from srp4ctr.training.model.products import PRODUCT_WIDTH


def formula(config: ModelConfig, tables: TableSizes, candidates: int) -> RequestCost:
    """Return the FLOPs of one request by arithmetic, from the sizes only.

    Multiply-adds, with T = L + 1 states, K candidates, N layers, M queries, P the joined
    fields' width (G of it the item's), V = 2 D + G + C, h the head's width, r = h / 2::

        encoder   = L P D + (N - 1) (12 T D^2 + 2 T^2 D) + 2 T D^2
        querying  = R D + 14 M D^2 + 2 M^2 D + 2 M T D
        candidate = P D + N (10 D^2 + 2 T D) + V h + crosses 4 h r + 2 h h + h r + 4 h + 2 r
        matching  = P D + N (10 D^2 + 2 T D) once, (I + 1) D per candidate
        products  = T D + (D + C + U + k^2) W once, (D + i^2 + i k) W per
                    candidate, and h for each product; none without user fields

    I is the width of the part of P that identifies the item; U is that of the user's
    fields, W that of a product's, i of an item and k of a request.
    """
    d, n, m, h = config.width, config.num_layers, config.num_queries, config.head_width
    length, states, rank = tables.length, tables.length + 1, config.head_width // 2
    joined = d + tables.attribute_width + len(FIELD_SIZES) * FIELD_WIDTH
    encoded = 1 + NUM_SPANS
    request = columns.REQUEST.width * encoded + CONTEXT_WIDTH
    request += len(tables.user_fields) * USER_FIELD_WIDTH
    layer = 12 * states * d**2 + 2 * states**2 * d
    # Of the last layer only keys and values are read.
    encoder = length * joined * d + (n - 1) * layer + 2 * states * d**2
    querying = request * d + 14 * m * d**2
    querying += 2 * m**2 * d + 2 * m * states * d + (m * d + request) * h
    seen = 2 * d + 1 + tables.attribute_width + columns.CANDIDATE.width * encoded
    crossing = n * (10 * d**2 + 2 * states * d)
    querying += joined * d + crossing  # a [MASK] among the candidates
    candidate = joined * d + crossing + (d + tables.attribute_width + 1) * d + seen * h
    for_all, for_each = _of_products(config, tables)
    querying, candidate = querying + for_all, candidate + for_each
    candidate += NUM_CROSS_LAYERS * 4 * h * rank + 2 * h * h + h * rank
    candidate += 2 * (2 * h + rank)  # of the click, and of the order
    return RequestCost(
        encoder=2 * encoder,
        head=2 * (querying + candidates * candidate),
        unfolded=2 * candidates * (encoder + querying + candidate),
    )


def _of_products(config: ModelConfig, tables: TableSizes) -> tuple[int, int]:
    """Return the multiply-adds of the fields' products once, and for each candidate."""
    if not tables.user_fields:
        return 0, 0
    of_item, of_request = 1 + len(tables.item_fields), 2 + len(tables.user_fields)
    fields = of_item + of_request
    projected = config.width + CONTEXT_WIDTH + len(tables.user_fields) * USER_FIELD_WIDTH
    once = (tables.length + 1) * config.width
    once += (projected + of_request**2) * PRODUCT_WIDTH
    each = (config.width + of_item * fields) * PRODUCT_WIDTH
    return once, each + fields * (fields - 1) // 2 * config.head_width
