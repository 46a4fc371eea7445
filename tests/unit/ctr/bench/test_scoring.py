"""Scoring of made-up predictions against made-up shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ctr.bench.scoring import MIN_SLICE_ROWS, Rows, read_predictions, read_rows, score
from ctr.data.manifest import Shard, commit, file_sha256
from ctr.errors import ConfigError, StreamError
from ctr.schema import Feature, Label, Schema

N = 5_001


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    prob = rng.uniform(0.05, 0.6, N).astype(np.float32)
    label = (rng.random(N) < prob).astype(np.int8)
    label[[3, N - 5]] = -1
    tab = np.where(np.arange(N) < N // 2, "early", np.where(np.arange(N) % 10 == 0, "rare", "late"))
    return {"prob": prob, "label": label, "tab": tab, "user": rng.integers(0, 40, N),
            "rate": np.where(np.arange(N) % 3 == 0, 0.5, 1.0)}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, columns: dict[str, np.ndarray]) -> Path:
    """A committed data folder of two shards."""
    data = tmp_path_factory.mktemp("data")
    (data / "shards").mkdir()
    schema = Schema(
        "made_up", (Feature("tab"), Feature("user")), (Label("click"),),
        columns={"query_id": ("user",), "sampling_rate": ("rate",)}, slices=("tab",),
    )  # fmt: skip
    label = pa.array(columns["label"], mask=columns["label"] < 0)
    table = pa.table(
        {
            "example_id": [f"e{i}" for i in range(N)],
            "event_time": pa.array(np.arange(N)).cast(pa.timestamp("us", "UTC")),
            "query_id": columns["user"].astype(str),
            "sampling_rate": columns["rate"].astype(np.float32),
            "tab": columns["tab"],
            "user": columns["user"].astype(str),
            "click": label,
        }
    )
    shards = []
    for number, (start, stop) in enumerate([(0, 2_000), (2_000, N)]):
        file = data / "shards" / f"part-{number}.parquet"
        pq.write_table(table.slice(start, stop - start), file)
        shards.append(
            Shard(number, f"shards/{file.name}", stop - start, file.stat().st_size,
                  file_sha256(file), start, stop - 1, stop - 1)
        )  # fmt: skip
    commit(data, schema, shards)
    return data


def test_rows_come_from_all_shards_with_weights_and_unknown_labels(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    rows = read_rows(folder, ["user", "tab"])
    np.testing.assert_array_equal(rows.label, columns["label"])
    np.testing.assert_array_equal(rows.weight, (1.0 / columns["rate"]).astype(np.float32))
    assert list(rows.slices) == ["tab", "user"]
    assert rows.half == N // 2


def test_metrics_of_both_spans_equal_scikit_learn(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    scores = score(read_rows(folder), columns["prob"])
    for key, start in (("all", 0), ("second_half", N // 2)):
        kept = np.flatnonzero(columns["label"] >= 0)
        kept = kept[kept >= start]
        y, p, w = columns["label"][kept], columns["prob"][kept], 1 / columns["rate"][kept]
        p = p.astype(np.float64)
        found = scores[key]
        assert found["examples"] == len(kept)
        assert found["log_loss"] == pytest.approx(log_loss(y, p, sample_weight=w), abs=1e-12)
        assert found["auc"] == pytest.approx(roc_auc_score(y, p, sample_weight=w), abs=1e-12)
        assert found["calibration"] == pytest.approx((w * p).sum() / (w * y).sum())
        total = weight = 0.0
        for user in np.unique(columns["user"]):
            at = columns["user"][kept] == user
            if 0 < y[at].sum() < at.sum():
                total += w[at].sum() * roc_auc_score(y[at], p[at], sample_weight=w[at])
                weight += w[at].sum()
        assert found["per_query_auc"] == pytest.approx(total / weight, abs=1e-12)


def test_slices_cover_the_second_half_and_leave_out_small_values(
    folder: Path, columns: dict[str, np.ndarray]
) -> None:
    slices = score(read_rows(folder), columns["prob"])["slices"]["tab"]
    # "early" ends before the second half, and "rare" has a tenth of its rows.
    assert list(slices) == ["late"]
    late = (columns["tab"] == "late") & (columns["label"] >= 0)
    y, p, w = columns["label"][late], columns["prob"][late], 1 / columns["rate"][late]
    found = slices["late"]
    assert found["examples"] == late.sum() >= MIN_SLICE_ROWS
    assert found["calibration"] == pytest.approx((w * p).sum() / (w * y).sum())
    spread = 1.959964 * np.sqrt(((w * (y - p)) ** 2).sum()) / (w * y).sum()
    low, high = found["calibration_low"], found["calibration_high"]
    assert np.log(found["calibration"] / low) == pytest.approx(spread, rel=1e-5)
    assert np.log(high / found["calibration"]) == pytest.approx(spread, rel=1e-5)


def test_predictions_of_other_rows_are_refused(
    folder: Path, columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    rows = read_rows(folder)
    ids = [f"e{i}" for i in range(N)]
    table = pa.table({"example_id": ids, "prob": columns["prob"]})
    pq.write_table(table, tmp_path / "right.parquet")
    np.testing.assert_array_equal(
        read_predictions(tmp_path / "right.parquet", rows), columns["prob"]
    )
    pq.write_table(table.slice(1), tmp_path / "short.parquet")
    swapped = pa.table({"example_id": [ids[1], ids[0], *ids[2:]], "prob": columns["prob"]})
    pq.write_table(swapped, tmp_path / "swapped.parquet")
    for name in ("short", "swapped"):
        with pytest.raises(StreamError, match="not about"):
            read_predictions(tmp_path / f"{name}.parquet", rows)


def test_an_unknown_slice_names_the_nearest_column(folder: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tab'"):
        read_rows(folder, ["tap"])


def test_a_stream_without_queries_has_no_per_query_auc() -> None:
    rows = Rows(
        pa.chunked_array([["a", "b"]]), np.array([0, 1], np.int8), np.ones(2, np.float32), None, {}
    )
    scores = score(rows, np.array([0.2, 0.4], np.float32))
    assert "per_query_auc" not in scores["all"]
    # One row of one class: nothing to rank.
    assert scores["second_half"]["auc"] is None
