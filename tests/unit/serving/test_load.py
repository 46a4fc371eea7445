"""What ``octr bench serving`` makes of the load generator's words and of its own measurements."""

from __future__ import annotations

from typing import Any

import pytest

from ctr.errors import ConfigError
from serving.bench import passes
from serving.load.calls import Call, Measured, percentile_ms, summary
from serving.load.churn import slope
from serving.load.h2load import framed, need_h2load, read

PRINTED = """\
finished in 3.00s, 983.67 req/s, 1.41MB/s
requests: 5 total, 5 started, 4 done, 2 succeeded, 3 failed, 1 errored, 0 timeout
status codes: 2 2xx, 0 3xx, 2 4xx, 0 5xx
"""
LOG = """\
1795472221354206\t200\t5552
1795472221354213\t404\t680
1795472221356770\t200\t4509
1795472221356771\t429\t400
"""


def test_only_good_answers_have_a_time() -> None:
    found = read(PRINTED, LOG)
    assert found.failed == 3
    assert [call.seconds for call in found.calls] == [0.005552, 0.004509]
    assert found.calls[0].start == pytest.approx(1795472221.354206, abs=1e-6)
    with pytest.raises(ConfigError, match="Could not open"):
        read("-d: Could not open file x.json\n", "")


def test_the_summary_counts_from_the_first_request_to_the_last_answer() -> None:
    calls = [Call(10.0 + 0.1 * n, 0.001 * (n + 1)) for n in range(100)]
    found = summary(Measured(calls, 2))
    assert (found["requests"], found["failed"]) == (100, 2)
    assert (found["p50_ms"], found["p99_ms"]) == (50.0, 99.0)
    assert found["per_second"] == pytest.approx(100 / (9.9 + 0.1), abs=0.1)
    assert percentile_ms(calls, 100) == 100.0
    with pytest.raises(ConfigError, match="7 failed"):
        summary(Measured([], 7))


def test_a_grpc_frame_tells_its_length() -> None:
    assert framed(b"x" * 258) == b"\x00\x00\x00\x01\x02" + b"x" * 258


def test_a_load_generator_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="apt-get install nghttp2-client"):
        need_h2load()


def test_the_slope_of_a_leak_and_of_noise() -> None:
    leak = slope([700.0 + 3.0 * n + (-1) ** n for n in range(20)])
    assert leak is not None
    assert 2.5 < leak["low"] < leak["value"] < leak["high"] < 3.5
    flat = slope([700.0 + (-1) ** n for n in range(20)])
    assert flat is not None
    assert flat["low"] < 0.0 < flat["high"]
    assert slope([1.0, 2.0]) is None


GOOD: dict[str, Any] = {
    "rest": [{"failed": 0}],
    "grpc": [{"failed": 0}],
    "swap": {"failed": 0, "p99_ratio": 1.9},
    "swap_without_warm_up": {"failed": 0, "p99_ratio": 16.0},
    "churn": {"growth_mb": 5.0, "load": {"failed": 0}},
}


@pytest.mark.parametrize(
    "change",
    [
        {"rest": [{"failed": 0}, {"failed": 1}]}, {"grpc": [{"failed": 1}]},
        {"swap": {"failed": 1, "p99_ratio": 1.0}}, {"swap": {"failed": 0, "p99_ratio": 2.1}},
        {"churn": {"growth_mb": 60.0, "load": {"failed": 0}}},
        {"churn": {"growth_mb": 0.0, "load": {"failed": 1}}},
    ],
)  # fmt: skip
def test_what_fails_the_benchmark(change: dict[str, Any]) -> None:
    assert passes(GOOD)
    assert passes({"engines": []})
    assert not passes(GOOD | change)
