"""Import only from folders your data has already passed through; vendors stay in shells."""

from fnmatch import fnmatch

import pytest
from importlinter.cli import lint_imports

from tests.structure.source_tree import ROOT, SourceFile, parse, product_files

# Which modules may touch which part of the world. A module that is not named here is
# pure: it can be read and tested without a broker, a store or a server.
FAUST_SERVICES = (
    "streams/worker/app.py",
    "streams/raw_log/log_writer.py",
    "streams/broker/output_topics.py",
    "streams/broker/worker_clients.py",
    "streams/worker/lost_rows.py",
    "streams/worker/replay.py",
    "streams/worker/sequence_worker.py",
)
VENDOR_HOMES = {
    "faust": FAUST_SERVICES,
    "mode": FAUST_SERVICES,
    "aiokafka": (*FAUST_SERVICES, "srp4ctr/*.py"),
    "kafka": (
        "streams/broker/clients.py",
        "streams/broker/commands.py",
        "streams/broker/producer.py",
        "streams/broker/dead_letters.py",
        "streams/broker/topics.py",
        "streams/intake/delivery.py",
        "monitoring/collector/partition_share.py",
        "monitoring/collector/topic_readers.py",
        "monitoring/collector/consumer_lag.py",
        "srp4ctr/*.py",
    ),
    "feast": ("features/online/feast_store.py", "features/repo/*.py"),
    "pyspark": ("features/offline/event_tables.py",),
    "redis": (
        "features/online/connection.py",
        "features/online/store.py",
        "features/online/store_files.py",
        "features/online/stored_offsets.py",
        "srp4ctr/*.py",
    ),
    "torch": ("training/*.py", "training/model/*.py", "srp4ctr/testing/*.py"),
    "tritonclient": (
        "triton_repo/deployment/one_server.py",
        "triton_repo/deployment/golden_ids.py",
        "triton_repo/deployment/live_repository.py",
        "triton_repo/deployment/model_config.py",
        "srp4ctr/*.py",
    ),
    "prometheus_client": (
        *FAUST_SERVICES,
        "streams/intake/app.py",
        "features/online/feast_import.py",  # keeps Feast from switching it to files
        "monitoring/collector/exporter.py",
        "monitoring/collector/collector.py",
        "monitoring/collector/probe.py",
        "monitoring/collector/service.py",
        "monitoring/collector/shared_monitor.py",
        "monitoring/cost/triton_counters.py",
        "monitoring/prometheus.py",
        "monitoring/web/current_values.py",
        "srp4ctr/*.py",
    ),
    "starlette": (
        "monitoring/web/app.py",
        "streams/intake/app.py",
        "streams/intake/server.py",
    ),
    "uvicorn": ("monitoring/web/app.py", "streams/intake/server.py"),
    "noida_db": ("srp4ctr/*.py",),
}
# Unpickling a file runs what its author wrote into it.
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}


def vendors_out_of_place(file: SourceFile) -> list[str]:
    """Return the vendors that ``file`` imports without being their home."""
    return [
        f"{file.path} imports {vendor}"
        for vendor in sorted(file.imported_packages() & VENDOR_HOMES.keys())
        if file.folder != "cli"  # joins the shells; it may import everything
        and not any(fnmatch(file.path, home) for home in VENDOR_HOMES[vendor])
    ]


def test_a_folder_imports_only_what_its_data_has_passed_through(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_vendors_are_imported_by_their_shells_alone() -> None:
    assert [each for file in product_files() for each in vendors_out_of_place(file)] == []


def test_a_vendor_in_a_pure_module_is_found() -> None:
    lazy = "def f() -> None:\n    from feast.repo_config import RepoConfig\n"
    assert vendors_out_of_place(parse("features/tensors/transforms.py", lazy)) == [
        "features/tensors/transforms.py imports feast"
    ]
    assert vendors_out_of_place(parse("features/online/feast_store.py", lazy)) == []


def test_nothing_imports_the_command_line_or_the_settings() -> None:
    importers = [
        file.path
        for file in product_files()
        if not file.path.startswith("srp4ctr/")
        and file.imported_packages() & {"cli", "settings"}
    ]
    assert importers == []


def test_nothing_reads_a_pickle() -> None:
    importers = [f.path for f in product_files() if f.imported_packages() & PICKLES]
    assert importers == []


def test_the_lock_file_names_no_index() -> None:
    for lock in (ROOT / "requirements.lock", *ROOT.glob("srp4ctr/embedded/*.lock")):
        lines = lock.read_text(encoding="utf-8").splitlines()
        named = [line for line in lines if "://" in line or "index-url " in line]
        assert [line for line in named if not line.startswith("#")] == [], lock.name
