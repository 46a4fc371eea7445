"""The teacher of an experiment: one pass of another model, logged beside the examples."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from ctr import __version__
from ctr.config import content_hash, override, to_plain
from ctr.data import manifest
from ctr.data.teacher import attach_predictions
from ctr.harness.experiment import Teacher
from ctr.recipe import named_recipe
from ctr.schema import schema_to_dict
from ctr.training import RunConfig, Trainer

log = logging.getLogger(__name__)


def taught(data_dir: Path, teacher: Teacher, labels: tuple[str, ...], root: Path) -> Path:
    """Returns a copy of the data with the teacher's column, made at the first call for it.

    The teacher predicts each example before it learns it, as ``octr train`` does, so that its
    column holds no label of its own row or of a later one.

    Args:
        data_dir: Folder of examples.
        teacher: The teacher.
        labels: What it learns; its predictions of the first one are logged.
        root: Folder of the copies.

    Raises:
        CtrError: the recipe does not exist, or cannot learn these data.
    """
    schema, shards = manifest.load(data_dir)
    recipe = override(named_recipe(teacher.recipe), teacher.set)
    config = RunConfig(teacher.recipe, recipe, teacher.seed, labels)
    plain = {
        "schema": schema_to_dict(schema),
        "shards": [shard.sha256 for shard in shards],
        "config": to_plain(config),
        "column": teacher.column,
        "version": __version__,
    }
    final = root / f"taught-{content_hash(plain)}"
    if (final / manifest.MANIFEST).is_file():
        return final
    log.info("the teacher learns %s first", data_dir)
    partial = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        Trainer(data_dir, partial / "run", config, save_predictions=True).train()
        attach_predictions(data_dir, partial / "run", partial / "data", teacher.column)
        (partial / "data").rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final
