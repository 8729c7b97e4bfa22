"""Capture that is turned on from outside the program: by `tracer run`, or by `TRACER_AUTO=1`.

    boot/            (beside this folder) what Python itself loads at its start: a `sitecustomize`, a `.pth` line
    automatic.py     turns listening on in a process, and begins or joins the run when there is something to record
    claims.py        who of all the processes of a command owns the run
    member.py        what a process writes with that does not own it
    replacing.py     gives programs our own `wandb` and `mlflow`, where that was asked for
    endings.py       ends the run of a command that recorded nothing itself
    commands.py      what a command line will start, and how: the same process, or one that is waited for

A process in which nothing is heard leaves nothing: no file, no thread, no run.
"""

from tracer.activation.automatic import boot

__all__ = ["boot"]
