from __future__ import annotations

import argparse

import numpy as np
import pytest

from ctr.bench import modules
from ctr.bench.planted import FIELDS, TABLE_ROWS, planted_stream
from ctr.errors import ModuleError


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    modules.add_arguments(parser)
    return parser.parse_args(words)


def test_costs_are_shown_beside_those_of_the_base(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--recipe", "mlp", "--set", "model.hidden=[4]", "--set", "model.dim=2"]
    small += ["--set", "table_rows=4096", "--rows", "8192", "--rounds", "2"]
    assert modules.run(arguments("--module", "smelu beta=0.2", *small)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| base |")
    assert "1.00x (1.00 to 1.00)" in lines[2]
    assert lines[3].startswith("| smelu beta=0.2 |")


def test_unknown_module_is_named() -> None:
    with pytest.raises(ModuleError, match="smellu"):
        modules.run(arguments("--module", "smellu"))


def test_planted_stream_says_what_it_planted() -> None:
    stream = planted_stream(200_000, 3, shift_at=100_000)
    again = planted_stream(200_000, 3, shift_at=100_000)
    np.testing.assert_array_equal(stream.ids, again.ids)
    assert stream.ids.min() == 1
    assert stream.ids.max() < TABLE_ROWS
    assert (np.diff(stream.ids, axis=1) > -500).all()
    assert stream.ids.shape == (200_000, FIELDS)
    # Labels are as likely as they are said to be, before and after the shift.
    for part in (slice(0, 100_000), slice(100_000, None)):
        assert stream.labels[part].mean() == pytest.approx(stream.probs[part].mean(), abs=0.005)
    unshifted = planted_stream(200_000, 3)
    np.testing.assert_array_equal(stream.ids, unshifted.ids)
    moved = np.abs(stream.probs - unshifted.probs)
    assert moved[:100_000].max() == 0
    assert (moved[100_000:] > 0).mean() > 0.5
