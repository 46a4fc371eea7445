"""Whatever the order, repetition, delay and cutting of what arrives, the same examples leave."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from live_events import LABELS, Element, Event, S, Shown, batches, expected, rules, tuples

from streaming.live.attribution import JoinState, advance
from streaming.live.layout import NEVER, is_events

KEYS = st.sampled_from([f"i{k}" for k in range(8)])
SHOWN = st.lists(st.builds(Shown, st.integers(0, 100), KEYS, st.sampled_from("uv")), max_size=12)
EVENTS = st.lists(st.builds(Event, st.integers(0, 160), KEYS, st.integers(0, 1)), max_size=12)
END = 10**9 * S


def play(pieces: list[tuple[list[Element], int]], how):
    """Runs the join over ``(elements, watermark in seconds)`` and the end of time."""
    state, out, counts = JoinState(), [], Counter()
    for elements, watermark in [*pieces, ([], None)]:
        arrived = batches(elements)
        until = END if watermark is None else watermark * S
        step = advance(
            state,
            [b for b in arrived if not is_events(b)],
            [b for b in arrived if is_events(b)],
            until,
            how,
        )
        state = step.state
        counts.update(step.counts)
        out += [*([step.examples] if step.examples is not None else []), *step.corrections]
        for batch in out:
            assert batch.num_rows
    assert state.held is None
    assert state.loose is None
    assert step.due_us == NEVER
    return tuples(out), counts


def cut(draw, elements: list[Element]):
    """Cuts a sequence of arrivals; watermarks are true, but may lag or jump."""
    pieces, at, watermark = [], 0, -1000
    while at < len(elements):
        n = draw(st.integers(1, len(elements) - at))
        at += n
        true = min((e.time_s for e in elements[at:]), default=10**6)
        halfway = (watermark + true) // 2
        watermark = max(watermark, draw(st.sampled_from([watermark, true, halfway])))
        watermark = min(watermark, true)
        pieces.append((elements[at - n : at], watermark))
    return pieces


def conserved(counts: Counter[str]) -> None:
    fates = ("examples", "impressions.duplicates", "impressions.late")
    assert counts["impressions"] == sum(counts[name] for name in fates)
    for label in LABELS:
        fates = ("joined", "corrections", "duplicates", "orphan", "outside_window", "late")
        found = sum(counts[f"events.{label}.{name}"] for name in fates)
        assert counts[f"events.{label}.rows"] == found


@settings(max_examples=150, deadline=None)
@given(shown=SHOWN, events=EVENTS, wait=st.sampled_from([0, 5, 10, 40, 60]), data=st.data())
def test_arrival_decides_nothing(shown, events, wait, data):
    elements = [*shown, *events]
    repeats = data.draw(st.lists(st.sampled_from(elements), max_size=6)) if elements else []
    arrived = data.draw(st.permutations([*elements, *repeats]))
    found, counts = play(cut(data.draw, arrived), rules(wait))
    assert found == expected(elements, rules(wait))
    conserved(counts)


@settings(max_examples=150, deadline=None)
@given(shown=SHOWN, events=EVENTS, wait=st.sampled_from([0, 10, 60]), data=st.data())
def test_with_no_lateness_a_true_watermark_is_enough(shown, events, wait, data):
    shown = list({e.key: e for e in shown}.values())
    delays = data.draw(st.lists(st.integers(0, 30), min_size=24, max_size=24))
    elements = [*shown, *events]
    pairs = sorted(zip(elements, delays, strict=False), key=lambda x: x[0].time_s + x[1])
    found, counts = play(cut(data.draw, [e for e, _ in pairs]), rules(wait, lateness_s=0))
    assert found == expected(elements, rules(wait))
    conserved(counts)
    assert not counts["impressions.late"]


@settings(max_examples=100, deadline=None)
@given(shown=SHOWN, events=EVENTS, marks=st.lists(st.integers(0, 300), max_size=6), data=st.data())
def test_a_wrong_watermark_loses_no_label_and_doubles_no_example(shown, events, marks, data):
    """Examples may leave before their events are there: the labels follow as corrections."""
    shown = list({e.key: e for e in shown}.values())
    arrived = data.draw(st.permutations([*shown, *events]))
    pieces, at = [], 0
    for mark in sorted(marks):
        n = data.draw(st.integers(0, len(arrived) - at))
        pieces.append((arrived[at : at + n], mark))
        at += n
    found, counts = play([*pieces, (arrived[at:], 300)], rules(10, lateness_s=1000))
    conserved(counts)

    def totals(rows: Counter[tuple]):
        ids = Counter(row[0] for row in rows.elements() if not row[5])
        ones = Counter((r[0], x) for r in rows.elements() for x, y in enumerate(r[3]) if y)
        return ids, ones

    assert totals(found) == totals(expected([*shown, *events], rules(10)))
