"""A run's newest state as a SavedModel that stands on its own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tensorflow as tf

from ctr.config import to_plain
from ctr.data.manifest import file_sha256
from ctr.errors import ExportError
from ctr.schema import schema_to_dict
from ctr.training.load import LoadedRun, load_run
from ctr.training.run import versions
from serving.parity import Parity, check_parity, last_examples
from serving.predictor import Predictor
from serving.signatures import ServingGraph, serving_graph
from serving.versions import FORMAT, MANIFEST, partial_version, publish


def export_model(run_dir: Path, models_dir: Path, data_dir: Path | None = None) -> Path:
    """Exports the newest checkpoint of a run as a new version.

    The version appears, complete, only after the model was loaded back from disk and predicted
    the last committed examples as the learner does.

    Args:
        run_dir: Folder written by ``octr train``.
        models_dir: Folder of versions; created if need be.
        data_dir: Data to compare predictions on; the data the run was trained on by default.

    Returns:
        The version folder, ``models_dir/<Unix seconds>``.

    Raises:
        CtrError: the run or the data cannot be used.
        ParityError: the export does not predict as the learner does.
        ExportError: the model cannot be written.
    """
    run = load_run(run_dir)
    learner = run.learner
    examples = last_examples(data_dir or Path(run.record["data"]), learner)
    graph = serving_graph(learner)
    with partial_version(models_dir) as partial:
        try:
            tf.saved_model.save(graph.module, str(partial), signatures=graph.signatures)
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            # An AssertionError means that a part reads a variable its module does not own.
            raise ExportError(f"{models_dir}: the model cannot be saved: {error}") from None
        predictor = Predictor(partial, learner.encoder)
        parity = check_parity(learner, predictor, examples)
        text = json.dumps(_manifest(run, graph, parity, partial), indent=1)
        (partial / MANIFEST).write_text(text)
        return publish(partial)


def _manifest(run: LoadedRun, graph: ServingGraph, parity: Parity, folder: Path) -> dict[str, Any]:
    learner = run.learner
    lifetime = {label: run.lifetime(label) for label in learner.labels}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "format": FORMAT,
        "run": run.record["id"],
        "examples": run.saved.examples,
        "event_time_us": run.event_time_us,
        "labels": list(learner.labels),
        "signatures": graph.describe(),
        "parity": asdict(parity),
        "metrics": {"lifetime": lifetime[learner.labels[0]], "labels": lifetime},
        "recipe_name": run.config.recipe_name,
        "recipe": to_plain(run.config.recipe),
        "seed": run.config.seed,
        "schema_fingerprint": learner.schema.fingerprint(),
        "schema": schema_to_dict(learner.schema),
        "versions": versions(),
        "files": {str(path.relative_to(folder)): file_sha256(path) for path in files},
    }
