"""Feast is imported whole by an application, and without torch by our command line."""

import subprocess
import sys

HOST = """
import threading
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import feast_store

def of_its_own():
    import torch, fastapi

config = FeatureConfig(registry="{folder}/registry.db", log_dir="{folder}/events")
thread = threading.Thread(target=of_its_own)
opened = threading.Thread(target=feast_store.open_store, args=(config,))
for each in (thread, opened):
    each.start()
for each in (thread, opened):
    each.join()
import fastapi, feast, torch
from feast import feature_server, feature_store
from feast.torch_wrapper import get_torch
assert get_torch() is torch
assert feature_store.feature_server is feature_server
assert feature_server.FastAPI is fastapi.FastAPI
feature_server.get_app(feast_store.open_store(config))
"""

OURS = """
import os, sys, threading, time, warnings
import prometheus_client, typeguard
from srp4ctr.features.online import feast_import

before = dict(os.environ), list(warnings.filters), typeguard.typechecked, sys.meta_path
failures = []

def import_torch():
    while "feast" not in sys.modules:
        time.sleep(0)
    try:
        import torch
    except ImportError as error:
        failures.append(error)

feast_import.lightly()
thread = threading.Thread(target=import_torch)
if {with_torch}:
    thread.start()
import feast
assert {with_torch} or "torch" not in sys.modules
if {with_torch}:
    thread.join()
assert not failures, failures
after = dict(os.environ), list(warnings.filters), typeguard.typechecked, sys.meta_path
assert after == before
assert type(feast.__loader__).__module__ != feast_import.__name__
import torch
"""


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_application_that_uses_the_library_has_feast_whole(tmp_path: object) -> None:
    run(HOST.format(folder=tmp_path))


def test_our_process_imports_feast_without_torch_and_stays_as_it_was() -> None:
    run(OURS.format(with_torch=False))


def test_another_thread_may_import_torch_meanwhile() -> None:
    run(OURS.format(with_torch=True))
