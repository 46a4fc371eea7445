"""``octr export`` on runs of a simulated stream: parity, signatures, manifest, refusals."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ctr.cli import main
from ctr.config import content_hash, override
from ctr.data.manifest import file_sha256
from ctr.errors import CheckpointError, ConfigError, ExportError, SchemaError
from ctr.learner import Learner
from ctr.recipe import RECIPES, named_recipe
from ctr.simulator import write_data
from ctr.training import RunConfig, Trainer
from ctr.training.load import load_run
from serving.export import export_model
from serving.parity import N_EXAMPLES, TOLERANCE, ParityError, last_examples
from serving.predictor import Predictor

N_ROWS = 6000
CHUNK = 4096


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "data"
    # Two shards, so that the last 4,096 examples begin in the middle of the first.
    write_data(folder, N_ROWS, seed=1, shard_rows=3500)
    return folder


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Trains a recipe the first time it is asked for; ``mlp`` learns two labels."""
    runs: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in runs:
            runs[name] = tmp_path_factory.mktemp("runs") / name
            recipe = override(named_recipe(name), ["table_rows=4096", "batch_size=64"])
            labels = ("click", "conversion") if name == "mlp" else ()
            config = RunConfig(name, recipe, labels=labels)
            Trainer(data, runs[name], config, checkpoint_every=CHUNK).train()
        return runs[name]

    return run


@pytest.fixture(scope="session")
def version(trained: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported ``wide_dcn``."""
    return export_model(trained("wide_dcn"), tmp_path_factory.mktemp("models"))


@pytest.fixture
def run_copy(trained: Callable[[str], Path], tmp_path: Path) -> Path:
    """A run that a test may damage."""
    return Path(shutil.copytree(trained("lr"), tmp_path / "run"))


def raw_request(**changes: object) -> dict[str, list]:
    row: dict[str, object] = {
        "user_id": "u1", "ad_id": "a1", "advertiser_id": "v1", "device": "phone",
        "country": "XX", "query_text": "red shoes", "ad_title": "shoes", "bid": 1.0,
        "price": 2.0, "advertiser_age_d": 3.0, "slot": "1", "treatment": "plain",
    }  # fmt: skip
    return {name: [value] for name, value in {**row, **changes}.items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_predicts_alike_from_disk(
    recipe: str, trained: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    run_dir = trained(recipe)
    path = export_model(run_dir, tmp_path)
    predictor = Predictor.load(path)
    parity = predictor.manifest["parity"]
    assert parity["examples"] == N_EXAMPLES
    assert parity["max_abs_difference"] <= TOLERANCE

    learner = load_run(run_dir).learner
    rows = last_examples(data, learner, 700)
    encoded = learner.encoder.encode(rows)
    want = learner.predict(encoded.ids, encoded.numeric)
    assert want.std() > 1e-3  # it learned something that can be lost
    np.testing.assert_allclose(
        predictor.predict(rows).reshape(want.shape), want, rtol=0, atol=TOLERANCE
    )
    assert predictor.predict(rows).shape == ((700, 2) if recipe == "mlp" else (700,))


def test_the_last_examples_are_the_last_ones_whatever_the_shards(
    trained: Callable[[str], Path], data: Path
) -> None:
    learner = load_run(trained("lr")).learner
    everything = last_examples(data, learner, N_ROWS + 1)
    assert everything.num_rows == N_ROWS
    for n in (1, 2500, 2501, N_EXAMPLES):
        assert last_examples(data, learner, n).equals(everything.slice(N_ROWS - n))


def test_manifest_describes_the_model(
    version: Path, trained: Callable[[str], Path], data: Path
) -> None:
    manifest = json.loads((version / "manifest.json").read_text())
    run = load_run(trained("wide_dcn"))
    shard = json.loads((data / "manifest.jsonl").read_text().splitlines()[-1])
    assert version.name.isdecimal()
    assert manifest["run"] == run.record["id"]
    assert manifest["examples"] == N_ROWS
    assert manifest["event_time_us"] == shard["max_time_us"]
    assert manifest["schema_fingerprint"] == run.learner.schema.fingerprint()
    assert manifest["recipe"]["model"]["class"] == "WideDcn"
    lifetime = manifest["metrics"]["lifetime"]
    assert 0.0 < lifetime["log_loss"] < 1.0
    assert lifetime == run.lifetime("click")
    assert manifest["signatures"]["serving_default"]["inputs"]["bid"] == "float32[B]"
    assert {"saved_model.pb", "variables/variables.index"} <= set(manifest["files"])
    for name, digest in manifest["files"].items():
        assert file_sha256(version / name) == digest
    on_disk = {str(p.relative_to(version)) for p in version.rglob("*") if p.is_file()}
    assert on_disk == {*manifest["files"], "manifest.json"}


def test_a_damaged_file_is_noticed(version: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(version, tmp_path / "1"))
    data_file = next(copy.glob("variables/variables.data*"))
    content = bytearray(data_file.read_bytes())
    content[len(content) // 2] ^= 1
    data_file.write_bytes(content)
    with pytest.raises(ExportError, match=r"variables\.data.*damaged"):
        Predictor.load(copy)


def test_a_manifest_of_another_layout_is_refused(version: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(version, tmp_path / "1"))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(ExportError, match="format 2, this version reads 1"):
        Predictor.load(copy)
    (copy / "manifest.json").write_text("{}")
    with pytest.raises(ExportError, match="cannot be read"):
        Predictor.load(copy)


def test_predictor_takes_the_newest_version(version: Path, tmp_path: Path) -> None:
    for name in ("9", "10", ".export-left-over"):
        shutil.copytree(version, tmp_path / name)
    assert Predictor.load(tmp_path).folder == tmp_path / "10"
    with pytest.raises(ExportError, match="no exported model"):
        Predictor.load(tmp_path / "nowhere")


def test_odd_requests_get_finite_probabilities(version: Path) -> None:
    predictor = Predictor.load(version)
    odd = [
        raw_request(),
        raw_request(user_id="never seen", ad_id="\N{SNOWMAN}", country=""),
        raw_request(bid=float("nan"), price=float("inf"), advertiser_age_d=-1e30),
        raw_request(**dict.fromkeys(raw_request())),
        raw_request(query_text="", ad_title=" . "),
        raw_request(slot=3, bid=2),
    ]
    for request in odd:
        prob = predictor.predict(request)
        assert prob.shape == (1,)
        assert prob.dtype == np.float32
        assert 0.0 < prob[0] < 1.0
    arrays = {name: np.array(values) for name, values in odd[0].items()}
    assert predictor.predict(arrays)[0] == predictor.predict(odd[0])[0]
    batch = pa.RecordBatch.from_pydict(odd[0])
    assert predictor.predict(batch)[0] == predictor.predict(odd[0])[0]
    assert predictor.predict({name: [] for name in odd[0]}).shape == (0,)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({k: v for k, v in raw_request().items() if k != "bid"}, "'bid'.*no column"),
        ({**raw_request(), "bid": ["cheap"]}, "'bid'.*received string"),
        ({**raw_request(), "user_id": [1.5]}, "'user_id'.*received double"),
        ({**raw_request(), "user_id": ["a", 1]}, "'user_id' in the request"),
        ({**raw_request(), "user_id": ["a", "b"]}, "differ in length"),
    ],
)
def test_wrong_requests_name_the_feature(version: Path, request_: dict, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Predictor.load(version).predict(request_)


def test_tensorflows_own_command_shows_and_runs_it(version: Path) -> None:
    # A process that never imports this project: nothing but TensorFlow's own operations.
    command = [str(Path(sys.executable).with_name("saved_model_cli"))]
    where = ["--dir", str(version), "--tag_set", "serve"]
    shown = subprocess.run(
        [*command, "show", *where, "--signature_def", "serving_default"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in (*raw_request(), "probabilities", "logits"):
        assert f"['{name}']" in shown
    outdir = version.parent / "out"
    example = 'examples=[{"user_id":["u1"],"bid":[1.0],"query_text":["red shoes"]},{}]'
    subprocess.run(
        [*command, "run", *where, "--signature_def", "predict", "--input_examples", example,
         "--outdir", str(outdir)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    blank = dict.fromkeys(raw_request())
    given = raw_request(**{**blank, "user_id": "u1", "bid": 1.0, "query_text": "red shoes"})
    predictor = Predictor.load(version)
    want = [predictor.predict(given)[0], predictor.predict(raw_request(**blank))[0]]
    assert want[0] != want[1]
    np.testing.assert_allclose(np.load(outdir / "probabilities.npy"), want, rtol=0, atol=1e-6)


def test_command_prints_where_and_how_equal(
    trained: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["export", str(trained("lr")), "--to", str(tmp_path / "new" / "models")]
    assert main(argv) == 0
    first = json.loads(capsys.readouterr().out)
    assert Path(first["model"]).parent == tmp_path / "new" / "models"
    assert first["parity"] == {
        "examples": N_EXAMPLES,
        "max_abs_difference": pytest.approx(0, abs=TOLERANCE),
    }
    assert first["signatures"]["predict"]["inputs"] == {"examples": "string[B]"}
    assert main(argv) == 0
    second = json.loads(capsys.readouterr().out)
    assert int(Path(second["model"]).name) > int(Path(first["model"]).name)


@pytest.mark.parametrize("wrong", [3e-6, float("nan")])
def test_nothing_is_published_without_parity(
    wrong: float,
    trained: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    honest = Learner.predict
    monkeypatch.setattr(Learner, "predict", lambda *args: honest(*args) + wrong)
    with pytest.raises(ParityError, match="differs from the learner"):
        export_model(trained("lr"), tmp_path)
    assert main(["export", str(trained("lr")), "--to", str(tmp_path)]) == 1
    assert "ParityError" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_newest_checkpoint_falls_back(run_copy: Path, tmp_path: Path) -> None:
    newest = sorted((run_copy / "checkpoints").iterdir())[-1]
    (newest / "metrics.npz").write_bytes(b"no longer numbers")
    path = export_model(run_copy, tmp_path / "models")
    assert json.loads((path / "manifest.json").read_text())["examples"] == CHUNK


def test_reading_a_run_leaves_its_folder_alone(run_copy: Path) -> None:
    # A trainer may be writing its next checkpoint at this moment.
    (run_copy / "checkpoints" / ".partial-1").mkdir()
    before = sorted(run_copy.rglob("*"))
    load_run(run_copy)
    assert sorted(run_copy.rglob("*")) == before


def edit_record(run_dir: Path, change: Callable[[dict], None], sign: bool) -> None:
    file = run_dir / "run.json"
    record = json.loads(file.read_text())
    change(record)
    if sign:
        record["id"] = content_hash({"config": record["config"], "schema": record["schema"]})
    file.write_text(json.dumps(record))


def test_what_is_no_intact_run_is_refused(
    run_copy: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"

    def refused(error: type[Exception], message: str, data_dir: Path | None = None) -> None:
        with pytest.raises(error, match=message):
            export_model(run_copy, models, data_dir)
        assert not models.exists()

    other = tmp_path / "other"
    shutil.copytree(data, other)
    schema = json.loads((other / "schema.json").read_text())
    schema["features"].pop()
    schema["slices"] = []
    (other / "schema.json").write_text(json.dumps(schema))
    refused(CheckpointError, "Pass its own data with --data", other)

    original = (run_copy / "run.json").read_text()
    edit_record(run_copy, lambda r: r["config"].update(seed=7), sign=False)
    refused(CheckpointError, "it was edited")
    edit_record(
        run_copy, lambda r: r["config"]["recipe"]["loss"].update({"class": "x.y:Gone"}), sign=True
    )
    refused(ConfigError, "no class 'x.y:Gone'.*install")
    (run_copy / "run.json").write_text(original[:100])
    refused(CheckpointError, "damaged")
    (run_copy / "run.json").write_text(original)

    schema_text = (run_copy / "schema.json").read_text()
    (run_copy / "schema.json").write_text(schema_text.replace('"bid"', '"bit"'))
    refused(CheckpointError, "its schema file has")
    (run_copy / "schema.json").unlink()
    refused(CheckpointError, "cannot be read")
    (run_copy / "schema.json").write_text(schema_text)

    for checkpoint in (run_copy / "checkpoints").iterdir():
        (checkpoint / "checkpoint.json").write_text("{")
    refused(CheckpointError, "no undamaged checkpoint")
    (run_copy / "run.json").unlink()
    refused(ConfigError, "holds no run.json")
    assert main(["export", str(run_copy), "--to", str(models)]) == 2
    assert "ConfigError" in capsys.readouterr().err


def test_the_documented_request_works(version: Path, repo_root: Path) -> None:
    page = (repo_root / "docs" / "export.md").read_text()
    request_ = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])["inputs"]
    manifest = json.loads((version / "manifest.json").read_text())
    assert set(request_) == set(manifest["signatures"]["serving_default"]["inputs"])
    probs = Predictor.load(version).predict(request_)
    assert probs.shape == (2,)
    assert np.isfinite(probs).all()
    undocumented = [key for key in manifest if f"`{key}" not in page]
    assert not undocumented
