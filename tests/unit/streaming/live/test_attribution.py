"""Single decisions of the live join."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from live_events import Event, S, Shown, batches, rules, tuples

from ctr.errors import ConfigError
from ctr.schema import Feature, Label, Schema
from streaming.live.attribution import JoinState, Step, advance
from streaming.live.layout import is_events
from streaming.live.rules import JoinRules, join_rules
from streaming.source import Events, Source


def step(state: JoinState, elements: list, until_s: int, how: JoinRules) -> Step:
    found = batches(elements)
    shown = [b for b in found if not is_events(b)]
    return advance(state, shown, [b for b in found if is_events(b)], until_s * S, how)


def left(step: Step) -> Counter:
    return tuples([b for b in (step.examples, *step.corrections) if b is not None])


def test_only_what_is_due_leaves():
    """A flush of everything at the first due time would lose the click of the second one."""
    how = rules(10, lateness_s=0)
    first = step(JoinState(), [Shown(0, "a"), Shown(8, "b")], 10, how)
    assert [row[0] for row in left(first)] == ["a"]
    assert first.due_us == 18 * S
    second = step(first.state, [Event(11, "b")], 18, how)
    assert left(second) == {("b", "u", 8, (1, 0), (11, None), 0): 1}
    assert second.counts["events.click.joined"] == 1


def test_late_label_is_a_correction_with_the_original_row():
    how = rules(10)
    state = step(JoinState(), [Shown(0, "a", "x")], 20, how).state
    found = step(state, [Event(30, "a", 1)], 30, how)
    assert left(found) == {("a", "x", 20, (None, 1), (None, 30), 1): 1}
    again = step(found.state, [Event(30, "a", 1), Event(35, "a", 1)], 40, how)
    assert not left(again)
    assert again.counts["events.buy.duplicates"] == 2


def test_correction_waits_until_no_earlier_event_can_come():
    how = rules(0)
    first = step(JoinState(), [Shown(0, "a"), Event(9, "a")], 5, how)
    assert left(first) == {("a", "u", 0, (0, 0), (None, None), 0): 1}
    assert first.due_us == 9 * S
    second = step(first.state, [Event(7, "a")], 9, how)
    assert left(second) == {("a", "u", 7, (1, None), (7, None), 1): 1}


def test_orphans_and_events_outside_are_counted_and_forgotten():
    how = rules(10, lateness_s=5)
    first = step(JoinState(), [Shown(0, "a"), Event(20, "a"), Event(3, "zz")], 10, how)
    assert first.counts["events.click.orphan"] == 1
    second = step(first.state, [], 100, how)
    assert second.counts["events.click.outside_window"] == 1
    assert second.state.held is None
    assert second.state.loose is None


def test_what_is_too_late_goes_to_the_late_output():
    how = rules(0, lateness_s=5)
    state = step(JoinState(), [Shown(50, "a")], 60, how).state
    found = step(state, [Shown(54, "b"), Shown(55, "c"), Event(54, "c")], 60, how)
    assert [row[0] for row in left(found)] == ["c"]
    assert [b.num_rows for b in found.late] == [1, 1]
    assert found.counts["impressions.late"] == found.counts["events.click.late"] == 1


def test_memory_ends_with_the_horizon():
    how = rules(10, lateness_s=5)
    state = step(JoinState(), [Shown(0, "a")], 45, how).state
    assert state.held is not None
    again = step(state, [Shown(40, "a")], 45, how)
    assert again.counts["impressions.duplicates"] == 1
    assert step(state, [], 46, how).state.held is None


def test_of_equal_times_the_content_decides_not_the_order():
    how = rules(0)
    pair = [Shown(0, "a", "v"), Shown(0, "a", "u")]
    both = [left(step(JoinState(), rows, 1, how)) for rows in (pair, pair[::-1])]
    assert both[0] == both[1]
    held = step(JoinState(), [pair[0]], -1, how).state
    assert left(step(held, [pair[1]], 1, how)) == both[0]


def test_labels_of_the_impression_itself_are_not_corrected():
    how = JoinRules(("click",), (40 * S,), 0, 0, S, ("buy",))
    state = step(JoinState(), [Shown(0, "a")], 1, how).state
    (batch,) = step(state, [Event(5, "a")], 5, how).corrections
    assert batch.column("buy").null_count == 1
    assert batch.column("click").to_pylist() == [1]
    assert batch.schema.field("correction").type == pa.int8()


def test_rules_of_a_source():
    schema = Schema("t", (Feature("u"),), (Label("click"), Label("read")),
                    columns={"example_id": ("id",), "event_time": ("ts",)})  # fmt: skip
    source = Source(events=(Events("click", ("c*",), 300.0),))
    found = join_rules(schema, source)
    assert (found.wait_us, found.tick_us, found.other_labels) == (300 * S, 60 * S, ("read",))
    assert found.horizon_us == 300 * S
    assert join_rules(schema, source, wait_s=0).tick_us == S
    with pytest.raises(ConfigError, match="events"):
        join_rules(schema, Source())
    with pytest.raises(ConfigError, match="wait_us"):
        join_rules(schema, source, wait_s=-1)
