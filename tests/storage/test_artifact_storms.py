"""Programs that are killed while they keep something, and programs that keep the same name at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import await_line, await_that, kill, run, start

from tracer.storage import Store

STORE = Path(".tracer")

KEEPS = """
import os, sys, tracer
run = tracer.init(project="gpt", run_name="killed")
os.makedirs("d", exist_ok=True)
print("begun", flush=True)
number = 0
while True:
    for name in ("a", "b"):
        open(f"d/{name}", "wb").write(os.urandom(3_000_000))
    kept = run.log_artifact("d", name="d")
    run.log_media("picture", os.urandom(100_000), kind="image")
    print(kept.version, flush=True)
"""

SAME_NAME = """
import os, sys, tracer
run = tracer.init(project="gpt", run_name=sys.argv[1])
while not os.path.exists("go"):
    pass
for number in range(20):
    run.log_artifact(f"{sys.argv[1]} {number}".encode(), name="shared")
run.finish()
"""


LATE = """
import os, tracer
run = tracer.init(project="gpt", run_name="ends")
for number in range(30):
    run.log_artifact(os.urandom(200_000), name="x", wait=False)
"""


@pytest.mark.parametrize("wait_bytes", [0, 1_000_000, 4_000_000])
def test_what_a_killed_program_had_kept_is_whole_and_nothing_half_kept_is_listed(wait_bytes: int) -> None:
    process = start(KEEPS)
    assert await_line(process) == "begun"
    for _ in range(2):
        await_line(process)

    def half_kept() -> bool:
        parts = [path.stat().st_size for path in STORE.glob("runs/*/artifacts/.part-*") if path.exists()]
        return any(size >= wait_bytes for size in parts)

    if wait_bytes < 3_000_000:
        await_that(half_kept, "it is in the middle of keeping")
    kill(process)

    with Store.open(STORE) as store:
        found = store.artifacts()
        uid = store.run("killed").uid
        assert [one.version for one in found] == list(range(len(found)))
        assert len(found) >= 2
        assert [one.problems() for one in found] == [[]] * len(found)
        assert [len(store.media_bytes(uid, row)) for row in store.media(uid)] == [100_000] * len(store.media(uid))
        assert {problem.fact for problem in store.check().problems} <= {"it was never finished"}
        assert store.check(repair=True).is_clean
        assert store.check().problems == ()
    assert list(STORE.glob("runs/*/artifacts/.part-*")) == []


def test_two_programs_that_keep_the_same_name_at_once_lose_no_version() -> None:
    processes = [start(SAME_NAME, name) for name in ("one", "two")]
    await_that(lambda: len(list(STORE.glob("runs/*"))) == 2, "both runs are there")
    Path("go").touch()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err

    with Store.open(STORE) as store:
        found = store.artifacts(name="shared")
        assert [one.version for one in found] == list(range(40))
        texts = {one.path.read_bytes() for one in found}
    assert texts == {f"{name} {number}".encode() for name in ("one", "two") for number in range(20)}


def test_a_program_that_simply_ends_has_kept_what_it_did_not_wait_for() -> None:
    run(LATE)

    with Store.open(STORE) as store:
        found = store.artifacts()
        assert [one.version for one in found] == list(range(30))
        assert [one.problems() for one in found] == [[]] * 30


FORKS = """
import os, tracer
run = tracer.init(project="gpt", run_name="forks")
run.log_artifact(b"parent", name="x")
pid = os.fork()
if pid == 0:
    run.log_artifact(b"child", name="x")
    os._exit(0)
os.waitpid(pid, 0)
run.log_artifact(b"parent again", name="x")
run.finish()
"""


def test_a_forked_child_keeps_with_a_thread_of_its_own() -> None:
    run(FORKS)

    with Store.open(STORE) as store:
        assert [one.path.read_bytes() for one in store.artifacts(name="x")] == [b"parent", b"child", b"parent again"]
