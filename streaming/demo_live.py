"""``octr demo --live``: a simulated stream joined, learned and exported while it comes in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr.errors import ConfigError, StreamError
from ctr.verbs import command_line

if TYPE_CHECKING:
    from ctr.simulator import WorldConfig
    from streaming.live.dashboard import Dashboard
    from streaming.live.replay_logs import LogReplay

#: Impressions of a day that the demo plays, and how long the learner may take in the end.
IMPRESSIONS = 120_000
_LABEL = "click"
_LONGEST_S = 900.0
#: Longest that an example waits for its labels, and event time of a shard.
_WAIT_S, _SHARD_S = 300, 300


def run_live(out: Path, n_impressions: int, seed: int, seconds: float) -> int:
    """Plays a day of a simulated world in ``seconds``, then writes the report.

    Args:
        out: New or empty folder.
        n_impressions: Simulated impressions.
        seed: Of the world and of the learner.
        seconds: How long the producer takes.

    Raises:
        ConfigError: ``seconds`` is not above 0.
        StreamError: the join or the learner ended with an error.
    """
    from ctr.simulator import write_events
    from streaming.live.dashboard import Dashboard
    from streaming.live.replay_logs import LogReplay

    if not seconds > 0.0:
        raise ConfigError(f"--seconds must be above 0, received {seconds}.")
    started = time.monotonic()
    print(f"simulating {n_impressions:,} impressions", file=sys.stderr, flush=True)
    write_events(out / "events", n_impressions, seed, _world())
    live = _Live(out, seed, LogReplay(out / "events", out / "landing", seconds), seconds)
    try:
        with Dashboard() as dashboard:
            live.produce(dashboard)
            live.finish(dashboard)
    finally:
        live.stop()
    _summary(out, live.join_record())
    print(f"done in {time.monotonic() - started:.0f} s")
    return 0


def _world() -> WorldConfig:
    """Returns a day in which every eighth click comes after its example has left the join."""
    from ctr.simulator import LabelSpec, WorldConfig

    click = LabelSpec("click", "commerce", 0.1, 1.0, False, 60.0, 1.4, 1800.0)
    conversion = LabelSpec("conversion", "commerce", 0.01, 0.8, True, 600.0, 1.2, 3600.0)
    return WorldConfig(days=1.0, n_users=4000, n_queries=800, n_ads=960, n_advertisers=96,
                       shift_logit=0.0, labels=(click, conversion))  # fmt: skip


@dataclass
class _Live:
    """The processes of a live stream and where they stand.

    Attributes:
        out: Folder of everything.
        seed: Of the learner.
        replay: The producer.
        seconds: How long it takes.
        asked: True while the join has been asked to end.
    """

    out: Path
    seed: int
    replay: LogReplay
    seconds: float
    asked: bool = False
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def data(self) -> Path:
        return self.out / "data"

    def produce(self, dashboard: Dashboard) -> None:
        """Lets the log land while it is joined and learned."""
        self._start("stream", *self._join())
        self._start(
            "train", "--follow", "--data", self.data, "--run", self.out / "run",
            "--seed", self.seed, "--labels", _LABEL, "--checkpoint-minutes", 60,
            "--export-to", self.out / "models", "--export-minutes", 240,
            "--health-window", 4000, "--save-predictions",
        )  # fmt: skip
        self.began = time.monotonic()
        while not self.replay.finished:
            self.replay.land(time.monotonic() - self.began)
            self._show(dashboard, "the stream is on")

    def finish(self, dashboard: Dashboard) -> None:
        """Closes the stream and waits until it is learned."""
        # It may not even have begun to listen; what it had not committed is read again.
        self.children["stream"].terminate()
        self.asked = True
        self._await("stream", dashboard, "the last rows are joined")
        self.asked = False
        self._start("stream", *self._join(), "--until-idle-s", 0.5)
        self._await("stream", dashboard, "the last rows are joined")
        self._await("train", dashboard, "the last rows are learned")

    def stop(self) -> None:
        """Ends what still runs."""
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(30)
                    continue
                child.kill()

    def join_record(self) -> dict[str, Any]:
        """Returns the newest commit of the join."""
        return _read(self.data / "live" / "commit.json")

    def _join(self) -> tuple[object, ...]:
        return (
            "--source", f"dir://{self.out / 'landing'}", "--schema",
            self.out / "events" / "schema.toml", "--output", self.data,
            "--wait-s", _WAIT_S, "--window-s", _SHARD_S,
        )  # fmt: skip

    def _start(self, verb: str, *options: object) -> None:
        words = [verb, *(str(option) for option in options)]
        print(f"$ octr {' '.join(words)}", file=sys.stderr, flush=True)
        with (self.out / f"{verb}.log").open("ab") as told:
            self.children[verb] = subprocess.Popen(
                command_line(words), stdout=told, stderr=told, stdin=subprocess.DEVNULL
            )

    def _show(self, dashboard: Dashboard, phase: str) -> None:
        from streaming.live.dashboard import Moment

        for verb, child in self.children.items():
            code = child.poll()
            if code and not (self.asked and code == -signal.SIGTERM):
                raise StreamError(f"octr {verb} has failed:\n{_tail(self.out / f'{verb}.log')}")
        dashboard.show(
            Moment(
                time.monotonic() - self.began, self.seconds, self.replay.speed, phase,
                self.replay.lines, self.join_record(), _read(self.out / "run" / "status.json"),
            )
        )  # fmt: skip
        time.sleep(0.25)

    def _await(self, verb: str, dashboard: Dashboard, phase: str) -> None:
        deadline = time.monotonic() + _LONGEST_S
        while self.children[verb].poll() is None:
            if time.monotonic() > deadline:
                raise StreamError(f"octr {verb} goes on after {_LONGEST_S:.0f} s; see its log.")
            self._show(dashboard, phase)
        self._show(dashboard, phase)


def _read(path: Path) -> dict[str, Any]:
    """Reads a file that another process replaces; empty before it is there."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-12:])


def _summary(out: Path, join: Mapping[str, Any]) -> None:
    """Adds the truth to the report and prints how the stream went."""
    from ctr.report.content import load_report, save_report
    from ctr.report.html import write_report
    from ctr.training.status import read_status, status_lines
    from streaming.demo_truth import running_mean_section, truth_section

    run = out / "run"
    report = load_report(run)
    window_us = report["metrics"]["window_us"]
    truth = out / "events" / "truth" / "truth.parquet"
    report["truth"] = truth_section(run, truth, _LABEL, window_us)
    report["baselines"] = [running_mean_section(run, window_us)]
    save_report(run, report)
    write_report(run, report)
    counts = join["counts"]
    print(f"\n{'joined':<16}{_fates(counts, 'impressions', ('examples', 'duplicates', 'late'))}")
    for label in (_LABEL, "conversion"):
        fates = ("joined", "corrections", "duplicates", "orphan", "outside_window", "late")
        print(f"{'':<16}{_fates(counts, f'events.{label}', fates)}")
    print("\n".join(status_lines(read_status(run))))
    true, half = report["truth"], report["metrics"]["second_half"]
    print(f"{'second half':<16}log loss {half['log_loss']:.4f}, "
          f"{true['regret_second_half']:.4f} nats above the best possible one; predicted / true "
          f"{true['predicted_over_true_second_half']:.3f}")  # fmt: skip
    print(f"\nreport: {run / 'report.html'}")


def _fates(counts: Mapping[str, int], what: str, fates: Sequence[str]) -> str:
    total = counts.get(what, counts.get(f"{what}.rows", 0))
    by = {fate: counts.get(fate, 0) if fate == "examples" else counts.get(f"{what}.{fate}", 0)
          for fate in fates}  # fmt: skip
    parts = ", ".join(f"{n:,} {fate.replace('_', ' ')}" for fate, n in by.items() if n)
    return f"{total:,} {what.removeprefix('events.')}: {parts}"
