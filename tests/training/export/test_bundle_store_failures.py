"""A bucket that is away or refuses us, and addresses that are none."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from srp4ctr import processes
from srp4ctr.embedded.ports import reserved_ports
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.testing.object_store import ObjectStore
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.export.bundle_store import BundleStore, bundle_folder
from tests.training.bucket import Place, place_of

READ = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, .* are read from the environment"


@pytest.fixture
def place(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """Return an empty prefix; the environment has the server's keys."""
    return place_of(object_store, tmp_path, monkeypatch)


@pytest.fixture
def own_server(
    object_store: ObjectStore, tmp_path: Path
) -> Iterator[tuple[ObjectStore, processes.Running]]:
    """Yield a server of this test, which may stop it."""
    with reserved_ports(1) as (port,):
        server = ObjectStore(folder=tmp_path / "objects", port=port)
        running = server.start()
        yield server, running
        processes.stop(running, server.folder)


def test_a_store_that_is_away_is_an_outage_that_passes(
    own_server: tuple[ObjectStore, processes.Running],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, running = own_server
    place = place_of(server, tmp_path, monkeypatch)
    trainer, triton = place.store("trainer"), place.store("triton")
    trainer.publish(place.bundle("trainer", "v1"))
    folder = place.bundle("trainer", "v2")
    processes.stop(running, server.folder)
    for call in (
        lambda: trainer.publish(folder),
        lambda: triton.update(),
        lambda: bundle_folder(place.config("triton"), "v1"),
        lambda: trainer.send("v1/report.json"),
    ):
        with pytest.raises(OutageError, match=f"the bundles in {place.uri}: "):
            call()
    again = server.start()
    trainer.publish(folder)
    assert triton.update() == ["v1", "v2"]
    processes.stop(again, server.folder)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "other"}, r"these keys are refused \(SignatureDoes"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "these keys are refused"),
        ({"AWS_REGION": "eu-west-9"}, "the region is wrong"),
        ({"AWS_ALLOW_HTTP": "false"}, "no TLS there"),
    ],
)
def test_what_a_person_must_change_is_a_mistake_that_names_the_variables(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    sentence: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    folder = place.bundle("trainer", "v1")
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = place.store("trainer")
    for call in (
        lambda: store.publish(folder),
        lambda: store.update(),
        lambda: bundle_folder(place.config("triton"), "v1"),
    ):
        with pytest.raises(MistakeError, match=f"{sentence}.*{READ}") as raised:
            call()
        assert secret not in str(raised.value) + caplog.text


def test_a_missing_bucket_is_a_mistake(place: Place) -> None:
    config = RefreshConfig(bundles_dir=str(place.disks), bundles_uri="s3://nowhere/bundles")
    with pytest.raises(MistakeError, match="there is no such bucket"):
        BundleStore(config).update()


@pytest.mark.parametrize(
    "uri",
    ["bundles", "/srv/bundles", "http://x/y", "s3://key:secret@x/y", "az://x/y?sig=1"],
)
def test_an_address_that_is_none_or_holds_credentials_is_refused(uri: str) -> None:
    with pytest.raises(MistakeError, match=r"training\.bundles_uri is s3://") as raised:
        RefreshConfig(bundles_uri=uri)
    assert "secret" not in str(raised.value)
