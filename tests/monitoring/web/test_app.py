"""The page's web application over real HTTP."""

import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.monitoring.web.app import PageSources, bind_page
from srp4ctr.monitoring.web.page import STATIC
from srp4ctr.monitoring.web.request_guard import HEADERS
from tests.monitoring.web.conftest import serving
from tests.monitoring.web.refusing_playground import Refusing


@pytest.fixture(scope="module")
def page() -> Iterator[httpx.Client]:
    sources = PageSources(prometheus_url="", playground=Refusing())
    with (
        serving(sources) as address,
        httpx.Client(base_url=address, timeout=60.0) as client,
    ):
        yield client


def token_of(page: httpx.Client) -> str:
    """Return the token of this start, which only the page's own script can read."""
    match = re.search(
        r'name="srp4ctr-token" content="([^"]+)"', page.get("/playground").text
    )
    assert match
    return match[1]


def post(page: httpx.Client, path: str, content: Any, **headers: str) -> httpx.Response:
    """Send ``content`` as the page's own script does, but for ``headers``."""
    token = token_of(page)
    origin = str(page.base_url).rstrip("/")
    ours = {"origin": origin, "x-srp4ctr-token": token, "sec-fetch-site": "same-origin"}
    return page.post(path, json=content, headers=ours | headers)


def test_every_view_is_a_document_of_its_own(page: httpx.Client) -> None:
    for path, title in (
        ("/", "Overview"),
        ("/d/training", "Training"),
        ("/playground", "Playground"),
        ("/values", "Current values"),
    ):
        assert f"<title>{title} · srp4ctr</title>" in page.get(path).text
    assert page.get("/?range=1h").text != page.get("/?range=6h").text
    assert page.get("/?range=invented").text == page.get("/").text


def test_no_script_is_inline_and_only_the_playground_can_post(page: httpx.Client) -> None:
    document = page.get("/").text
    assert document.count("<script") == document.count('<script src="/static/') == 2
    assert "<style" not in document
    assert "srp4ctr-token" not in document
    for script in STATIC.rglob("*.js"):
        assert "innerHTML" not in script.read_text(), script


def test_every_answer_has_the_guards_headers(page: httpx.Client) -> None:
    answers = [page.get(path) for path in ("/", "/static/main.js", "/values", "/no")]
    answers.append(page.get("/", headers={"host": "evil.example"}))
    for answer in answers:
        assert answer.headers.items() >= dict(HEADERS).items(), answer.url
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404, 421]


def test_a_file_outside_the_static_folder_is_not_served(page: httpx.Client) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py"):
        assert page.get(path).status_code == 404


def test_no_call_of_prometheus_is_passed_on(page: httpx.Client) -> None:
    for path in ("query", "query_range", "series", "admin/tsdb/snapshot"):
        assert page.get(f"/api/prometheus/{path}?query=up&time=1").status_code == 404


def test_a_missing_page_is_a_sentence(page: httpx.Client) -> None:
    answer = page.get("/d/nothing")
    assert answer.status_code == 404
    assert "There is no page /d/nothing." in answer.text


@pytest.mark.parametrize("path", ["/api/playground/rank", "/api/playground/click"])
def test_another_sites_page_changes_nothing(page: httpx.Client, path: str) -> None:
    content = {"user_id": "u", "request_id": "r", "item_id": "i"}
    for wrong in (
        {"origin": "http://evil.example"},
        {"x-srp4ctr-token": "guessed"},
        {"sec-fetch-site": "cross-site"},
        {"content-type": "text/plain"},
        {"host": "evil.example"},
    ):
        answer = post(page, path, content, **wrong)
        assert answer.status_code in (403, 415, 421), wrong
        assert answer.json()["error"]
    assert page.get(path).status_code == 405


def test_a_request_with_endless_content_is_refused(page: httpx.Client) -> None:
    headers = {"origin": str(page.base_url).rstrip("/"), "transfer-encoding": "chunked"}
    token = token_of(page)
    headers |= {"x-srp4ctr-token": token, "content-type": "application/json"}
    answer = page.post("/api/playground/rank", content=iter([b"{}"]), headers=headers)
    assert answer.status_code == 411


def test_an_error_of_the_playground_is_a_sentence_on_the_page(
    page: httpx.Client,
) -> None:
    away = page.get("/api/playground/offer")
    assert (away.status_code, away.json()["error"]) == (503, "The store is away.")
    refused = post(page, "/api/playground/click", {"request_id": "r", "item_id": "i"})
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        "Nothing is promoted yet.",
    )


def test_a_ranking_is_json(page: httpx.Client) -> None:
    answer = post(page, "/api/playground/rank", {"user_id": " u1 ", "item_ids": ["i1"]})
    assert answer.status_code == 200
    assert answer.json()["items"][0]["item"]["title"] == "One"
    assert page.get("/api/playground/user", params={"id": "a/b?c"}).json() == {
        "user_id": "a/b?c",
        "attributes": {},
        "behaviors": [],
        "advice": "Nobody.",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_id": ""},
        {"user_id": "x" * 300},
        {"user_id": 7},
        {"item_ids": "i1"},
        {"item_ids": ["", "i"]},
        {"count": 0},
        {"count": 10_000},
        {"draw": "many"},
    ],
)
def test_an_invalid_request_is_refused(page: httpx.Client, wrong: dict[str, Any]) -> None:
    body = {"user_id": "u1", "item_ids": [], "count": 20, "draw": 0} | wrong
    assert post(page, "/api/playground/rank", body).status_code == 400
    assert post(page, "/api/playground/rank", ["no object"]).status_code == 400


def test_an_internal_error_has_no_details_in_the_response(
    page: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    answer = post(page, "/api/playground/rank", {"user_id": "broken"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "KeyError; the terminal shows the traceback"}


def test_a_page_without_a_playground_says_so() -> None:
    with serving(PageSources(prometheus_url="")) as address:
        for path in ("/playground", "/api/playground/offer"):
            assert httpx.get(f"{address}{path}", timeout=60.0).status_code == 404


def test_a_taken_port_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MistakeError, match=rf"127.0.0.1:{port}.*--port 0"):
            bind_page(PageSources(prometheus_url=""), port)
