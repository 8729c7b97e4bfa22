"""The commit and the uncommitted changes that a run is made from; called on a background thread, never on the caller's.

Running git in a folder runs what its configuration names: hooks, monitors, filters, converters. All of that is switched
off here, nothing goes through a shell, every call is limited in time and in what it may return.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

from tracer import clock
from tracer.capture.redaction import Redactor

_CALL_S, _TOTAL_S = 5.0, 10.0
_DIFF_BYTES = 1 << 20
_TEXT_BYTES = 64 << 10
_MAX_UNTRACKED = 1000
#: Settings that run programs, or that make the patch one that `git apply` does not take.
_OFF = (
    "core.fsmonitor=", "core.hooksPath=/dev/null", "core.quotePath=true", "log.showSignature=false",
    "diff.noprefix=false", "diff.mnemonicPrefix=false", "color.ui=false", "submodule.recurse=false",
)  # fmt: skip
_LFS = "git-lfs "


def git_facts(folder: str | None = None, redactor: Redactor | None = None) -> dict[str, object]:
    """Return what git knows of the code that is running.

    Args:
        folder: A folder of the repository; that of the main script, else the working folder, when None.
        redactor: What cuts secrets out of the diff and the addresses.

    Returns:
        `git_available` and, in a repository, `root branch commit_hash commit_message commit_author commit_datetime
        describe is_dirty untracked_files diff remotes ahead_of_remote submodules truncated redacted`. The diff
        is a patch against the commit that `git apply` takes; above 1 MiB it is None, `diffstat` says what changed, and
        `truncated` is set. `redacted` lists the places where something was cut.

    Example:
        >>> git_facts("/")
        {'git_available': False}
    """
    redactor = redactor or Redactor()
    for candidate in [folder] if folder else _candidates():
        repository = _Repository(candidate)
        root = repository.line("rev-parse", "--show-toplevel") or repository.line("rev-parse", "--absolute-git-dir")
        if root:
            return {"git_available": True, **_facts(repository, root, redactor)}
    return {"git_available": False}


def _candidates() -> list[str]:
    """Return where the repository is looked for: beside the main script, then in the working folder."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return [os.path.dirname(os.path.abspath(script)), os.getcwd()] if script else [os.getcwd()]


def _facts(repository: _Repository, root: str, redactor: Redactor) -> dict[str, object]:
    """Return the facts of a repository; what it cannot answer is None or empty."""
    # The four fields of the last commit, parted by a byte that no name holds.
    fields = (
        repository.text("log", "-1", "--no-color", "--format=%H%x00%B%x00%an <%ae>%x00%cI").rstrip("\n").split("\0")
    )
    commit, message, author, date = fields if len(fields) == 4 else (None,) * 4  # noqa: PLR2004 -- the format above
    base = commit or repository.line(
        "hash-object", "-t", "tree", "/dev/null"
    )  # before the first commit: the empty tree
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
    }
    facts |= _changes(repository, base, redactor, truncated=len(untracked) > _MAX_UNTRACKED)
    return {**facts, "redacted": redactor.found}


def _changes(repository: _Repository, base: str, redactor: Redactor, *, truncated: bool) -> dict[str, object]:
    """Return the patch from the last commit to the working tree, or what it would change if it is too big."""
    options = (
        "-O/dev/null",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--ignore-submodules=dirty",
        "--submodule=short",
    )
    patch = ("--binary", "--full-index", "--src-prefix=a/", "--dst-prefix=b/")
    data = repository.read("diff", *options, *patch, base, "--", limit=_DIFF_BYTES + 1)
    diff = None if data is None or len(data) > _DIFF_BYTES else data.decode("utf-8", "surrogateescape")
    if diff is not None:
        # JSON holds no lone surrogates: a patch of a file in another encoding keeps its other lines.
        diff = redactor.code(diff, "git.diff").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return {"diff": diff, "truncated": truncated}
    stat = repository.text("diff", *options, "--stat=120", base, "--")
    return {"diff": None, "diffstat": stat, "truncated": True}


class _Repository:
    """A folder that git is asked about, with what is left of the time it may take."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._ends = clock.monotonic() + _TOTAL_S
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self._environ |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        # Through the environment, because a key with `=` in it cannot be written after `-c`.
        for number, (key, value) in enumerate(filters := list(self._without_filters())):
            self._environ |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        self._environ["GIT_CONFIG_COUNT"] = str(len(filters))

    def line(self, *arguments: str) -> str:
        """Return a one-line answer, or nothing."""
        return self.text(*arguments).strip("\n")

    def text(self, *arguments: str) -> str:
        """Return an answer as text; empty when git has none or it is too long."""
        data = self.read(*arguments, limit=_TEXT_BYTES) or b""
        return data.decode("utf-8", "replace")

    def read(self, *arguments: str, limit: int) -> bytes | None:
        """Return the first bytes of an answer; None when git failed or took too long."""
        settings = [part for setting in _OFF for part in ("-c", setting)]
        command = ["git", "--no-pager", "--no-optional-locks", *settings, "-C", self._folder, *arguments]
        seconds = min(_CALL_S, self._ends - clock.monotonic())
        if seconds <= 0:
            return None
        try:
            process = subprocess.Popen(  # noqa: S603 -- our own arguments, no shell
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._environ
            )
        except OSError:  # no git, or no such folder
            return None
        return _first_bytes(process, limit, seconds)

    def _without_filters(self) -> Iterator[tuple[str, str]]:
        """Yield the settings that switch off the filters which this repository's own configuration names."""
        names = self.text(
            "config", "--show-scope", "--null", "--get-regexp", r"^filter\..*\.(clean|smudge|process|required)$"
        )
        parts = names.split("\0")
        for scope, entry in zip(parts[::2], parts[1::2], strict=False):
            key, _, value = entry.partition("\n")
            if scope in ("local", "worktree") and not value.startswith(_LFS):
                yield key, "false" if key.endswith(".required") else ""


def _first_bytes(process: subprocess.Popen[bytes], limit: int, seconds: float) -> bytes | None:
    """Return what a process prints, up to a limit; it is killed when it prints more or takes too long."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        with process:
            data = process.stdout.read(limit) if process.stdout else b""
            if len(data) == limit:
                process.kill()
            code = process.wait()
    finally:
        timer.cancel()
    return None if late.is_set() or (code and len(data) < limit) else data


__all__ = ["git_facts"]
