"""Each ready mapping on real files where they are, else on small files of the same form."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.imports.mapping import changed, ready_format, ready_formats
from tests.streams.imports.written import dropped, imported, plain, written

DATA = Path(os.environ.get("SRP4CTR_DATA", "../shared/data"))
REAL = {
    "movielens": (
        "ml-100k",
        {
            "impression": 100_000,
            "click": 55_375,
            "behavior rate": 100_000,
            "item": 1_682,
            "user": 943,
        },
    ),
    "taobao": (
        "taobao_window_110k.csv.gz",
        {
            "click": 98_361,
            "behavior cart": 6_063,
            "behavior favourite": 3_383,
            "behavior buy": 2_493,
            "item": 84_793,
        },
    ),
    "kuairand": (  # 228,329 rows, of which 5,460 are exact duplicates
        "kuairand_pure",
        {
            "impression": 222_869,
            "click": 100_070,
            "behavior long_view": 70_522,
            "behavior like": 3_874,
            "behavior comment": 575,
            "behavior follow": 291,
            "behavior share": 194,
            "behavior dislike": 187,
            "item": 7_583,
            "user": 27_285,
        },
    ),
    "ebnerd": (
        "ebnerd_demo/demo_*_behaviors.parquet",
        {"impression": 583_054, "click": 50_393, "behavior read": 14_365},
    ),
}
TIME = 1_600_000_000
KUAIRAND_USERS = [
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    *("register_days_range", *(f"onehot_feat{n}" for n in range(18))),
]
CASES: dict[str, tuple[dict[str, str], Sequence[str]]] = {
    "clicks": (
        {"log.csv": f"userId,itemId,timestamp\n1,2,{TIME}\n"},
        ["click - 1 2"],
    ),
    "movielens": (
        {
            "ratings.csv": f"userId,movieId,rating,timestamp\n1,2,4.5,{TIME}\n",
            "movies.csv": "movieId,title,genres\n2,Jumanji (1995),Adventure|Fantasy\n",
            "ml.user": "user_id:token\tage:token\tgender:token\toccupation:token\n"
            "1\t24\tM\ttechnician\n",
        },
        [
            "impression - 1 2",
            "click - 1 2",
            "behavior rate 1 2",
            "item - - 2",
            "user - 1 -",
        ],
    ),
    "taobao": (
        {"UserBehavior.csv": f"1,2,3,pv,{TIME}\n1,2,3,fav,{TIME}\n"},
        ["click - 1 2", "behavior favourite 1 2", "item - - 2"],
    ),
    "kuairand": (
        {
            "log_standard.csv": "user_id,video_id,date,hourmin,time_ms,is_click,is_like,"
            "is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,tab\n"
            f"1,2,20200913,1226,{TIME}000,1,1,0,0,0,0,0,500,1\n",
            "video_features_basic_pure.csv": "video_id,author_id,video_type,music_id,tag\n"
            '2,7,NORMAL,9,"3,4"\n',
            "user_features_pure.csv": f"user_id,{','.join(KUAIRAND_USERS)}\n"
            f"1,{','.join('7' for _ in KUAIRAND_USERS)}\n",
        },
        [
            "impression - 1 2",
            "click - 1 2",
            "behavior like 1 2",
            "item - - 2",
            "user - 1 -",
        ],
    ),
    "gorse": (
        {
            "feedback.csv": "feedback_type,user_id,item_id,time_stamp,comment\n"
            "star,1,2,2020-09-13 12:26:40 +0000 UTC,\n",
            "items.csv": "item_id,is_hidden,categories,time_stamp,labels,comment\n"
            "2,false,a|b,2020-09-13T12:26:40Z,x|y,\n",
            "users.csv": "user_id,labels,subscribe,comment\n1,a|b,,\n",
        },
        ["behavior favourite 1 2", "item - - 2", "user - 1 -"],
    ),
    "retailrocket": (
        {
            "events.csv": "timestamp,visitorid,event,itemid,transactionid\n"
            f"{TIME}000,1,view,2,\n{TIME}000,1,addtocart,2,\n{TIME}000,1,transaction,2,4\n",
            "item_properties_part1.csv": "timestamp,itemid,property,value\n"
            f"{TIME}000,2,categoryid,1338\n{TIME}000,2,888,n277.200\n",
        },
        ["click - 1 2", "behavior cart 1 2", "behavior buy 1 2", "item - - 2"],
    ),
    "rees46": (
        {
            "2019-Oct.csv": "event_time,event_type,product_id,category_id,category_code,"
            "brand,price,user_id,user_session\n"
            + "".join(
                f"2020-09-13 12:26:40 UTC,{each},2,2053013552326770905,"
                "appliances.kitchen,aqua,33.20,1,9333dfbd\n"
                for each in ("view", "purchase")
            ),
        },
        ["click - 1 2", "behavior buy 1 2", "item - - 2"],
    ),
    "metarank": (
        {
            "events.jsonl": "\n".join(
                json.dumps({"timestamp": f"{TIME}000", **each})
                for each in (
                    {
                        "event": "item",
                        "item": "2",
                        "fields": [
                            {"name": "title", "value": "Two"},
                            {"name": "genres", "value": ["a", "b"]},
                        ],
                    },
                    {"event": "ranking", "id": "r", "user": "1", "items": [{"id": "2"}]},
                    {
                        "event": "interaction",
                        "ranking": "r",
                        "user": "1",
                        "type": "click",
                        "item": "2",
                    },
                    {"event": "interaction", "user": "1", "type": "purchase", "item": "2"},
                    {
                        "event": "user",
                        "user": "1",
                        "fields": [{"name": "age", "value": "30"}],
                    },
                )
            )
        },
        [
            "item - - 2",
            "user - 1 -",
            "behavior purchase 1 2",
            "click - 1 2",
            "impression - 1 2",  # of one instant, by their content
        ],
    ),
    "segment": (
        {
            "track.jsonl": "\n".join(
                json.dumps({"timestamp": "2020-09-13T12:26:40.000Z", **each})
                for each in (
                    {
                        "type": "track",
                        "event": "Product Added",
                        "userId": None,
                        "anonymousId": "1",
                        "properties": {"product_id": "2", "price": 3.5},
                    },
                    {"type": "page", "userId": "1", "anonymousId": "x", "properties": {}},
                )
            )
        },
        ["behavior cart 1 2"],
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str, tmp_path: Path) -> None:
    path, expected = REAL[name]
    if not DATA.is_dir():
        pytest.skip(f"needs real data: there is no {DATA}")
    report = imported(DATA / path, ready_format(name))
    assert dict(report.counts) == expected
    assert report.num_bad == 0
    assert dropped(report)["duplicate"] == (6_793 if name == "kuairand" else 0)


@pytest.mark.parametrize("name", CASES)
def test_small_files_of_the_same_form(name: str, tmp_path: Path) -> None:
    files, expected = CASES[name]
    folder, out = tmp_path / "files", tmp_path / "events.jsonl"
    folder.mkdir()
    for each, content in files.items():
        written(folder, content, each)
    settings = ["time_unit=s"] if name == "clicks" else []
    report = imported(folder, changed(ready_format(name), settings), out)
    found = plain(out)
    keys = ("type", "action", "user_id", "item_id")
    assert [" ".join(str(e.get(k, "-")) for k in keys) for e in found] == expected
    # What a user is, holds before the first request.
    since = {e["type"]: e["occurred_at"] - TIME * 1000 for e in found}
    assert all(ms == 0 or (kind, ms) == ("user", -1) for kind, ms in since.items())
    assert report.num_bad == 0
    # A ranking is used by the rule that takes its list apart, an item by the catalogue.
    assert dropped(report)["no rule"] == (1 if name == "segment" else 0)


def test_every_ready_mapping_is_tested_and_says_what_it_is_for() -> None:
    found = ready_formats()
    assert found.keys() == {*REAL, *CASES}
    assert [name for name, each in found.items() if not each.description] == []
    with pytest.raises(MistakeError, match="did you mean movielens"):
        ready_format("movilens")
