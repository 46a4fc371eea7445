"""A run's newest state as a SavedModel that stands on its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tensorflow as tf

from ctr.config import to_plain
from ctr.data.manifest import file_sha256
from ctr.errors import ExportError
from ctr.report.content import json_ready
from ctr.schema import schema_to_dict
from ctr.training.load import LoadedRun, load_run
from ctr.training.run import versions
from serving.lite import LitePredictor, write_lite
from serving.parity import check_parity, check_scores, last_examples
from serving.predictor import Predictor
from serving.signatures import serving_graph
from serving.treatment import parse_treatment, usual_treatment
from serving.versions import FORMAT, MANIFEST, partial_version, publish
from serving.warmup import write_warmup


def export_model(
    run_dir: Path,
    models_dir: Path,
    data_dir: Path | None = None,
    reference: Sequence[str] = (),
    lite: bool = False,
) -> Path:
    """Exports the newest checkpoint of a run as a new version.

    The version appears, complete, only after the model was loaded back from disk and predicted
    the last committed examples as the learner does.

    Args:
        run_dir: Folder written by ``octr train``.
        models_dir: Folder of versions; created if need be.
        data_dir: Data to compare predictions on; the data the run was trained on by default.
        reference: ``feature=value`` of every presentation feature, the reference treatment; the
            one most frequent in the compared examples by default.
        lite: Also write the dense path as a LiteRT flatbuffer.

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
    treatment = (
        parse_treatment(learner.schema, reference)
        if reference
        else usual_treatment(learner.encoder, examples)
    )
    graph = serving_graph(learner, treatment)
    with partial_version(models_dir) as partial:
        try:
            tf.saved_model.save(graph.module, str(partial), signatures=graph.signatures)
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            # An AssertionError means that a part reads a variable its module does not own.
            raise ExportError(f"{models_dir}: the model cannot be saved: {error}") from None
        signatures = graph.describe()
        inputs = {name: tuple(types["inputs"]) for name, types in signatures.items()}
        write_warmup(partial, learner.encoder, inputs)
        predictor = Predictor(partial, learner.encoder)
        parity = {"parity": check_parity(learner, predictor.predict, examples)}
        if lite:
            write_lite(learner, partial)
            small = LitePredictor(partial, learner.encoder)
            parity["lite_parity"] = check_parity(learner, small.predict, examples, "the flatbuffer")
        manifest = {
            **_about(run),
            "signatures": signatures,
            "reference_treatment": dict(treatment),
            **{name: asdict(found) for name, found in parity.items()},
            "check_scores": check_scores(learner),
            "files": _checksums(partial),
        }
        (partial / MANIFEST).write_text(json.dumps(json_ready(manifest), indent=1))
        return publish(partial)


def _about(run: LoadedRun) -> dict[str, Any]:
    learner = run.learner
    metrics = {label: run.metrics(label) for label in learner.labels}
    lifetime = {label: metrics[label].lifetime() for label in learner.labels}
    return {
        "format": FORMAT,
        "run": run.record["id"],
        "examples": run.saved.examples,
        "event_time_us": run.event_time_us,
        "labels": list(learner.labels),
        "metrics": {
            "lifetime": lifetime[learner.labels[0]],
            "labels": lifetime,
            "slices": metrics[learner.labels[0]].slices(),
        },
        "recipe_name": run.config.recipe_name,
        "recipe": to_plain(run.config.recipe),
        "seed": run.config.seed,
        "schema_fingerprint": learner.schema.fingerprint(),
        "schema": schema_to_dict(learner.schema),
        "versions": versions(),
    }


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}
