"""What a finished run says about itself, as plain data (``report.json``)."""

from __future__ import annotations

from typing import Any

from ctr.report.content import build_report, json_ready, metrics_section
from ctr.training.process import peak_memory_bytes
from ctr.training.trainer import Trainer


def run_report(trainer: Trainer) -> dict[str, Any]:
    """Returns the report of a run; the layout is described in ``docs/report.md``."""
    labels = trainer.learner.labels
    shards = trainer.reader.shards
    timed = trainer.timed_examples
    report = build_report(
        run={
            "id": trainer.run.id,
            "path": str(trainer.run.path),
            "recipe": trainer.config.recipe_name,
            "seed": trainer.config.seed,
            "label": labels[0],
            "config": trainer.run.record["config"],
            "schema": trainer.learner.schema.fingerprint(),
            "schema_name": trainer.learner.schema.name,
            "data": str(trainer.reader.data_dir),
            "event_time_us": [shards[0].min_time_us, shards[-1].max_time_us],
            "parameters": trainer.learner.n_parameters(),
            "table_use": trainer.learner.table_use(),
            "versions": trainer.run.record["versions"],
        },
        metrics=trainer.metrics[labels[0]],
        examples=trainer.position,
        cpu_us_per_example=1e6 * trainer.cpu_s / timed if timed else None,
        peak_memory_bytes=peak_memory_bytes(),
        throughput={
            "examples_per_second": timed / trainer.wall_s if trainer.wall_s > 0 else None,
            "timed_examples": timed,
            "cpu_s": trainer.cpu_s,
            "wall_s": trainer.wall_s,
            "compile_cpu_s": trainer.compile_cpu_s,
        },
        counts=dict(sorted(trainer.counts.items())),
    )
    if len(labels) > 1:
        report["labels"] = {
            name: json_ready(metrics_section(trainer.metrics[name])) for name in labels
        }
    return report
