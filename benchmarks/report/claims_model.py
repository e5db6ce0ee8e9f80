"""Claims about the model: what it ranks, what pre-training adds, what its vectors give."""

from collections.abc import Callable

from benchmarks.report.claims import Claim, Found, gain, of, signed

SIZED = "ebnerd+size"  # EB-NeRD, where all models know how long a slate is
# What the arms ran with; chosen on the newest tenth of EB-NeRD's training week.
_SETTINGS = (
    "--no-tune --set batch_requests=32 --set id_dropout=0.95 --set finetune_epochs=6 "
    "--set pretrain_epochs=8 --set slate_loss_weight=0.02"
)


def paired(found: Found, model: str, figure: str) -> str:
    """Return SRP4CTR's ``figure`` less that of ``model``, at equal seeds."""
    row = of(found, data=SIZED, model=model)
    error = row[f"{figure}_minus_srp4ctr_se"]
    return f"{signed(-row[f'{figure}_minus_srp4ctr'])} ± {error:.4f}"


def pretraining_gain(data: str, labels: str = "") -> Callable[[Found], str]:
    """Return how the gain of pre-training in HR@10 is read."""
    return lambda found: gain(
        of(found, data=data, model=f"srp4ctr{labels}"),
        *(of(found, data=data, model=f"srp4ctr-none{labels}"), "hr10"),
    )


def vectors_gain(data: str, given: str) -> Callable[[Found], str]:
    """Return how LightGBM's gain in AUC by what it is given is read."""
    lightgbm = {"data": data, "model": "LightGBM"}
    return lambda found: gain(
        of(found, **lightgbm, given=given), of(found, **lightgbm, given="nothing"), "auc"
    )


MODEL = (
    Claim(
        name="click_quality",
        run="click_quality with slate size",
        args=f"--data ebnerd --slate-size known {_SETTINGS}",
        sentence="On EB-NeRD, where all models know the slate's size, SRP4CTR orders "
        "the items of a request better than LightGBM (difference in gAUC, five seeds).",
        number=lambda found: paired(found, "lightgbm", "gauc"),
    ),
    Claim(
        name="click_quality",
        run="click_quality with slate size",
        args=f"--data ebnerd --slate-size known {_SETTINGS}",
        sentence="Over all impressions of EB-NeRD LightGBM is slightly better than "
        "SRP4CTR (difference in AUC, five seeds).",
        number=lambda found: gain(
            of(found, data=SIZED, model="srp4ctr"),
            *(of(found, data=SIZED, model="lightgbm"), "auc"),
        ),
    ),
    Claim(
        name="click_quality",
        run="click_quality without slate size",
        args=f"--data ebnerd --slate-size unknown {_SETTINGS}",
        sentence="The same holds for gAUC on EB-NeRD where no model knows the slate's "
        "size (SRP4CTR's gAUC less LightGBM's, three seeds).",
        number=lambda found: gain(
            of(found, data="ebnerd", model="srp4ctr"),
            *(of(found, data="ebnerd", model="lightgbm"), "gauc"),
        ),
    ),
    Claim(
        name="click_quality",
        run="click_quality with slate size",
        args=f"--data ebnerd --slate-size known {_SETTINGS}",
        sentence="SRP4CTR's probabilities on EB-NeRD are calibrated (predicted over "
        "actual clicks, where 1 is perfect).",
        number=lambda found: f"{of(found, data=SIZED, model='srp4ctr')['calibration']:.3f}",
    ),
    Claim(
        name="click_quality",
        run="click_quality with slate size",
        args=f"--data ebnerd --slate-size known {_SETTINGS}",
        sentence="Pre-training adds almost nothing on EB-NeRD, whose articles come "
        "without attributes (difference in gAUC, five seeds).",
        number=lambda found: paired(found, "srp4ctr-none", "gauc"),
    ),
    Claim(
        name="peer_din",
        of="click_quality",
        run="peer_din",
        args="--data ebnerd --epochs 6 --batch-requests 32 --with-size",
        sentence="SRP4CTR orders the items of a request better than torch-rechub's DIN, "
        "trained by that library on the same examples (difference in gAUC, EB-NeRD).",
        number=lambda found: gain(
            of(found, data=SIZED, model="srp4ctr"),
            *(of(found, data=SIZED, model="din (torch-rechub 0.9)"), "gauc"),
        ),
    ),
    Claim(
        name="pretraining",
        run="pretraining Beauty",
        args="--name Beauty",
        sentence="Pre-training pays where items have attributes: on Amazon Beauty it "
        "raises HR@10 (five seeds).",
        number=pretraining_gain("Beauty"),
    ),
    Claim(
        name="pretraining",
        run="pretraining Beauty, few labels",
        args="--name Beauty --labels 10,100 --seeds 3",
        sentence="With a tenth of Beauty's click labels pre-training is worth several "
        "times as much (gain in HR@10, three seeds).",
        number=pretraining_gain("Beauty", "@10%"),
    ),
    Claim(
        name="pretraining",
        run="pretraining ml-100k",
        args="--name ml-100k --seeds 3",
        sentence="On MovieLens-100K pre-training raises HR@10 of each user's last "
        "rating (three seeds).",
        number=pretraining_gain("ml-100k"),
    ),
    Claim(
        name="own_model",
        run="own_model MovieLens",
        args="--data movielens --seeds 2",
        sentence="SRP4CTR's vectors and score improve another click model on MovieLens "
        "(LightGBM's gain in AUC, two seeds).",
        number=vectors_gain("movielens", "both and the score"),
    ),
    Claim(
        name="own_model",
        run="own_model EB-NeRD",
        args="--data ebnerd",
        sentence="On EB-NeRD, where histories say little, SRP4CTR's score adds almost "
        "nothing to LightGBM (gain in AUC, three seeds).",
        number=vectors_gain("ebnerd", "the score"),
    ),
    Claim(
        name="delayed_feedback",
        args="--seeds 1",
        sentence="Labels that are corrected by late clicks keep the model calibrated "
        "(predicted over actual clicks; EB-NeRD, one seed, no later calibration).",
        number=lambda found: (
            f"{of(found, model='SRP4CTR, labels corrected')['calibration']:.3f}"
        ),
    ),
    Claim(
        name="folded_training",
        args="--data ebnerd",
        sentence="Training encodes a history once for all impressions of a request, "
        "which is faster than one row per impression (EB-NeRD, ten per request).",
        number=lambda found: f"{of(found, data='ebnerd')['speed_up']:.1f}×",
    ),
)
