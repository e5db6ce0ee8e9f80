"""What the soak makes of its notes and its samples of memory."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.operations.soak_figures import Memory, NativeCalls
from benchmarks.operations.soak_traffic import catalogue_events, read_notes
from srp4ctr.testing.serving_stack import item_ids

NOTE = (
    '{"events": 3, "impressions": 2, "latencies_ms": [4.0, 6.0], "errors": ["away"],'
    ' "failed_at_s": [7.5], "requests": 3}\n'
)


def test_notes_of_all_visitors_add_up_and_a_line_cut_short_is_left_out(
    tmp_path: Path,
) -> None:
    (tmp_path / "s0.jsonl").write_text(NOTE + NOTE + NOTE[:20])
    (tmp_path / "s1.jsonl").write_text(NOTE)
    (tmp_path / "c0.jsonl").write_text(NOTE)
    seen = read_notes(tmp_path, "s")
    assert (seen.requests, seen.failed, seen.events, seen.impressions) == (9, 3, 9, 6)
    assert seen.latencies_ms == (4.0, 6.0) * 3
    assert (seen.errors, seen.failed_at_s) == ({"away": 3}, (7.5,) * 3)
    assert read_notes(tmp_path).requests == 12


def growth_of(memory: Memory) -> dict[str, float]:
    return {growth.name: growth.mb for growth in memory.growths()}


def test_memory_grows_from_the_end_of_a_process_s_own_warm_up(tmp_path: Path) -> None:
    memory = Memory(tmp_path, warm_up_s=60.0)
    for at_s in range(0, 310, 10):
        memory.note("worker", 1, at_s, 100.0 if at_s < 60 else 200.0)
    assert growth_of(memory) == {"worker": 0.0}


def test_of_a_process_s_lives_the_one_that_grew_most_counts(tmp_path: Path) -> None:
    memory = Memory(tmp_path, warm_up_s=0.0)
    for at_s in range(0, 310, 10):
        memory.note("worker", 1, at_s, 200.0)
        memory.note("worker", 2, 400 + at_s, 200.0 + at_s)
    assert growth_of(memory) == {"worker": 250.0}  # means of six samples at both ends


def test_a_life_of_less_than_a_minute_says_nothing(tmp_path: Path) -> None:
    memory = Memory(tmp_path, warm_up_s=60.0)
    for at_s in range(0, 110, 10):
        memory.note("worker", 1, at_s, 100.0 + at_s)
    assert growth_of(memory) == {}


def test_visitors_rank_the_items_that_the_bundle_knows() -> None:
    item_ids_of_visitors = {update.item_id for update in catalogue_events(0)}
    assert item_ids_of_visitors == set(item_ids())


def test_native_calls_are_added_up_over_several_lives_of_the_server() -> None:
    calls = NativeCalls()
    for answered, other, mismatches in ((90, 10, 0), (95, 10, 1), (5, 0, 0)):
        page = "# TYPE srp4ctr_native_calls counter\n"
        page += f'srp4ctr_native_calls{{model="v1",outcome="answered"}} {answered}\n'
        page += f'srp4ctr_native_calls{{model="v1",outcome="other_call"}} {other}\n'
        page += f'srp4ctr_native_mismatches{{model="v1",output="status"}} {mismatches}\n'
        page += 'srp4ctr_native_mismatches{model="v1",output="feature_version"} 2\n'
        page += f'srp4ctr_native_comparisons{{model="v1"}} {answered / 5}\n'
        calls.sample(text_string_to_metric_families(page))
    assert calls.figures() == {
        "native_share": round(100 / 110, 4),
        "native_comparisons": 20,
        "native_mismatches": 1,
        "native_other_rows": 2,
        "mismatched_outputs": {"status v1": 1},
    }
