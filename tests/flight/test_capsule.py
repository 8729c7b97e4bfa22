"""What goes into a capsule comes out of it, of every kind; and nothing in a capsule runs that is not trusted."""

# ruff: noqa: ANN401, D102 -- a forward takes what it takes, and needs no sentence

from __future__ import annotations

import json
import os
import socket
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from replayed import Keywords, Pair, Small, Tied, keyword_batch, plain, recorded_step, tokens
from torch import nn

import tracer.flight.tensors
from tracer.errors import CapsuleError
from tracer.flight.archive import FORMAT, MANIFEST, Archive
from tracer.flight.capsule import Capsule, Facts, collect, load_capsule, write
from tracer.flight.digests import digest
from tracer.flight.plain import Decoder, Encoder
from tracer.flight.steps import Step
from tracer.flight.tensors import Shelf, from_bytes, taken, to_bytes
from tracer.flight.trees import Slot, tree

pytestmark = pytest.mark.torch


@pytest.fixture
def capsule(tmp_path: Path) -> str:
    """A capsule of a small model."""
    model = Small()
    return write(collect(model, recorded_step(model, plain), Facts()), str(tmp_path / "capsules"))


# Tensors.

KINDS: dict[str, Callable[[], torch.Tensor]] = {
    "float32": lambda: torch.randn(3, 4),
    "float64": lambda: torch.randn(3, 4, dtype=torch.float64),
    "bfloat16": lambda: torch.randn(3, 4).bfloat16(),
    "float16": lambda: torch.randn(3, 4).half(),
    "float8": lambda: torch.randn(3, 4).to(torch.float8_e4m3fn),
    "bool": lambda: torch.tensor([True, False]),
    "int64": lambda: torch.arange(5),
    "uint8": lambda: torch.arange(5, dtype=torch.uint8),
    "complex": lambda: torch.randn(3, 4, dtype=torch.complex64),
    "complex-conjugate": lambda: torch.randn(3, 4, dtype=torch.complex128).conj(),
    "scalar": lambda: torch.tensor(3.5),
    "empty": lambda: torch.empty(0, 4),
    "nan": lambda: torch.tensor([float("nan"), float("inf"), -0.0]),
    "transposed": lambda: torch.randn(3, 4).t(),
    "channels-last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "expanded": lambda: torch.randn(3, 1).expand(3, 4),
    "sliced": lambda: torch.randn(10, 10)[::3, ::4],
    "overlapping": lambda: torch.arange(6.0).unfold(0, 3, 1),
    "sparse": lambda: torch.sparse_coo_tensor([[0, 2, 0], [1, 0, 1]], [1.0, 2.0, 3.0], (3, 4)),
    "sparse-coalesced": lambda: torch.sparse_coo_tensor([[0, 2], [1, 0]], [1.0, 2.0], (3, 4)).coalesce(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 3, torch.qint8),
    "quantised-by-channel": lambda: torch.quantize_per_channel(
        torch.randn(2, 4), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8
    ),
    "requires-grad": lambda: torch.randn(3, requires_grad=True),
}


@pytest.mark.parametrize("suffix_wanted", ["safetensors", "pt"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch deprecates quantisation, and calls sparse ones young
def test_a_tensor_of_any_kind_comes_back(kind: str, suffix_wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if suffix_wanted == "pt":
        monkeypatch.setattr(tracer.flight.tensors, "_safetensors_writer", lambda: None)
    tensor = KINDS[kind]()
    shelf = Shelf()
    shelf.put("t", tensor)

    suffix, data = to_bytes(shelf.tensors)
    back = taken(from_bytes(f"x.{suffix}", data), json.loads(json.dumps(shelf.specs)))["t"]

    assert suffix == suffix_wanted
    assert (back.dtype, back.shape, back.layout) == (tensor.dtype, tensor.shape, tensor.layout)
    assert back.requires_grad == tensor.requires_grad
    assert digest(back) == digest(tensor)
    if tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_conj():
        assert back.stride() == tensor.stride()


def test_the_same_tensor_twice_is_kept_once_and_comes_back_as_one() -> None:
    tensor = torch.randn(3)
    shelf = Shelf()
    shelf.put("a", tensor)
    shelf.put("b", tensor)

    back = taken(shelf.tensors, shelf.specs)

    assert list(shelf.tensors) == ["a"]
    assert back["a"] is back["b"]


def test_what_is_put_on_a_shelf_does_not_change_with_its_tensor() -> None:
    tensor = torch.zeros(3)
    shelf = Shelf()
    shelf.put("t", tensor)

    tensor.add_(1)

    assert shelf.tensors["t"].tolist() == [0, 0, 0]


def test_a_description_that_does_not_fit_its_tensor_is_refused() -> None:
    specs = {"t": {"size": [1000], "stride": [1000], "flat": True}}

    with pytest.raises(CapsuleError, match="The tensor 't' cannot be built"):
        taken({"t": torch.zeros(3)}, specs)


def test_a_tensor_that_would_fill_the_memory_is_refused() -> None:
    specs = {"t": {"size": [1 << 40], "stride": [0], "flat": True}}

    with pytest.raises(CapsuleError, match="it would take"):
        taken({"t": torch.zeros(3)}, specs)


# Structures.


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        -0.5,
        "text",
        [1, (2, "x")],
        {"a": 1, 3: [None], (1, 2): "tuple"},
        1 + 2j,
        b"bytes",
        slice(1, None, 2),
        range(3, 9, 2),
        ...,
        {1, 2},
        frozenset({"a"}),
        torch.float16,
        torch.device("cpu"),
        torch.channels_last,
        torch.Size([2, 3]),
        Pair(1, [2]),
        float("inf"),
    ],
    ids=repr,
)
def test_plain_values_come_back_from_json(value: object) -> None:
    encoder = Encoder()

    text = json.dumps(encoder.encoded(value), allow_nan=False)
    back = Decoder([]).decoded(json.loads(text))

    assert encoder.objects == []
    assert (type(back), back) == (type(value), value)


def test_arrays_are_tensors_on_the_way() -> None:
    np = pytest.importorskip("numpy")
    encoder = Encoder()
    text = json.dumps(encoder.encoded([np.arange(6.0).reshape(2, 3), np.float32(0.25)]))

    array, scalar = Decoder(encoder.arrays).decoded(json.loads(text))

    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (type(scalar), scalar) == (np.float32, 0.25)


def test_a_class_is_only_used_when_it_is_a_container() -> None:
    run: list[str] = []
    hostile = {"data": "subprocess:Popen", "fields": [["args", "true"]]}
    other = {"named": "os:system", "fields": ["true"]}

    assert Decoder([]).decoded(hostile) == {"args": "true"}
    assert Decoder([]).decoded(other) == ("true",)
    assert run == []


def test_json_that_stands_for_nothing_is_refused() -> None:
    for value in ({"torch": "dtype", "value": "load"}, {"unknown": 1}, {"float": "1"}):
        with pytest.raises(CapsuleError, match=r"batch\.json holds a value that cannot be read"):
            Decoder([]).decoded(value)


def test_slots_keep_their_places() -> None:
    structure = tree(([torch.ones(1)], {"x": torch.zeros(2)})).structure

    assert Decoder([]).decoded(Encoder().encoded(structure)) == ([Slot(0)], {"x": Slot(1)})


# Files.


def test_a_capsule_says_what_it_holds(capsule: str) -> None:
    archive = Archive(capsule)
    manifest = archive.manifest
    archive.close()

    assert archive.names[0] == MANIFEST
    assert {"tensors.safetensors", "batch.json", "rng.bin", "ring.json", "source/replayed.py"} <= set(archive.names)
    assert manifest["format"] == FORMAT
    assert manifest["model"]["class"] == "replayed:Small"
    assert manifest["model"]["training_flags"] == {"training": True, "except": []}
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["machine"]["threads"] == torch.get_num_threads()
    assert len(manifest["hashes"]["grads"]) == 12
    assert manifest["calls"] == [
        {
            "backward": manifest["calls"][0]["backward"],
            "mutated_inputs": [],
            "buffers_changed": manifest["calls"][0]["buffers_changed"],
        }
    ]
    assert zipfile.ZipFile(capsule).getinfo("tensors.safetensors").compress_type == zipfile.ZIP_STORED


def test_secrets_of_the_command_line_are_cut_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--api-key", "sk-abcdefghijklmnopqrstuv"])
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123")

    path = write(collect(nn.Linear(1, 1), Step(1), Facts()), str(tmp_path))

    manifest = load_capsule(path).manifest
    assert manifest["argv"] == ["train.py", "--api-key", "[redacted, 17 to 32 characters]"]
    assert manifest["environment"]["WANDB_API_KEY"] == "[redacted, 17 to 32 characters]"
    assert b"sk-abcdefghij" not in Path(path).read_bytes()


def test_numbers_that_json_lacks_are_strings(tmp_path: Path) -> None:
    step = Step(1, loss=float("nan"), norm=float("inf"))

    path = write(collect(nn.Linear(1, 1), step, Facts(value=float("nan"), ring=[step])), str(tmp_path))

    with load_capsule(path) as loaded:
        assert loaded.manifest["value"] == "NaN"
        assert (loaded.ring[0]["loss"], loaded.ring[0]["norm"]) == ("NaN", "Infinity")
        assert loaded.step().norm == float("inf")


def test_the_batch_comes_back_as_it_was_given(tmp_path: Path) -> None:
    model = Keywords()
    step = recorded_step(model, keyword_batch)
    path = write(collect(model, step, Facts()), str(tmp_path))

    with load_capsule(path) as loaded:
        ((args, kwargs),) = loaded.batch

    assert args == ()
    assert kwargs["mode"] == "b"
    assert type(kwargs["pair"]) is Pair
    assert kwargs["batch"][3] == "three"
    assert kwargs["batch"]["x"] is kwargs["batch"]["list"][0][0]


def test_tied_weights_are_one_tensor_again(tmp_path: Path) -> None:
    model = Tied()
    path = write(collect(model, recorded_step(model, tokens), Facts()), str(tmp_path))

    with load_capsule(path) as loaded:
        back = loaded.model()

    assert back.get_parameter("head.weight") is back.get_parameter("embedding.weight")
    assert not back.get_submodule("norm").training
    assert back.get_submodule("frozen").training
    assert not back.get_parameter("frozen.weight").requires_grad


def test_a_second_capsule_of_a_step_gets_a_name_of_its_own(tmp_path: Path) -> None:
    draft = collect(nn.Linear(1, 1), Step(4), Facts(rank=1, world_size=2))

    names = [os.path.basename(write(draft, str(tmp_path))) for _ in range(2)]

    assert names == ["step-4-manual-rank1.trc", "step-4-manual-rank1-2.trc"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = collect(nn.Linear(1, 1), Step(4), Facts())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(draft, str(tmp_path / "capsules"))

    assert list((tmp_path / "capsules").iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    here = socket.gethostname()
    (tmp_path / f".step-1-manual.trc@{here}.999999999").write_text("half")
    ours = tmp_path / f".step-2-manual.trc@{here}.{os.getpid()}"
    theirs = tmp_path / ".step-2-manual.trc@elsewhere.999999999"
    for path in (ours, theirs):
        path.write_text("being written")

    written = write(collect(nn.Linear(1, 1), Step(4), Facts()), str(tmp_path))

    assert {path for path in tmp_path.iterdir() if ".trc" in path.name} == {Path(written), ours, theirs}


# Damage.


def test_every_entry_is_checked(capsule: str, tmp_path: Path) -> None:
    data = Path(capsule).read_bytes()
    with zipfile.ZipFile(capsule) as packed:
        entries = packed.infolist()
    for entry in entries[1:]:
        start = entry.header_offset + 30 + len(entry.filename)
        if not entry.compress_size:
            continue
        place = start + entry.compress_size // 2
        broken = tmp_path / "broken.trc"
        broken.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])

        loaded = load_capsule(broken)

        assert any(entry.filename in one for one in loaded.verify()), entry.filename
        loaded.close()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_capsule_that_was_cut_off_is_refused(capsule: str, share: float) -> None:
    data = Path(capsule).read_bytes()
    Path(capsule).write_bytes(data[: int(len(data) * share)])

    with pytest.raises(CapsuleError, match=r"is no capsule or was cut off"):
        load_capsule(capsule)


def rewritten(path: str, change: Callable[[dict[str, bytes], dict[str, Any]], object]) -> str:
    """Return a capsule in which somebody else changed entries and manifest; the signature is gone."""
    with zipfile.ZipFile(path) as packed:
        entries = {name: packed.read(name) for name in packed.namelist()}
    manifest = json.loads(entries.pop(MANIFEST))
    manifest.pop("signature", None)
    change(entries, manifest)
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(MANIFEST, json.dumps(manifest))
        for name, data in entries.items():
            packed.writestr(name, data)
    return path


def test_a_missing_entry_is_named(capsule: str) -> None:
    path = rewritten(capsule, lambda entries, _: entries.pop("rng.bin"))

    with load_capsule(path) as loaded:
        assert loaded.verify() == [f"The entry rng.bin is missing in {path!r}. The capsule is not whole."]
        with pytest.raises(CapsuleError, match=r"rng\.bin is missing"):
            loaded.step()


def test_a_newer_format_is_refused_with_the_version_that_reads_it(capsule: str) -> None:
    def newer(_: dict[str, bytes], manifest: dict[str, Any]) -> None:
        manifest["format"] = 9
        manifest["versions"]["tracer"] = "3.1"

    with pytest.raises(CapsuleError, match=r"has format 9; this Tracer reads 1\. Tracer 3\.1 wrote it and can read it"):
        load_capsule(rewritten(capsule, newer))


# Enemies.


def hostile(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes], packed: bool = False) -> Path:
    """Return a ZIP file that begins like a capsule."""
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr(MANIFEST, json.dumps({"format": 1, "files": {}}))
        for name, data in entries:
            file.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:/evil", "./x"])
def test_a_path_that_leads_outside_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CapsuleError, match="would lie outside"):
        load_capsule(hostile(tmp_path / "x.trc", (name, b"")))


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("batch.json")
    link.external_attr = 0o120777 << 16

    with pytest.raises(CapsuleError, match="is no plain file"):
        load_capsule(hostile(tmp_path / "x.trc", (link, b"/etc/passwd")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CapsuleError, match="is there twice"):
        load_capsule(hostile(tmp_path / "x.trc", ("batch.json", b"1"), ("batch.json", b"2")))


def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(CapsuleError, match="would unpack to 300,000,000 bytes"):
        load_capsule(hostile(tmp_path / "x.trc", ("batch.json", bytes(300_000_000)), packed=True))


def test_something_else_is_no_capsule(tmp_path: Path) -> None:
    (tmp_path / "x.trc").write_text("hello")
    with zipfile.ZipFile(tmp_path / "y.trc", "w") as file:
        file.writestr("other", "x")

    with pytest.raises(CapsuleError, match="is no capsule"):
        load_capsule(tmp_path / "x.trc")
    with pytest.raises(CapsuleError, match=r"its first entry is 'other', not manifest\.json"):
        load_capsule(tmp_path / "y.trc")


# Trust.


class Canary:
    """Sings when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sang"),)


def somebody_elses(path: str) -> Capsule:
    """Open a capsule that came from another home."""
    return load_capsule(rewritten(path, lambda *_: None))


def test_a_pickle_of_somebody_else_is_not_read(tmp_path: Path, capsule: str) -> None:
    import hashlib
    import pickle

    data = pickle.dumps(Canary())

    def plant(entries: dict[str, bytes], manifest: dict[str, Any]) -> None:
        for name in ("model.pkl", "objects.pkl"):
            entries[name] = data
            manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    path = rewritten(capsule, plant)
    with load_capsule(path, entry=Small) as loaded:
        assert loaded.verify() == []
        assert loaded.replay().exact
    with load_capsule(path) as loaded:
        loaded.step()
        assert not (tmp_path / "sang").exists()
    with load_capsule(path, trust=True) as loaded, pytest.raises(CapsuleError):
        loaded.model()
    assert (tmp_path / "sang").exists()


def test_tensors_in_a_pickle_are_not_unpickled(tmp_path: Path) -> None:
    import pickle

    with pytest.raises(CapsuleError, match="holds no tensors that can be read"):
        from_bytes("tensors.pt", pickle.dumps({"x": Canary()}))

    assert not (tmp_path / "sang").exists()


def test_ones_own_capsule_is_trusted_wherever_it_lies(capsule: str, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.trc"
    os.rename(capsule, moved)

    with load_capsule(moved) as loaded:
        assert type(loaded.model()).__name__ == "Small"


def test_a_changed_manifest_is_nobodys_own(capsule: str) -> None:
    from tracer.flight.signature import is_own

    assert is_own(load_capsule(capsule).manifest)
    assert not is_own({**load_capsule(capsule).manifest, "step": 8})
    assert not is_own({})


class Local(nn.Module):
    """Cannot be built without an argument."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor, options: Any = None) -> torch.Tensor:
        out: torch.Tensor = self.layer(x) * getattr(options, "factor", 1)
        return out


class Options:
    """An argument that is no plain data."""

    factor = 2


def test_a_model_that_cannot_be_found_shows_three_ways(tmp_path: Path) -> None:
    model = Local(2)
    step = recorded_step(model, lambda model: model(torch.ones(1, 2)).sum().backward())
    path = write(collect(model, step, Facts()), str(tmp_path))

    with somebody_elses(path) as loaded, pytest.raises(CapsuleError) as caught:
        loaded.model()

    lines = str(caught.value).splitlines()
    assert "Three ways lead to it:" in lines[0]
    assert [line.strip()[:2] for line in lines[1:]] == ["1.", "2.", "3."]
    assert "--entry" in lines[1]
    assert "--trust" in lines[2]


def test_a_recorded_class_is_built_when_its_source_is_the_recorded_one(capsule: str) -> None:
    with somebody_elses(capsule) as loaded:
        assert type(loaded.model()) is Small
        assert loaded.replay().exact


def test_an_argument_that_is_no_plain_data_needs_trust(tmp_path: Path) -> None:
    model = Local(2)
    step = recorded_step(model, lambda model: model(torch.ones(1, 2), Options()).sum().backward())
    path = write(collect(model, step, Facts()), str(tmp_path))

    with load_capsule(path) as loaded:
        assert loaded.manifest["exact"] is False
        assert "no plain data" in loaded.manifest["notes"][0]
        assert loaded.replay().exact
    with somebody_elses(path) as loaded, pytest.raises(CapsuleError, match=r"Options\. It is in a pickle.*--trust"):
        loaded.step()


def test_hooks_of_ours_stay_out_of_the_pickle_and_the_users_stay_in(tmp_path: Path) -> None:
    from tracer.flight.recorder import FlightRecorder
    from tracer.flight.settings import FlightConfig

    model = nn.utils.spectral_norm(nn.Linear(3, 3))
    recorder = FlightRecorder(model, config=FlightConfig(signal="off", stall_s="off"))
    path = write(collect(model, Step(1), Facts()), str(tmp_path))
    recorder.stop()

    back = load_capsule(path).model()

    assert len(back._forward_pre_hooks) == 1
    assert back._forward_hooks == {}


def test_a_model_that_cannot_be_pickled_is_noted(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    model.lock = __import__("threading").Lock()

    draft = collect(model, Step(1), Facts())

    assert draft.model is None
    assert "The model cannot be pickled" in draft.manifest["notes"][0]
    assert "model.pkl" not in Archive(write(draft, str(tmp_path)))


def test_an_entry_that_is_no_function_of_none_is_explained(capsule: str) -> None:
    for entry, said in (
        ("train.py", "is not of the form"),
        ("missing.py:build", "cannot be imported"),
        ("replayed:nothing", "There is no 'nothing'"),
        ("replayed:recorded", "cannot be called without arguments"),
        ("replayed:dataclasses", "is a module"),
    ):
        with load_capsule(capsule, entry=entry) as loaded, pytest.raises(CapsuleError, match=said):
            loaded.model()


def test_sources_are_shown_around_a_line(capsule: str) -> None:
    with load_capsule(capsule) as loaded:
        file = next(iter(loaded.manifest["sources"].values()))["file"]
        lines = loaded.source_around(file, 5, 1)

    assert [(number, here) for number, _, here in lines] == [(4, False), (5, True), (6, False)]
    assert lines[1][1] == "from __future__ import annotations"
