"""The slow path of `log`: what is not a plain float is sorted into what a row, a typed record or the device can hold.

Nothing here is reached by a dict of floats. A value no record can hold is refused with its name, type and remedy,
after the rest of the same call was kept.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

import sys

MAX_NAME = 1000
_EXACT = 2**53
#: Python turns longer whole numbers into text only on request.
_MAX_BITS = 14_000
_INFINITIES = (float("inf"), float("-inf"))


class Refusal(TypeError):
    """One value that no record can hold; the others of the call are kept, then the user is told."""


class Sorted:
    """The values of one `log` call by what can hold them."""

    __slots__ = ("device", "numbers", "refused", "typed")

    def __init__(self) -> None:
        self.numbers: dict[str, float] = {}
        self.typed: dict[str, str | int | None] = {}
        self.device: dict[str, object] = {}
        self.refused: list[Exception] = []


def plain_numbers(metrics: Mapping[str, object]) -> dict[str, float] | None:
    """Return the values as floats when they are floats and whole numbers that a float holds exactly; else None."""
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if type(value) is float:
            numbers[name] = value
        elif type(value) is int and -_EXACT <= value <= _EXACT:
            numbers[name] = float(value)
        else:
            return None
    return numbers


def sort_values(metrics: Mapping[str, object]) -> Sorted:
    """Sort the values of one call; nested dictionaries are flattened with `/`."""
    found = Sorted()
    _sort(metrics, "", found, depth=0)
    return found


def refusal(found: Sorted) -> Exception:
    """Return the error that says what could not be recorded: a `ValueError` if only names were at fault."""
    kept = len(found.numbers) + len(found.typed) + len(found.device)
    rest = " The other values of this call were recorded." if kept else ""
    kind = TypeError if any(isinstance(error, TypeError) for error in found.refused) else ValueError
    return kind(" ".join(map(str, found.refused)) + rest)


def checked_name(name: object) -> str:
    """Return a metric's name, or raise with what is wrong with it."""
    if not isinstance(name, str):
        message = f"{_shown(name)} ({_type(name)}) is no metric name: names are text. Use a string as the key."
        raise TypeError(message)
    name = str.__str__(name)
    if not name:
        message = "'' is no metric name: it is empty. Name what the value measures, such as 'loss'."
        raise ValueError(message)
    if len(name) > MAX_NAME:
        message = f"The metric name {name[:40]!r}… has {len(name)} characters; at most {MAX_NAME} are allowed."
        raise ValueError(message)
    if "\0" in name or not _encodable(name):
        message = f"The metric name {name[:60]!r} holds a character that cannot be stored. Remove it."
        raise ValueError(message)
    return name


def _sort(metrics: Mapping[str, object], prefix: str, found: Sorted, depth: int) -> None:
    """Sort one level of a dictionary."""
    if depth > 20:  # noqa: PLR2004 -- deeper than anyone nests on purpose: the dictionary holds itself
        found.refused.append(Refusal(f"{prefix!r} is nested over 20 levels deep; does the dictionary hold itself?"))
        return
    for key, value in metrics.items():
        try:
            name = checked_name(prefix + checked_name(key))
        except (TypeError, ValueError) as error:
            found.refused.append(error)
            continue
        try:
            _place(name, value, found, depth)
        except Refusal as error:
            found.refused.append(error)
        except Exception as error:  # noqa: BLE001 -- the value's own methods failed: a refusal, whatever they raised
            reason = f"{type(error).__name__} ({_shown(error)})"
            message = f"{name!r} is {_type(value)}, and reading it failed with {reason}. Log a number made from it."
            found.refused.append(Refusal(message))


def _place(name: str, value: object, found: Sorted, depth: int) -> None:
    """Put one value where it can be held."""
    if isinstance(value, int):
        _place_whole(name, value, found)
    elif isinstance(value, float):
        found.numbers[name] = float(value)
    elif value is None:
        found.typed[name] = None
    elif isinstance(value, str):
        text = str(value)
        if not _encodable(text):
            message = f"The text of {name!r} holds half of a surrogate pair, which cannot be stored. Remove it."
            raise Refusal(message)
        found.typed[name] = text
    elif isinstance(value, dict):
        _sort(value, f"{name}/", found, depth + 1)
    elif _is_tensor(value):
        _place_tensor(name, value, found)
    else:
        _place_foreign(name, value, found)


def _place_whole(name: str, value: int, found: Sorted) -> None:
    """Keep a whole number exactly: as a double where it fits, as text where it does not."""
    number = int(value)
    if -_EXACT <= number <= _EXACT:
        found.numbers[name] = float(number)
    elif number.bit_length() <= _MAX_BITS:
        found.typed[name] = number
    else:
        bits = number.bit_length()
        message = f"{name!r} is a whole number of {bits} bits; at most {_MAX_BITS} are kept. Log its logarithm."
        raise Refusal(message)


def _is_tensor(value: object) -> bool:
    """Tell whether a value is a torch tensor, without loading torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _place_tensor(name: str, value: object, found: Sorted) -> None:
    """Take a tensor of one element: now if it is in host memory, later if it is on a device."""
    tensor = value.detach()  # type: ignore[attr-defined]  # a torch tensor: torch is not imported here
    if tensor.numel() != 1 or tensor.is_complex() or tensor.device.type == "meta":
        what = f"a tensor of shape {tuple(tensor.shape)} and type {tensor.dtype} on {tensor.device}"
        message = f"{name!r} is {what}; one real number can be logged. Log `.mean()` or another summary of it."
        raise Refusal(message)
    if tensor.device.type == "cpu":
        _place(name, tensor.item(), found, 0)
    else:
        found.device[name] = tensor.reshape(())


def _place_foreign(name: str, value: object, found: Sorted) -> None:
    """Take NumPy scalars and arrays of one element, `Decimal`, `Fraction`, and whatever becomes a float."""
    if _on_device(value):
        found.device[name] = value
        return
    size = getattr(value, "size", None)
    if hasattr(value, "dtype") and hasattr(value, "item"):
        if size != 1:
            shape = getattr(value, "shape", None)
            message = (
                f"{name!r} is an array of shape {shape}; one number can be logged. Log `.mean()` or another summary."
            )
            raise Refusal(message)
        item = value.item()
        if type(item) is not type(value):
            _place(name, item, found, 0)
            return
    if not hasattr(type(value), "__float__") or isinstance(value, complex):
        message = f"{name!r} is {_type(value)} ({_shown(value)}): neither a number nor text. Log a number made from it."
        raise Refusal(message)
    number = float(value)  # type: ignore[arg-type]  # it has `__float__`
    if number in _INFINITIES and value != number:
        message = f"{name!r} is {_type(value)} ({_shown(value)}), too large for a float. Log its logarithm."
        raise Refusal(message)
    found.numbers[name] = number


def _on_device(value: object) -> bool:
    """Tell whether an array of another library lies on a device, so that reading it would wait for it."""
    ask = getattr(value, "__dlpack_device__", None)
    if ask is None:
        return False
    try:
        return int(ask()[0]) not in (1, 3)  # host memory, pinned host memory
    except Exception:  # noqa: BLE001 -- a foreign library's method: whatever it raises, the value is treated as host memory
        return False


def _encodable(text: str) -> bool:
    """Tell whether text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _type(value: object) -> str:
    """Name a value's type as a reader knows it."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _shown(value: object) -> str:
    """Show a value in a message, whatever its own `repr` does."""
    try:
        return repr(value)[:60]
    except Exception:  # noqa: BLE001 -- the user's own `__repr__` failed
        return "it cannot be shown"
