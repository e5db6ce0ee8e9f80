"""git refuses a long subject, an empty body and faults that ruff finds, by the hooks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.structure.source_tree import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
HOOKS = ROOT / ".githooks"
RUFF = Path(sys.executable).with_name("ruff")
REASON = "Because the hook reads it."


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a new repository with the hooks, apart from the user's settings."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # as a hook that runs the tests would set them
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    hooks = tmp_path / "hooks"
    shutil.copytree(HOOKS, hooks)
    folder = tmp_path / "repository"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(folder))
    settings = {
        "user.name": "A",
        "user.email": "a@example.org",
        "core.hooksPath": str(hooks),
    }
    for name, setting in settings.items():
        git(folder, "config", name, setting)
    return folder


def commit(folder: Path, *paragraphs: str) -> subprocess.CompletedProcess[str]:
    texts = [word for paragraph in paragraphs for word in ("-m", paragraph)]
    return git(folder, "commit", "--allow-empty", "--quiet", *texts)


def subjects(folder: Path) -> list[str]:
    return git(folder, "log", "--format=%s").stdout.splitlines()


@pytest.mark.parametrize("subject", ["Add a hook", "ä" * 72, "Revert “a subject”"])
def test_a_short_subject_with_a_reason_is_committed(repository: Path, subject: str) -> None:
    outcome = commit(repository, subject, REASON)
    assert outcome.returncode == 0, outcome.stderr
    assert subjects(repository) == [subject]


@pytest.mark.parametrize(
    ("paragraphs", "message"),
    [
        (("x" * 73, REASON), "the subject has 73 letters"),
        (("Add a hook",), "the body is empty"),
        (("Add a hook", "Signed-off-by: A <a@example.org>"), "the body is empty"),
        (("Add a hook\nfor commits", REASON), "the second line is not empty"),
    ],
)
def test_another_message_is_refused_and_kept(
    repository: Path, paragraphs: tuple[str, ...], message: str
) -> None:
    outcome = commit(repository, *paragraphs)
    assert outcome.returncode == 1
    assert f"commit refused: {message}" in outcome.stderr
    assert "git commit --edit --file='.git/COMMIT_EDITMSG'" in outcome.stderr
    assert subjects(repository) == []
    assert paragraphs[0] in (repository / ".git/COMMIT_EDITMSG").read_text(encoding="utf-8")


@pytest.mark.parametrize(("body", "status"), [("", 1), (REASON, 0)])
def test_comments_and_the_diff_in_the_editor_are_no_body(
    repository: Path, monkeypatch: pytest.MonkeyPatch, body: str, status: int
) -> None:
    (repository / "a.txt").write_text("a line of the diff\n")
    git(repository, "add", "a.txt")
    script = f'{{ printf "Add a file\\n\\n{body}\\n"; cat "$1"; }} > m && mv m "$1"'
    monkeypatch.setenv("GIT_EDITOR", f"sh -c '{script}' editor")
    outcome = git(repository, "commit", "--verbose")
    assert outcome.returncode == status, outcome.stderr
    assert subjects(repository) == (["Add a file"] if status == 0 else [])


def test_merges_and_fixups_keep_the_messages_of_git(repository: Path) -> None:
    commit(repository, "Begin", REASON)
    git(repository, "checkout", "--quiet", "-b", "b" * 80)
    commit(repository, "Go on alongside", REASON)
    git(repository, "checkout", "--quiet", "main")
    commit(repository, "Go on", REASON)
    assert git(repository, "merge", "--no-edit", "b" * 80).returncode == 0
    assert commit(repository, "fixup! Go on").returncode == 0
    assert subjects(repository)[:2] == ["fixup! Go on", f"Merge branch '{'b' * 80}'"]


@pytest.mark.skipif(not RUFF.exists(), reason="ruff is not installed")
@pytest.mark.parametrize(
    ("text", "status"), [("x = 1\n", 0), ("import os\n", 1), ("x=1\n", 1)]
)
def test_staged_files_with_faults_are_refused(
    repository: Path, text: str, status: int
) -> None:
    (repository / ".venv/bin").mkdir(parents=True)
    (repository / ".venv/bin/ruff").symlink_to(RUFF)
    (repository / "not staged.py").write_text("import sys\n")
    (repository / "a file.py").write_text(text)
    git(repository, "add", "a file.py")
    outcome = commit(repository, "Add a file", REASON)
    assert outcome.returncode == status, outcome.stderr
    assert ("commit refused: ruff found faults" in outcome.stderr) == (status == 1)
    assert "not staged" not in outcome.stderr


def test_without_the_environment_the_fast_checks_say_that_they_did_not_run(
    repository: Path,
) -> None:
    outcome = commit(repository, "Add a hook", REASON)
    assert (outcome.returncode, outcome.stderr.count("did not run")) == (0, 1)


def test_pre_commit_is_configured_with_the_same_commands() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    [repo] = yaml.safe_load(text)["repos"]
    assert repo["repo"] == "local"  # so that no check needs a network
    entries = {hook["id"]: hook["entry"] for hook in repo["hooks"]}
    script = (HOOKS / "pre-commit").read_text(encoding="utf-8")
    assert (ROOT / entries.pop("commit-message")).is_file()
    assert [entry for entry in entries.values() if entry not in script] == []


def hooks_path(folder: Path) -> str:
    return git(folder, "config", "--local", "core.hooksPath").stdout.strip()


def make_hooks(folder: Path) -> None:
    shutil.copy(ROOT / "Makefile", folder)
    subprocess.run(["make", "hooks"], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize(("before", "after"), [(None, ".githooks"), ("mine", "mine")])
def test_make_turns_the_hooks_on_unless_other_hooks_are_set(
    repository: Path, before: str | None, after: str
) -> None:
    git(repository, "config", "--unset", "core.hooksPath")
    if before:
        git(repository, "config", "core.hooksPath", before)
    make_hooks(repository)
    assert hooks_path(repository) == after


def test_make_leaves_a_folder_that_is_no_checkout_alone(repository: Path) -> None:
    folder = repository / "unpacked"
    folder.mkdir()
    git(repository, "config", "--unset", "core.hooksPath")
    make_hooks(folder)
    assert hooks_path(repository) == ""


def test_git_may_run_the_hooks() -> None:
    names = {path.name for path in HOOKS.iterdir()}
    assert names == {"commit-msg", "pre-commit"}
    assert all(os.access(path, os.X_OK) for path in HOOKS.iterdir())
