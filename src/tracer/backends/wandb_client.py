"""W&B's client: started without its globals, its telemetry or its output, and its errors made ours."""

from __future__ import annotations

import contextlib
import hashlib
import netrc
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from tracer.backends.base import Refused, Rejected, Unreachable

_INIT_TIMEOUT_S = 10.0
_FLUSH_S = 0.05
_LONGEST_ID = 64
_LONGEST_TAG = 64
_environment = threading.RLock()
#: Our runs that use the process of W&B, by id; the last one ends it.
_open: dict[str, Any] = {}


def has_key(options: Mapping[str, object]) -> bool:
    """Tell whether W&B will find a key: told, in the environment, or in the file of a login."""
    if options.get("api_key") or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(str(options.get("base_url") or os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")).hostname
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    return False


def mode(options: Mapping[str, object]) -> str:
    """Return `online` or `offline`: what was asked for, else what the key allows."""
    asked = str(options.get("mode") or os.environ.get("WANDB_MODE") or "")
    if asked in {"online", "offline"}:
        return asked
    if asked in {"dryrun", "disabled"}:
        return "offline"
    return "online" if has_key(options) else "offline"


def why_offline(options: Mapping[str, object]) -> str:
    """Return what is to be said of an offline run that nobody asked for; nothing where it was asked for."""
    if options.get("mode") or os.environ.get("WANDB_MODE") or has_key(options):
        return ""
    runs = os.path.join(folder(options), "wandb")
    return f"No key for W&B was found: the run is offline. Upload it with `wandb sync {runs}/offline-run-*`."


def folder(options: Mapping[str, object]) -> str:
    """Return the folder that holds `wandb/`, absolute."""
    return os.path.abspath(str(options.get("dir") or options.get("storage_path") or os.environ.get("WANDB_DIR") or "."))


def run_id(uid: str) -> str:
    """Return our id as one that W&B takes."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", uid):
        return uid
    return hashlib.sha256(uid.encode()).hexdigest()[:_LONGEST_ID]


def project_name(name: str) -> str:
    """Return a project's name without the characters that W&B refuses."""
    return re.sub(r"[/\\#?%:]", "-", name)[:128] or "default"


def tags(given: Sequence[object]) -> tuple[str, ...]:
    """Return tags of W&B's length, each once."""
    return tuple(dict.fromkeys(str(tag)[:_LONGEST_TAG] for tag in given if str(tag)))


@contextlib.contextmanager
def quiet_environment(folder: str) -> Iterator[None]:
    """Let W&B report to nobody and stage its files beside the run, for as long as it reads the environment."""
    wanted = {"WANDB_ERROR_REPORTING": "false"}
    for variable, name in (("WANDB_DATA_DIR", "staging"), ("WANDB_CACHE_DIR", "cache"), ("WANDB_CONFIG_DIR", "config")):
        wanted[variable] = os.environ.get(variable) or os.path.join(folder, "wandb", f".{name}")
    with _environment:
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def start(told: Mapping[str, object], folder: str, mode: str, run_id: str, config: Mapping[str, object]) -> Any:  # noqa: ANN401 -- their class
    """Return W&B's run, apart from every other of this process.

    Raises:
        Unreachable: The server did not answer in time.
        Refused: It does not know the key.
        Rejected: It refuses a name.
    """
    os.makedirs(os.path.join(folder, "wandb"), exist_ok=True)
    given: dict[str, Any] = {"init_timeout": _INIT_TIMEOUT_S} | {name: value for name, value in told.items() if value}
    given["mode"] = mode
    with quiet_environment(folder), translated():
        import wandb

        if run_id in _open:  # a lane that begins again after an error; W&B takes an id once at a time
            _open.pop(run_id).finish(exit_code=0)
        settings = wandb.Settings(
            **given, root_dir=folder, run_id=run_id, resume="allow", reinit="create_new",
            silent=True, quiet=True, show_info=False, show_warnings=False, show_errors=False, console="off",
            x_transaction_log_flush_interval=_FLUSH_S, disable_git=True,
            disable_code=True, save_code=False, disable_job_creation=True, x_disable_stats=True, x_disable_meta=True,
            x_disable_machine_info=True, x_save_requirements=False, sagemaker_disable=True, label_disable=True,
        )  # fmt: skip
        run = wandb.init(config=dict(config), settings=settings)
    _open[run_id] = run
    return run


def end(run: Any, code: int) -> None:  # noqa: ANN401 -- their class
    """Finish a run; the last one ends W&B's process, unless somebody else's run is active."""
    import wandb

    run.finish(exit_code=code)
    run_id = str(run.id)
    if run_id in _open and _open[run_id] is run:
        del _open[run_id]
    if not _open and wandb.setup().most_recent_active_run is None:
        with contextlib.suppress(SystemExit):
            wandb.teardown()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Make W&B's errors ours, without what they quote."""
    from wandb import errors

    try:
        yield
    except ConnectionError as error:
        message = "W&B's process on this machine is gone. `tracer sync` sends what is left."
        raise Unreachable(message) from error
    except errors.Error as error:
        raise _ours(error) from error


def _ours(error: Exception) -> Exception:
    """Return our error for one of theirs; one that is not theirs as it is."""
    from wandb import errors

    text = str(error).casefold()
    about_key = "api key" in text or "api_key" in text
    if isinstance(error, errors.AuthenticationError) or (isinstance(error, errors.UsageError) and about_key):
        return Refused("W&B does not accept the key. Log in with `wandb login`, set WANDB_API_KEY, or go offline.")
    if isinstance(error, errors.UsageError):
        return Rejected(f"W&B refuses this: {plain(error)}")
    if isinstance(error, errors.CommError):
        if "permission" in text or "401" in text or "403" in text:
            return Refused("W&B does not let this key write there. Check `entity` and `project_name`.")
        return Unreachable("W&B did not answer in time. Check the network and WANDB_BASE_URL, or use mode='offline'.")
    if isinstance(error, errors.Error):
        return Unreachable(f"W&B's process failed: {plain(error)}")
    return error


def plain(error: Exception) -> str:
    """Return the first line of a message without addresses' credentials."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"//[^/@\s]*@", "//", line)[:300]
