"""The settings of the model and of its refresh; filled by ``settings.py``."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from srp4ctr.errors import MistakeError

__pydantic_config__ = {"extra": "forbid"}
_SCHEMES = ("s3", "gs", "az")
MIN_REQUESTS = 20  # fewer leave nothing to hold out


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes of SRP4CTR's blocks (BERT4Rec's ML-20M sizes are the defaults)."""

    width: int = 64
    """D."""
    num_layers: int = 2
    """E: encoder layers, and as many uni cross-attention layers."""
    num_queries: int = 8
    """M: learnable queries of the querying transformer."""
    head_width: int = 128
    dropout: float = 0.1
    encoded_length: int = 200
    """How many behaviours are encoded one by one: the newest. Of a longer history
    (``streams.sequence_length``) the older ones are pooled: a request with 1,000 takes 1.5
    times the CPU of one with 200 (``serving.json``)."""

    def __post_init__(self) -> None:
        for name in ("encoded_length", "num_layers", "num_queries"):
            if (given := getattr(self, name)) < 1:
                raise MistakeError(f"training.model.{name} is {given}; at least 1")
        if self.width % self.num_heads:
            raise MistakeError(
                f"training.model.width is {self.width}; it must be a multiple of its "
                f"{self.num_heads} attention heads"
            )

    @property
    def num_heads(self) -> int:
        """Attention heads: one for 32 of the width, and at least two."""
        return max(2, self.width // 32)


FAMILIAR_ID_DROPOUT = 0.3


class _Range(NamedTuple):
    holds: Callable[[Any], bool]
    words: str


_NOT_NEGATIVE = _Range(lambda x: x >= 0, "at least 0")
_AT_LEAST_1 = _Range(lambda x: x >= 1, "at least 1")
_POSITIVE = _Range(lambda x: x > 0, "above 0")
_SHARE = _Range(lambda x: 0 <= x <= 1, "from 0 to 1")
_AT_LEAST_1_IF_ANY = _Range(lambda x: x is None or x >= 1, "at least 1")
_RANGES = {  # of fields of ``RefreshConfig``
    "held_out_share": _Range(lambda x: 0 < x < 1, "between 0 and 1"),
    "max_gpu_memory_share": _Range(lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "train_window_days": _Range(lambda x: x is None or x > 0, "above 0"),
    "sampled_items": _AT_LEAST_1_IF_ANY,
    "id_dropout": _Range(lambda x: x is None or 0 <= x < 1, "from 0 to below 1"),
    "last_masked_share": _SHARE,
    "prefix_share": _SHARE,
    "slate_loss_weight": _NOT_NEGATIVE,
    "replay": _NOT_NEGATIVE,
    "champion_tolerance": _NOT_NEGATIVE,
    "niceness": _NOT_NEGATIVE,
    "pretrain_epochs": _NOT_NEGATIVE,
    "finetune_epochs": _NOT_NEGATIVE,
    "min_item_count": _NOT_NEGATIVE,
    "threads": _NOT_NEGATIVE,
    "pretrain_learning_rate": _POSITIVE,
    "finetune_learning_rate": _POSITIVE,
    "batch_requests": _AT_LEAST_1_IF_ANY,
    "batch_users": _AT_LEAST_1,
    "accumulate": _AT_LEAST_1,
    "enough_labels": _AT_LEAST_1,
    "held_out_clicks": _AT_LEAST_1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshConfig:
    """The recipe of one refresh: pre-training, fine-tuning, calibration, gates."""

    model: ModelConfig = field(default_factory=ModelConfig)
    bundles_dir: str = ".data/bundles"
    bundles_uri: str = ""
    """Where bundles are published for processes that share no disk with training:
    ``s3://bucket/bundles``, whose endpoint, region and credentials are in the environment
    (AWS_ENDPOINT_URL, …). A refresh then leaves promotion to ``srp4ctr model promote
    --every``, where Triton is; ``bundles_dir`` holds each process's copies. Empty: all
    share ``bundles_dir``."""
    pretraining: Literal["none", "bert", "items", "behaviors", "both"] = "both"
    """What pre-training hides: ``bert`` item ids, and it sees no side information;
    ``items`` ids with attributes, and attributes of items whose ids are shown;
    ``behaviors`` action and value; ``both`` all three, FG-BERT whole, after which the click
    head learns what users did with the items that they met (``objectives/feedback.py``).
    ``none`` leaves the stage out."""
    sampled_items: int | None = None
    """With how many other items the loss compares a hidden one. None: with all of at most
    50,000 items, and with 8,192 of more."""
    pretrain_epochs: int = 16
    finetune_epochs: int = 3
    """At most: where the log loss of the calibrating requests was less after fewer epochs,
    the model is fine-tuned again for as many."""
    batch_users: int = 64
    """Pre-training: sequences per batch."""
    batch_requests: int | None = None
    """Fine-tuning: requests (slates) per batch; a slate shares one encoding. None: as many
    as make some 700 steps of an epoch, a power of 2 from 8 to 64. A short log has too few
    steps otherwise: 5,200 hotel searches of 25 hotels each, with prices and their order,
    are ranked with a gAUC of .795 after batches of 64, and of .845 after batches of 16. On
    MovieLens-100K 64 gives a judged AUC of .7612, 128 gives .7575."""
    pretrain_learning_rate: float = 4e-3
    """Adam's peak learning rate: it warms up, then falls linearly to 0. MovieLens-100K,
    held-out AUC: 4e-3 gives 0.7491, 2e-3 gives 0.7464, no pre-training 0.7414."""
    finetune_learning_rate: float = 2e-3
    encoder_learning_rate_scale: float = 0.3
    """The pre-trained encoder and its tables train at this share of the fine-tuning rate
    (after 8 epochs of pre-training 0.3 gives 0.7456, 1.0 gives 0.7430)."""
    slate_loss_weight: float = 0.1
    """Weight of the listwise loss, which trains the ranking scores; the loss per impression
    trains the probabilities. EB-NeRD with the slate's size known, six epochs of DCNv2, the
    train week's last days, AUC / gAUC / log loss: one score for both .8062 / .7718 / .2520,
    with a weight of 0.1 .8070 / .7845 / .2517, of 0.3 .8060 / .7841 / .2521."""
    id_dropout: float | None = None
    """All stages make this share of a batch's items unknown, so that new items can be
    scored. None: 0.3, and 0.95 where half of the items that are clicked next had fewer than
    five clicks in training, or are short-lived. News expire before their ids are trained
    (EB-NeRD, newest tenth of the train week, AUC / gAUC: .8068 / .7734 at 0.3, .8106 /
    .7798 at 0.99); of many hotels with few visits the ids of each example are learned by
    heart (gAUC / CTR at 1: .802 / .424 at 0.3, .851 / .500 at 0.95)."""
    fake_negative_weighted: bool = False
    """Train on each impression as a non-click at once, and on its click later: for training
    before the label windows have closed. A refresh waits for them."""
    freeze: Literal["none", "item_table", "encoder"] = "none"
    last_masked_share: float = 0.3
    """In this share of windows the newest item's elements are also hidden: serving predicts
    the next behaviour."""
    prefix_share: float = 0.0
    """This share of windows is cut to a random prefix in each epoch. Worse on
    MovieLens-100K's long histories (judged AUC .7486 at 0.5, .7581 without). Amazon
    Beauty's recipe has 0.7; its effect there was not measured separately."""
    negatives: Literal["impressions", "sampled"] = "impressions"
    """What a click model takes as not clicked: impressions, or, while a log has fewer than
    ``enough_labels``, items ``sampled`` from what was popular before each click. Scores
    then order items by the probability of being the next click, and are not calibrated."""
    enough_labels: int = 10_000
    """From this number of impressions with matured labels on, none is sampled."""
    held_out_share: float = 0.1
    """The newest share of requests: never trained on; half calibrates, half judges."""
    held_out_clicks: int = 10_000
    """Of a long log only the newest requests with this number of clicks: a share would be
    days that no model has learned, and clicks are what calibration and gates need."""
    min_item_count: int = 2
    """Rarer items stay out of the vocabulary: their rows would hardly be trained."""
    train_window_days: float | None = None
    """Fine-tuning leaves out older requests (None: none); pre-training reads all."""
    replay: float = 3.0
    """Old requests or windows that a refresh from an earlier bundle trains on again for
    each new one."""
    accumulate: int = 1
    """Parts of a batch, trained one after another: the same result in less memory."""
    bucket_by_length: bool = False
    """Rows of similar lengths share a batch, which is cut to the longest of them."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """``bf16-mixed`` multiplies matrices in bfloat16, where the hardware has it."""
    compile: bool = False
    """Compile each stage with torch.compile first."""
    mlflow_uri: str = ""
    """An MLflow server's address (the extra ``mlflow``), which then has each refresh's
    settings, curves, metrics, report and bundle, too. It cannot fail a refresh. The
    experiment is ``MLFLOW_EXPERIMENT_NAME`` of the environment, else ``srp4ctr``."""
    threads: int = 1
    """Number of CPU threads of torch in each process that trains; 0: torch's choice, all
    cores. The threads wait for each other by spinning. With a model of the default width
    two threads save 3 to 13 % of the time on an idle machine, and take 10 to 40 times as
    long next to a busy process. With a width of 256 two threads save 40 %, or take 2.5
    times as long. Sums differ in their last bits with another number."""
    seed: int = 0
    device: str = "auto"
    """``auto`` takes a GPU where there is one."""
    min_auc: float = 0.5
    """Gate: a worse bundle is not promoted."""
    min_gauc: float = 0.5
    """Gate: the AUC within a request, less the margin of error; 0.5 is a random order. Of
    the same model it is often far below the AUC: .58 and .75 in a feed (KuaiRand-Pure)."""
    max_calibration_error: float = 0.25
    """Gate: |sum of predictions / clicks - 1| on the evaluation half, less its margin of
    error."""
    champion_tolerance: float = 0.002
    """Gate: how much worse than the serving bundle's log loss, AUC and gAUC may be, beyond
    the margin of error; also of all refreshes together since the best bundle."""
    max_gpu_memory_share: float = 1.0
    """The refresh's maximal share of a GPU that it shares with serving."""
    niceness: int = 0
    """Added to the refresh process's: 10 leaves the cores to serving."""

    @property
    def dropped_ids(self) -> float:
        """``id_dropout``; where no training set has chosen it, that of familiar items."""
        return FAMILIAR_ID_DROPOUT if self.id_dropout is None else self.id_dropout

    @property
    def warm_pretrain_epochs(self) -> int:
        """Epochs of a refresh from an earlier bundle, which fine-tunes for one."""
        return math.ceil(self.pretrain_epochs / 8)

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            if not allowed.holds(value := getattr(self, name)):
                raise MistakeError(
                    f"training.{name} is {value}; it must be {allowed.words}"
                )
        scheme, _, place = self.bundles_uri.partition("://")
        if self.bundles_uri and (scheme not in _SCHEMES or set("@?") & set(place)):
            raise MistakeError(
                "training.bundles_uri is s3://BUCKET/PREFIX (or gs://, az://), without "
                "credentials: those are in the environment"
            )
        if self.negatives not in (choices := ("impressions", "sampled")):
            raise MistakeError(
                f"training.negatives is {self.negatives!r}; one of {choices}"
            )
