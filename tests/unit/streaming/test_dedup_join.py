import numpy as np
import pyarrow as pa

from streaming.dedup_join import IMPRESSION, NO_TIME, key_batches, resolve
from streaming.source import Events

CLICK = Events(label="click", input=("c",), window_s=10e-6)
BUY = Events(label="buy", input=("b",), window_s=100e-6)


def batches(impressions, clicks=(), buys=()):
    out = []
    for kind, rows in ((IMPRESSION, impressions), (1, clicks), (2, buys)):
        keys = pa.array([key for key, _ in rows], pa.string())
        times = np.array([time for _, time in rows], np.int64)
        out += [batch for _, batch in key_batches(keys, times, kind, 5, 1)]
    return out


def verdicts(*args):
    table, counts = resolve(batches(*args), (CLICK, BUY))
    return {row["row"]: row for row in table.to_pylist()}, counts


def test_the_earliest_impression_stays_and_the_first_in_the_log_among_equals():
    found, counts = verdicts([("a", 7), ("a", 3), ("a", 3), ("b", 9)])
    assert {row for row, v in found.items() if v["dropped"]} == {0, 2}
    assert counts["duplicates"] == 2


def test_window_ends_are_inside():
    found, counts = verdicts(
        [("a", 100), ("b", 100), ("c", 100), ("d", 100)],
        [("a", 100), ("b", 110), ("c", 111), ("d", 99), ("e", 100)],
    )
    assert {row: v["label_0"] for row, v in found.items()} == {0: 100, 1: 110}
    assert counts["events.click.joined"] == 2
    assert counts["events.click.outside_window"] == 2
    assert counts["events.click.orphan"] == 1


def test_the_earliest_event_in_the_window_counts():
    found, counts = verdicts([("a", 100)], [("a", 108), ("a", 90), ("a", 105), ("a", 105)])
    assert found[0]["label_0"] == 105
    assert counts["events.click.joined"] == 1
    assert counts["events.click.outside_window"] == 1
    assert counts["events.click.duplicates"] == 2


def test_labels_do_not_mix():
    found, _ = verdicts([("a", 100), ("b", 100)], [("a", 101)], [("a", 150), ("b", 160)])
    assert (found[0]["label_0"], found[0]["label_1"]) == (101, 150)
    assert (found[1]["label_0"], found[1]["label_1"]) == (NO_TIME, 160)


def test_events_without_any_impression_in_their_partition():
    table, counts = resolve(batches([], [("a", 1)]), (CLICK, BUY))
    assert table.num_rows == 0
    assert counts["events.click.orphan"] == 1


def test_partitions_divide_the_keys():
    keys = pa.array([f"k{i % 50}" for i in range(500)])
    by_key = {}
    for p, batch in key_batches(keys, np.arange(500), IMPRESSION, 0, 7):
        for row in batch.column("row").to_pylist():
            assert by_key.setdefault(f"k{row % 50}", p) == p
    assert len(by_key) == 50
    assert len(set(by_key.values())) > 3
