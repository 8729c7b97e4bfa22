"""The commit and the uncommitted changes that a run is made from; asked on a background thread."""

from __future__ import annotations

import os

from tracer.capture.patches import Patches
from tracer.capture.program import program
from tracer.capture.redaction import Redactor
from tracer.capture.repository import Repository

_MAX_UNTRACKED = 1000
#: A longer patch lies beside `run.json` only, where it can be kept beside it.
_MAX_INLINE = 64 << 10


def git_facts(
    folder: str | None = None, redactor: Redactor | None = None, *, keep: str | None = None
) -> dict[str, object]:
    """Return what git knows of the code that is running.

    Args:
        folder: A folder of the repository; that of the main script, else the working folder, when None.
        redactor: What cuts secrets out of patches and addresses.
        keep: A run's folder. What restores the code is written there: `code/diff.patch`, `code/untracked.patch`,
            `code/commits.patch`.

    Returns:
        `git_available` and, in a repository, `root branch commit_hash commit_message commit_author commit_datetime
        describe is_dirty untracked_files diff remotes ahead_of_remote submodules is_shallow truncated files redacted`.
        The diff is a patch against the commit that `git apply` takes; where it is too long for the whole to be kept it
        is None, `diffstat` says what changed, and `truncated` is set; where it is only too long for `run.json` it lies
        in its file alone. `files` names the files that were written and what is in each; `redacted` lists the places
        where something was cut.

    Example:
        >>> git_facts("/")
        {'git_available': False}
    """
    redactor = redactor or Redactor()
    for candidate in [folder] if folder else [program().folder, os.getcwd()]:
        repository = Repository(candidate)
        root = repository.line("rev-parse", "--show-toplevel")
        is_bare = not root and repository.line("rev-parse", "--is-bare-repository") == "true"
        root = repository.line("rev-parse", "--absolute-git-dir") if is_bare else root
        if root:
            # From its top, so that everything is named from there.
            repository = repository if is_bare else Repository(root)
            return {"git_available": True, **_facts(repository, root, redactor, keep, is_bare=is_bare)}
    return {"git_available": False}


def _facts(
    repository: Repository, root: str, redactor: Redactor, keep: str | None, *, is_bare: bool
) -> dict[str, object]:
    """Return the facts of a repository; what it cannot answer is None or empty."""
    # The four fields of the last commit, parted by a byte that no name holds.
    fields = (
        repository.text("log", "-1", "--no-color", "--format=%H%x00%B%x00%an <%ae>%x00%cI").rstrip("\n").split("\0")
    )
    commit, message, author, date = fields if len(fields) == 4 else (None,) * 4  # noqa: PLR2004 -- the format above
    status = repository.text(
        "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--ignore-submodules=dirty"
    )
    head = dict(line[2:].split(" ", 1) for line in status.split("\0") if line.startswith("# ") and " " in line[2:])
    changed = any(line and not line.startswith("#") for line in status.split("\0"))
    untracked = [
        name for name in repository.text("ls-files", "--others", "--exclude-standard", "-z").split("\0") if name
    ]
    remotes = (line.split() for line in repository.text("remote", "-v").splitlines() if line.endswith("(fetch)"))
    modules = (line[1:].split() for line in repository.text("submodule", "status").splitlines())
    ahead = head.get("branch.ab", "").partition(" ")[0].lstrip("+")
    branch = head.get("branch.head") or repository.line("symbolic-ref", "--short", "HEAD")
    facts: dict[str, object] = {
        "root": root,
        "branch": None if branch in ("(detached)", "") else branch,
        "commit_hash": commit,
        "commit_message": redactor.text(message.strip(), "git.commit_message") if message else None,
        "commit_author": author,
        "commit_datetime": date,
        "describe": repository.line("describe", "--tags", "--always", "--dirty") or None,
        "is_dirty": changed or bool(untracked),
        "untracked_files": untracked[:_MAX_UNTRACKED],
        "remotes": {remote[0]: redactor.text(remote[1], "git.remotes") for remote in remotes if len(remote) > 1},
        "ahead_of_remote": int(ahead) if ahead.isdigit() else None,
        "submodules": {part[1]: part[0] for part in modules if len(part) > 1},
        "is_shallow": repository.line("rev-parse", "--is-shallow-repository") == "true",
    }
    if is_bare:
        return {**facts, "diff": None, "truncated": False, "files": {}, "redacted": redactor.found_in("git.")}
    patches = Patches(repository, root, redactor)
    facts |= _changes(patches, commit, untracked, keep)
    facts["truncated"] = patches.truncated or len(untracked) > _MAX_UNTRACKED or repository.is_late
    return {**facts, "redacted": redactor.found_in("git.")}


def _changes(patches: Patches, commit: str | None, untracked: list[str], keep: str | None) -> dict[str, object]:
    """Return what differs from the commit, and write what restores it."""
    diff = patches.diff(commit)
    facts: dict[str, object] = {"diff": None if diff is None else _text(diff)}
    if diff is None:
        facts["diffstat"] = patches.diffstat(commit)
    if keep is None:
        return {**facts, "files": {}}
    kept = {"diff.patch": diff}
    if commit is not None:
        base, kept["commits.patch"] = patches.commits()
        facts["commits_from"] = base
    kept["untracked.patch"] = patches.untracked(untracked)
    files = patches.write(keep, kept)
    if diff is not None and len(diff) > _MAX_INLINE:
        facts["diff"] = None
        facts["diffstat"] = patches.diffstat(commit)
    return {**facts, "files": files}


def _text(patch: bytes) -> str:
    """Return a patch as JSON can hold it: of a file in another encoding the other lines stay readable."""
    return patch.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode()


__all__ = ["git_facts"]
