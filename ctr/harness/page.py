"""The experiment's report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ctr.data.manifest import write_atomically
from ctr.harness.table import text_table


def write_page(output: Path, report: Mapping[str, Any]) -> Path:
    path = output / "report.html"
    write_atomically(path, f"<pre>{escape(text_table(report))}</pre>".encode())
    return path
