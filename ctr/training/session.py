"""Trains a run while people watch: progress, TensorBoard, then the report."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Any

from ctr.errors import CtrError
from ctr.progress import progress_line
from ctr.report.content import load_report, save_report
from ctr.report.html import PAGE, write_report
from ctr.tensorboard import TensorBoardLog
from ctr.training.result import run_report
from ctr.training.trainer import Status, Trainer

log = logging.getLogger(__name__)


def train_and_report(trainer: Trainer) -> dict[str, Any]:
    """Trains to the end of the data and writes ``report.html`` and ``report.json``.

    A run that is finished already is left as it is.

    Returns:
        The report.
    """
    done = _finished(trainer)
    if done is not None:
        log.info(
            "%s has learned all %s examples of %s; nothing to do",
            trainer.run.path, f"{trainer.position:,}", trainer.reader.data_dir,
        )  # fmt: skip
        return done
    primary = trainer.metrics[trainer.learner.labels[0]]
    with (
        progress_line(trainer.total, trainer.position) as show,
        closing(TensorBoardLog(trainer.run.path, primary, trainer.position)) as events,
    ):

        def watch(status: Status) -> None:
            show(status)
            events.observe(status.examples, status.metrics)

        trainer.train(watch)
        events.update(primary, last=True)
    report = run_report(trainer)
    write_report(trainer.run.path, report)
    # The last file of a run: where it is complete, so is everything else.
    save_report(trainer.run.path, report)
    return report


def _finished(trainer: Trainer) -> dict[str, Any] | None:
    """Returns the report if all that the run could write is there."""
    if not trainer.finished or not (trainer.run.path / PAGE).is_file():
        return None
    try:
        report = load_report(trainer.run.path)
    except CtrError:
        return None
    told = (report["run"].get("id"), report["examples"])
    return report if told == (trainer.run.id, trainer.position) else None
