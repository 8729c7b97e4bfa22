"""Secrets are cut out here before anything is written; what was cut is listed by its place.

By name: a word such as `password`, or `key` and `token` in a name that does not speak of models. By value: known forms
of keys, user names in addresses, long random strings. The original is not kept in any form: a hash of a short secret
is the secret.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Protocol

    class Settings(Protocol):
        """What is needed of the run's settings."""

        redact: list[str]
        redact_allow: list[str]


import math
import re
from collections import Counter
from collections.abc import Mapping


def _words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


#: A name with one of these words names a secret.
_SECRET_WORDS = _words("""
    secret secrets password passwords passwd pwd passphrase credential credentials cookie cookies authorization
    apikey apikeys accesskey secretkey privatekey authtoken accesstoken
""")
#: These name a secret unless the name speaks of something else.
_DOUBTFUL_WORDS = _words("key keys token auth private signature")
_HARMLESS_WORDS = _words("""
    pad eos bos sos cls sep mask unk begin end start stop special image audio video text label labels sort primary
    foreign dim dims size heads head num max min count len length id ids type types query value values padding state
    dict metric metrics monitor batch input inputs output outputs feature features target targets column columns group
    map data cache tokenizer encoder decoder embedding embeddings loss method function level mode index public
    name names path file per rate
""")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

#: Forms that say of themselves that they are secret.
_FORMS = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    r"(?<=://)[^\s/@'\"]+(?=@)",  # the user and password of an address
    r"(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{8,}",
    r"(?<=[Bb]asic )[A-Za-z0-9+/=]{8,}",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bgl(?:pat|dt|rt|cbt)-[A-Za-z0-9_-]{16,}",
    r"\bhf_[A-Za-z0-9]{20,}",
    r"\bsk-[A-Za-z0-9_-]{16,}",
    r"\bsk_(?:live|test)_[A-Za-z0-9]{16,}",
    r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"\bwandb_v\d_[A-Za-z0-9_]{20,}",
    r"\bAIza[A-Za-z0-9_-]{30,}",
    r"\bya29\.[A-Za-z0-9_-]{20,}",
    r"\bpypi-[A-Za-z0-9_-]{30,}",
    r"\bnpm_[A-Za-z0-9]{30,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    r"\btrc_[A-Za-z0-9_-]{16,}",
)
_VALUES = re.compile("|".join(_FORMS))
#: Where none of these stands no form can match: it is what is asked of each line of output.
_HINTS = re.compile(
    r"-----B|://|earer |asic |A[KS]IA|gh[pousr]_|github_|gl(?:pat|dt|rt|cbt)-|hf_|sk[-_]|xox|wandb_v|AIza|ya29|pypi-"
    r"|npm_|eyJ|trc_"
)
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----")
_KEY_ENDS = re.compile(r"-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----")
#: `password = "…"`, `"api_key": "…"`, `--auth-token …` inside running text.
_ASSIGNED = re.compile(
    r"(?P<name>[A-Za-z_][\w-]*)(?P<between>[\"']?\s*(?::(?:\s*str\s*=)?|=(?!=))\s*[\"']?)(?P<value>[^\s\"',;{}()\[\]]+)"
)
_RANDOM = re.compile(r"(?<![A-Za-z0-9_./+=-])[A-Za-z0-9_-]{32,}={0,2}(?![A-Za-z0-9_./+=-])")
#: `-pX`, as database clients take it; a short one is more likely a number or a path.
_SHORT_PASSWORD = re.compile(r"-p(?=[^/]*[A-Za-z])(?=[^/]*\d)[^\s/=]{8,}")
_RANDOM_BITS = 4.0
_RANDOM_UPPER_LOWER_DIGITS = 3
_LENGTHS = (8, 16, 32, 64)


class Redactor:
    """Cuts secrets out of what is recorded; `found` lists the places, never the values.

    Args:
        names: Further regular expressions; a name in which one is found names a secret. The single word `off`, written
            out, switches everything off.
        harmless: Names that are never redacted.

    Example:
        >>> redactor = Redactor()
        >>> redactor.value({"lr": 0.1, "api_key": "abcdefgh12", "pad_token": "<pad>"}, "config")
        {'lr': 0.1, 'api_key': '[redacted, 9 to 16 characters]', 'pad_token': '<pad>'}
        >>> redactor.found
        ['config.api_key']
    """

    def __init__(self, names: Sequence[str] = (), harmless: Sequence[str] = ()) -> None:
        self.is_off = list(names) == ["off"]
        self._names = [_pattern(name) for name in names if name != "off"]
        self._harmless = frozenset(name.lower() for name in harmless)
        self.found: list[str] = []

    @classmethod
    def of(cls, settings: Settings) -> Redactor:
        """Return the redactor that a run's settings `redact` and `redact_allow` ask for."""
        return cls(settings.redact, settings.redact_allow)

    def found_in(self, place: str) -> list[str]:
        """Return the places found so far below one."""
        return [found for found in self.found if found.startswith(place)]

    def value(self, value: object, place: str) -> object:
        """Return a value of any nesting without its secrets; keys and shape stay."""
        if isinstance(value, str):
            return self.text(value, place)
        if isinstance(value, Mapping):
            return {key: self.named(str(key), item, f"{place}.{key}") for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item, f"{place}.{number}") for number, item in enumerate(value)]
        return value

    def named(self, name: str, value: object, place: str) -> object:
        """Return the value of a name: cut whole when the name says so."""
        if isinstance(value, (str, bytes)) and value and self.is_secret_name(name):
            return self._cut(len(value), place)
        if isinstance(value, (Mapping, list, tuple)) and self._is_secret_for_sure(name):
            return self._whole(value, place)
        return self.value(value, place)

    def text(self, text: str, place: str, *, random: bool = True) -> str:
        """Return a text without secrets that show by their form; `random` looks for long random strings too."""
        if self.is_off:
            return text
        text = _VALUES.sub(lambda match: self._cut(len(match[0]), place), text)
        if random:
            text = _RANDOM.sub(
                lambda match: self._cut(len(match[0]), place) if _looks_random(match[0]) else match[0], text
            )
        return text

    def line(self, line: str, place: str) -> str:
        """Return a line of output without secrets that show by their form; quick where there is none."""
        return line if _HINTS.search(line) is None else self.text(line, place, random=False)

    def lines(self, lines: Iterable[str], place: str, *, bare: bool = False) -> Iterator[str]:
        """Yield lines of source code without secrets, each for one: a key that goes over several lines is cut in all.

        Args:
            lines: With or without their ends.
            place: What `found` calls them.
            bare: Whether a value stands without quotes, as in YAML and INI files.
        """
        inside = False
        for line in lines:
            begins = _KEY_BEGINS.search(line) if "-----" in line else None
            if self.is_off or (begins is None and not inside):
                yield line if self.is_off else self.code(line, place, bare=bare)
                continue
            ends = _KEY_ENDS.search(line, begins.end() if begins else 0)
            before = line[: begins.start()] if begins else line[: len(line) - len(line.lstrip("+- "))]
            after = line[ends.end() :] if ends else line[len(line.rstrip("\r\n")) :]
            yield before + self._cut(len(line), place) + after
            inside = ends is None

    def code(self, text: str, place: str, *, bare: bool = False) -> str:
        """Return source code or a patch without the secrets that are written into it; hashes and data stay."""
        if self.is_off:
            return text

        def assigned(match: re.Match[str]) -> str:
            name, value = match["name"], match["value"]
            # Code names things; a secret is a literal of some length, and one that only may be one has a digit in it.
            is_literal = (bare or match["between"][-1] in "\"'") and len(value) >= _LENGTHS[0]
            if not is_literal or not self.is_secret_name(name):
                return match[0]
            if self._is_secret_for_sure(name) or any(map(str.isdigit, value)):
                return name + match["between"] + self._cut(len(value), place)
            return match[0]

        return _ASSIGNED.sub(assigned, self.text(text, place, random=False))

    def arguments(self, arguments: Sequence[str], place: str) -> list[str]:
        """Return a command line without secrets: `--api-key X`, `--api-key=X`, `key=X`, and values by their form."""
        clean: list[str] = []
        after = ""  # the name whose value comes next
        for number, argument in enumerate(arguments):
            where = f"{place}.{number}"
            name, equals, value = argument.partition("=")
            is_option = argument.startswith("-")
            if after and not is_option:
                clean.append(self._cut(len(argument), where))
            elif equals and value and self.is_secret_name(name.lstrip("-+~")):
                clean.append(f"{name}={self._cut(len(value), where)}")
            elif _SHORT_PASSWORD.fullmatch(argument) and not self.is_off:
                clean.append(f"-p{self._cut(len(argument) - 2, where)}")
            else:
                clean.append(self.text(argument, where))
            after = name if is_option and not equals and self.is_secret_name(name.lstrip("-")) else ""
        return clean

    def is_secret_name(self, name: str) -> bool:
        """Tell whether a name is that of a secret."""
        if self.is_off or name.lower() in self._harmless:
            return False
        words = {word.lower() for word in _WORDS.findall(name)}
        if self._is_secret_for_sure(name):
            return True
        return bool(words & _DOUBTFUL_WORDS) and not words & _HARMLESS_WORDS

    def _is_secret_for_sure(self, name: str) -> bool:
        """Tell whether a name can be nothing else than that of a secret: what lies below it is secret too."""
        if self.is_off or name.lower() in self._harmless:
            return False
        words = {word.lower() for word in _WORDS.findall(name)}
        return bool(words & _SECRET_WORDS) or any(pattern.search(name) for pattern in self._names)

    def _whole(self, value: object, place: str) -> object:
        """Return something nested with all its texts cut."""
        if isinstance(value, Mapping):
            return {key: self._whole(item, f"{place}.{key}") for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._whole(item, place) for item in value]
        return self._cut(len(value), place) if isinstance(value, (str, bytes)) and value else value

    def _cut(self, length: int, place: str) -> str:
        """Return what stands for a secret, and note its place."""
        if place not in self.found:
            self.found.append(place)
        upper = next((limit for limit in _LENGTHS if length <= limit), None)
        if upper is None:
            return f"[redacted, over {_LENGTHS[-1]} characters]"
        lower = upper // 2 + 1 if upper > _LENGTHS[0] else 1
        return f"[redacted, {lower} to {upper} characters]"


def _pattern(name: str) -> re.Pattern[str]:
    """Return what finds a name; what is no regular expression is taken as it stands."""
    try:
        return re.compile(name, re.IGNORECASE)
    except re.error:
        return re.compile(re.escape(name), re.IGNORECASE)


def _looks_random(text: str) -> bool:
    """Tell whether a long string was drawn rather than written: many kinds of characters, evenly mixed."""
    kinds = (str.isupper, str.islower, str.isdigit)
    if any(sum(map(kind, text)) < _RANDOM_UPPER_LOWER_DIGITS for kind in kinds):
        return False
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts) > _RANDOM_BITS


__all__ = ["Redactor"]
