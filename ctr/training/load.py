"""A finished or running run, read back from its folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctr.checkpoint import CheckpointStore, Saved, restore
from ctr.config import from_plain
from ctr.errors import CheckpointError
from ctr.learner import Learner
from ctr.metrics import ProgressiveMetrics
from ctr.parts import known_parts
from ctr.training.run import CHECKPOINTS, RUN, RunConfig, run_record, run_schema


@dataclass(frozen=True)
class LoadedRun:
    """A run with the state of its newest undamaged checkpoint.

    Attributes:
        path: The run folder.
        record: What ``run.json`` says.
        config: The configuration it was made with.
        learner: The learner, restored.
        saved: The checkpoint it was restored from.
    """

    path: Path
    record: dict[str, Any] = field(repr=False)
    config: RunConfig
    learner: Learner
    saved: Saved = field(repr=False)

    @property
    def event_time_us(self) -> int:
        """Event time of the last example that was learned, microseconds since the epoch."""
        return self.saved.extra["event_time_us"]

    def metrics(self, label: str) -> ProgressiveMetrics:
        """Returns the progressive metrics of a label as they stood at the checkpoint."""
        return saved_metrics(self.saved, label)

    def lifetime(self, label: str) -> dict[str, Any]:
        """Returns the progressive metrics of a label over everything learned so far."""
        return self.metrics(label).lifetime()


def load_run(path: Path) -> LoadedRun:
    """Rebuilds the learner of a run folder; a trainer may go on writing to it meanwhile.

    Raises:
        ConfigError: this is no run folder, or its recipe has parts that are not installed.
        CheckpointError: ``run.json``, the schema or every checkpoint is missing or damaged.
    """
    record = run_record(path)
    config: RunConfig = from_plain(
        record["config"], {**known_parts(), "RunConfig": RunConfig}, str(path / RUN)
    )
    schema = run_schema(path)
    if schema.fingerprint() != record["schema"]:
        raise CheckpointError(
            f"{path} was trained with schema {record['schema']}, but its schema file has "
            f"{schema.fingerprint()}. It was edited; restore it, or train into a new folder."
        )
    saved = CheckpointStore(path / CHECKPOINTS).latest()
    if saved is None:
        raise CheckpointError(
            f"{path} has no undamaged checkpoint. Run octr train with this --run folder first."
        )
    learner = Learner(config.recipe, schema, config.seed, config.labels)
    restore(learner, saved)
    return LoadedRun(path, record, config, learner, saved)


def saved_metrics(saved: Saved, label: str) -> ProgressiveMetrics:
    """Returns the metrics of a label as they stood at a checkpoint."""
    prefix = f"{label}/"
    return ProgressiveMetrics.from_state(
        {k.removeprefix(prefix): v for k, v in saved.arrays.items() if k.startswith(prefix)}
    )
