"""Rules are data: who matches, what travels, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tracer.errors import ConfigError
from tracer.mirroring.routing import Route, halves, size_of, split
from tracer.mirroring.rules import Rule, interval
from tracer.transfer import KINDS, LAYER, POINTS, TEXT, Event, LayerPoints, LogLine, Points, Text


def series(name: str, *values: float, rank: int = 0) -> Points:
    steps = np.arange(len(values), dtype=np.int64)
    return Points(name, steps, steps * 1000, np.array(values), rank)


def names(route: Route, events: list[Event], origins: dict[str, str] | None = None) -> list[str | None]:
    return [event.name for event, _ in route.through(events, origins or {})]  # type: ignore[union-attr]


LAYERS = LayerPoints("gradients/fc/norm", np.array([1]), np.array([1]), np.array([0.5]))
EVERYTHING: list[Event] = [series("train/loss", 1.0), series("eval/loss", 2.0), Text("note", 0, 0, "x"), LAYERS]


def test_without_rules_everything_goes_but_the_layers() -> None:
    assert names(Route("mlflow", [], KINDS), EVERYTHING) == ["train/loss", "eval/loss", "note"]


def test_what_a_back_end_does_not_understand_is_not_sent() -> None:
    assert names(Route("mlflow", [], {POINTS}), EVERYTHING) == ["train/loss", "eval/loss"]


def test_a_rule_that_lets_something_through_keeps_the_rest_back() -> None:
    assert names(Route("mlflow", [Rule(name="train/*", to="mlflow")], KINDS), EVERYTHING) == ["train/loss"]


def test_a_rule_for_another_back_end_changes_nothing() -> None:
    assert len(names(Route("wandb", [Rule(name="train/*", to="mlflow")], KINDS), EVERYTHING)) == 3


def test_what_is_dropped_does_not_go_and_the_rest_does() -> None:
    assert names(Route("mlflow", [Rule(name="eval/*", drop=True)], KINDS), EVERYTHING) == ["train/loss", "note"]


def test_the_first_rule_wins() -> None:
    rules = [Rule(name="train/loss"), Rule(name="train/*", drop=True), Rule(name="*")]

    found = names(Route("mlflow", rules, KINDS), [series("train/loss", 1.0), series("train/lr", 1.0), series("x", 1.0)])

    assert found == ["train/loss", "x"]


def test_layers_go_where_a_rule_names_them() -> None:
    route = Route("mlflow", [Rule(kinds=[LAYER]), Rule()], KINDS)

    assert names(route, EVERYTHING)[-1] == "gradients/fc/norm"
    assert LAYER in route.kinds
    assert LAYER not in Route("mlflow", [Rule()], KINDS).kinds


def test_the_source_is_who_logged_it() -> None:
    route = Route("mlflow", [Rule(source="lightning")], KINDS)

    assert names(route, EVERYTHING, {"train/loss": "lightning"}) == ["train/loss"]


def test_a_rank_and_a_kind_can_be_asked_for() -> None:
    events: list[Event] = [series("a", 1.0, rank=1), series("a", 1.0), Text("t", 0, 0, "x", rank=1)]

    assert names(Route("mlflow", [Rule(rank=1, kinds="metrics")], KINDS), events) == ["a"]


def test_a_line_is_known_by_its_kind() -> None:
    assert len(names(Route("m", [Rule(name="stdout")], KINDS), [LogLine("stdout", 1, "x"), LogLine("stderr", 1)])) == 1


def test_a_filter_sees_each_point() -> None:
    route = Route("m", [Rule(where=lambda _, step, value: value > step)], KINDS)

    ((found, _),) = route.through([series("a", 5.0, 0.0, 7.0)], {})

    assert isinstance(found, Points)
    assert found.values.tolist() == [5.0, 7.0]


def test_a_filter_that_raises_lets_nothing_through_and_is_counted() -> None:
    route = Route("m", [Rule(where=lambda _, step, __: 1 / (step - 1))], KINDS)  # type: ignore[arg-type,return-value]

    ((found, _),) = route.through([series("a", 1.0, 1.0, 1.0)], {})

    assert isinstance(found, Points)
    assert (found.steps.tolist(), route.failed) == ([0, 2], 1)
    assert "ZeroDivisionError" in route.error


def test_a_filter_is_found_by_its_place() -> None:
    route = Route("m", [Rule(where="operator:eq")], {TEXT})

    assert route.failed == 0
    assert names(route, [Text("t", 0, 0, "x")]) == []
    assert "TypeError" in route.error
    with pytest.raises(ConfigError, match="nowhere:at_all"):
        Route("m", [Rule(where="nowhere:at_all")], {TEXT})


def test_rules_go_through_json() -> None:
    rules = [Rule(), Rule("lightning", "train/*", ["points", "text"], "mlflow", 0, "m:f", "500ms", drop=True)]

    again = [Rule.of(json.loads(json.dumps(rule.as_dict()))) for rule in rules]

    assert again == rules


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metric": "loss"}, "no field 'metric'"),
        ({"kinds": ["scalarz"]}, "'scalarz' is no kind"),
        ({"thin": "fast"}, "thin='fast'"),
        ({"thin": 0}, "thin=0"),
    ],
)
def test_what_cannot_be_meant_is_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Rule.of(given)


def test_a_function_does_not_travel() -> None:
    with pytest.raises(ConfigError, match="lane='thread'"):
        Rule(where=lambda name, step, value: True).as_dict()  # noqa: ARG005 (as a filter is called)


def test_intervals_are_read() -> None:
    assert [interval(one) for one in (None, 5, "1.5s", "2min", "10 ms")] == [
        None, (False, 5), (True, 1_500_000), (True, 120_000_000), (True, 10_000),
    ]  # fmt: skip


def test_batches_are_parted_by_points_and_keep_their_order() -> None:
    events: list[Event] = [series("a", *range(7)), Text("t", 0, 0, "x"), series("b", *range(5))]

    batches = list(split(events, 4))

    assert [sum(map(size_of, batch)) for batch in batches] == [4, 4, 4, 1]
    assert [value for batch in batches for e in batch if isinstance(e, Points) for value in e.values.tolist()] == [
        *range(7), *range(5),
    ]  # fmt: skip


def test_a_batch_is_halved_down_to_one_point() -> None:
    waiting: list[list[Event]] = [[series("a", *range(5)), Text("t", 0, 0, "x"), series("b", 1.0)]]
    single = []
    while waiting:
        batch = waiting.pop(0)
        first, second = halves(batch)
        if second:
            waiting[:0] = [first, second]
        else:
            single.append(batch)

    assert [sum(map(size_of, batch)) for batch in single] == [1] * 7
