"""P16: no name, value or file that we read can run code, leave its folder, or exhaust the machine."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from journals import only_run, runs, typed
from programs import CALMLY

import tracer
from tracer import journal, runfile

SOURCES = sorted((Path(__file__).resolve().parent.parent.parent / "src" / "tracer").rglob("*.py"))
#: Modules and functions that run what they read.
RUNNING = {"pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
#: The few places that may run something, and why that is no input: path → what it may do.
MEANT = {
    "experiment/artifacts.py": {"pickle"},  # only written, where the program asked for that way itself
    "flight/pickles.py": {"pickle", "cloudpickle"},  # a model, only if the caller trusts it or this machine signed it
    "flight/tensors.py": {"pickle", "torch.load"},  # with `weights_only`, and the error that this raises
    "record/endings.py": {"exec"},  # a text of its own: only that has Python still end by SIGINT
    "reactions.py": {"shell"},  # the command line that the program itself gave as `on_anomaly`
}
EVIL = [
    "../x", "..\\x", "%2e%2e%2f", "....//", "/etc/passwd", "C:\\x", "\\\\unc\\x", "file:///x", "con", "nul.txt",
    "x.", "x ",
    "a" * 4096, "~root", "$HOME", "`id`", "${IFS}", "x\nstatus: completed", "\x1b]0;x\x07", "=cmd|' /C calc'!A0",
    "<img src=x onerror=alert(1)>", "'; DROP TABLE run; --",
]  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_p16_nothing_that_is_read_is_run(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {
        node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    attributes = {
        ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    shell = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) != "False"
    ]

    meant = MEANT.get(str(path.relative_to(SOURCES[0].parent)), set())
    assert imported & RUNNING <= meant
    assert called & CALLS <= meant
    assert attributes & {"yaml.load", "torch.load", "os.system", "os.popen", "tempfile.mktemp"} <= meant
    assert shell == [] or "shell" in meant


@pytest.mark.parametrize("name", EVIL, ids=lambda name: ascii(name)[:16])
def test_p16_no_name_leaves_the_store(tmp_path: Path, name: str) -> None:
    before = set(tmp_path.rglob("*"))
    text = name[:1000]

    with tracer.init(
        project=name, run_name=name, tags=[name], notes=name, group=name, job_type=name, config={text: name}, **CALMLY
    ) as run:
        run.log({text: 1.0, f"{text[:900]}/text": name})

    folder = only_run(tmp_path / ".tracer")
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert [facts[key] for key in ("project", "name", "notes", "group")] == [name] * 4
    assert typed(folder)[f"{text[:900]}/text"] == name
    outside = {path for path in set(tmp_path.rglob("*")) - before if not path.is_relative_to(tmp_path / ".tracer")}
    assert outside == set()
    assert all(set(path.name) <= set("0123456789abcdef-.") for path in runs(tmp_path / ".tracer"))


@pytest.mark.parametrize("uid", EVIL, ids=lambda uid: ascii(uid)[:16])
def test_p16_an_id_that_is_no_safe_name_becomes_a_digest(uid: str) -> None:
    if len(uid) > 500:
        with pytest.raises(ValueError, match="between 1 and 500"):
            runfile.folder_name(uid)
        return

    name = runfile.folder_name(uid)

    assert name.startswith("id-")
    assert len(name) == 35
    assert set(name[3:]) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "payload",
    [
        b'{"schema": 256, "keys": ["x"], "__class__": "os"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"{" + b'"k": 1,' * 100_000,
        b"cos\nsystem\n(S'id'\ntR.",
        b"\xff" * 100,
    ],
    ids=["class", "deep list", "deep dict", "cut", "pickle", "bytes"],
)
def test_p16_a_hostile_payload_is_data_or_damage(payload: bytes) -> None:
    record = journal.record_bytes(journal.Kind.TYPED, payload, 0, 0.0, 0, journal.commit_key(1))
    (found,) = journal.scan(record, 0, len(record), 1)

    try:
        content = found.json()
    except (ValueError, RecursionError):
        return
    assert isinstance(content, dict)


def test_p16_a_length_that_lies_reads_no_further_than_the_file() -> None:
    record = bytearray(journal.record_bytes(journal.Kind.TYPED, b"{}", 0, 0.0, 0, journal.commit_key(1)))
    record[0:4] = (2**32 - 8).to_bytes(4, "little")

    assert list(journal.scan(record, 0, 2**40, 1)) == []
