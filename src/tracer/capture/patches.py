"""Patches that restore the code of a run: from a commit to the working tree, for new files, for commits nobody has.

    git checkout <commits_from>            the newest commit that a remote has, or the run's own commit
    git am  code/commits.patch             where there is one
    git apply code/diff.patch              tracked files, staged or not
    git apply code/untracked.patch         new files

Secrets are cut line by line, so that a patch stays one. Where a line was cut that is no addition, it no longer fits the
commit it stands on; `write` says so.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence

from tracer.capture.redaction import Redactor
from tracer.capture.repository import Repository

FOLDER = "code"
_MAX_TOTAL, _MAX_FILE = 10 << 20, 1 << 20
_OPTIONS = (
    "-O/dev/null", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=dirty", "--submodule=short",
)  # fmt: skip
_PATCH = ("--binary", "--full-index", "--src-prefix=a/", "--dst-prefix=b/")
_SOURCE = frozenset((
    ".py", ".pyi", ".pyx", ".pxd", ".ipynb", ".c", ".cc", ".cpp", ".cxx", ".h", ".hpp", ".cu", ".cuh", ".rs", ".go",
    ".java", ".jl", ".r", ".lua", ".js", ".ts", ".sh", ".bash", ".sql", ".proto", ".md", ".rst", ".txt", ".toml",
    ".cfg", ".ini", ".yaml", ".yml", ".json", ".jsonnet", ".j2", ".jinja", ".cmake", ".mk",
))  # fmt: skip
_SOURCE_NAMES = ("Makefile", "Dockerfile", "requirements.txt", "CMakeLists.txt", ".gitignore", ".gitattributes")
#: In these a value stands without quotes.
_BARE = (".toml", ".cfg", ".ini", ".yaml", ".yml", ".txt", ".sh", ".bash", ".md")
_BINARY = b"GIT binary patch"


class Patches:
    """Makes the patches of a working tree, and counts what is kept.

    Args:
        repository: The repository, asked from its top.
        root: Its top.
        redactor: What cuts secrets out.
    """

    def __init__(self, repository: Repository, root: str, redactor: Redactor) -> None:
        self._repository, self._root, self._redactor = repository, root, redactor
        self._left = _MAX_TOTAL
        self._unfit = False  # whether a line was cut that must be as it was
        self._did_not_fit: set[str] = set()
        self.truncated = False

    def diff(self, commit: str | None) -> bytes | None:
        """Return what leads from the commit to the working tree; None when it is too long, or git was too slow."""
        data = self._take("diff", *_OPTIONS, *_PATCH, self._base(commit), "--")
        return None if data is None else self._clean("diff.patch", data)

    def diffstat(self, commit: str | None) -> str:
        """Return which files changed, and by how many lines."""
        return self._repository.text("diff", *_OPTIONS, "--stat=120", self._base(commit), "--")

    def commits(self) -> tuple[str | None, bytes | None]:
        """Return the commit that the newest ones stand on which no remote has, and those as one mailbox of patches."""
        if not self._repository.line("for-each-ref", "--count=1", "refs/remotes"):
            return None, None
        unknown = ("HEAD", "--not", "--remotes")
        listed = self._repository.text("rev-list", "--boundary", *unknown).split()
        bounds = [line[1:] for line in listed if line.startswith("-")]
        if not any(not line.startswith("-") for line in listed) or not bounds:
            return None, None
        options = ("--stdout", "--no-attach", "--no-signature", "--no-ext-diff", "--no-textconv", "--no-color")
        data = self._take("format-patch", *options, *_PATCH, *unknown)
        return bounds[-1], None if data is None else self._clean("commits.patch", data)

    def untracked(self, names: Sequence[str]) -> bytes | None:
        """Return source files that git does not know yet, as a patch that adds them."""
        parts = []
        for name in names:
            path = os.path.join(self._root, name)
            content = _source(path, name, self._redactor)
            if content is None:
                continue
            part = _addition(name, content, executable=os.access(path, os.X_OK))
            if len(part) > self._left:
                self.truncated = True
                break
            self._left -= len(part)
            parts.append(part)
        return self._clean("untracked.patch", b"".join(parts))

    def write(self, folder: str, patches: Mapping[str, bytes | None]) -> dict[str, object]:
        """Write those that are not empty below a run's folder.

        Returns:
            File → its size, and `applies`: whether it still fits, after secrets were cut out of it.
        """
        target = os.path.join(folder, FOLDER)
        written: dict[str, object] = {}
        for name, data in patches.items():
            if data:
                os.makedirs(target, exist_ok=True)
                with open(os.path.join(target, name), "wb") as file:
                    file.write(data)
                written[f"{FOLDER}/{name}"] = {"bytes": len(data), "applies": name not in self._did_not_fit}
        return written

    def _base(self, commit: str | None) -> str:
        """Return what is compared with: before the first commit the empty tree."""
        return commit or self._repository.line("hash-object", "-t", "tree", "/dev/null")

    def _take(self, *arguments: str) -> bytes | None:
        """Return an answer of git that fits into what is left; None when it does not, or git failed."""
        data = self._repository.read(*arguments, limit=self._left + 1)
        if data is None or len(data) > self._left:
            self.truncated = True
            return None
        self._left -= len(data)
        return data

    def _clean(self, name: str, patch: bytes) -> bytes:
        """Return a patch without secrets; data that is no text stays as it is."""
        if not patch:
            return patch
        self._unfit = False
        # Parted at line feeds only: a carriage return and other ends of lines belong to the line.
        lines = [f"{line}\n" for line in patch.decode("utf-8", "surrogateescape").split("\n")[:-1]]
        clean = "".join(self._without_secrets(lines)).encode("utf-8", "surrogateescape")
        if self._unfit:
            self._did_not_fit.add(name)
        return clean

    def _without_secrets(self, lines: Sequence[str]) -> Iterator[str]:
        """Yield the lines of a patch, each for itself."""
        is_binary = is_bare = False
        pulled: list[str] = []
        for line in lines:
            if line.startswith("diff --git "):
                yield from self._flush(pulled, bare=is_bare)
                is_binary = False
            elif line.startswith("+++ "):
                yield from self._flush(pulled, bare=is_bare)
                is_bare = line.strip().rstrip('"').endswith(_BARE)
            elif line.startswith(_BINARY.decode()):
                yield from self._flush(pulled, bare=is_bare)
                is_binary = True
            if is_binary:
                yield line
            else:
                pulled.append(line)
        yield from self._flush(pulled, bare=is_bare)

    def _flush(self, pulled: list[str], *, bare: bool) -> Iterator[str]:
        """Yield lines of text without secrets, and notice where the patch stops to fit."""
        for before, after in zip(pulled, self._redactor.lines(list(pulled), "git.diff", bare=bare), strict=True):
            if before != after and before[:1] in ("-", " ", "d", "i"):
                self._unfit = True
            yield after
        pulled.clear()


def _source(path: str, name: str, redactor: Redactor) -> bytes | None:
    """Return the content of a file that is source text of a sensible size; None for all others."""
    base = os.path.basename(name)
    stem, suffix = os.path.splitext(base)
    if suffix.lower() not in _SOURCE and base not in _SOURCE_NAMES:
        return None
    if suffix.lower() != ".py" and redactor.is_secret_name(stem):  # credentials.json
        return None
    try:
        state = os.lstat(path)
        if not stat.S_ISREG(state.st_mode) or state.st_size > _MAX_FILE:
            return None
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError:
        return None
    return None if b"\0" in content or len(content) > _MAX_FILE else content


def _addition(name: str, content: bytes, *, executable: bool) -> bytes:
    """Return a patch that makes a file."""
    old, new = _quoted(f"a/{name}"), _quoted(f"b/{name}")
    head = b"diff --git %s %s\nnew file mode %s\n" % (old, new, b"100755" if executable else b"100644")
    if not content:
        return head + b"index 0000000..e69de29\n"
    lines = content.split(b"\n")
    is_whole = lines[-1] == b""
    lines = lines[:-1] if is_whole else lines
    body = b"".join(b"+%s\n" % line for line in lines)
    end = b"" if is_whole else b"\\ No newline at end of file\n"
    count = b"" if len(lines) == 1 else b",%d" % len(lines)
    return head + b"--- /dev/null\n+++ %s\n@@ -0,0 +1%s @@\n" % (new, count) + body + end


def _quoted(name: str) -> bytes:
    """Return a path as git writes it: in quotes, with escapes, where it holds anything unusual."""
    data = name.encode("utf-8", "surrogateescape")
    if all(33 <= byte < 127 and byte not in b'"\\' for byte in data):  # noqa: PLR2004 -- what is visible in ASCII
        return data
    escaped = b"".join(
        b"\\" + bytes([byte]) if byte in b'"\\' else bytes([byte]) if 32 <= byte < 127 else b"\\%03o" % byte  # noqa: PLR2004
        for byte in data
    )
    return b'"' + escaped + b'"'


__all__ = ["FOLDER", "Patches"]
