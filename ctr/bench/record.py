"""The data a benchmark of quality reads, and the file that its numbers go to."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--data``."""
    parser.add_argument("--data", type=Path, required=True, help="folder written by octr ingest")


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--output``."""
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.json",
        help="also write every number and the machine to this file",
    )


def write_record(path: Path | None, **numbers: Any) -> None:
    """Writes the numbers, and the machine they were measured on, as JSON; no path, no file.

    Raises:
        OSError: the file cannot be written.
    """
    from ctr.bench.machine import machine
    from ctr.data.manifest import write_atomically
    from ctr.report.content import json_ready

    if path is not None:
        record = {"machine": machine(), **numbers}
        write_atomically(path, json.dumps(json_ready(record), indent=1).encode())
