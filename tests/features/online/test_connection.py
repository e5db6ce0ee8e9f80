"""A Redis that requires TLS and a password, and a registry with a password in a file."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srp4ctr import processes
from srp4ctr.embedded import ports
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.connection import (
    connection_string,
    connector,
    redacted,
    registry_settings,
)
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.state_store import ItemProfile
from tests.certificates import make_certificates

URL = "postgresql+psycopg://ann@h:5432/registry?sslmode=verify-full"
USER, PASSWORD = "ann", 's3cret, "1e5"=ü'
MISSING = [tool for tool in ("redis-server", "openssl") if shutil.which(tool) is None]
needs_redis = pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureConfig]:
    """Yield the settings of a Redis with one user and only a TLS port."""
    folder = tmp_path_factory.mktemp("secured")
    certificates = make_certificates(folder)
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    users = folder / "users.acl"
    users.write_text(f"user default off\nuser {USER} on #{digest} ~* +@all\n")
    command = ["redis-server", "--bind", ports.HOST, "--port", "0", "--save", ""]
    command += [
        "--tls-auth-clients",
        "no",
        "--tls-ca-cert-file",
        str(certificates.authority),
    ]
    command += ["--tls-cert-file", str(certificates.certificate)]
    command += ["--tls-key-file", str(certificates.key), "--aclfile", str(users)]
    with ports.reserved_ports(1) as (port,):
        command += ["--tls-port", str(port), "--dir", str(folder)]
        program = processes.Program(name="secured-redis", command=tuple(command))
        running = processes.start(program, folder, tied=True)
        processes.wait_ready(running, lambda: ports.is_open(port))
    (folder / "password").write_text(f"{PASSWORD}\n")
    yield FeatureConfig(
        redis=f"{ports.HOST}:{port}",
        redis_tls=True,
        redis_ca_file=str(certificates.authority),
        redis_username=USER,
        redis_password_file=str(folder / "password"),
        registry=str(folder / "registry.db"),
        log_dir=str(folder / "events"),
    )
    processes.stop(running, folder)


@needs_redis
@pytest.mark.redis
def test_rows_are_written_and_read(secured: FeatureConfig) -> None:
    from srp4ctr.features.online import feast_store, store

    feast_store.apply(secured)
    profile = ItemProfile(
        item_key=item_key("i1"), item_id="i1", attributes={"a": "b"}, updated_at_ms=1
    )
    store.FeatureStoreSink(secured).write_profiles([profile])
    views = store.OnlineViews(secured)
    assert views.read_profiles([profile.item_key]) == {profile.item_key: profile}


@needs_redis
@pytest.mark.redis
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"redis_password": "wrong"}, "invalid username-password pair"),
        ({"redis_username": "", "redis_password_file": ""}, "Authentication required"),
        ({"redis_ca_file": ""}, "certificate verify failed"),
    ],
)
def test_a_refused_client_gets_the_reason_and_no_password(
    secured: FeatureConfig, change: dict[str, str], message: str
) -> None:
    from srp4ctr.features.online import feast_store, store

    feast_store.apply(secured)
    wrong = replace(secured, **change)  # type: ignore[arg-type]
    with pytest.raises((OutageError, MistakeError), match=message) as error:
        store.OnlineViews(wrong).read_profiles([1])
    assert "wrong" not in str(error.value)
    assert "s3cret" not in str(error.value)


@settings(deadline=None)  # the first call imports Feast
@given(st.text(min_size=1), st.text(min_size=1))
def test_feast_reads_any_name_and_password_as_they_are(name: str, password: str) -> None:
    from feast.infra.online_stores.redis import RedisOnlineStore

    config = FeatureConfig(
        redis="h:1,db=2", redis_tls=True, redis_username=name, redis_password=password
    )
    text = connection_string(config, 0.25)
    nodes, arguments = RedisOnlineStore._parse_connection_string(text)
    assert nodes == [{"host": "h", "port": "1"}]
    assert arguments == {
        "db": 2,
        "ssl": True,
        "username": name,
        "password": password,
        "socket_timeout": 0.25,
        "socket_connect_timeout": 0.25,
        "retry": None,
    }


def test_what_the_address_says_itself_stays() -> None:
    text = connection_string(FeatureConfig(redis="h:1,socket_timeout=9"), 0.25)
    assert text == "h:1,socket_timeout=9,socket_connect_timeout=0.25,retry=null"


def test_an_ipv6_address_is_in_brackets() -> None:
    client = connector(FeatureConfig(redis="[::1]:6379"), 0.25)()
    connection_kwargs = client.get_connection_kwargs()
    assert (connection_kwargs["host"], connection_kwargs["port"]) == ("::1", 6379)


def test_several_nodes_are_a_cluster_s_and_a_cluster_has_one_database() -> None:
    with pytest.raises(ValueError, match=r"set features\.redis_cluster = true"):
        FeatureConfig(redis="h:1,h:2")
    with pytest.raises(ValueError, match="leave db= out"):
        FeatureConfig(redis="h:1,db=2", redis_cluster=True)
    cluster = FeatureConfig(redis="h:1,h:2,ssl=true", redis_cluster=True)
    text = connection_string(cluster, 0.25)
    assert text.startswith("h:1,h:2,ssl=true,socket_timeout=0.25,")
    assert "retry=" not in text  # a cluster's client refuses it


def test_a_password_is_in_no_repr_and_in_no_address() -> None:
    assert "s3cret" not in repr(FeatureConfig(redis_password="s3cret"))
    with pytest.raises(ValueError, match=r"features\.redis_password_file") as error:
        FeatureConfig(redis="h:1,password=s3cret")
    assert "s3cret" not in str(error.value)


def test_a_name_without_a_password_and_a_certificate_without_tls_are_errors() -> None:
    with pytest.raises(ValueError, match=r"needs features\.redis_password_file"):
        connection_string(FeatureConfig(redis_username="ann"), 1.0)
    with pytest.raises(ValueError, match="nothing would be encrypted"):
        FeatureConfig(redis_ca_file="ca.pem")


def test_a_bundle_carries_the_password_s_file_and_never_the_password() -> None:
    config = FeatureConfig(redis_password="s3cret", redis_password_file="secrets/redis")
    carried = config.portable()
    assert carried.redis_password == ""
    assert carried.redis_password_file == str(Path("secrets/redis").absolute())


def test_a_server_s_environment_says_where_the_store_is_now() -> None:
    moved = FeatureConfig(redis="old:1", registry="postgresql://r").relocated(
        {
            "SRP4CTR_FEATURES__REDIS": "new:2",
            "SRP4CTR_FEATURES__REDIS_TLS": "true",
            "SRP4CTR_FEATURES__REDIS_CLUSTER": "true",
            "SRP4CTR_FEATURES__REDIS_PASSWORD": "s3cret",
            "SRP4CTR_FEATURES__PARTITIONS": "9",
        }
    )
    wanted = FeatureConfig(
        redis="new:2",
        redis_cluster=True,
        redis_tls=True,
        redis_password="s3cret",
        registry="postgresql://r",
    )
    assert moved == wanted


def test_the_registry_s_password_is_quoted_in_its_url(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a/b@c d\n")
    config = FeatureConfig(registry=URL, registry_password_file=str(tmp_path / "password"))
    found = registry_settings(config)
    assert found["registry_type"] == "sql"
    assert found["path"] == URL.replace("ann@", "ann:a%2Fb%40c%20d@")
    assert "a%2Fb" not in redacted(found["path"])


def test_a_registry_file_needs_no_password(tmp_path: Path) -> None:
    found = registry_settings(FeatureConfig(registry="registry.db"))
    assert (found["registry_type"], Path(found["path"]).name) == ("file", "registry.db")
    assert Path(found["path"]).is_absolute()


def test_a_registry_url_without_a_password_file_is_unchanged() -> None:
    assert registry_settings(FeatureConfig(registry=URL))["path"] == URL


def test_a_registry_password_without_a_user_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret")
    file = str(tmp_path / "password")
    with pytest.raises(ValueError, match="no URL with a user"):
        FeatureConfig(registry="registry.db", registry_password_file=file)
    own = FeatureConfig(registry="postgresql://ann:x@h/r", registry_password_file=file)
    with pytest.raises(ValueError, match="a password of its own") as error:
        registry_settings(own)
    assert "s3cret" not in str(error.value)


def test_a_server_has_its_own_registry_password_file() -> None:
    config = FeatureConfig(registry=URL, registry_password_file="secrets/postgres")
    carried = config.portable()
    assert carried.registry_password_file == str(Path("secrets/postgres").absolute())
    moved = carried.relocated(
        {"SRP4CTR_FEATURES__REGISTRY_PASSWORD_FILE": "/run/secrets/postgres"}
    )
    assert moved.registry_password_file == "/run/secrets/postgres"
