"""Exactly once from raw events to weights, whatever is killed in between."""

from __future__ import annotations

from pathlib import Path

from live_harness import disturbed, undisturbed

from ctr.simulator import WorldConfig, write_events

WORLD = WorldConfig(
    days=0.25, n_users=200, n_queries=32, n_ads=128, n_advertisers=16, n_topics=4, dim=4
)


def test_killed_processes_change_no_byte(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write_events(logs, 2500, 11, WORLD)
    calm = undisturbed(logs, tmp_path / "calm")
    wild, landed = disturbed(logs, tmp_path / "wild", kills=6, seed=1, longest_s=12.0)
    assert len(landed) >= 5, landed
    shards, run = calm.outcome()
    other_shards, other_run = wild.outcome()
    assert other_shards == shards
    assert len(shards) > 10
    assert other_run.differences(run) == []
