import json

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ctr.errors import ConfigError, CtrError
from ctr.metrics import MetricSums, ProgressiveMetrics, QueryAuc
from ctr.metrics.rows import score_rows

HOUR = 3_600_000_000
START = 1_600_000_000_000_000 // HOUR * HOUR


def stream(n=6_000, seed=0, hours=10):
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.5, 1, n)
    prob = (1 / (1 + np.exp(-logit))).astype(np.float32)
    return {
        "time_us": START + np.sort(rng.integers(0, hours * HOUR, n)),
        "prob": prob,
        "label": (rng.random(n) < prob).astype(np.int8),
        "weight": rng.choice([0.5, 1.0, 2.0], n).astype(np.float32),
        "query": rng.integers(0, n // 8, n).astype(np.uint64),
        "slices": {
            "tab": np.array(["home", "search", "video"])[rng.integers(0, 3, n)],
            "slot": rng.integers(0, 5, n),
        },
    }


def rows(data, part):
    return {
        **{k: v[part] for k, v in data.items() if k != "slices"},
        "slices": {k: v[part] for k, v in data["slices"].items()},
    }


def new(**options):
    return ProgressiveMetrics(**{"slices": ("tab", "slot"), "window_us": HOUR, **options})


def feed(metrics, data, chunks=1, parts=None):
    for part in parts or np.array_split(np.arange(len(data["prob"])), chunks):
        metrics.update(**rows(data, part))
    return metrics


def everything(metrics):
    report = [metrics.windows(), metrics.lifetime(), metrics.slices(), metrics.since(START)]
    return json.loads(json.dumps(report, allow_nan=False))


def recompute(data, at):
    sums, auc = MetricSums.empty(), QueryAuc()
    sums.add(data["prob"][at], data["label"][at], data["weight"][at])
    scored = score_rows(data["prob"][at], data["label"][at], data["weight"][at])
    auc.add(data["query"][at], scored, [])
    return {**sums.values(), "per_query_auc": auc.value()}


def close(found, expected):
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-11, abs=1e-13), key


def test_windows_lifetime_and_slices_equal_a_recomputation():
    data = stream()
    metrics = feed(new(), data, chunks=23)
    windows = metrics.windows()
    assert len(windows) == 10
    for number, window in enumerate(windows):
        low = START + number * HOUR
        assert (window["start_us"], window["end_us"]) == (low, low + HOUR)
        close(window, recompute(data, (data["time_us"] >= low) & (data["time_us"] < low + HOUR)))
    assert windows[0]["start"].endswith(":00:00+00:00")
    close(metrics.lifetime(), recompute(data, slice(None)))
    slices = metrics.slices()
    assert set(slices["tab"]) == {"home", "search", "video"}
    for feature, values in slices.items():
        for value, found in values.items():
            expected = recompute(data, data["slices"][feature].astype(str) == value)
            del expected["effective_examples"]  # slices do not sum squared weights
            close(found, expected)


def test_lifetime_agrees_with_sklearn():
    data = stream()
    found = feed(new(), data, chunks=5).lifetime()
    y, p, w = data["label"], data["prob"].astype(np.float64), data["weight"]
    assert found["log_loss"] == pytest.approx(log_loss(y, p, sample_weight=w), rel=1e-12)
    assert found["auc"] == pytest.approx(roc_auc_score(y, p, sample_weight=w), abs=1e-4)


def test_the_chunking_changes_no_bit():
    data = stream()
    expected = everything(feed(new(), data))
    for chunks in (2, 17, 600):
        assert everything(feed(new(), data, chunks)) == expected


def test_between_covers_the_second_half():
    data = stream()
    metrics = feed(new(), data, chunks=9)
    half = metrics.between(START + 5 * HOUR, START + 10 * HOUR)
    at = data["time_us"] >= START + 5 * HOUR
    expected = recompute(data, at)
    expected.pop("per_query_auc")
    close(half, expected)
    assert half == metrics.since(START + 5 * HOUR)
    for value, found in half["slices"]["tab"].items():
        inside = recompute(data, at & (data["slices"]["tab"] == value))
        close(found, {k: inside[k] for k in ("examples", "log_loss", "calibration", "base_rate")})
    windows = metrics.windows()[5:]
    aucs = [w["per_query_auc"] for w in windows]
    assert min(aucs) < half["per_query_auc"] < max(aucs)


def test_between_nothing():
    empty = new().between(0, HOUR)
    assert empty["examples"] == 0
    assert empty["log_loss"] is None
    assert "start" not in empty
    assert new().windows() == []
    assert new().lifetime()["per_query_auc"] is None


@pytest.mark.parametrize("cut", [0, 1, 7, 20])
def test_a_restored_state_continues_bit_for_bit(cut):
    data = stream(n=3_000)
    parts = np.array_split(np.arange(3_000), 20)
    options = {"max_windows": 4, "max_query_rows": 500, "max_slice_values": 3}
    expected = everything(feed(new(**options), data, parts=parts))
    before = feed(new(**options), data, parts=parts[:cut] or [slice(0, 0)])
    state = {key: array.copy() for key, array in before.state_dict().items()}
    feed(before, data, parts=parts[cut:] or [slice(0, 0)])
    resumed = ProgressiveMetrics.from_state(state)
    feed(resumed, data, parts=parts[cut:] or [slice(0, 0)])
    assert everything(before) == expected
    assert everything(resumed) == expected
    final, again = before.state_dict(), resumed.state_dict()
    assert final.keys() == again.keys()
    for key in final:
        assert final[key].tobytes() == again[key].tobytes(), key


def test_the_state_survives_an_npz_file_without_pickles(tmp_path):
    data = stream(n=500)
    data["slices"]["tab"] = np.where(data["slices"]["tab"] == "home", "h\0\u00e9", "s")
    metrics = feed(new(), data)
    np.savez(tmp_path / "state.npz", **metrics.state_dict())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as loaded:
        assert everything(ProgressiveMetrics.from_state(dict(loaded))) == everything(metrics)


def test_late_rows_count_in_their_own_window():
    data = stream(n=4_000)
    shuffled = np.argsort(data["time_us"] + np.random.default_rng(1).integers(0, HOUR, 4_000))
    parts = np.array_split(shuffled, 40)
    found, expected = feed(new(), data, parts=parts), feed(new(), data)
    for late, in_order in zip(found.windows(), expected.windows(), strict=True):
        in_order.pop("per_query_auc")
        close(late, {k: v for k, v in in_order.items() if not isinstance(v, str)})
    close(found.lifetime(), expected.lifetime())


def test_many_windows_are_merged_in_pairs_and_nothing_is_lost():
    data = stream(hours=40)
    found, expected = feed(new(max_windows=8), data, chunks=50), feed(new(), data)
    assert found.window_us > HOUR
    assert len(found.windows()) <= 9
    close(found.lifetime(), expected.lifetime())
    wide = feed(new(window_us=found.window_us), data).windows()
    for window, whole in zip(found.windows(), wide, strict=True):
        whole.pop("per_query_auc")
        close(window, {k: v for k, v in whole.items() if not isinstance(v, str)})


def test_rare_slice_values_are_pooled():
    data = stream()
    found = feed(new(max_slice_values=2), data).slices()
    assert len(found["slot"]) == 3
    assert list(found["slot"])[-1] == "(other)"
    assert sum(v["examples"] for v in found["slot"].values()) == 6_000


def test_unknown_labels_leave_no_trace():
    data = stream(n=1_000)
    hole = np.arange(1_000) % 3 == 0
    part = rows(data, ~hole)
    data["label"] = np.where(hole, -1, data["label"]).astype(np.int8)
    assert everything(feed(new(), data)) == everything(feed(new(), part))


def test_without_queries_or_slices():
    data = stream(n=500)
    metrics = ProgressiveMetrics(window_us=HOUR, query_auc=None)
    metrics.update(data["time_us"], data["prob"], data["label"])
    assert metrics.lifetime()["per_query_auc"] is None
    assert metrics.slices() == {}
    restored = ProgressiveMetrics.from_state(metrics.state_dict())
    assert restored.windows() == metrics.windows()


def test_a_missing_slice_column_is_an_error():
    data = stream(n=10)
    with pytest.raises(CtrError, match="slice feature 'slot'"):
        new().update(data["time_us"], data["prob"], data["label"], slices={"tab": ["a"] * 10})


@pytest.mark.parametrize("options", [{"window_us": 0}, {"max_windows": 1}, {"max_slice_values": 0}])
def test_bad_options(options):
    with pytest.raises(ConfigError, match="received"):
        new(**options)
