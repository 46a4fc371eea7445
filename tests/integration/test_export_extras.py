"""What lies beside an exported graph: warm-up requests, check scores, a flatbuffer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from ctr.cli import main
from ctr.config import override
from ctr.errors import ConfigError, ExportError
from ctr.recipe import named_recipe
from ctr.simulator import write_data
from ctr.training import RunConfig, Trainer
from ctr.training.load import load_run
from serving.export import export_model
from serving.lite import LITE, LitePredictor
from serving.parity import TOLERANCE, check_rows, last_examples
from serving.predictor import Predictor
from serving.signatures import DEFAULT, EXAMPLES, QUALITY
from serving.warmup import BATCHES, WARMUP, made_up_rows, read_warmup


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extras")
    write_data(folder / "data", 4000, seed=2, shard_rows=4000)
    recipe = override(named_recipe("wide_dcn"), ["table_rows=4096", "batch_size=64"])
    Trainer(folder / "data", folder / "run", RunConfig("wide_dcn", recipe)).train()
    return folder / "run"


@pytest.fixture(scope="module")
def version(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(run_dir, tmp_path_factory.mktemp("models"), lite=True)


def test_warmup_requests_fit_their_signatures(version: Path) -> None:
    model = tf.saved_model.load(str(version))
    seen = []
    for request in read_warmup(version):
        name = request.model_spec.signature_name
        traced = model.signatures[name]
        specs = traced.structured_input_signature[1]
        assert set(specs) == set(request.inputs)
        out = traced(**{k: tf.make_ndarray(v) for k, v in request.inputs.items()})
        assert np.isfinite(out["probabilities"].numpy()).all()
        seen.append((name, len(out["probabilities"])))
    assert seen == [(name, n) for name in (DEFAULT, EXAMPLES, QUALITY) for n in BATCHES]


def test_warmup_rows_are_made_up_and_differ(version: Path) -> None:
    predictor = Predictor.load(version)
    rows = made_up_rows(predictor.encoder, 8)
    assert set(rows["user_id"].tolist()) == {*"0123456", ""}
    requests = list(read_warmup(version))
    by_columns, by_examples = (
        next(r for r in requests if r.model_spec.signature_name == name)
        for name in (DEFAULT, EXAMPLES)
    )
    # A single row lacks everything; a tf.Example then is empty.
    assert tf.make_ndarray(by_columns.inputs["user_id"]).tolist() == [b""]
    example = tf.train.Example.FromString(tf.make_ndarray(by_examples.inputs["examples"])[0])
    assert not example.features.feature


def test_a_damaged_warmup_file_is_noticed(version: Path, tmp_path: Path) -> None:
    file = tmp_path / WARMUP
    file.parent.mkdir()
    file.write_bytes((version / WARMUP).read_bytes()[:-5])
    with pytest.raises(ExportError, match="damaged"):
        list(read_warmup(tmp_path))
    file.unlink()
    assert list(read_warmup(tmp_path)) == []


def test_check_scores_are_those_of_the_model_on_disk(version: Path) -> None:
    predictor = Predictor.load(version)
    want = np.array(predictor.manifest["check_scores"])
    served = predictor.predict(check_rows(predictor.encoder)).reshape(want.shape)
    assert want.std() > 1e-5
    np.testing.assert_allclose(served, want, rtol=0, atol=TOLERANCE)


def test_slices_and_treatment_are_in_the_manifest(version: Path, run_dir: Path) -> None:
    manifest = json.loads((version / "manifest.json").read_text())
    assert manifest["metrics"]["slices"].keys() == set(load_run(run_dir).learner.schema.slices)
    assert set(manifest["reference_treatment"]) == {"slot", "treatment"}
    assert {WARMUP, LITE} <= set(manifest["files"])


def test_the_flatbuffer_predicts_as_the_learner(version: Path, run_dir: Path) -> None:
    predictor = Predictor.load(version)
    assert predictor.manifest["lite_parity"]["max_abs_difference"] <= TOLERANCE
    small = LitePredictor(version, predictor.encoder)
    run = load_run(run_dir)
    rows = last_examples(Path(run.record["data"]), run.learner, 100)
    for n in (1, 100, 7, 7):
        part = rows.slice(0, n)
        assert small.predict(part).shape == (n, 1)
        np.testing.assert_allclose(
            small.predict(part)[:, 0], predictor.predict(part), rtol=0, atol=TOLERANCE
        )
    with pytest.raises(ExportError, match="Export with --lite"):
        LitePredictor(version / "variables", predictor.encoder)


def test_the_reference_treatment_can_be_named(run_dir: Path, tmp_path: Path) -> None:
    argv = ["export", str(run_dir), "--to", str(tmp_path), "--reference", "slot=2"]
    assert main(argv) == 2
    assert main([*argv, "--reference", "treatment=plain"]) == 0
    predictor = Predictor.load(tmp_path)
    assert predictor.manifest["reference_treatment"] == {"slot": "2", "treatment": "plain"}
    rows = check_rows(predictor.encoder)
    found = predictor.outputs(rows, QUALITY)
    replaced = rows.to_pydict() | {"slot": ["2"] * rows.num_rows}
    replaced |= {"treatment": ["plain"] * rows.num_rows}
    np.testing.assert_allclose(
        found["quality_probabilities"], predictor.predict(replaced), rtol=0, atol=1e-6
    )
    with pytest.raises(ExportError, match="no signature 'nonsense'"):
        predictor.outputs(pa.RecordBatch.from_pydict(replaced), "nonsense")
    with pytest.raises(ConfigError, match="of a presentation feature"):
        export_model(run_dir, tmp_path, reference=["bid=1"])
