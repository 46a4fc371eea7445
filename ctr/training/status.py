"""What a following run says about itself while it runs: ``RUN/status.json``."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctr.data.manifest import write_atomically
from ctr.errors import ConfigError

STATUS = "status.json"


def write_status(run_dir: Path, state: dict[str, Any]) -> None:
    """Replaces the status; ``written_at`` is added, seconds since the epoch."""
    text = json.dumps({**state, "written_at": time.time()}, indent=1, default=float)
    write_atomically(run_dir / STATUS, text.encode())


def read_status(run_dir: Path) -> dict[str, Any]:
    """Reads the status of a run that follows or followed a stream.

    Raises:
        ConfigError: the run has none.
    """
    try:
        return json.loads((run_dir / STATUS).read_text())
    except (OSError, ValueError):
        raise ConfigError(
            f"{run_dir} has no {STATUS}. It is written by `octr train --follow`; for a finished "
            "run see its report.json."
        ) from None


def status_lines(state: dict[str, Any]) -> list[str]:
    """Returns the status as aligned text."""
    now = time.time()
    lines = [
        f"{'state':<16}{state['state']}, told {now - state['written_at']:.0f} s ago by process "
        f"{state['process']}",
        f"{'examples':<16}{state['examples']:,}, {state['lag_examples']:,} committed ones to go",
        f"{'rate':<16}{state['examples_per_second']:,.0f} examples/s since the start",
        f"{'event time':<16}{_moment(state['event_time_us'])}, "
        f"{(state['data_event_time_us'] - state['event_time_us']) / 1e6:,.0f} s behind the data",
        f"{'data age':<16}{_age(now - state['data_event_time_us'] / 1e6)}",
        f"{'checkpoint':<16}at {state['checkpoint_examples']:,} examples",
    ]
    export = state.get("export")
    if export is not None:
        newest = export["newest"]
        when = f"event time {_moment(newest['event_time_us'])}" if newest else "none yet"
        failed = f", last attempt failed: {export['failure']}" if export["failure"] else ""
        held = f", {export['paused']} held back by alarms" if export["paused"] else ""
        lines.append(f"{'export':<16}{when}{held}{failed}")
    window = state.get("window")
    if window:
        shown = ("log_loss", "calibration", "auc", "base_rate")
        values = {k: window.get(k) for k in shown}
        # Without a click there is no calibration, and that is worth telling.
        told = [f"{k} {'undefined' if v is None else f'{v:.4f}'}" for k, v in values.items()]
        lines.append(f"{'last window':<16}{', '.join(told)}")
    for name, use in state.get("table_use", {}).items():
        share = use["shared"] / max(use["occurrences"], 1)
        lines.append(
            f"{'ids':<16}{name}: {use['admitted']:,} admitted, {use['waiting']:,} waiting, "
            f"{use['expired']:,} expired, {use['returns']:,} returned; "
            f"{share:.1%} of occurrences share a row"
        )
    for alarm in state.get("alarms", ()):
        lines.append(f"{'ALARM':<16}{alarm}")
    return lines


def _age(seconds: float) -> str:
    if seconds >= 0.0:
        return f"{seconds:,.0f} s"
    return f"none: event times are {-seconds:,.0f} s ahead of this clock"


def _moment(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S}"
