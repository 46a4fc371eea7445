"""Kills a live stream: the reader and joiner, and the trainer that follows it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from crash_harness import Outcome, outcome

from ctr.data import manifest

OCTR = str(Path(sys.executable).with_name("octr"))
TRAIN = ("--follow", "--batch-size", "32", "--set", "table_rows=8192", "--checkpoint-minutes", "30")
JOIN = ("--wait-s", "600", "--window-s", "600", "--lateness-s", "3600", "--drain-bytes", "16384",
        "--channel-idle-s", "600")  # fmt: skip
ENDING = ("--until-idle-s", "2")


@dataclass(frozen=True)
class Live:
    """A stream of files into shards into a run.

    Attributes:
        logs: Raw logs with their ``schema.toml``.
        folder: Where everything else goes.
    """

    logs: Path
    folder: Path

    @property
    def landing(self) -> Path:
        """Where the files land."""
        return self.folder / "landing"

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    def command(self, verb: str) -> list[str]:
        """Returns the command line of the joiner (``stream``) or the trainer (``train``)."""
        if verb == "train":
            return [OCTR, "train", "--data", str(self.data), "--run", str(self.run), *TRAIN]
        schema = str(self.logs / "schema.toml")
        source = f"dir://{self.landing}"
        return [OCTR, "stream", "--source", source, "--schema", schema, "--output",
                str(self.data), *JOIN]  # fmt: skip

    def start(self, verb: str, *options: str) -> subprocess.Popen[bytes]:
        """Starts a process."""
        out = (self.folder / f"{verb}.log").open("ab")
        return subprocess.Popen([*self.command(verb), *options], stdout=out, stderr=out)

    def finish(self, verb: str, *options: str) -> None:
        """Runs a process to its end."""
        code = self.start(verb, *options).wait()
        assert code == 0, (self.folder / f"{verb}.log").read_text()[-2000:]

    def place(self) -> str:
        """Says where the stream stands."""
        commit = self.data / "live" / "commit.json"
        shards = self.data / "shards"
        number = json.loads(commit.read_text())["number"] if commit.is_file() else 0
        files = len(os.listdir(shards)) if shards.is_dir() else 0
        steps = sorted((self.run / "checkpoints").glob("step-*"))
        step = int(steps[-1].name.removeprefix("step-")) if steps else 0
        return f"commit {number}, {files} shard files, checkpoint at {step:,}"

    def land(self, rng: random.Random, n_parts: int = 6) -> list[Path]:
        """Cuts each log into ``n_parts``, in an order of arrival for :meth:`release`.

        Logs run ahead of one another, but the parts of one log stay in order: what comes behind
        its own channel by more than the lateness may be late, and is then another stream.
        """
        self.landing.mkdir(parents=True)
        parts = []
        for file in sorted(self.logs.glob("*.csv")):
            head, *lines = file.read_bytes().splitlines(keepends=True)
            size = max(50, len(lines) // n_parts)
            for k in range(0, len(lines), size):
                when = (k + size * rng.random()) / len(lines) if k else 0.0
                content = head + b"".join(lines[k : k + size])
                parts.append((when, f"{file.stem}-{k:07d}.csv", content))
        paths = []
        for _, name, content in sorted(parts):
            path = self.folder / name
            path.write_bytes(content)
            paths.append(path)
        return paths

    def release(self, path: Path) -> None:
        """Lets a file land."""
        path.rename(self.landing / path.name)

    def n_late(self) -> int:
        """Returns the rows that came too late to be treated."""
        record = json.loads((self.data / "live" / "commit.json").read_text())
        return sum(n for name, n in record["counts"].items() if name.endswith(".late"))

    def outcome(self) -> tuple[list[tuple[str, str]], Outcome]:
        """Returns names and digests of the shards, and the outcome of the run."""
        assert self.n_late() == 0, "the streams are the same only if nothing is late"
        shards = [(s.file, s.sha256) for s in manifest.load(self.data)[1]]
        return shards, outcome(self.run)


def undisturbed(logs: Path, folder: Path) -> Live:
    """Joins everything, then learns everything."""
    live = Live(logs, folder)
    for path in live.land(random.Random(0)):
        live.release(path)
    live.finish("stream", *ENDING)
    live.finish("train")
    return live


@dataclass
class Victim:
    """A process to be killed again and again.

    Attributes:
        live: The stream it works on.
        verb: ``stream`` or ``train``.
    """

    live: Live
    verb: str

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Starts it, or starts it anew."""
        self.before = self._mark()
        self.process = self.live.start(self.verb)

    def at_work(self) -> bool:
        """True once it has done something that can be seen since it was started."""
        return self._mark() != self.before

    def kill(self) -> bool:
        """Kills it; returns whether it was alive."""
        alive = self.process.poll() is None
        if alive:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        return alive

    def _mark(self) -> int:
        file = (
            self.live.data / "live" / "commit.json"
            if self.verb == "stream"
            else self.live.run / "status.json"
        )
        return file.stat().st_mtime_ns if file.is_file() else 0


def disturbed(
    logs: Path, folder: Path, kills: int, seed: int, longest_s: float
) -> tuple[Live, list[str]]:
    """Lets files land one by one and kills a process again and again; then lets all end.

    One kill in four comes at any moment from the start of the process on, the others when it has
    begun to work.

    Returns:
        The stream, and for each kill that landed which process it was and where it stood.
    """
    live, rng = Live(logs, folder), random.Random(seed)
    # Enough that there is something to do after every kill.
    waiting = live.land(rng, max(6, kills // 2))
    # The clock waits for every log, so there is work only when each has begun.
    for _ in logs.glob("*.csv"):
        live.release(waiting.pop(0))
    victims = {verb: Victim(live, verb) for verb in ("stream", "train")}
    landed: list[str] = []
    while len(landed) < kills:
        victim = victims[rng.choice(("stream", "train"))]
        if waiting and len(waiting) > (kills - len(landed)) // 4:
            live.release(waiting.pop(0))
        if rng.random() < 0.25:
            time.sleep(rng.uniform(0.05, longest_s))
        else:
            _wait_for_work(victim)
            time.sleep(rng.uniform(0.0, 2.0))
        doing = "at work" if victim.at_work() else "starting"
        if victim.kill():
            landed.append(f"{victim.verb} {doing}: {live.place()}")
        for other in victims.values():
            if other.process.poll() is not None:
                other.start()
    for path in waiting:
        live.release(path)
    victims["stream"].process.terminate()
    victims["stream"].process.wait()
    live.finish("stream", *ENDING)
    code = victims["train"].process.wait()
    assert code == 0, (folder / "train.log").read_text()[-2000:]
    return live, landed


def _wait_for_work(victim: Victim, longest_s: float = 30.0) -> None:
    """Waits until there is something to lose; without data to work on that may never be."""
    deadline = time.monotonic() + longest_s
    while time.monotonic() < deadline:
        if victim.at_work() or victim.process.poll() is not None:
            return
        time.sleep(0.01)
