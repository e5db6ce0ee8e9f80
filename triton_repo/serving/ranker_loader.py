"""A step's folder and settings → its ranker, which has answered once."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from srp4ctr import logs, tracing
from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.drift_reference import read_reference
from srp4ctr.features.bundles.request_log import ServedLog
from srp4ctr.features.candidates import Shares
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.connection import native_address
from srp4ctr.features.online.request_features import RequestFeatures, open_bundle
from srp4ctr.features.online.store import OnlineViews
from srp4ctr.features.tensors.schema import user_tensors
from srp4ctr.metrics import NEXT_ITEMS
from srp4ctr.streams.events.experiments import Experiment
from srp4ctr.triton_repo.model_names import SERVING_FILE
from srp4ctr.triton_repo.serving.backlog import Backlog, WaitingCalls
from srp4ctr.triton_repo.serving.catalogue import Catalogue
from srp4ctr.triton_repo.serving.exploration import policy_of
from srp4ctr.triton_repo.serving.item_vectors import ItemVectors
from srp4ctr.triton_repo.serving.onnx_scorer import PROBABILITY, Scorer
from srp4ctr.triton_repo.serving.ranker import ITEM_IDS, Call, Ranker
from srp4ctr.triton_repo.serving.recommender import Recommender
from srp4ctr.triton_repo.serving.retriever import Retriever
from srp4ctr.triton_repo.serving.serving_metrics import (
    RequestStats,
    ServingMetrics,
    part_counter,
)

LOG = logging.getLogger(__name__)


def load_ranker(
    folder: Path,
    settings: Mapping[str, str],
    environment: Mapping[str, str],
    metrics: ServingMetrics,
) -> Ranker:
    """Return the ranker of the step in ``folder``, which has answered once.

    ``settings`` are the parameters of the step's configuration. The store may have moved
    since it was written: the server's ``environment`` has its address.
    """
    logs.configure("triton-step")
    tracing.start("triton")
    config = FeatureConfig(**json.loads(settings["features"])).relocated(environment)
    features, scorer = open_bundle(config, folder, _library(config, settings)), None
    card = bundle.read(folder)
    count_part = part_counter(metrics, settings["model_version"])
    if (folder / bundle.ENCODER_FILE).is_file():
        scorer = Scorer(folder, int(settings["kept_states_bytes"]), count_part)
    log = json.loads(settings["served_log"])
    ranker = Ranker(
        version=settings["model_version"],
        max_candidates=int(settings["max_candidates"]),
        features=features,
        scorer=scorer,
        count_part=count_part,
        of_users=frozenset(spec.name for spec in user_tensors(card.sizes)),
        numbers=features.vocabulary.candidate_numbers,
        calibrated=card.is_calibrated,
        policy=policy_of(**json.loads(settings["exploration"])),
        log=ServedLog(**log) if log["share"] else None,
        recommender=_recommender(folder, config, features, settings, metrics),
        parsed_cache_file=lambda: _parsed_cache_file(features),
        experiment=lambda: _experiment(folder.parent / SERVING_FILE),
    )
    # The first request connects to the store, and warms the model up.
    nobody = {name: np.array([[b""]], dtype=object) for name in ("user_id", ITEM_IDS)}
    ranker.answer(Call(given=nobody, wanted=frozenset({PROBABILITY})))
    stats = RequestStats(metrics=metrics, reference=read_reference(folder))
    return replace(ranker, stats=stats, backlog=_backlog(folder, settings, environment))


def _backlog(
    folder: Path, settings: Mapping[str, str], environment: Mapping[str, str]
) -> Backlog:
    waiting = WaitingCalls(folder.name, environment)
    limit_s = float(settings["max_wait_ms"]) / 1000.0
    return Backlog(waiting, int(settings["processes"]), limit_s)


def _library(config: FeatureConfig, settings: Mapping[str, str]) -> Path | None:
    """Return onnxruntime's library, for the native step; None where it reads no such store.

    The server's environment may name another store than that of the promotion.
    """
    if not settings.get("native"):
        return None
    try:
        native_address(config)
    except MistakeError as error:
        LOG.warning("the native step answers nothing: %s", error)
        return None
    folder = Path(onnxruntime.__file__).parent / "capi"
    return min(folder.glob("libonnxruntime.so*"))


def _parsed_cache_file(features: RequestFeatures) -> str:
    shared = features.items.shared
    return str(shared.path) if shared is not None else ""


def _experiment(file: Path) -> str:
    """Return the name of the canary's experiment; "" while no user is assigned to one."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:  # no promotion yet, or a disk that is full
        LOG.warning("no canary has users: %s", error)
        return ""
    if not (found.get("canary") and found.get("canary_share")):
        return ""
    return Experiment(found["canary"], found["serving"], found["canary_share"]).name


def _recommender(
    folder: Path,
    config: FeatureConfig,
    features: RequestFeatures,
    settings: Mapping[str, str],
    metrics: ServingMetrics,
) -> Recommender | None:
    """Return what recommends by the bundle in ``folder``, None where it cannot."""
    files = (bundle.ENCODER_FILE, *bundle.RETRIEVAL_FILES)
    if not all((folder / name).is_file() for name in files):
        return None
    shares = Shares(**json.loads(settings["recommend"]))
    catalogue = Catalogue(
        ItemVectors(folder, features.vocabulary.item_keys),
        features.vocabulary,
        features.items,
        OnlineViews(config).read_profiles,
    )
    catalogue.start()
    count_next = partial(metrics.add, NEXT_ITEMS, 1)
    retriever = Retriever(folder, features, catalogue, shares, count_next)
    return Recommender(retriever=retriever, max_count=shares.candidates)
