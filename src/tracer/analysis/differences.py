"""What differs between runs before any curve is looked at: parameters, packages, environment, code.

Values in, values out; a nested dictionary is compared by the paths of its leaves. Standard library only.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: A run that has no such key at all; None would be a value of it.
ABSENT = "(absent)"
_SHORT_COMMIT = 12
#: What is different for every run and every commit, and says nothing more than that.
_NOISE_OF_GIT = frozenset({
    "diff", "diffstat", "redacted", "untracked_files", "commit_message", "commit_author", "commit_datetime",
    "ahead_of_remote", "describe", "truncated", "root", "files", "commits_from", "is_shallow",
})  # fmt: skip
_PACKAGES = "packages"
_NOISE_OF_ENVIRONMENT = frozenset({
    "jobs", "redacted", "memory", "command.orig_argv",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that is not the same in all runs, with the value of each run in their order."""

    key: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class CodeDifference:
    """How the code of a run differs from that of the first one: commits, and uncommitted changes line by line."""

    commits: tuple[str | None, str | None]
    patch: tuple[str, ...]

    @property
    def same_commit(self) -> bool:
        """Tell whether both ran from one commit."""
        return self.commits[0] == self.commits[1]


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return the leaves of a nested dictionary by their path.

    Example:
        >>> flatten({"lr": 0.1, "model": {"layers": 2}})
        {'lr': 0.1, 'model.layers': 2}
    """
    leaves: dict[str, object] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves.update(flatten(value, f"{path}."))
        else:
            leaves[path] = value
    return leaves


def differing(mappings: Sequence[Mapping[str, object]], *, ignore: frozenset[str] = frozenset()) -> list[Difference]:
    """Return the keys whose values are not the same in all mappings, sorted.

    Args:
        mappings: One for each run; nested ones are compared leaf by leaf.
        ignore: Keys, or first parts of paths, that are left out.

    Returns:
        A difference for each such key; a run without the key has `ABSENT`.

    Example:
        >>> differing([{"lr": 0.1, "seed": 1}, {"lr": 0.2, "seed": 1}])
        [Difference(key='lr', values=(0.1, 0.2))]
    """
    leaves = [flatten(mapping) for mapping in mappings]
    keys = sorted({key for found in leaves for key in found if not {key, key.partition(".")[0]} & ignore})
    rows = (Difference(key, tuple(found.get(key, ABSENT) for found in leaves)) for key in keys)
    return [row for row in rows if any(not _same(row.values[0], value) for value in row.values[1:])]


def environment_differences(environments: Sequence[Mapping[str, object]]) -> list[Difference]:
    """Return how Python, packages, machine and settings differ; what differs between any two processes is left out."""
    spread = [{**found, _PACKAGES: _by_name(found.get(_PACKAGES))} for found in environments]
    return differing(spread, ignore=_NOISE_OF_ENVIRONMENT)


def code_difference(first: Mapping[str, object], other: Mapping[str, object]) -> CodeDifference | None:
    """Return how the code of two runs differs, from what git said when they began.

    Args:
        first: The `git` facts of one run.
        other: Those of the other.

    Returns:
        The two commits and a diff of their uncommitted changes; None when both are the same or nothing is known.
    """
    commits = (_commit(first), _commit(other))
    patches = [_patch(facts).splitlines() for facts in (first, other)]
    if commits[0] == commits[1] and patches[0] == patches[1]:
        return None
    lines = difflib.unified_diff(patches[0], patches[1], "first", "other", n=3, lineterm="")
    return CodeDifference(commits, tuple(lines))


def git_differences(facts: Sequence[Mapping[str, object]]) -> list[Difference]:
    """Return how branch, commit and state of the tree differ."""
    return differing(facts, ignore=_NOISE_OF_GIT)


def _same(one: object, other: object) -> bool:
    """Compare two values; NaN is the same as NaN, and 1 is not True."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return one == other or (one != one and other != other)  # noqa: PLR0124 -- only NaN differs from itself


def _by_name(packages: object) -> Mapping[str, object]:
    """Return packages as name → version, from a mapping or from lines like `numpy==2.4.1`."""
    if isinstance(packages, Mapping):
        return packages
    if not isinstance(packages, (list, tuple)):
        return {}
    pairs = (str(line).partition("==") for line in packages)
    return {name: version for name, _, version in pairs}


def _commit(facts: Mapping[str, object]) -> str | None:
    """Return the short commit of a run's git facts."""
    commit = facts.get("commit_hash")
    return str(commit)[:_SHORT_COMMIT] if commit else None


def _patch(facts: Mapping[str, object]) -> str:
    """Return the uncommitted changes of a run."""
    return str(facts.get("diff") or facts.get("diffstat") or "")


__all__ = [
    "ABSENT",
    "CodeDifference",
    "Difference",
    "code_difference",
    "differing",
    "environment_differences",
    "flatten",
    "git_differences",
]
