"""A trained run, a folder of versions and servers of it that the tests of serving share."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ctr.config import override
from ctr.recipe import named_recipe
from ctr.simulator import write_data
from ctr.training import RunConfig, Trainer
from serving.blessing import write_verdict
from serving.export import export_model
from serving.server.options import ServerOptions
from serving.server.run import running


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "data"
    write_data(folder, 6000, seed=1, shard_rows=3500)
    return folder


@pytest.fixture(scope="session")
def run_dir(data: Path) -> Path:
    recipe = override(named_recipe("lr"), ["table_rows=4096", "batch_size=64"])
    folder = data.with_name("run")
    Trainer(data, folder, RunConfig("lr", recipe)).train()
    return folder


@pytest.fixture(scope="session")
def version(run_dir: Path) -> Path:
    """An exported version; to be copied, not changed."""
    return export_model(run_dir, run_dir.with_name("models"))


@pytest.fixture
def models(version: Path, tmp_path: Path) -> Path:
    """A folder of models with one blessed version, 1."""
    add_version(version, tmp_path / "shop", 1)
    return tmp_path / "shop"


def add_version(source: Path, models_dir: Path, number: int, blessed: bool = True) -> Path:
    """Copies a version under another number; it appears at once, as an export does."""
    models_dir.mkdir(exist_ok=True)
    partial = models_dir / f".export-{number}"
    shutil.copytree(source, partial)
    if blessed:
        write_verdict(partial, True, {})
    return partial.rename(models_dir / str(number))


@pytest.fixture
def add(version: Path, models: Path):
    """Adds a further copy of the version to ``models``."""
    return lambda number, blessed=True: add_version(version, models, number, blessed)


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """A context manager that serves a folder from a thread, on free ports of this machine.

    It yields ``rest`` (the URL of the model ``shop``), ``url``, ``grpc`` (address), ``pool``,
    ``metrics`` and ``poll()``, which looks at the folder at once.
    """
    return _serve


@contextmanager
def _serve(models_dir: Path, **options: Any) -> Iterator[SimpleNamespace]:
    settings = {"poll_s": 3600.0, "rest_port": 0, "grpc_port": 0, "drain_s": 20.0, **options}
    given = ServerOptions(models_dir, "shop", **settings)
    started, ended = threading.Event(), threading.Event()
    found = SimpleNamespace()

    async def main() -> None:
        found.stop = asyncio.Event()
        found.loop = asyncio.get_running_loop()
        try:
            async with running(given) as server:
                scheme = "https" if given.tls_cert else "http"
                found.url = f"{scheme}://127.0.0.1:{server.rest_port}"
                found.rest = f"{found.url}/v1/models/shop"
                found.rest_port = server.rest_port
                found.grpc = f"127.0.0.1:{server.grpc_port}"
                found.pool, found.metrics = server.pool, server.metrics
                started.set()
                await found.stop.wait()
        except Exception as error:
            found.error = error
        finally:
            started.set()
            ended.set()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(300)
    if hasattr(found, "error"):
        raise found.error
    found.poll = lambda: asyncio.run_coroutine_threadsafe(found.pool.poll(), found.loop).result(300)
    found.end = lambda: found.loop.call_soon_threadsafe(found.stop.set)
    found.ended = ended
    try:
        yield found
    finally:
        if not ended.is_set():
            found.end()
        assert ended.wait(120)
        thread.join(60)


@pytest.fixture(scope="session")
def shared_server(version: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that tests send requests to without changing its versions."""
    folder = tmp_path_factory.mktemp("shared") / "shop"
    add_version(version, folder, 1)
    with _serve(folder, request_timeout_s=60.0) as server:
        yield server


@pytest.fixture(scope="session")
def request_rows(data: Path) -> dict[str, list[Any]]:
    """Raw columns of three rows of the log."""
    import pyarrow.parquet as pq

    from ctr.data import manifest

    schema, shards = manifest.load(data)
    names = [feature.name for feature in schema.features if not feature.cross]
    rows = pq.read_table(data / shards[-1].file, columns=names).slice(0, 3).to_pydict()
    for feature in schema.features:
        if feature.kind == "categorical":
            rows[feature.name] = [str(value) for value in rows[feature.name]]
    return rows
