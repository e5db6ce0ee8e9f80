"""Mistyped values are refused, and the message names the value."""

import json
import re
from typing import Any

import pytest
import yaml

from tests.deploy.helm import CHART, ROLES, VALUES, WITH_SERVERS, parsed, rendered, template

WRONG = {
    "stream.replica=3": "additional properties 'replica' not allowed",
    "stream.replicas=three": "at '/stream/replicas': got string, want integer",
    "stream.replicas=9": "9 workers, but \\[kafka\\] partitions is 4 in settings",
    "stream.scaling.kind=lag": "value must be one of 'none', 'keda', 'hpa'",
    "stream.scaling.kind=hpa,stream.scaling.minReplicas=5": "minReplicas is 5 and maxRep",
    "stream.resources.limits=null": "/stream/resources': missing property 'limits'",
    "triton.replicas=0": "at '/triton/replicas': minimum: got 0, want 1",
    "triton.backend=tensorrt": "value must be one of 'python', 'onnxruntime'",
    "triton.service.headless=true,triton.service.type=NodePort": "/triton/service/type",
    "trainer.schedule=hourly": "at '/trainer/schedule'",
    "settings=[kafka": "settings is not TOML",
    "settings=triton = 5": r"write \[triton\] as a table of its own",
    "redis.address=redis:6379": "redis.address is redis:6379: leave one of them out",
    "settings=triton.replicas = [{grpc = 'a:1'}]": "set the value triton.replicas",
    "kafka.bootstrap=kafka": "at '/kafka/bootstrap'",
    "postgres.registry=postgresql+psycopg://u:secret@h/x": "at '/postgres/registry'",
    "objects.endpoint=s3.example.com": "at '/objects/endpoint'",
    "objects.log=/data/events": "at '/objects/log'",
    "images.registry=https://registry.example.com": "at '/images/registry'",
    "volumes.data.size=10GB": "at '/volumes/data/size'",
    "secrets.elsewhere.a/b.name=x": "at '/secrets/elsewhere'",
    "ops.cronJobs[0].name=trainer,ops.cronJobs[0].schedule=@daily": "/ops/cronJobs/0",
    "networkPolicy.callers[0].cidr=10.0.0.0/8": "additional properties 'cidr' not allowed",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_value_is_refused(change: str) -> None:
    done = template(*WITH_SERVERS, "--set", change)
    assert done.returncode != 0
    assert re.search(WRONG[change], done.stderr), done.stderr


def test_without_servers_it_says_what_to_set() -> None:
    assert "kafka.bootstrap is not set" in template().stderr
    some = ("--values", VALUES["production"], "--set", "postgres.registry=")
    assert "postgres.registry is not set" in template(*some).stderr
    some = ("--values", VALUES["production"], "--set", "objects.endpoint=")
    assert "objects.endpoint is not set" in template(*some).stderr


def test_a_release_whose_services_could_not_be_named_so_is_refused() -> None:
    assert "set fullnameOverride" in template(*WITH_SERVERS, release="1st").stderr
    made = parsed(template(*WITH_SERVERS, "--set", "fullnameOverride=first", release="1st"))
    assert "first-triton" in made.all("Service")


def test_every_value_is_in_the_schema_and_in_the_readmes_words() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    readme = (CHART / "README.md").read_text()
    assert [name for name in values if f"`{name}" not in readme] == []


def test_no_object_in_the_schema_takes_what_it_does_not_know() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert list(_open(schema, "")) == []


def _open(node: Any, path: str) -> list[str]:
    """Return the objects with named properties that allow others, too."""
    found: list[str] = []
    if isinstance(node, dict):
        is_object = node.get("type") == "object" and "properties" in node
        if is_object and node.get("additionalProperties") is not False:
            found.append(path)
        for name, each in node.items():
            found += _open(each, f"{path}/{name}")
    elif isinstance(node, list):
        for number, each in enumerate(node):
            found += _open(each, f"{path}/{number}")
    return found


def test_init_is_a_hook_unless_its_servers_come_with_the_release() -> None:
    (hook,) = rendered("production").all("Job").values()
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    volumes = hook["spec"]["template"]["spec"]["volumes"]
    assert not any("persistentVolumeClaim" in volume for volume in volumes)
    settings = rendered("production").one("ConfigMap", "init")
    weight = settings["metadata"]["annotations"]["helm.sh/hook-weight"]
    assert int(weight) < 0  # before the Job that mounts it
    (job,) = rendered("try").all("Job").values()
    assert "annotations" not in job["metadata"]
    assert job["metadata"]["name"].endswith("-init-1")  # a Job cannot be changed


def test_what_has_no_other_copy_outlives_the_release() -> None:
    claims = rendered("production").all("PersistentVolumeClaim").values()
    assert len(claims) == 5
    for claim in claims:
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_claim_that_exists_is_taken() -> None:
    made = parsed(template(*WITH_SERVERS, "--set", "volumes.data.existingClaim=mine"))
    assert "ctr-srp4ctr-data" not in made.all("PersistentVolumeClaim")
    (data,) = [v for v in made.pod("promoter")["spec"]["volumes"] if v["name"] == "data"]
    assert data["persistentVolumeClaim"]["claimName"] == "mine"


def test_a_role_has_the_key_that_its_s3_server_knows() -> None:
    keys = ("--set", "objects.keyIds.trainer=AKIA1", "--set", "objects.caFile=")
    made = parsed(template(*WITH_SERVERS, *keys))
    for role, key in (("trainer", "AKIA1"), ("promoter", "promoter")):
        (container,) = made.pod(role)["spec"]["containers"]
        found = {each["name"]: each.get("value") for each in container["env"]}
        assert found["AWS_ACCESS_KEY_ID"] == key
        assert found["SSL_CERT_FILE"] == "/etc/ssl/certs/ca-certificates.crt"


def test_init_has_a_key_of_the_buckets_only_to_make_them() -> None:
    for values, makes in (("try", True), ("production", False)):
        pod = rendered(values).pod("init")
        (container,) = pod["spec"]["containers"]
        names = {each["name"] for each in container["env"]}
        assert ("--buckets" in container["args"]) is makes
        assert ("AWS_ACCESS_KEY_ID" in names) is makes
        assert ("objects_admin" in json.dumps(pod)) is makes


def test_workers_and_trainer_share_no_disk() -> None:
    made = rendered("production")
    claims = {
        role: {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in made.pod(role)["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        for role in ROLES
    }
    assert claims["stream"] == claims["intake"] == claims["init"] == set()
    own = claims.pop("trainer")
    assert len(own) == 1
    assert all(own.isdisjoint(claim) for claim in claims.values())


def test_a_secret_elsewhere_is_taken_under_its_own_key() -> None:
    volumes = rendered("production").pod("stream")["spec"]["volumes"]
    (secrets,) = [volume for volume in volumes if volume["name"] == "secrets"]
    found = {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in secrets["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert found["kafka_stream"] == ("srp4ctr", "kafka_stream")
    assert found["kafka-ca.pem"] == ("events-cluster-ca-cert", "ca.crt")
    assert found["redis_stream"] == ("srp4ctr", "redis_stream")


def test_a_changed_setting_restarts_workers_and_not_triton() -> None:
    one = parsed(template(*WITH_SERVERS))
    other = parsed(
        template(*WITH_SERVERS, "--set", "settings=streams.sequence_length = 100")
    )
    for role in ("stream", "promoter", "monitor"):
        assert one.pod(role) != other.pod(role)
    assert one.pod("triton") == other.pod("triton")


def test_operators_commands_have_a_pod_on_request() -> None:
    made = rendered("production")
    assert made.one("Deployment", "ops")["spec"]["replicas"] == 0
    job = made.one("CronJob", "erase-forgotten")
    spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["args"] == ["features", "erase-forgotten"]
    off = parsed(template(*WITH_SERVERS, "--set", "ops.enabled=false"))
    assert "ctr-srp4ctr-ops" not in off.all("Deployment")
