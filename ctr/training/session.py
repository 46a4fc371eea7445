"""Trains a run while people watch: progress, TensorBoard, then the report."""

from __future__ import annotations

from typing import Any

from ctr.progress import progress_line
from ctr.report.content import save_report
from ctr.report.html import write_report
from ctr.tensorboard import TensorBoardLog
from ctr.training.result import run_report
from ctr.training.trainer import Status, Trainer


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
    save_report(trainer.run.path, report)
    write_report(trainer.run.path, report)
    return report
