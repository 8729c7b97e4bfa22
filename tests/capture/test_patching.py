"""Hooks in other people's code: put in once, taken out without a trace, never in the program's way."""

from __future__ import annotations

import functools
import gc
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tracer import sink
from tracer.capture import importing
from tracer.capture import patching as room
from tracer.capture.frameworks import FRAMEWORKS, Framework, chosen
from tracer.capture.patch_report import is_between
from tracer.capture.patching import ACTIVE, INERT, REFUSED, WAITING, Hook, Patch, Patches, SignatureChanged
from tracer.errors import ConfigError
from tracer.events import Scalars
from tracer.testing import capture_events


class Writer:
    """Stands for a class of somebody else's."""

    def add(self, name: str, value: float) -> float:
        """Return what is written."""
        if value < 0:
            message = f"{name} is negative"
            raise ValueError(message)
        return value

    @staticmethod
    def twice(value: float) -> float:
        """Return twice the value."""
        return 2 * value

    @classmethod
    def made(cls, value: float) -> tuple[str, float]:
        """Return who made what."""
        return cls.__name__, value


ORIGINAL = vars(Writer)["add"]


def listening(hook: Hook) -> Callable[[Any], Any]:
    """Return what wraps `add`."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def add(self: Any, name: str, value: float) -> Any:  # noqa: ANN401 -- whatever the original gives
            result = original(self, name, value)
            if hook.is_on:
                with hook:
                    hook.emit(Scalars({name: value}))
            return result

        return add

    return make


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Give a hook, and see that nothing of it stays."""
    yield Hook("test.add")
    Writer.add = ORIGINAL  # type: ignore[method-assign]


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> Iterator[Patches]:
    """Give patches that know one framework: `toy`, whose module `toy_writer` holds a class `Writer`."""
    hook = Hook("toy.add")

    def install(module: types.ModuleType) -> Callable[[], None]:
        return hook.wrap(module.Writer, "add", listening(hook), parameters=("self", "name", "value"))

    toy = types.ModuleType("toy_room")
    toy.PATCHES = (  # type: ignore[attr-defined]
        Patch(
            hook, module="toy_writer", attribute="Writer.add", package="pytest", tested=("1.0", "2.0"), install=install
        ),
    )
    monkeypatch.setitem(sys.modules, "tracer.capture.toy_room", toy)
    monkeypatch.setitem(FRAMEWORKS, "toy", Framework("toy_room", "toy_writer"))
    patches = Patches()
    yield patches
    patches.stop()


def toy_writer() -> types.ModuleType:
    """Return a fresh module of the framework."""
    module = types.ModuleType("toy_writer")
    exec("class Writer:\n    def add(self, name, value):\n        return value", vars(module))  # noqa: S102
    sys.modules["toy_writer"] = module
    return module


@pytest.fixture(autouse=True)
def _no_toy() -> Iterator[None]:
    yield
    sys.modules.pop("toy_writer", None)


def test_a_wrapper_returns_and_raises_what_the_original_does(hook: Hook) -> None:
    undo = hook.wrap(Writer, "add", listening(hook), parameters=("self", "name"))

    with capture_events() as events:
        assert Writer().add("loss", 2.0) == 2.0
        with pytest.raises(ValueError, match="loss is negative"):
            Writer().add("loss", -1.0)
        with pytest.raises(TypeError):
            Writer().add()  # type: ignore[call-arg]

    undo()
    assert events == [Scalars({"loss": 2.0})]
    assert vars(Writer)["add"] is ORIGINAL


def test_a_wrapper_looks_like_the_original(hook: Hook) -> None:
    hook.wrap(Writer, "add", listening(hook))

    assert (Writer.add.__name__, Writer.add.__doc__) == ("add", "Return what is written.")
    assert Writer.add.__wrapped__ is ORIGINAL  # type: ignore[attr-defined]


def test_static_and_class_methods_stay_what_they_are() -> None:
    hook, heard = Hook("test.kinds"), []

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:  # noqa: ANN401 -- as above
            heard.append(args)
            return original(*args)

        return wrapper

    before = dict(vars(Writer))
    undos = [hook.wrap(Writer, "twice", make), hook.wrap(Writer, "made", make)]
    assert (Writer.twice(2.0), Writer().twice(2.0), Writer.made(1.0)) == (4.0, 4.0, ("Writer", 1.0))
    for undo in undos:
        undo()

    assert heard == [(2.0,), (2.0,), (Writer, 1.0)]
    assert {name: vars(Writer)[name] is before[name] for name in ("twice", "made")} == {"twice": True, "made": True}


def test_a_place_with_other_parameters_is_left_alone(hook: Hook) -> None:
    with pytest.raises(SignatureChanged, match=r"add takes \(self, name, value\), known is \(self, tag\)"):
        hook.wrap(Writer, "add", listening(hook), parameters=("self", "tag"))
    with pytest.raises(SignatureChanged, match="Writer has no remove of its own"):
        hook.wrap(Writer, "remove", listening(hook))

    assert vars(Writer)["add"] is ORIGINAL


def test_a_hundred_starts_and_stops_leave_the_original(hook: Hook) -> None:
    for _ in range(100):
        first, second = (hook.wrap(Writer, "add", listening(hook)) for _ in range(2))
        assert Writer.add.__wrapped__ is ORIGINAL  # type: ignore[attr-defined]  # one wrapper, not two
        first()
        second()

        assert vars(Writer)["add"] is ORIGINAL
    assert hook._places == []


@pytest.mark.parametrize("says_so", [True, False])
def test_under_the_wrapper_of_another_tool_ours_stays_deaf_and_hears_again(hook: Hook, says_so: bool) -> None:  # noqa: FBT001
    undo = hook.wrap(Writer, "add", listening(hook))
    ours = vars(Writer)["add"]

    def theirs(self: Writer, name: str, value: float) -> float:
        return float(ours(self, name, value))

    if says_so:
        theirs = functools.wraps(ours)(theirs)
    Writer.add = theirs  # type: ignore[method-assign]

    with capture_events() as events:
        undo()
        Writer().add("deaf", 1.0)
        assert vars(Writer)["add"] is theirs  # another tool's wrapper is not taken away
        for _ in range(100):
            again = hook.wrap(Writer, "add", listening(hook))
            again()
        again = hook.wrap(Writer, "add", listening(hook))
        Writer().add("heard", 1.0)
        assert vars(Writer)["add"] is theirs  # nor is a second one of ours put around it
        Writer.add = ours  # type: ignore[method-assign]  # they leave
        again()

    assert events == [Scalars({"heard": 1.0})]
    assert vars(Writer)["add"] is ORIGINAL


def test_a_place_that_somebody_replaced_is_wrapped_anew(hook: Hook) -> None:
    hook.wrap(Writer, "add", listening(hook))

    def other(self: Writer, name: str, value: float) -> float:  # noqa: ARG001
        return 10 * value

    Writer.add = other  # type: ignore[method-assign]
    undo = hook.wrap(Writer, "add", listening(hook))
    with capture_events() as events:
        assert Writer().add("loss", 2.0) == 20.0
    undo()

    assert events == [Scalars({"loss": 2.0})]
    assert vars(Writer)["add"] is other


def test_a_failure_of_ours_is_kept_from_the_program_and_ten_end_it(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hook, "guard", sink.Guard(quiet=True))
    monkeypatch.setattr(hook.__class__, "emit", lambda self, event: 1 / 0)  # noqa: ARG005
    hook.wrap(Writer, "add", listening(hook))

    assert [Writer().add("loss", float(value)) for value in range(20)] == [float(value) for value in range(20)]

    assert (hook.failures, hook.is_on) == (10, False)


def test_a_stop_while_a_call_is_under_way_is_not_forgotten(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hook, "guard", sink.Guard(quiet=True))
    undo = hook.wrap(Writer, "add", listening(hook))
    with hook:
        undo()
        raise ValueError

    assert not hook.is_on


def test_what_was_imported_before_is_heard_and_let_go(framework: Patches) -> None:
    writer = toy_writer().Writer
    original = vars(writer)["add"]
    instance = writer()

    with capture_events() as events:
        framework.start(["toy"])
        instance.add("loss", 1.0)
        framework.stop()
        instance.add("loss", 2.0)

    assert events == [Scalars({"loss": 1.0})]
    assert vars(writer)["add"] is original


def test_the_report_says_what_became_of_each_place(framework: Patches) -> None:
    framework.start(["toy"])
    (waiting,) = framework.report()
    framework.stop()
    writer = toy_writer().Writer
    framework.start(["toy"])
    with capture_events():
        writer().add("loss", 1.0)
    (active,) = framework.report()
    framework.placed[next(iter(framework.placed))].patch.hook.is_on = False
    (inert,) = framework.report()
    framework.stop()

    assert (waiting.state, waiting.module, waiting.attribute) == (WAITING, "toy_writer", "Writer.add")
    assert (active.state, active.events, active.package, active.untested) == (ACTIVE, 1, "pytest", True)
    assert inert.state == INERT
    assert [row.state for row in framework.report()] == [INERT]  # what there was to say stays known


def test_a_refused_place_says_why_and_warns_once(
    framework: Patches, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Hook, "guard", sink.Guard())
    module = toy_writer()
    module.Writer.add = lambda self, tag: None  # noqa: ARG005

    framework.start(["toy"])
    framework.start(["toy"])

    (row,) = framework.report()
    said = capsys.readouterr().err
    assert (row.state, row.why) == (REFUSED, "add takes (self, tag), known is (self, name, value)")
    assert said.count("is not captured at Writer.add: add takes (self, tag)") == 1
    assert said.count("Your program is unaffected.") == 1


def test_a_module_executed_again_is_heard_again_and_restored(framework: Patches) -> None:
    framework.start(["toy"])
    first = toy_writer().Writer
    framework._arrived("toy_writer")
    second = toy_writer().Writer  # a reload makes new classes
    framework._arrived("toy_writer")

    with capture_events() as events:
        first().add("first", 1.0)
        second().add("second", 2.0)
        framework.stop()

    assert events == [Scalars({"first": 1.0}), Scalars({"second": 2.0})]
    assert [hasattr(vars(writer)["add"], "__wrapped__") for writer in (first, second)] == [False, False]


def test_nothing_holds_what_was_taken_out(framework: Patches) -> None:
    module = toy_writer()
    for _ in range(100):
        framework.start(["toy"])
        framework.stop()
    gone = weakref.ref(module.Writer)
    del module, sys.modules["toy_writer"]
    gc.collect()

    assert gone() is None


def test_a_hook_goes_in_while_another_thread_holds_an_import(framework: Patches) -> None:
    """No lock of ours is held while a module is imported: two threads would wait for each other."""
    done = threading.Event()
    module = toy_writer()
    patch = sys.modules["tracer.capture.toy_room"].PATCHES[0]
    install = patch.install

    def slow(found: types.ModuleType) -> Callable[[], None]:
        other = threading.Thread(target=lambda: (framework.start([]), framework.report(), done.set()))
        other.start()
        assert done.wait(30)
        return install(found)

    patch.install = slow
    framework.start(["toy"])

    assert [row.state for row in framework.report()] == [ACTIVE]
    assert module.Writer.add.__wrapped__


def test_taken_out_while_it_goes_in_leaves_nothing(framework: Patches) -> None:
    module = toy_writer()
    original = vars(module.Writer)["add"]
    patch = sys.modules["tracer.capture.toy_room"].PATCHES[0]
    install = patch.install

    def overtaken(found: types.ModuleType) -> Callable[[], None]:
        undo: Callable[[], None] = install(found)
        framework.stop()
        return undo

    patch.install = overtaken
    framework.start(["toy"])

    assert vars(module.Writer)["add"] is original


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["off"], []),
        ([], []),
        (["tensorboard"], ["tensorboard"]),
        (["lightning", "TensorBoard "], ["tensorboard", "lightning"]),
        (["auto"], [name for name in FRAMEWORKS if name != "arguments"]),
        (["auto", "-wandb"], [name for name in FRAMEWORKS if name not in ("arguments", "wandb")]),
        (["-wandb", "-mlflow"], [name for name in FRAMEWORKS if name not in ("arguments", "wandb", "mlflow")]),
        (["auto", "off"], []),
    ],
)
def test_frameworks_are_chosen_by_name(names: list[str], expected: list[str]) -> None:
    assert chosen(names) == expected


def test_an_unknown_framework_is_refused_with_what_is_near() -> None:
    with pytest.raises(ConfigError, match=r"capture='lightnin' is not .*Did you mean 'lightning'\? Known: tensorboard"):
        chosen(["lightnin"])


@pytest.mark.parametrize(
    ("version", "tested", "known"),
    [
        ("2.13.0+cpu", ("2.13.0", "2.13.0"), True),
        ("2.13.1", ("2.13.0", "2.13.0"), True),
        ("2.14.0", ("2.13.0", "2.13.0"), False),
        ("2.4.0", ("2.4.0", "2.6.6"), True),
        ("2.3.9", ("2.4.0", "2.6.6"), False),
        ("3.0rc1", ("2.4.0", "2.6.6"), False),
        ("5.23.0", ("4.57.6", "5.23.0"), True),
    ],
)
def test_a_version_is_known_between_the_oldest_and_the_newest_that_were_tested(
    version: str,
    tested: tuple[str, str],
    known: bool,  # noqa: FBT001
) -> None:
    assert is_between(version, tested) is known


def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_its_parent_held() -> None:
    held = room._the_lock
    with held:
        room._renew_lock()
        renewed = room._the_lock

    assert renewed is not held
    assert importing.is_complete("tracer.capture.patching")
