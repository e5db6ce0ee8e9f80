"""Which requests may read the page, and which may change something."""

import pytest

from srp4ctr.monitoring.web.request_guard import HEADERS, MAX_BODY_BYTES, Guard

GUARD = Guard(port=9105, token="of this start")
OURS = {
    "host": "127.0.0.1:9105",
    "origin": "http://127.0.0.1:9105",
    "sec-fetch-site": "same-origin",
    "x-srp4ctr-token": "of this start",
    "content-type": "application/json",
    "content-length": "20",
}


def refused(method: str = "POST", **changes: str | None) -> int | None:
    """Return the status of the refusal of our own page's request, but for ``changes``."""
    given = OURS | {name.replace("_", "-"): value for name, value in changes.items()}
    refusal = GUARD.refusal(method, {n: v for n, v in given.items() if v is not None})
    return refusal.status if refusal else None


def test_our_own_page_may_change_something() -> None:
    assert refused() is None
    localhost = {"host": "localhost:9105", "origin": "http://localhost:9105"}
    assert refused(**localhost) is None


@pytest.mark.parametrize("host", ["evil.example:9105", "127.0.0.1", "127.0.0.1:80", ""])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_host_name_is_refused_even_if_it_resolves_to_us(
    method: str, host: str
) -> None:
    assert refused(method, host=host) == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9106", "null", None]
)
def test_a_change_needs_our_origin(origin: str | None) -> None:
    assert refused(origin=origin) == 403
    assert refused(origin=origin, sec_fetch_site=None) == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_request_that_the_browser_says_is_another_sites_is_refused(site: str) -> None:
    assert refused(sec_fetch_site=site) == 403
    assert refused("GET", sec_fetch_site=site, sec_fetch_mode="cors") == 403


@pytest.mark.parametrize("token", ["of another start", "", None])
def test_a_change_needs_the_token_of_this_start(token: str | None) -> None:
    assert refused(x_srp4ctr_token=token) == 403


def test_a_form_cannot_change_something() -> None:
    assert refused(content_type="application/x-www-form-urlencoded") == 415
    assert refused(content_type="text/plain") == 415
    assert refused(content_type=None) == 415


def test_a_body_has_a_length_and_a_limit() -> None:
    assert refused(content_length=None) == 411
    assert refused(content_length=str(MAX_BODY_BYTES)) is None
    assert refused(content_length=str(MAX_BODY_BYTES + 1)) == 413


def test_a_typed_address_and_a_link_open_the_page() -> None:
    nothing = {"origin": None, "x_srp4ctr_token": None}
    assert refused("GET", sec_fetch_site=None, **nothing) is None
    assert refused("GET", sec_fetch_site="none", **nothing) is None
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert refused("GET", **link, **nothing) is None


def test_no_script_but_the_pages_own_files_runs_and_no_site_frames_it() -> None:
    policy = dict(HEADERS)["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
