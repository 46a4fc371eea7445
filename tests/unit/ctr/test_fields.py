from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ctr.errors import ConfigError, SchemaError
from ctr.fields import field_values, from_table, read_toml


@dataclass(frozen=True)
class Inner:
    rate: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    size: int = 1
    day: str = ""
    inner: Inner | None = None
    several: tuple[Inner, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)


def test_a_file_becomes_nested_dataclasses(tmp_path: Path) -> None:
    path = tmp_path / "page.toml"
    path.write_text(
        "size = 2\nday = 2025-02-03\nlimits = {low = 1}\n"
        '[inner]\nrate = 1\nnames = "one"\n[[several]]\nrate = 0.5\nnames = ["a", "b"]\n'
    )
    found = from_table(Outer, read_toml(path, "page"), str(path))
    several = (Inner(0.5, ("a", "b")),)
    assert found == Outer(2, "2025-02-03", Inner(1.0, ("one",)), several, {"low": 1.0})
    assert isinstance(found.inner.rate, float)
    assert isinstance(found.limits["low"], float)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (3, "page: expected a table"),
        ({"sise": 1}, "page: unknown key 'sise': did you mean 'size'"),
        ({"size": True}, "page.size: expected int, received True"),
        ({"inner": {}}, "page.inner: the key 'rate' is missing"),
        ({"several": {}}, "page.several: expected a list"),
        ({"several": [{"rate": "x"}]}, r"page.several\[0\].rate: expected float"),
        ({"limits": [1]}, "page.limits: expected a table"),
    ],
)
def test_mistakes_are_named_with_their_place(table: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        from_table(Outer, table, "page", SchemaError)


def test_a_part_of_the_fields_may_be_read() -> None:
    assert field_values(Inner, {"names": ["a"]}, "page") == {"names": ("a",)}


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no page at .*absent\.toml"):
        read_toml(tmp_path / "absent.toml", "page")
    (tmp_path / "broken.toml").write_text("days = = 3")
    with pytest.raises(SchemaError, match="not valid TOML"):
        read_toml(tmp_path / "broken.toml", "page", SchemaError)
