"""The hook on imports: told of each module that is waited for, unseen by the program and by other hooks."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from tracer import sink
from tracer.capture import importing

TEXT = "import sys\nvalue = 1\n\nclass Thing:\n    pass\n\nloader_seen = (__loader__, __spec__.loader)\n"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Import from this test's folder, and forget what it imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before, finders = set(sys.modules), list(sys.meta_path)
    importlib.invalidate_caches()
    yield
    importing.watch((), lambda _: None)
    sys.meta_path[:] = finders
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(name: str, text: str = TEXT) -> None:
    """Put a module into the folder."""
    path = Path(name.replace(".", "/") + ".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    importlib.invalidate_caches()


def watched(*names: str) -> list[str]:
    """Wait for modules; the list is of those that were told."""
    told: list[str] = []
    importing.watch(names, told.append)
    return told


def test_a_module_is_told_after_it_was_executed() -> None:
    write("waited")
    write("other")
    states: list[object] = []
    importing.watch(["waited"], lambda name: states.append(sys.modules[name].value))

    importlib.import_module("other")
    importlib.import_module("waited")

    assert states == [1]


def test_a_module_sees_its_real_loader_while_it_is_executed_and_after() -> None:
    write("waited")
    watched("waited")

    module = importlib.import_module("waited")

    assert {type(loader) for loader in (*module.loader_seen, module.__loader__, module.__spec__.loader)} == {
        SourceFileLoader
    }
    assert inspect.getsource(module.Thing) == "class Thing:\n    pass\n"
    assert type(pickle.loads(pickle.dumps(module.Thing()))) is module.Thing  # noqa: S301


def test_a_module_of_a_package_is_told_by_its_full_name() -> None:
    write("pack.__init__", "")
    write("pack.waited")
    told = watched("pack.waited")

    importlib.import_module("pack.waited")

    assert told == ["pack.waited"]


def test_a_package_that_replaces_itself_is_told_once_it_has() -> None:
    write(
        "lazy",
        "import sys, types\nclass Lazy(types.ModuleType):\n    value = 7\nsys.modules[__name__] = Lazy(__name__)\n",
    )
    states: list[object] = []
    importing.watch(["lazy"], lambda name: states.append(sys.modules[name].value))

    assert importlib.import_module("lazy").value == 7
    assert states == [7]


def test_a_reload_is_told_again() -> None:
    write("waited")
    told = watched("waited")
    module = importlib.import_module("waited")

    importlib.reload(module)

    assert told == ["waited", "waited"]
    assert isinstance(module.__spec__.loader, SourceFileLoader)


def test_an_import_that_fails_fails_as_before() -> None:
    write("broken", "raise ValueError('theirs')")
    told = watched("broken", "missing", "pack.none")

    with pytest.raises(ValueError, match="theirs"):
        importlib.import_module("broken")
    with pytest.raises(ModuleNotFoundError, match="No module named 'missing'"):
        importlib.import_module("missing")
    assert importlib.util.find_spec("missing") is None

    assert (told, "broken" in sys.modules) == ([], False)


def test_a_failure_of_ours_is_not_the_importing_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    write("waited")
    monkeypatch.setattr(importing, "_guard", sink.Guard(quiet=True))
    importing.watch(["waited"], lambda _: 1 / 0)

    assert importlib.import_module("waited").value == 1


def test_waiting_for_nothing_leaves_no_finder() -> None:
    before = list(sys.meta_path)
    watched("waited")
    assert sys.meta_path[1:] == before

    importing.watch((), lambda _: None)

    assert sys.meta_path == before


def test_a_module_that_is_being_imported_as_waiting_begins_is_told_when_it_is_there() -> None:
    write("half", "import starter\nvalue = 3\n")
    write("later")
    write(
        "starter",
        "from tracer.capture import importing\n"
        "import told_list\n"
        "importing.watch(['half', 'later'], told_list.told.append)\n",
    )
    told: list[str] = []
    holder = ModuleType("told_list")
    holder.told = told  # type: ignore[attr-defined]
    sys.modules["told_list"] = holder

    importlib.import_module("half")
    importlib.import_module("later")

    assert sorted(told) == ["half", "later"]


class Chained:
    """Another tool's hook, as wrapt makes them: it asks the others and puts itself around their loader."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._asking = threading.local()

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:  # noqa: ARG002
        """Put a loader around the one that the others find."""
        if name != "waited" or getattr(self._asking, "now", False):
            return None
        self._asking.now = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking.now = False
        assert spec is not None
        spec.loader = _ChainedLoader(spec.loader, self.heard)  # type: ignore[assignment]
        return spec


class _ChainedLoader:
    def __init__(self, loader: object, heard: list[str]) -> None:
        self.loader, self.heard = loader, heard

    def create_module(self, spec: object) -> object:
        return self.loader.create_module(spec)  # type: ignore[attr-defined]

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = module.__spec__.loader = self.loader  # type: ignore[union-attr,assignment]
        self.loader.exec_module(module)  # type: ignore[attr-defined]
        self.heard.append(module.__name__)


class Selfish:
    """Another tool's hook, as typeguard makes them: it asks the path alone, and nobody else."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """Find on the path, whoever else there is."""
        return PathFinder.find_spec(name, path, target) if name in ("waited", "second") else None  # type: ignore[arg-type]


@pytest.mark.parametrize("is_ours_first", [True, False])
def test_beside_a_hook_that_asks_the_others_both_are_told(is_ours_first: bool) -> None:  # noqa: FBT001
    write("waited")
    theirs = Chained()
    if is_ours_first:
        told = watched("waited")
        sys.meta_path.insert(0, theirs)  # type: ignore[arg-type]
    else:
        sys.meta_path.insert(0, theirs)  # type: ignore[arg-type]
        told = watched("waited")

    module = importlib.import_module("waited")

    assert (told, theirs.heard) == (["waited"], ["waited"])
    assert isinstance(module.__spec__.loader, SourceFileLoader)


def test_beside_a_hook_that_asks_nobody_modules_are_told_no_later_than_at_the_next_import() -> None:
    write("waited")
    write("second")
    write("anything")
    told = watched("waited", "second")
    sys.meta_path.insert(0, Selfish())  # type: ignore[arg-type]

    importlib.import_module("waited")
    importlib.import_module("anything")
    importlib.import_module("second")

    assert told == ["waited", "second"]


def test_a_report_tells_what_went_by_unnoticed() -> None:
    write("waited")
    told = watched("waited")
    sys.meta_path.insert(0, Selfish())  # type: ignore[arg-type]
    importlib.import_module("waited")

    importing.catch_up()

    assert told == ["waited"]


def test_threads_that_import_at_once_are_each_told_of_their_own() -> None:
    names = [f"module{number}" for number in range(8)]
    for name in names:
        write(name)
    told = watched(*names)
    threads = [threading.Thread(target=importlib.import_module, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(told) == names
