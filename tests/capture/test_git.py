"""What is said of the repository, and that asking runs nothing of what the repository names."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tracer.capture import repository as repository_room
from tracer.capture.git import git_facts

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def run(folder: Path, *arguments: str) -> str:
    """Run git as a user would."""
    names = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b"}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, env={**os.environ, **names}
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Make a repository with one commit."""
    folder = tmp_path / "project"
    folder.mkdir()
    run(folder, "init", "-q", "-b", "main")
    (folder / "train.py").write_text("lr = 1\n")
    (folder / "data.bin").write_bytes(bytes(range(256)))
    run(folder, "add", ".")
    run(folder, "commit", "-q", "-m", "first\n\nbody")
    return folder


def test_a_clean_repository_is_described(repository: Path) -> None:
    facts = git_facts(str(repository))

    commit = run(repository, "rev-parse", "HEAD")
    assert facts | {"commit_datetime": ""} == {
        "git_available": True,
        "root": str(repository),
        "branch": "main",
        "commit_hash": commit,
        "commit_message": "first\n\nbody",
        "commit_author": "A <a@b>",
        "commit_datetime": "",
        "describe": commit[:7],
        "is_dirty": False,
        "untracked_files": [],
        "remotes": {},
        "ahead_of_remote": None,
        "submodules": {},
        "is_shallow": False,
        "diff": "",
        "files": {},
        "truncated": False,
        "redacted": [],
    }


def test_the_diff_restores_the_working_tree(repository: Path, tmp_path: Path) -> None:
    (repository / "train.py").write_text("lr = 2\n")
    (repository / "data.bin").write_bytes(b"\0other\xff" * 100)
    (repository / "staged.py").write_text("x = 'é'\n")
    run(repository, "add", "staged.py")
    run(repository, "config", "diff.noprefix", "true")  # a taste that would make the patch unusable

    facts = git_facts(str(repository))
    clone = tmp_path / "clone"
    run(tmp_path, "clone", "-q", str(repository), str(clone))
    (tmp_path / "diff.patch").write_text(str(facts["diff"]))
    run(clone, "apply", str(tmp_path / "diff.patch"))

    assert facts["is_dirty"] is True
    for name in ("train.py", "data.bin", "staged.py"):
        assert (clone / name).read_bytes() == (repository / name).read_bytes()


def test_untracked_files_are_listed_and_ignored_ones_are_not(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.log\n")
    (repository / "new.py").touch()
    (repository / "x.log").touch()

    facts = git_facts(str(repository))

    assert facts["untracked_files"] == [".gitignore", "new.py"]
    assert facts["is_dirty"] is True


def test_commits_that_no_remote_has_are_counted_and_its_password_is_not_told(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    run(tmp_path, "clone", "-q", str(repository), str(clone))
    (clone / "train.py").write_text("lr = 3\n")
    run(clone, "commit", "-q", "-am", "second")
    run(clone, "remote", "add", "hub", "https://me:secretpw@example.org/x.git")

    facts = git_facts(str(clone))

    assert facts["ahead_of_remote"] == 1
    assert facts["remotes"] == {
        "hub": "https://[redacted, 9 to 16 characters]@example.org/x.git",
        "origin": str(repository),
    }
    assert facts["redacted"] == ["git.remotes"]


def test_secrets_are_cut_from_the_diff(repository: Path) -> None:
    (repository / "train.py").write_text('api_key = "abc123def456"\n')

    facts = git_facts(str(repository))

    assert "abc123def456" not in str(facts)
    assert facts["redacted"] == ["git.diff"]


def test_a_big_diff_is_summed_up(repository: Path) -> None:
    (repository / "train.py").write_text("".join(f"x = {number}\n" for number in range(1_000_000)))

    facts = git_facts(str(repository))

    assert (facts["diff"], facts["truncated"]) == (None, True)
    assert "train.py" in str(facts["diffstat"])


def test_before_the_first_commit_the_diff_holds_everything_staged(tmp_path: Path) -> None:
    run(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "a.py").write_text("x\n")
    run(tmp_path, "add", "a.py")

    facts = git_facts(str(tmp_path))

    assert (facts["commit_hash"], facts["branch"]) == (None, "main")
    assert "+x" in str(facts["diff"])


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    run(repository, "checkout", "-q", "--detach")

    assert git_facts(str(repository))["branch"] is None


@pytest.mark.parametrize("folder", ["", "gone"])
def test_without_a_repository_that_is_said(tmp_path: Path, folder: str) -> None:
    assert git_facts(str(tmp_path / folder)) == {"git_available": False}


def test_without_git_that_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert git_facts(str(repository)) == {"git_available": False}


def test_a_git_that_hangs_is_left_behind(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(repository_room, "CALL_S", 0.2)
    monkeypatch.setattr(repository_room, "TOTAL_S", 0.5)

    assert git_facts(str(repository)) == {"git_available": False}


def restored(clone: Path, kept: Path, facts: dict[str, object], base: str) -> None:
    """Do what the head of `patches.py` says, in a fresh clone."""
    run(clone, "checkout", "-q", base)
    if (kept / "commits.patch").exists():
        run(clone, "am", "-q", str(kept / "commits.patch"))
    for name in ("diff.patch", "untracked.patch"):
        if (kept / name).exists():
            run(clone, "apply", str(kept / name))
    assert facts["truncated"] is False


def tree(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Return every file of a working tree: content, and whether it can be executed."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), os.access(path, os.X_OK))
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def test_what_is_kept_restores_a_dirty_tree(repository: Path, tmp_path: Path) -> None:
    (repository / "old name.py").write_text("".join(f"line {number}\n" for number in range(30)))
    (repository / "windows.txt").write_bytes(b"a\r\nb\r\nc\x0cd\r\n")
    (repository / "latin.txt").write_bytes("gr\xfc\xdfe\n".encode("latin-1"))
    run(repository, "add", ".")
    run(repository, "commit", "-q", "-m", "second")
    hub, mine = tmp_path / "hub.git", tmp_path / "mine"
    run(tmp_path, "clone", "-q", "--bare", str(repository), str(hub))
    run(tmp_path, "clone", "-q", str(hub), str(mine))
    (mine / "train.py").write_text("lr = 2\n")
    run(mine, "commit", "-q", "-am", "only here")
    (mine / "data.bin").write_bytes(b"\0new\xff" * 500)
    run(mine, "mv", "old name.py", "new name.py")
    (mine / "new name.py").write_text("".join(f"line {number}\n" for number in range(29)) + "changed")
    (mine / "train.py").write_text("lr = 3\n")
    run(mine, "add", "train.py")
    (mine / "train.py").write_text("lr = 4\n")  # staged, and changed again
    (mine / "windows.txt").write_bytes(b"a\r\nB\r\nc\x0cd\r\n")
    (mine / "latin.txt").write_bytes("gr\xfc\xdfE\n".encode("latin-1"))
    (mine / "pkg").mkdir()
    (mine / "pkg" / 'caf\xe9 "1".py').write_text("no newline")
    (mine / "pkg" / "__init__.py").touch()
    (mine / "run.sh").write_text("echo\n")
    (mine / "run.sh").chmod(0o755)

    facts = git_facts(str(mine), keep=str(tmp_path / "run"))
    clone = tmp_path / "clone"
    run(tmp_path, "clone", "-q", str(hub), str(clone))
    restored(clone, tmp_path / "run" / "code", facts, str(facts["commits_from"]))

    assert tree(clone) == tree(mine)
    assert {"code/diff.patch", "code/commits.patch", "code/untracked.patch"} == facts["files"].keys()  # type: ignore[attr-defined]
    assert all(one["applies"] for one in facts["files"].values())  # type: ignore[attr-defined]


def test_a_submodule_is_kept_as_its_commit(repository: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    shutil.copytree(repository, inner)
    run(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "part")
    run(repository, "commit", "-q", "-m", "with a part")
    (repository / "part" / "train.py").write_text("lr = 9\n")
    run(repository / "part", "commit", "-q", "-am", "newer part")
    (repository / "data.bin").write_bytes(b"other")

    facts = git_facts(str(repository), keep=str(tmp_path / "run"))
    clone = tmp_path / "clone"
    run(tmp_path, "clone", "-q", str(repository), str(clone))
    restored(clone, tmp_path / "run" / "code", facts, str(facts["commit_hash"]))

    newer = run(repository / "part", "rev-parse", "HEAD")
    assert facts["submodules"] == {"part": newer}
    assert f"+Subproject commit {newer}" in str(facts["diff"])
    assert (clone / "data.bin").read_bytes() == b"other"


def test_secrets_are_cut_line_by_line_and_the_patch_still_applies(repository: Path, tmp_path: Path) -> None:
    pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIplanted1\nMIIplanted2\n-----END RSA PRIVATE KEY-----\n"
    (repository / "train.py").write_text(f'lr = 1\nKEY = """\n{pem}"""\nx = 2\n')
    (repository / "settings.yaml").write_text("password: planted3planted\nlr: 1\n")
    (repository / "credentials.json").write_text('{"a": "planted4"}')

    facts = git_facts(str(repository), keep=str(tmp_path / "run"))
    clone = tmp_path / "clone"
    run(tmp_path, "clone", "-q", str(repository), str(clone))
    restored(clone, tmp_path / "run" / "code", facts, "main")

    assert "planted" not in str(facts) + "".join(path.read_text() for path in (tmp_path / "run" / "code").iterdir())
    assert (clone / "train.py").read_text().splitlines()[-1] == "x = 2"
    assert (clone / "settings.yaml").read_text().splitlines()[1] == "lr: 1"


def test_a_secret_that_was_committed_is_cut_too_and_that_is_said(repository: Path, tmp_path: Path) -> None:
    (repository / "train.py").write_text('api_key = "abc123def456"\n')
    run(repository, "commit", "-q", "-am", "oops")
    (repository / "train.py").write_text('api_key = "abc123def456"\nlr = 2\n')

    facts = git_facts(str(repository), keep=str(tmp_path / "run"))

    assert "abc123def456" not in str(facts) + (tmp_path / "run" / "code" / "diff.patch").read_text()
    assert facts["files"]["code/diff.patch"]["applies"] is False  # type: ignore[index]


def test_a_patch_that_is_long_lies_in_its_file_only(repository: Path, tmp_path: Path) -> None:
    (repository / "train.py").write_text("".join(f"x = {number}\n" for number in range(20_000)))

    facts = git_facts(str(repository), keep=str(tmp_path / "run"))

    assert (facts["diff"], facts["truncated"]) == (None, False)
    assert "20000 insertions(+)" in str(facts["diffstat"])
    assert (tmp_path / "run" / "code" / "diff.patch").stat().st_size > 64 << 10


def test_a_bare_a_shallow_and_a_second_tree_are_described(repository: Path, tmp_path: Path) -> None:
    bare, shallow, second = tmp_path / "bare.git", tmp_path / "shallow", tmp_path / "second"
    run(tmp_path, "clone", "-q", "--bare", str(repository), str(bare))
    run(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", str(shallow))
    run(repository, "worktree", "add", "-q", "-b", "side", str(second))
    (second / "train.py").write_text("lr = 7\n")

    described = git_facts(str(bare)), git_facts(str(shallow)), git_facts(str(second))

    assert [facts["commit_hash"] for facts in described] == [run(repository, "rev-parse", "HEAD")] * 3
    assert (described[0]["diff"], described[0]["truncated"]) == (None, False)
    assert described[1]["is_shallow"] is True
    assert (described[2]["branch"], described[2]["root"]) == ("side", str(second))
    assert "+lr = 7" in str(described[2]["diff"])


def test_asking_a_hostile_repository_runs_none_of_its_programs(repository: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    program = tmp_path / "program.sh"
    program.write_text(f"#!/bin/sh\necho ran >> {trap}\ncat\n")
    program.chmod(0o755)
    for hook in ("post-index-change", "pre-commit", "reference-transaction"):
        shutil.copy(program, repository / ".git" / "hooks" / hook)
    for setting in (
        "core.fsmonitor", "diff.external", "filter.evil.clean", "filter.evil.smudge", "filter.evil.process",
        "filter.a=b.clean", "diff.evil.textconv", "diff.evil.command", "core.pager", "gpg.program", "filter.lfs.clean",
    ):  # fmt: skip
        run(repository, "config", setting, str(program))
    run(repository, "config", "log.showSignature", "true")
    run(repository, "config", "filter.evil.required", "true")
    (repository / ".gitattributes").write_text("*.py filter=evil diff=evil\n*.bin filter=a=b\n*.txt filter=lfs\n")
    (repository / "train.py").write_text("lr = 5\n")
    (repository / "data.bin").write_bytes(b"changed")
    (repository / "note.txt").write_text("new")
    trap.unlink(missing_ok=True)

    facts = git_facts(str(repository), keep=str(tmp_path / "run"))

    assert not trap.exists()
    assert "+lr = 5" in str(facts["diff"])
    subprocess.run(["git", "-C", str(repository), "diff", "HEAD"], capture_output=True, check=False)
    assert trap.exists()  # a plain call would have run them
