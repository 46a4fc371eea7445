from contextlib import closing

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ctr.metrics import ProgressiveMetrics
from ctr.tensorboard import TensorBoardLog

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR


def stream(n=2_000, hours=8):
    rng = np.random.default_rng(0)
    prob = rng.uniform(0.05, 0.6, n)
    return {
        "time_us": START + np.sort(rng.integers(0, hours * HOUR, n)),
        "prob": prob,
        "label": (rng.random(n) < prob).astype(np.int8),
        "query": rng.integers(0, n // 6, n),
        "tab": rng.choice(["home", "a b"], n),
    }


def feed(metrics, data, part):
    rows = {k: v[part] for k, v in data.items() if k != "tab"}
    metrics.update(**rows, slices={"ad tab": data["tab"][part]})


def new():
    return ProgressiveMetrics(("ad tab",), window_us=HOUR)


def scalars(folder):
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag: [(e.step, e.wall_time, e.value) for e in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def everything(run_dir):
    folder = run_dir / "tensorboard"
    parts = ("train", "progressive", "calibration/ad_tab")
    return {part: scalars(folder / part) for part in parts}


def complete(run_dir):
    data, metrics = stream(), new()
    with closing(TensorBoardLog(run_dir, metrics)) as log:
        for chunk in np.array_split(np.arange(2_000), 20):
            feed(metrics, data, chunk)
            log.update(metrics)
            log.speed(int(chunk[-1]) + 1, 50.0 + chunk[0], 1_000.0 + chunk[0])
        log.update(metrics, last=True)
    return metrics


def test_points_are_the_windows(tmp_path):
    metrics = complete(tmp_path)
    found, windows = everything(tmp_path), metrics.windows()
    assert set(found["progressive"]) == {
        f"progressive/{name}"
        for name in ("loss", "auc", "normalized_entropy", "calibration", "per_query_auc")
    }
    loss = found["progressive"]["progressive/loss"]
    steps = np.cumsum([w["examples"] for w in windows])
    assert [step for step, _, _ in loss] == steps.tolist()
    assert [when for _, when, _ in loss] == [w["end_us"] / 1e6 for w in windows]
    assert [v for _, _, v in loss] == pytest.approx([w["log_loss"] for w in windows], rel=1e-6)
    assert set(found["calibration/ad_tab"]) == {
        "calibration/ad tab/home",
        "calibration/ad tab/a b",
    }
    last = metrics.since(windows[-1]["start_us"])["slices"]["ad tab"]["home"]["calibration"]
    point = found["calibration/ad_tab"]["calibration/ad tab/home"][-1][2]
    assert point == pytest.approx(last, rel=1e-6)
    assert len(found["train"]["train/examples_per_second"]) == 20


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_and_resumed_run_shows_every_point_once(tmp_path, torn):
    complete(tmp_path / "whole")
    data, metrics = stream(), new()
    chunks = np.array_split(np.arange(2_000), 20)
    run_dir = tmp_path / "killed"
    killed = TensorBoardLog(run_dir, metrics)
    for number, chunk in enumerate(chunks[:13]):
        if number == 9:
            state = {k: v.copy() for k, v in metrics.state_dict().items()}
        feed(metrics, data, chunk)
        killed.update(metrics)
        killed.speed(int(chunk[-1]) + 1, 50.0 + chunk[0], 1_000.0 + chunk[0])
    if torn:
        for path in run_dir.rglob("events.*"):
            path.write_bytes(path.read_bytes()[:-7])
    metrics = ProgressiveMetrics.from_state(state)
    with closing(TensorBoardLog(run_dir, metrics, examples=901)) as log:
        for chunk in chunks[9:]:
            feed(metrics, data, chunk)
            log.update(metrics)
            log.speed(int(chunk[-1]) + 1, 50.0 + chunk[0], 1_000.0 + chunk[0])
        log.update(metrics, last=True)
    assert everything(run_dir) == everything(tmp_path / "whole")


def test_speed_is_written_every_few_seconds(tmp_path):
    now = [1_000.0]
    metrics = new()
    with closing(TensorBoardLog(tmp_path, metrics, clock=lambda: now[0])) as log:
        for second in range(12):
            log.observe(second * 100, metrics)
            now[0] += 1
    points = scalars(tmp_path / "tensorboard" / "train")["train/examples_per_second"]
    assert points == [(500, 1_005.0, 100.0), (1_000, 1_010.0, 100.0)]
