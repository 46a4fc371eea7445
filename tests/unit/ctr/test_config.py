from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ctr.config import override
from ctr.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    steps: int = 3
    name: str = "a"
    units: tuple[int, ...] = (4, 2)
    fast: bool = False


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    size: int = 1


def test_values_are_read_with_their_types() -> None:
    changed = override(
        Outer(),
        ["inner.rate=1", "inner.units=[8, 8]", "inner.fast=true", "size = 5", "inner.name=adam"],
    )
    assert changed == Outer(Inner(1.0, 3, "adam", (8, 8), True), 5)
    assert isinstance(changed.inner.rate, float)


def test_the_original_stays() -> None:
    config = Outer()
    override(config, ["inner.steps=9"])
    assert config == Outer()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("size", "expected a.b=value"),
        ("sise=2", "no field 'sise'.*did you mean 'size'"),
        ("inner.stepps=2", "no field 'stepps'.*did you mean 'steps'"),
        ("size=two", "received 'two'"),
        ("inner.steps=1.5", "received 1.5"),
        ("inner.steps=true", "received True"),
        ("inner.fast=1", "received 1"),
        ("inner.units=4", "received 4"),
        ("inner=3", "group of settings"),
        ("size.more=3", "has no fields"),
    ],
)
def test_what_does_not_fit_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        override(Outer(), [assignment])
    assert repr(assignment) in str(caught.value)
