"""Logs played as if they were written now: every line once, in order, none too early."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr.simulator import WorldConfig, write_events
from streaming.live.replay_logs import LogReplay

WORLD = WorldConfig(days=0.25, n_users=100, n_queries=32, n_ads=128, n_advertisers=16, n_topics=4,
                    dim=4, malformed_rate=0.02)  # fmt: skip


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay") / "logs"
    write_events(folder, 1500, 3, WORLD)
    return folder


def test_every_line_lands_once_and_in_order(logs: Path, tmp_path: Path) -> None:
    replay = LogReplay(logs, tmp_path / "in", 10.0)
    assert replay.speed == pytest.approx(0.25 * 86_400 / 10.0, rel=0.1)
    for tenth in range(0, 110, 3):
        assert not replay.finished or tenth > 100
        replay.land(tenth / 10.0)
        assert not list((tmp_path / "in").glob(".*"))
    assert replay.finished
    assert len(list((tmp_path / "in").iterdir())) == replay.files
    for log in logs.glob("*.csv"):
        parts = sorted((tmp_path / "in").glob(f"{log.stem}-*.csv"))
        assert len(parts) > 10 or log.name.startswith("events")
        heads, bodies = zip(*(part.read_bytes().split(b"\n", 1) for part in parts), strict=True)
        head, body = log.read_bytes().split(b"\n", 1)
        assert set(heads) == {head}
        assert b"".join(bodies) == body
        assert replay.lines[log.stem] == len(body.splitlines())


def test_nothing_lands_before_its_time(logs: Path, tmp_path: Path) -> None:
    replay = LogReplay(logs, tmp_path / "in", 10.0)
    replay.land(5.0)
    assert not replay.finished
    half = sum(replay.lines.values())
    replay.land(5.0)
    assert sum(replay.lines.values()) == half
    replay.land(10.0)
    # The simulated day has its course, but not one as steep as this.
    assert 0.3 < half / sum(replay.lines.values()) < 0.7
