"""The dashboard of the live demo says what the join and the learner say."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from streaming.live.dashboard import Dashboard, Moment

JOIN = {
    "n_shards": 7,
    "counts": {
        "impressions": 1000, "impressions.duplicates": 10, "examples": 900, "rows_bad": 3,
        "events.click.corrections": 21, "events.click.orphan": 2, "events.click.duplicates": 4,
        "events.buy.outside_window": 5,
    },
}  # fmt: skip
HOUR_US = 3_600_000_000


def learner(**changes: object) -> dict[str, object]:
    window = {"start_us": 0, "log_loss": 0.25, "auc": 0.75, "calibration": 1.1}
    return {
        "examples": 850, "lag_examples": 71, "examples_per_second": 1234.0, "alarms": [],
        "event_time_us": HOUR_US, "data_event_time_us": 2 * HOUR_US, "checkpoint_examples": 800,
        "health_windows": 6, "window": window,
        "export": {"exports": 2, "newest": {"event_time_us": HOUR_US}, "running": True,
                   "paused": 0, "failure": ""},
        **changes,
    }  # fmt: skip


def moment(elapsed_s: float = 30.0, status: dict | None = None, phase: str = "on") -> Moment:
    landed = {"impressions-00000": 1005, "events-click-00000": 40}
    return Moment(elapsed_s, 60.0, 1440.0, phase, landed, JOIN, status or {})


def shown(dashboard: Dashboard, at: Moment) -> str:
    console = Console(file=io.StringIO(), width=110, record=True)
    console.print(dashboard.picture(at))
    return console.export_text()


def test_the_picture_holds_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    dashboard = Dashboard(io.StringIO())
    before = shown(dashboard, moment())
    assert re.search(r"learner +starting", before)
    assert "1,005 impressions, 40 events; 1,440 times" in before
    assert "900 examples in 7 shards, 90 in hand, 21 late labels" in before
    assert "14 repeated, 2 orphan, 5 outside the window, 3 dead letters" in before
    dashboard.show(moment(status=learner()))
    second = {"start_us": HOUR_US, "log_loss": 0.2, "auc": None, "calibration": 1.0}
    now = moment(status=learner(window=second))
    dashboard.show(now)
    text = shown(dashboard, now)
    assert "850 learned at 1,234/s, 71 to go" in text
    assert "60 min behind the data; checkpoint at 800" in text
    assert "0.2000  █▁" in text
    assert re.search(r"AUC +0\.7500", text), "a window without one keeps the one before"
    assert "2 versions, newest of Jan 01 01:00, one on its way" in text
    assert "no alarm in 6 windows" in text
    assert "missing of ad_id: 9" in shown(
        dashboard, moment(status=learner(alarms=["missing of ad_id: 9"]))
    )


@pytest.mark.parametrize("status", [{}, learner(), learner(alarms=["base_rate: 7"], window=None)])
def test_without_a_terminal_there_are_lines(status: dict) -> None:
    out = io.StringIO()
    with Dashboard(out) as dashboard:
        for elapsed_s in (0.0, 1.0, 4.9, 5.0, 6.0):
            dashboard.show(moment(elapsed_s, status))
        dashboard.show(moment(6.1, status, "over"))
    lines = out.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["0 s", "5 s", "6 s"]
    assert lines[-1].startswith("6 s, over: 1,045 lines, 900 examples joined")
    assert ("850 learned" in lines[0]) == bool(status)
    assert ("ALARM base_rate: 7" in lines[0]) == bool(status.get("alarms"))
