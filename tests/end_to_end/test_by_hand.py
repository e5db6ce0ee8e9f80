"""docs/start.md: what the demo does, typed by hand, one command after another."""

import json
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from srp4ctr.embedded import ports
from srp4ctr.streams.events.codec import encode
from srp4ctr.testing.object_store import BUCKET, ObjectStore
from tests.builders import a_behavior
from tests.cli.json_answers import answer, problem
from tests.docs.pages import blocks, commands
from tests.end_to_end import shop
from tests.end_to_end.shell import HTTP_PORT, Shell, install_command

BUNDLES = f"s3://{BUCKET}/tour/bundles"
pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Type the tour up to a promoted model; end everything afterwards."""
    with ports.reserved_ports(1, [(HTTP_PORT,)]) as (http_port,):
        shell = Shell(tmp_path_factory.mktemp("tour"), http_port)
        install_command(shell.folder / "bin")
        try:
            shell.type("stack", "up")
            assert "user_behavior_sequence" in shell.type("features", "apply")
            shell.leave_running("stream", "run")
            shell.leave_running("monitor", "run")
            shop.write(shell.folder / "mine.jsonl", broken=())
            shell.type("events", "publish", str(shell.folder / "mine.jsonl"), "--backfill")
            refresh_when_labels_are_there(shell)
            yield shell
        finally:
            for process in shell.background:
                process.terminate()
            for process in shell.background:
                process.wait(timeout=30)
            shell.type("stack", "down")


def refresh_when_labels_are_there(shell: Shell) -> None:
    """Wait until the labels of all impressions are in the log, then train."""
    from srp4ctr.features.offline.event_tables import opened

    log_dir = shell.folder / ".data" / "events"
    shown = shop.NUM_USERS * shop.SLATES * shop.SLATE_SIZE
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with opened(log_dir) as log:
            if len(log.rows(log.labels)) == shown:
                break
        time.sleep(1)
    said = " ".join(shell.type("model", "refresh").split())
    assert "v1: promoted" in said
    assert "not in the raw log" not in said  # the log has all that was published


def grpc_address(shell: Shell) -> str:
    """Return where Triton listens, as other programs would find it."""
    text = (shell.folder / ".data" / "stack.toml").read_text()
    match = re.search(r'grpc = "([^"]+)"', text)
    assert match
    return match[1]


def rank_plainly(
    shell: Shell, user: bytes, items: list[bytes], dtype: str = "BYTES"
) -> dict[str, Any]:
    """Call ``rank_clicks`` with plain tritonclient, nothing of ours."""
    given = np.array([items], dtype=object)
    if dtype != "BYTES":
        given = np.zeros((1, len(items)), dtype=np.int64)
    inputs = [InferInput("user_id", [1, 1], "BYTES")]
    inputs[0].set_data_from_numpy(np.array([[user]], dtype=object))
    inputs.append(InferInput("item_ids", list(given.shape), dtype))
    inputs[1].set_data_from_numpy(given)
    with InferenceServerClient(grpc_address(shell)) as client:
        answer = client.infer("rank_clicks", inputs)
        names = ("click_probability", "status", "item_status", "model_version")
        return {name: answer.as_numpy(name)[0] for name in names}


def wait_for_a_row(shell: Shell, user: bytes) -> None:
    """Return when the store has something of ``user``."""
    deadline = time.monotonic() + 60
    while rank_plainly(shell, user, [b"item-1"])["status"] == [b"cold_user"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_promoted_model_is_listed_as_serving(shell: Shell) -> None:
    assert re.search(r"v1\b[^\n]*\n│ serving", shell.type("model", "list"))


def test_a_running_stack_and_a_good_file_are_said_to_be_so(shell: Shell) -> None:
    said = shell.type("stack", "status")
    assert "triton" in said
    assert re.search(r"^monitor: http://127\.0\.0\.1:\d+/metrics$", said, re.MULTILINE)
    assert "impression" in shell.type("events", "check", str(shell.folder / "mine.jsonl"))


def test_the_doctor_finds_the_embedded_stack_closed_to_other_machines(shell: Shell) -> None:
    said = shell.type("doctor")
    assert "triton" in said
    assert "open " not in said


def test_a_ranking_is_readable(shell: Shell) -> None:
    shown = shell.type("model", "rank", "user-1", "item-1", "item-2", "never-seen")
    assert "status ok" in shown
    assert "Thing 1" in shown
    assert "unknown to the model" in shown


def test_numbers_of_the_items_are_sent_from_the_terminal(shell: Shell) -> None:
    typed = ("model", "rank", "user-1", "item-1", "item-2", "--number")
    assert "status ok" in shell.type(*typed, "price=80,")
    assert "numbers 'price' has 1 of 2 items" in shell.type(*typed, "price=80", expect=2)
    assert "write NAME=80,95" in shell.type(*typed, "80,95", expect=2)


def test_recommendations_are_readable_and_have_their_sources(shell: Shell) -> None:
    shown = shell.type("model", "recommend", "user-1", "-n", "5")
    assert "status ok" in shown
    assert len(re.findall(r"Thing \d+", shown)) == 5
    assert re.search(r"\b(model|popular)\b", shown)
    assert "cold_user" in shell.type("model", "recommend", "nobody")


def test_what_the_store_holds_of_a_user_is_readable(shell: Shell) -> None:
    shown = shell.type("features", "show", "user-1")
    assert "view" in shown
    assert "Thing" in shown
    assert "impressions" in shown
    assert re.search(r"[bc]-\S+,[\s│]+\d@\d+", shown)  # which event of the log it came from
    assert "not in the log" not in shown


def test_the_store_is_what_the_log_says(shell: Shell) -> None:
    shown = shell.type("features", "check")
    assert re.search(r"wrong sequences\s*│\s*0 ", shown)
    assert re.search(r"rows compared\s*│\s*[1-9]", shown)


def test_a_user_that_the_store_does_not_know_is_a_clear_error(shell: Shell) -> None:
    assert "no rows of user 'nobody'" in shell.type("features", "show", "nobody", expect=2)


def test_plain_tritonclient_gets_finite_scores_for_unknown_users(shell: Shell) -> None:
    answer = rank_plainly(shell, b"nobody", [b"item-1", b"never-seen"])
    assert np.isfinite(answer["click_probability"]).all()
    assert answer["status"] == [b"cold_user"]
    assert answer["model_version"] == [b"v1"]


def test_the_page_s_curl_is_answered_where_http_is_on(shell: Shell) -> None:
    (typed,) = [each for _, each in commands() if f":{HTTP_PORT}" in each]
    moved = typed
    if shell.http_port != HTTP_PORT:  # another program has it
        moved = typed.replace("127.0.0.1:8000", f"127.0.0.1:{shell.http_port}")
    answered = json.loads(shell.paste(moved))
    outputs = {output["name"]: output["data"] for output in answered["outputs"]}
    assert outputs["model_version"] == ["v1"]
    assert len(outputs["click_probability"]) == 2


def test_empty_ids_pad(shell: Shell) -> None:
    scores = rank_plainly(shell, b"user-1", [b"item-1", b""])["click_probability"]
    assert np.isnan(scores).tolist() == [False, True]


def test_bad_requests_are_refused_clearly_and_the_server_stays_up(shell: Shell) -> None:
    with pytest.raises(InferenceServerException, match="item_ids"):
        rank_plainly(shell, b"user-1", [b"item-1"], dtype="INT64")
    with pytest.raises(InferenceServerException, match="1000"):
        rank_plainly(shell, b"user-1", [b"item-1"] * 10_000)
    with pytest.raises(InferenceServerException, match="item"):
        rank_plainly(shell, b"user-1", [])
    assert rank_plainly(shell, b"user-1", [b"item-1"])["status"] == [b"ok"]


def test_the_monitor_shows_requests_and_encoder_runs(shell: Shell) -> None:
    text = (shell.folder / ".data" / "stack.toml").read_text()
    match = re.search(r"\[monitoring\]\nport = (\d+)", text)
    assert match
    time.sleep(2)  # a turn of the monitor
    with urllib.request.urlopen(f"http://127.0.0.1:{match[1]}/metrics") as page:
        shown = page.read().decode()
    assert "srp4ctr_encoder_runs_total" in shown
    assert 'srp4ctr_serving_model{model_version="v1"} 1.0' in shown


def test_a_second_bundle_can_be_rolled_back(shell: Shell) -> None:
    assert "v1: nothing new" in shell.type("model", "refresh")
    assert "v2: promoted" in shell.type("model", "refresh", "--force")
    assert rank_plainly(shell, b"user-1", [b"item-1"])["model_version"] == [b"v2"]
    assert "v1 serves" in shell.type("model", "rollback")
    assert rank_plainly(shell, b"user-1", [b"item-1"])["model_version"] == [b"v1"]
    assert "v2 serves" in shell.type("model", "promote", "v2")


def test_a_script_reads_what_serves_after_each_promotion(shell: Shell) -> None:
    """Two promotions have been made: v1, then v2."""
    back = answer("model rollback", shell.read("model", "rollback", "--json"))
    assert (back["serving"]["serving"], back["serving"]["canary"]) == ("v1", None)
    assert rank_plainly(shell, b"user-1", [b"item-1"])["model_version"] == [b"v1"]
    promote = ("model", "promote", "v2", "--json")
    for outcome in ("promoted", "unchanged"):
        found = answer("model promote", shell.read(*promote))
        assert (found["outcome"], found["serving"]["serving"]) == (outcome, "v2")
        assert bool(found["gates"]) == (outcome == "promoted")
    assert rank_plainly(shell, b"user-1", [b"item-1"])["model_version"] == [b"v2"]
    canary = ("model", "promote", "v1", "--canary", "--share", "0.25", "--json")
    found = answer("model promote", shell.read(*canary))
    assert (found["serving"]["canary"], found["serving"]["canary_share"]) == ("v1", 0.25)
    end = answer("model rollback", shell.read("model", "rollback", "--canary", "--json"))
    assert (end["serving"]["serving"], end["serving"]["canary"]) == ("v2", None)
    waiting = answer("model promote", shell.read("model", "promote", "--json"))
    assert (waiting["outcome"], waiting["serving"]) == ("none_waits", None)


def test_a_script_reads_the_stack_and_its_checks(shell: Shell) -> None:
    found = answer("stack status", shell.read("stack", "status", "--json"))
    running = {each["name"]: each for each in found["running"]}
    assert found["settings"]["triton"]["grpc"] == grpc_address(shell)
    assert f"{grpc_address(shell)} gRPC" in running["triton"]["addresses"]
    assert Path(running["triton"]["log"]).is_file()
    doctor = answer("doctor", shell.read("doctor", "--json"))
    assert (doctor["ok"], doctor["to_fix"]) == (True, 0)
    assert "triton" in {finding["check"] for finding in doctor["findings"]}
    check = answer("features check", shell.read("features", "check", "--json"))
    assert check["store"]["rows"] > 0
    assert (check["ok"], check["compared"], check["served"]) == (True, True, None)
    served = shell.read("features", "check", "--served", "--json")
    assert "served_log.share" in answer("features check", served)["notes"][0]
    log = answer("audit list", shell.read("audit", "list", "--json"))
    assert "model rollback" in {each["command"] for each in log}


def test_a_script_reads_rankings(shell: Shell) -> None:
    typed = ("model", "rank", "user-1", "item-1", "item-2", "never-seen", "", "--json")
    ranking = answer("model rank", shell.read(*typed))
    assert (ranking["status"], ranking["model_version"]) == ("ok", "v2")
    items = {item["item_id"]: item for item in ranking["items"]}
    assert items["item-1"]["title"] == "Thing 1"
    assert 0 < items["item-1"]["score"] < 1
    assert "unknown_item" in items["never-seen"]["notes"]
    assert items[""]["score"] is None
    five = shell.read("model", "recommend", "user-1", "-n", "5", "--json")
    recommended = answer("model recommend", five)["items"]
    assert len(recommended) == 5
    assert {each["source"] for each in recommended} <= {"model", "popular", "new"}
    bad = shell.read("model", "recommend", "user-1", "--where", "x", "--json", expect=2)
    assert "names no value" in problem("model recommend", bad)["what"]


def test_a_bundle_comes_to_triton_by_a_bucket(
    shell: Shell, object_store: ObjectStore
) -> None:
    bucket = {**object_store.environment(), "SRP4CTR_TRAINING__BUNDLES_URI": BUNDLES}
    trainer = bucket | {"SRP4CTR_TRITON__REPOSITORY": "no-models-here"}
    serving = bucket | {"SRP4CTR_TRAINING__BUNDLES_DIR": "no-bundles-here"}
    assert "no bundle waits" in shell.type("model", "promote", env=serving)
    assert "v3: ready" in shell.type("model", "refresh", "--force", env=trainer)
    assert rank_plainly(shell, b"user-1", [b"item-1"])["model_version"] == [b"v2"]
    found = json.loads(shell.type("model", "show", "v3", "--json", env=trainer))
    assert any("v2 has" in gate["note"] for gate in found["gates"])  # the champion
    assert "v3 serves" in shell.type("model", "promote", env=serving)
    assert rank_plainly(shell, b"user-1", [b"item-1"])["model_version"] == [b"v3"]
    assert "no bundle waits" in shell.type("model", "promote", env=serving)
    listed = json.loads(shell.type("model", "list", "--json", env=trainer))
    assert [(each["role"], each["outcome"]) for each in listed] == [
        ("", "promoted"),
        ("previous", "promoted"),
        ("serving", "promoted"),
    ]
    assert "v1 serves" in shell.type("model", "promote", "v1", env=serving)  # fetched now
    assert rank_plainly(shell, b"user-1", [b"item-1"])["model_version"] == [b"v1"]
    assert "v3 serves" in shell.type("model", "rollback", env=serving)
    assert "v3: nothing new" in shell.type("model", "refresh", env=trainer)


def test_a_forgotten_user_has_no_history(shell: Shell) -> None:
    assert rank_plainly(shell, b"user-2", [b"item-1"])["status"] == [b"ok"]
    assert "forgotten: user-2" in shell.type("features", "forget", "user-2")
    assert rank_plainly(shell, b"user-2", [b"item-1"])["status"] != [b"ok"]


def test_a_script_imports_a_file_and_reads_what_was_published(shell: Shell) -> None:
    now_s = time.time_ns() // 1_000_000_000
    rows = (f"script-user,item-1,{now_s}", f"script-user,item-2,{now_s}")
    (shell.folder / "visits.csv").write_text("\n".join(("user,item,time", *rows)) + "\n")
    typed = ("events", "import", "visits.csv", "--format", "clicks", "--json")
    found = answer("events import", shell.read(*typed, "--set", "time_unit=s"))
    assert (found["outcome"], found["rows"], found["bad_rows"]) == ("published", 2, 0)
    assert found["published"] >= found["events"] >= 2
    stack = answer("stack status", shell.read("stack", "status", "--json"))
    assert found["to"] == stack["settings"]["kafka"]["bootstrap"]
    wait_for_a_row(shell, b"script-user")


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_the_steps_of_the_page_for_scripts_run(shell: Shell) -> None:
    """On the file and the bundle of the tests above."""
    [block] = [each for each in blocks("yaml") if each.page == "docs/scripts.md"]
    steps = [each["run"] for each in yaml.safe_load(block.text)]
    assert len(steps) == 6
    printed = [shell.paste(f"set -eo pipefail\n{step}") for step in steps]
    assert grpc_address(shell) in printed[-1]
    assert re.search(r"^50\t0\.\d+$", printed[-2], re.MULTILINE)


def intake_address(shell: Shell) -> str:
    """Return where the stack's HTTP intake listens, or would."""
    text = (shell.folder / ".data" / "stack.toml").read_text()
    (port,) = re.findall(r"\[intake\]\nport = (\d+)", text)
    return f"127.0.0.1:{port}"


def serve_events(shell: Shell) -> None:
    """Start the HTTP intake and wait until it listens."""
    shell.leave_running("events", "serve")
    deadline = time.monotonic() + 60
    while not ports.is_open(int(intake_address(shell).rpartition(":")[2])):
        assert time.monotonic() < deadline, (shell.folder / "events.log").read_text()
        time.sleep(0.1)


def test_the_producers_commands_run_as_the_page_has_them(shell: Shell) -> None:
    lines = [each for block, each in commands() if block.page == "docs/producers.md"]
    assert len(lines) == 10
    viewed = a_behavior("item-1", user_id="42", at_ms=time.time_ns() // 1_000_000)
    (shell.folder / "mine.jsonl").write_bytes(encode(viewed) + b"\n")
    for line in lines:
        if line.strip() == "srp4ctr stream run":
            continue  # it runs already, in its second terminal
        if line.strip() == "srp4ctr events serve":
            serve_events(shell)
            continue
        if "features show" in line:  # the worker needs a moment
            wait_for_a_row(shell, b"42")
        said = shell.paste(line.replace("127.0.0.1:8088", intake_address(shell)))
        if "curl" in line:
            assert '"rejected":0' in said or said == '{"status":"ok"}', said
    assert "user 42" in said
    assert "view" in said


def test_the_lines_of_status_are_ready_to_paste(shell: Shell, tmp_path: Path) -> None:
    lines = shell.type("stack", "status").splitlines()
    (variable,) = [line for line in lines if line.startswith("export ")]
    assert "serving" in shell.paste(f"cd {tmp_path}\n{variable}\nsrp4ctr model list")
    begins = ("from srp4ctr import", "publisher = ", "client = ")
    python = [line for line in lines if line.startswith(begins)]
    here: dict[str, Any] = {}
    exec("\n".join(python), here)
    with here["publisher"] as publisher, here["client"] as client:
        (serves,) = rank_plainly(shell, b"user-1", [b"item-1"])["model_version"]
        ranked = client.rank("user-1", ["item-1"], deadline_s=5.0)
        assert ranked.model_version == serves.decode()
        publisher.publish(a_behavior("item-1"))
