"""Old names of settings in sections within sections."""

import pytest

from srp4ctr import setting_names


def test_a_removed_setting_of_an_inner_section_is_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    setting_names._warn_once.cache_clear()
    given = {"training": {"model": {"num_heads": 4, "width": 96}, "seed": 1}}
    kept = setting_names.with_current_names(given, "settings.toml")
    assert kept == {"training": {"model": {"width": 96}, "seed": 1}}
    assert given["training"]["model"] == {"num_heads": 4, "width": 96}
    (said,) = (record.message for record in caplog.records)
    assert said.startswith(
        "settings.toml: the setting training.model.num_heads was removed"
    )


@pytest.mark.parametrize("model", [7, "large", None])
def test_a_section_that_is_none_is_left_to_who_refuses_it(model: object) -> None:
    given = {"training": {"model": model}}
    assert setting_names.with_current_names(given, "settings.toml") == given
