"""Output is heard, and nobody can tell from what the program shows or does."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import CALM, run, write_program

from tracer.capture.lines import MAX_LINE, Lines
from tracer.storage import Store

BEGIN = """
    import os, sys, tracer
    if "MODE" in os.environ:
        tracer.init(project="demo", run_name="heard", track_output=os.environ["MODE"], track_code=False)
"""


def heard(kind: str = "line") -> list[tuple[str | None, str | None]]:
    """Return name and body of what the last run kept, without what Tracer itself said."""
    with Store.open(".tracer") as store:
        rows = store.log_lines(store.run("@last").uid)
    return [(row.name, row.body) for row in rows if row.kind == kind]


def shown_with_and_without(body: str, mode: str, *, code: int = 0, env: dict[str, str] | None = None) -> None:
    """Run a program without and with listening, and see that both show the same bytes."""
    source = BEGIN + body
    alone = run(source, code=code, env=env)
    listened = run(source, code=code, env={**(env or {}), "MODE": mode})

    assert listened.stdout == alone.stdout
    assert without_tracebacks(listened.stderr) == without_tracebacks(alone.stderr)


def without_tracebacks(text: str) -> str:
    """Return text without addresses, which differ from process to process."""
    return re.sub(r"0x[0-9a-f]+|(?<=/)\d{2,}(?=/)", "…", text)


@pytest.mark.parametrize("mode", ["wrap", "fd"])
def test_what_is_printed_is_kept_and_shown_as_before(mode: str) -> None:
    shown_with_and_without(
        """
    print("one"); print("two", end=""); print(" three")
    sys.stdout.write("four\\n"); sys.stdout.writelines(["five\\n", "six\\n"])
    print("error", file=sys.stderr)
    print("gr\\u00fc\\u00dfe", flush=True)
    """,
        mode,
    )

    assert [body for name, body in heard() if name == "stdout"] == [
        "one", "two three", "four", "five", "six", "gr\u00fc\u00dfe",
    ]  # fmt: skip
    assert [body for name, body in heard() if name == "stderr"] == ["error"]


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    run(BEGIN + "    print('hello')\n", env={"MODE": "off"})

    assert heard() == []


def test_descriptors_children_and_other_languages_are_heard_below_python() -> None:
    shown_with_and_without(
        """
    import ctypes, subprocess
    print("python", flush=True)
    os.write(1, b"descriptor\\n")
    subprocess.run(["echo", "child"], check=True)
    libc = ctypes.CDLL(None); libc.puts(b"libc"); libc.fflush(None)
    if not os.fork():
        print("forked", flush=True)
        os._exit(0)
    os.wait()
    """,
        "fd",
    )

    assert [body for _, body in heard()] == ["python", "descriptor", "child", "libc", "forked"]


@pytest.mark.parametrize("mode", ["wrap", "fd"])
def test_streams_are_what_they_were(mode: str) -> None:
    shown_with_and_without(
        """
    import contextlib, io
    for stream in (sys.stdout, sys.stderr):
        print(type(stream).__name__, stream.isatty(), stream.fileno(), stream.encoding, stream.errors, stream.name)
        print(isinstance(stream, io.TextIOWrapper), type(stream.buffer).__name__, stream.line_buffering)
    sys.stdout.reconfigure(line_buffering=True)
    sys.stdout.buffer.write(b"bytes\\n")
    with contextlib.redirect_stdout(io.StringIO()) as text:
        print("inside")
    print(text.getvalue(), sys.stdout is sys.__stdout__)
    """,
        mode,
    )


@pytest.mark.parametrize("mode", ["wrap", "fd"])
def test_a_crash_of_the_interpreter_still_shows_its_last_words(mode: str) -> None:
    shown_with_and_without(
        """
    import faulthandler, signal
    faulthandler.enable(all_threads=False)
    print("before", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
    """,
        mode,
        code=-11,
    )


def test_after_exec_the_new_program_shows_what_it_writes() -> None:
    shown_with_and_without(
        """
    print("first", flush=True)
    os.execvp("echo", ["echo", "second"])
    """,
        "fd",
    )


@pytest.mark.parametrize("leave", ["os._exit(0)", 'os.execv("/bin/true", ["true"])'])
def test_what_was_printed_before_a_program_leaves_at_once_is_kept(leave: str) -> None:
    shown_with_and_without(f"    print('last words', flush=True)\n    {leave}\n", "wrap")

    assert heard() == [("stdout", "last words")]


def test_a_program_without_streams_goes_on() -> None:
    run(
        """
        import sys, tracer
        sys.stdout = None
        with tracer.init(project="demo", track_output="wrap", quiet=True) as r:
            assert sys.stdout is None
            print("nobody hears this")
            r.log({"loss": 1.0})
        """
    )


def test_logging_is_heard_without_a_handler_of_ours() -> None:
    shown_with_and_without(
        """
    import logging
    logging.basicConfig(format="MINE %(levelname)s %(message)s", level=logging.INFO)  # after the beginning
    logging.getLogger("train").info("epoch %d", 3)
    logging.debug("too low")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("it failed")
    assert len(logging.getLogger().handlers) == 1
    """,
        "wrap",
    )

    records = heard("log")
    assert records[0] == ("train", "epoch 3")
    assert (records[1][1] or "").startswith("it failed\nTraceback")
    assert (records[1][1] or "").endswith("ZeroDivisionError: division by zero")
    assert len(records) == 2
    assert heard() == []  # a record is not kept a second time as the line that a handler prints


def test_a_stream_that_leads_elsewhere_is_heard_beside_the_descriptors() -> None:
    run(
        """
        import io, os, sys, tracer
        class Elsewhere(io.StringIO):
            pass
        sys.stdout = Elsewhere()
        with tracer.init(project="demo", track_output="fd", quiet=True):
            print("above")
            os.write(1, b"below\\n")
        assert sys.stdout.getvalue() == "above\\n"
        """
    )

    assert sorted(body or "" for _, body in heard()) == ["above", "below"]


def test_a_message_whose_arguments_do_not_fit_is_kept_as_it_was_written() -> None:
    shown = run(
        """
        import logging, tracer
        with tracer.init(project="demo", track_output="wrap", quiet=True):
            logging.warning("%d of %d", 1)
        """
    )

    assert "--- Logging error ---" in shown.stderr
    assert heard("log") == [("root", "%d of %d")]


def test_what_no_handler_of_the_program_takes_is_not_kept() -> None:
    run(
        """
        import logging, tracer
        noisy = logging.getLogger("noisy")
        noisy.setLevel(logging.DEBUG)
        handler = logging.StreamHandler()
        handler.setLevel(logging.ERROR)
        noisy.addHandler(handler)
        with tracer.init(project="demo", track_output="wrap", quiet=True):
            noisy.debug("internal")
            noisy.error("shown")
        """
    )

    assert heard("log") == [("noisy", "shown")]


def test_a_handler_that_logs_does_not_go_round_in_circles() -> None:
    run(
        """
        import logging, tracer
        class Again(logging.Handler):
            def emit(self, record):
                if record.name != "again":
                    logging.getLogger("again").warning("inner")
        logging.getLogger().addHandler(Again())
        with tracer.init(project="demo", track_output="wrap", quiet=True):
            logging.warning("outer")
        assert "callHandlers" in vars(logging.Logger)
        assert logging.Logger.callHandlers.__module__ == "logging"
        """
    )

    assert heard("log") == [("root", "outer")]


def test_a_progress_bar_is_kept_as_its_last_state() -> None:
    pytest.importorskip("tqdm")
    shown_with_and_without(
        """
    from tqdm import tqdm
    for _ in tqdm(range(2000), mininterval=0, bar_format="{n_fmt}/{total_fmt}"):
        pass
    print("done")
    """,
        "wrap",
    )

    bars = [body for name, body in heard() if name == "stderr"]
    assert bars[-1] == "2000/2000"
    assert len(bars) < 60  # at most one each second, not two thousand


def test_what_rich_draws_is_kept_as_text() -> None:
    shown_with_and_without(
        """
    from rich.console import Console
    Console(force_terminal=True, width=40).print("[bold red]hello[/] world")
    """,
        "wrap",
    )

    assert heard() == [("stdout", "hello world")]


def test_a_very_long_line_is_cut_and_says_so() -> None:
    shown_with_and_without("    print('x' * 10_000_000)\n", "wrap")

    ((_, body),) = heard()
    assert body == "x" * MAX_LINE + "… [cut: 10,000,000 characters]"


def test_many_threads_lose_no_line() -> None:
    shown = run(
        BEGIN
        + """
    import threading
    def talk(name):
        for number in range(500):
            sys.stdout.write(f"{name} {number}\\n")
    threads = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    """,
        env={"MODE": "wrap"},
    )

    assert sorted(body or "" for _, body in heard()) == sorted(shown.stdout.splitlines())
    assert len(heard()) == 2000


def test_lines_know_the_step_at_which_they_were_printed() -> None:
    run(
        BEGIN
        + """
    for number in range(3):
        print("at", number)
        tracer.step()
    """,
        env={"MODE": "wrap"},
    )

    with Store.open(".tracer") as store:
        rows = store.log_lines(store.run("@last").uid)
    assert [(row.step, row.body) for row in rows] == [(0, "at 0"), (1, "at 1"), (2, "at 2")]


def test_a_forked_child_prints_and_is_not_kept() -> None:
    shown = run(
        BEGIN
        + """
    sys.stdout.flush()
    if not os.fork():
        print("child", flush=True)
        os._exit(0)
    os.wait()
    print("parent")
    """,
        env={"MODE": "wrap"},
    )

    assert shown.stdout == "child\nparent\n"
    assert heard() == [("stdout", "parent")]


def test_what_another_tool_put_over_a_stream_stays() -> None:
    run(
        """
        import sys, tracer
        r = tracer.init(project="demo", track_output="wrap", quiet=True)
        ours = sys.stdout.write
        def theirs(text):
            return ours(text)
        sys.stdout.write = theirs
        print("both")
        r.finish()
        assert sys.stdout.write is theirs
        print("after")
        r = tracer.init(project="demo", track_output="wrap", quiet=True)
        print("again")
        r.finish()
        assert sys.stdout.write is theirs
        assert "write" not in vars(sys.stderr)
        """
    )

    assert heard() == [("stdout", "again")]


def test_a_terminal_stays_a_terminal_of_the_same_size() -> None:
    program = write_program(
        BEGIN
        + """
    import shutil
    print(sys.stdout.isatty(), os.get_terminal_size(1).columns, flush=True)
    print("\\r10 %\\r20 %", flush=True)
    """
    )

    def shown(env: dict[str, str]) -> str:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, program], stdout=theirs, stderr=theirs, stdin=theirs, env={**os.environ, **CALM, **env}
        )
        os.close(theirs)
        text = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the last process has left the terminal
                break
            if not part:
                break
            text += part
        os.close(ours)
        assert process.wait() == 0
        return text.decode()

    assert shown({"MODE": "fd"}) == shown({})
    assert heard() == [("stdout", "True 0"), ("stdout", "20 %")]


def test_secrets_in_output_are_not_kept_whatever_lines_they_are_spread_over() -> None:
    run(
        BEGIN
        + """
    import logging
    token = "hf_" + "Planted" * 5
    print("login with", token)
    sys.stdout.write(token[:10]); sys.stdout.write(token[10:] + "\\n")
    print("https://me:planted@example.org")
    print("-----BEGIN RSA PRIVATE KEY-----\\nplantedline1\\nplantedline2\\n-----END RSA PRIVATE KEY-----\\nafter")
    logging.warning("Authorization: Bearer planted-planted")
    """,
        env={"MODE": "wrap"},
    )

    everything = str(heard()) + str(heard("log"))
    assert "planted" not in everything.lower()
    assert heard()[-1] == ("stdout", "after")
    assert all(b"planted" not in path.read_bytes().lower() for path in Path(".tracer").rglob("*") if path.is_file())


def test_a_flood_is_kept_at_its_beginning_and_its_end() -> None:
    lines: list[str] = []
    assembler = Lines(lambda line, *_: lines.append(line))
    for number in range(200_000):
        assembler.feed(f"line {number}\n", 10.0, 0)
    assembler.feed("later\n", 12.0, 0)
    assembler.close()

    assert lines[0] == "line 0"
    assert lines[-2:] == ["line 199999", "later"]
    (said,) = (line for line in lines if line.startswith("[tracer:"))
    counted = int(said.split()[1].replace(",", ""))
    assert len(lines) - 1 + counted == 200_001


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("a\r\nb\r\n", ["a", "b"]),
        ("\n\nx\n", ["", "", "x"]),
        ("no end", ["no end"]),
        ("10%\r20%\rdone\n", ["done"]),
        ("\x1b[1mbold\x1b[0m\n", ["bold"]),
        ("\x1b]0;title\x07text\n", ["text"]),
    ],
)
def test_lines_are_as_a_terminal_shows_them(written: str, kept: list[str]) -> None:
    for size in (1, len(written)):
        lines: list[str] = []
        assembler = Lines(lambda line, *_, lines=lines: lines.append(line))
        for at in range(0, len(written), size):
            assembler.feed(written[at : at + size], 1.0, 0)
        assembler.close()
        assert [line for line in lines if line not in ("1", "10", "10%", "2", "20", "20%")] == kept


def test_bars_that_are_redrawn_together_are_states_too() -> None:
    lines: list[str] = []
    assembler = Lines(lambda line, *_: lines.append(line))
    for number in range(100):
        assembler.feed(f"\x1b[2Afirst {number}\nsecond {number}\n", 1.0 + number / 100, 0)
    assembler.close()

    assert lines[-2:] == ["first 99", "second 99"]
    assert len(lines) <= 6


def test_a_stream_that_lets_nobody_listen_is_left_alone_and_that_is_said() -> None:
    shown = run(
        """
        import sys, tracer
        class Tee:
            __slots__ = ("to",)
            def __init__(self, to): self.to = to
            def write(self, text): return self.to.write(text)
            def flush(self): self.to.flush()
        sys.stdout = Tee(sys.stdout)
        with tracer.init(project="demo", track_output="wrap"):
            print("hello")
            print("heard", file=sys.stderr)
        """,
        calm=False,
        env={"TRACER_TRACK_SYSTEM_METRICS": "0", "TRACER_TRACK_GIT": "0"},
    )

    assert shown.stdout == "hello\n"
    assert shown.stderr.count("sys.stdout is not kept: Tee lets nobody listen") == 1
    assert ("stderr", "heard") in heard()


@pytest.mark.slow
def test_in_a_notebook_the_cells_and_what_they_print_are_kept() -> None:
    nbformat, nbconvert = pytest.importorskip("nbformat"), pytest.importorskip("nbconvert.preprocessors")
    cells = [
        "import tracer; r = tracer.init(project='demo', quiet=True, track_output='wrap', track_git=False)",
        "print('from a cell'); r.log({'loss': 1.0})",
        "r.finish()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])

    nbconvert.ExecutePreprocessor(timeout=60).preprocess(notebook)

    assert notebook.cells[1].outputs[0].text == "from a cell\n"
    assert ("stdout", "from a cell") in heard()
    (kept,) = Path(".tracer/runs").glob("*/code/files/cells.py")
    assert "r.log({'loss': 1.0})" in kept.read_text()
