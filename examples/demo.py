"""Train a small character transformer three times, and let Tracer say what happened.

    make demo

One run goes well, one is given a learning rate that is too high, and one is killed in the middle with SIGKILL. Each is
a process of its own, as in real life. Everything is written below `demo/`, which is made anew each time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "demo"
STEPS, CONTEXT, BATCH, WIDTH, HEADS, LAYERS = 400, 64, 16, 96, 4, 2
RUNS = {"steady": 0.5, "too-fast": 3.0, "killed": 0.5}


def main() -> None:
    """Play the whole demonstration, or, with `--train`, one run of it."""
    parser = argparse.ArgumentParser(description="Train a small character transformer, recorded by Tracer.")
    parser.add_argument("--steps", type=int, default=STEPS, help="how long each run is")
    parser.add_argument("--train", choices=RUNS, help="train this run only, in this process")
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train, RUNS[arguments.train], arguments.steps)
    else:
        play(arguments.steps)


def play(steps: int) -> None:
    """Train the three runs and show them with the `tracer` command."""
    began = time.monotonic()
    shutil.rmtree(FOLDER / ".tracer", ignore_errors=True)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n", encoding="utf-8")
    kill_at = steps * 2 // 5

    say(f"Training a character transformer for {steps} steps: a learning rate of {RUNS['steady']:g}, after a warm-up.")
    start("steady", steps).wait()
    say(f"The same again, with a learning rate that is too high: {RUNS['too-fast']:g}.")
    start("too-fast", steps).wait()
    say(f"Once more with {RUNS['killed']:g}, but SIGKILL ends the process after step {kill_at}; it cannot even react.")
    logged = train_and_kill(steps, kill_at)

    say("All runs of the store; nobody told it about the kill:")
    tracer("list")
    say("The run that was killed, down to its last step:")
    tracer("show", "killed")
    print(f"{logged} calls of log() had returned when it died; the store holds {stored('killed')} values of its loss.")
    say("The loss of the run with the high learning rate, beside the steady one:")
    tracer("plot", "too-fast", "loss", "--with", "steady", "--log", "--height", "14")
    say("What is wrong with it, and since which step?")
    tracer("anomalies", "too-fast", "--auto")
    say("How did its gradients grow, layer by layer?")
    tracer("layers", "too-fast")
    step = bad_step("too-fast")
    if step is not None:
        say(f"Step {step} again, in another process and bit for bit: where was the NaN born?")
        tracer("replay", "too-fast", "--step", str(step), "--origin")
    say("What differs between the two, and where do they part?")
    tracer("compare", "steady", "too-fast")
    took = time.monotonic() - began
    say(f"Done in {took:.0f} s. Look around yourself: cd {os.path.relpath(FOLDER)} && tracer show steady")


def start(name: str, steps: int, *, heard: bool = False) -> subprocess.Popen[str]:
    """Start the training of a run in a process of its own."""
    command = [sys.executable, __file__, "--train", name, "--steps", str(steps)]
    output = subprocess.PIPE if heard else None
    return subprocess.Popen(command, cwd=FOLDER, text=True, stdout=output)  # noqa: S603 -- our own arguments


def train_and_kill(steps: int, kill_at: int) -> int:
    """Kill a training in the middle, and return how many steps it had logged by then."""
    logged = 0
    with start("killed", steps, heard=True) as process:
        for line in process.stdout or ():
            logged = int(line)
            if logged == kill_at:
                os.kill(process.pid, signal.SIGKILL)
                print(f"  killed process {process.pid}")
    return logged


def tracer(*arguments: str) -> None:
    """Run the `tracer` command and show it as one would type it."""
    print(f"$ tracer {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "tracer", *arguments]
    subprocess.run(command, cwd=FOLDER, check=False)  # noqa: S603 -- our own arguments
    print()


def stored(name: str) -> int:
    """Return how many values of the loss the store holds."""
    from tracer.storage import Store

    with Store.open(FOLDER / ".tracer") as store:
        return len(store.series(store.run(name).uid, "loss"))


def bad_step(name: str) -> int | None:
    """Return the step whose capsule holds a NaN, None if none was born."""
    from tracer.storage import Store

    with Store.open(FOLDER / ".tracer") as store:
        found = store.findings(store.run(name).uid, ["nan_or_inf"])
    return next((one.step for one in found if one.details.get("capsule")), None)


def say(text: str) -> None:
    """Say what comes next."""
    print(f"\n\033[1m{text}\033[0m\n" if sys.stdout.isatty() else f"\n== {text}\n", flush=True)


def train(name: str, peak: float, steps: int) -> None:
    """Train one run: this is all that a program needs to do."""
    import torch

    import tracer
    from text import story

    torch.set_num_threads(1)  # a model this small gains nothing from a second one, and loses much on a busy machine
    torch.manual_seed(0)
    warmup = steps // 4
    text = story(200_000)
    letters = sorted(set(text))
    data = torch.tensor([letters.index(letter) for letter in text])
    model = make_model(len(letters))
    optimizer = torch.optim.SGD(model.parameters(), lr=peak, momentum=0.9)
    chance = torch.Generator().manual_seed(0)
    settings = {"lr": peak, "warmup": warmup, "batch": BATCH, "context": CONTEXT, "width": WIDTH, "layers": LAYERS}

    with tracer.init(project="demo", run_name=name, config=settings, checkpoint_interval=20) as run:
        run.watch(model)
        for step in range(steps):
            began = time.perf_counter()
            rate = peak * min(1.0, (step + 1) / warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            places = torch.randint(len(data) - CONTEXT, (BATCH, 1), generator=chance) + torch.arange(CONTEXT + 1)
            batch = data[places % len(data)]
            loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            optimizer.step()
            seconds = time.perf_counter() - began
            run.log({"loss": loss, "grad_norm": norm, "lr": rate, "tokens_per_s": BATCH * CONTEXT / seconds})
            run.step()
            tell(name, step + 1, loss.item())


def tell(name: str, step: int, loss: float) -> None:
    """Show progress; the run that will be killed says after each step that `log` has returned."""
    if name == "killed":
        print(step, flush=True)
    elif step % 100 == 0:
        print(f"  step {step}: loss {loss:.3f}", flush=True)


def make_model(letters: int):  # type: ignore[no-untyped-def]  # noqa: ANN201 -- torch is loaded in the training processes only
    """Return a transformer that reads letters and says which comes next."""
    import torch
    from torch import nn

    class Block(nn.Module):
        """Attention and a small network, each beside the way past it."""

        def __init__(self) -> None:
            super().__init__()
            self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.read, self.join = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Add what attention and the network say."""
            size, length, _ = x.shape
            heads = self.read(self.norm_1(x)).view(size, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            seen = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + self.join(seen.transpose(1, 2).reshape(size, length, -1))
            return x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))

    class Transformer(nn.Module):
        """Letters in, a score for each possible next letter out."""

        def __init__(self) -> None:
            super().__init__()
            self.letter, self.place = nn.Embedding(letters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, letters)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Return the scores at every place."""
            return self.head(self.norm(self.blocks(self.letter(x) + self.place.weight[: x.shape[1]])))

    return Transformer()


if __name__ == "__main__":
    main()
