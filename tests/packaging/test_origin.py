"""Strangers with our package names are detected, in every way they can get in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOREIGN = '"""Another project\'s package of the same name."""\n'


def octr(*args: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command with ``path`` first on the import path, from a neutral folder."""
    code = "import sys; from ctr.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *args],
        env={**os.environ, "PYTHONPATH": str(path)},
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_foreign_package_earlier_on_the_path(tmp_path: Path, repo_root: Path) -> None:
    foreign = tmp_path / "streaming" / "__init__.py"
    foreign.parent.mkdir()
    foreign.write_text(FOREIGN)
    done = octr("--help", path=tmp_path)
    assert done.returncode == 2
    assert str(foreign) in done.stderr
    assert "ctr/__init__.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_foreign_package_that_overwrote_ours(unpacked: Path) -> None:
    assert octr("--version", path=unpacked).returncode == 0
    foreign = unpacked / "streaming" / "__init__.py"
    foreign.write_text(FOREIGN)
    done = octr("--version", path=unpacked)
    assert done.returncode == 2
    assert str(foreign) in done.stderr
    assert "overwritten" in done.stderr


def test_wheel_runs_from_its_own_folder(unpacked: Path) -> None:
    done = octr("--version", path=unpacked)
    assert (done.returncode, done.stdout) == (0, "online-ctr 0.1.0\n")
    where = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            "from ctr.origin import check_origins; print(check_origins())",
        ],
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()) == unpacked.resolve()
