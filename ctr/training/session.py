"""Trains a run while people watch: progress, TensorBoard, then the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ctr.data.manifest import write_atomically
from ctr.progress import progress_line
from ctr.report.content import json_ready
from ctr.report.html import write_report
from ctr.tensorboard import TensorBoardLog
from ctr.training.result import run_report
from ctr.training.trainer import Status, Trainer

REPORT = "report.json"


def train_and_report(trainer: Trainer) -> dict[str, Any]:
    """Trains to the end of the data and writes ``report.json`` and ``report.html``.

    Returns:
        The report.
    """
    primary = trainer.metrics[trainer.learner.labels[0]]
    with (
        progress_line(trainer.reader.n_rows, trainer.position) as show,
        TensorBoardLog(trainer.run.path, primary, trainer.position) as events,
    ):

        def watch(status: Status) -> None:
            show(status)
            events.observe(status.examples, status.metrics)

        trainer.train(watch)
        events.update(primary, last=True)
    report = run_report(trainer)
    save_report(trainer, report)
    return report


def save_report(
    trainer: Trainer, report: Mapping[str, Any], others: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Writes ``report.json`` and the page; ``others`` are drawn beside it."""
    text = json.dumps(json_ready(report), indent=1)
    write_atomically(trainer.run.path / REPORT, text.encode())
    write_report(trainer.run.path, report, others)
