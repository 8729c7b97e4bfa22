"""Which layers are watched."""

from __future__ import annotations

import pytest

from tracer.capture.layers import layer_filter

NAMES = ["h.0.attn.weight", "h.0.attn.bias", "h.1.mlp.weight", "wte.weight"]


@pytest.mark.parametrize(
    ("patterns", "watched"),
    [
        (None, NAMES),
        ([], []),
        (["attn"], NAMES[:2]),
        (["h.0", "wte"], [*NAMES[:2], NAMES[3]]),
        (["*.weight"], [NAMES[0], *NAMES[2:]]),
        (["h.?.mlp.*"], [NAMES[2]]),
        ([r"re:^h\.\d+\.attn\.w"], [NAMES[0]]),
    ],
)
def test_a_layer_is_watched_when_one_pattern_fits(patterns: list[str] | None, watched: list[str]) -> None:
    assert list(filter(layer_filter(patterns), NAMES)) == watched


def test_a_pattern_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"The layer pattern 're:\(' is no regular expression \(.*\)\. Mend it"):
        layer_filter(["re:("])


def test_one_text_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(TypeError, match=r"such as \['attn'\]"):
        layer_filter("attn")
