from __future__ import annotations

import argparse
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from ctr import cli, verbs
from ctr.cli import main, split_runner_options
from ctr.errors import ConfigError, StreamError


class Verb(ModuleType):
    """A verb in memory; what it is told to do is an exception to raise or a value to return."""

    HELP = "does as told"

    def __init__(self, outcome: object, *, takes_runner_options: bool = False) -> None:
        super().__init__("verb")
        self.outcome = outcome
        self.seen: argparse.Namespace | None = None
        self.TAKES_RUNNER_OPTIONS = takes_runner_options

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--size", type=int, default=0)

    def run(self, args: argparse.Namespace) -> object:
        self.seen = args
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    def put(outcome: object, unavailable: dict[str, str] | None = None, **options: bool) -> Verb:
        verb = Verb(outcome, **options)
        monkeypatch.setattr(cli, "load_verbs", lambda: ({"act": verb}, unavailable or {}))
        return verb

    return put


@pytest.mark.parametrize(
    ("argv", "own", "runner"),
    [
        (["a", "--b"], ["a", "--b"], []),
        (["a", "--", "--x=1", "--", "y"], ["a"], ["--x=1", "--", "y"]),
        (["--"], [], []),
    ],
)
def test_split_at_the_first_double_dash(argv: list, own: list, runner: list) -> None:
    assert split_runner_options(argv) == (own, runner)


def test_verb_gets_its_arguments_and_gives_the_exit_code(install) -> None:
    verb = install(1, takes_runner_options=True)
    assert main(["act", "--size", "3", "--", "--streaming"]) == 1
    assert (verb.seen.size, verb.seen.runner_options) == (3, ["--streaming"])


def test_runner_options_are_refused_where_they_mean_nothing(install, capsys) -> None:
    verb = install(0)
    assert main(["act", "--", "--streaming"]) == 2
    assert verb.seen is None
    assert "--streaming" in capsys.readouterr().err


def test_user_errors_are_one_line_and_exit_code_2(install, capsys) -> None:
    install(StreamError("shard 3 is cut. Ingest again."))
    assert main(["act"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "octr: StreamError: shard 3 is cut. Ingest again.\n"
    assert captured.out == ""


def test_operating_system_errors_name_the_file(install, capsys) -> None:
    install(OSError(28, "No space left on device", "/full/disk"))
    assert main(["act"]) == 2
    assert "No space left on device: /full/disk" in capsys.readouterr().err


def test_missing_extra_at_run_time_says_what_to_install(install, capsys) -> None:
    install(ModuleNotFoundError("No module named 'apache_beam'", name="apache_beam.io"))
    assert main(["act"]) == 2
    assert "pip install 'online-ctr[stream]'" in capsys.readouterr().err


def test_other_missing_modules_are_bugs_and_keep_their_traceback(install) -> None:
    install(ModuleNotFoundError("No module named 'ctr.nowhere'", name="ctr.nowhere"))
    with pytest.raises(ModuleNotFoundError):
        main(["act"])


def test_unavailable_verb_says_why_and_the_others_work(install, capsys) -> None:
    install(0, unavailable={"ingest": "it needs apache_beam"})
    assert main(["ingest", "--input", "x"]) == 2
    assert "octr ingest is unavailable: it needs apache_beam" in capsys.readouterr().err
    assert main(["act"]) == 0
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "it needs apache_beam" in capsys.readouterr().out


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, verbs.GROUP)


def test_verbs_that_fail_to_import_are_kept_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "octr_no_beam.py").write_text("import apache_beam_absent")
    (tmp_path / "octr_broken.py").write_text("1 / 0")
    (tmp_path / "octr_works.py").write_text("HELP = 'x'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(verbs.EXTRAS, "apache_beam_absent", "stream")
    points = [entry(name, f"octr_{name}") for name in ("works", "no_beam", "broken")]
    monkeypatch.setattr(verbs, "entry_points", lambda group: points)
    modules, unavailable = verbs.load_verbs()
    assert list(modules) == ["works"]
    assert unavailable["broken"] == "it cannot be imported: ZeroDivisionError: division by zero"
    assert "online-ctr[stream]" in unavailable["no_beam"]


def test_verb_registered_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [entry("train", "json"), entry("train", "math")]
    monkeypatch.setattr(verbs, "entry_points", lambda group: points)
    with pytest.raises(ConfigError, match=r"'train' is registered twice.*json.*math"):
        verbs.load_verbs()
