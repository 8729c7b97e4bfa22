"""Text to train on, made by a small grammar: always the same, as long as is wanted, and free of anyone's rights."""

from __future__ import annotations

import random
from collections.abc import Iterator

PEOPLE = [
    "the keeper",
    "a sailor",
    "the old captain",
    "her brother",
    "the boatman",
    "a stranger",
    "the girl",
    "my uncle",
]
THINGS = ["lantern", "rope", "anchor", "net", "ladder", "kettle", "map", "bell", "oar", "blanket", "letter", "key"]
QUALITIES = ["heavy", "wet", "broken", "small", "rusty", "white", "forgotten", "warm", "long", "quiet"]
PLACES = [
    "on the pier",
    "under the stairs",
    "by the harbour wall",
    "in the boathouse",
    "at the window",
    "near the rocks",
]
DEEDS = ["carried", "found", "mended", "dropped", "hid", "painted", "counted", "lost", "borrowed", "sold"]
MOMENTS = ["in the morning", "before the storm", "after supper", "at low tide", "when the fog came", "every winter"]
SAYINGS = [
    "it will hold",
    "the tide is turning",
    "nobody saw it",
    "we leave at dawn",
    "the light is out",
    "keep it dry",
]


def story(characters: int, seed: int = 0) -> str:
    """Return a text of this many characters.

    Args:
        characters: How long it is.
        seed: Which of the many texts.

    Returns:
        English sentences about a harbour.

    Example:
        >>> story(60) == story(60)
        True
    """
    text = ""
    sentences = _sentences(random.Random(seed))
    while len(text) < characters:
        text += next(sentences)
    return text[:characters]


def _sentences(chance: random.Random) -> Iterator[str]:
    """Yield sentences for ever, a paragraph now and then."""
    while True:
        who, other, what = chance.choice(PEOPLE), chance.choice(PEOPLE), chance.choice(THINGS)
        how, when, did = chance.choice(QUALITIES), chance.choice(MOMENTS), chance.choice(DEEDS)
        where, saying = chance.choice(PLACES), chance.choice(SAYINGS)
        forms = (
            f"{who} {did} the {how} {what} {where}.",
            f"{when}, {who} {did} the {what}, and {other} said: {saying}.",
            f"was the {what} {how}? {who} asked {other}, but {other} only said: {saying}.",
            f"the {what} that {who} {did} {when} was {how}.",
        )
        sentence = chance.choice(forms)
        yield sentence[0].upper() + sentence[1:] + ("\n" if chance.random() < 0.1 else " ")
