from __future__ import annotations

import sys

import pytest

from streaming.doctor import check_beam


def test_the_local_runner_works_here() -> None:
    pytest.importorskip("apache_beam")
    check = check_beam()
    assert (check.status, check.fix) == ("ok", "")
    assert "FnApiRunner" in check.detail


def test_without_beam_it_warns_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    check = check_beam()
    assert check.status == "warn"
    assert check.fix == "pip install 'online-ctr[stream]'"
