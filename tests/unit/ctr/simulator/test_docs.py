import dataclasses
import json
from pathlib import Path

import pytest

from ctr.simulator import WorldConfig

PAGE = Path(__file__).parents[4] / "docs" / "simulator.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="docs are not part of an installed package")
def test_the_page_lists_every_setting_and_label_with_its_default():
    text = PAGE.read_text()
    for field in dataclasses.fields(WorldConfig):
        if field.name != "labels":
            default = json.dumps(getattr(WorldConfig(), field.name))
            assert f"| `{field.name}` | `{default}` |" in text
    for label in WorldConfig().labels:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{label.name}` |"))
        assert f"| {label.group} | {label.rate} | {label.relatedness} |" in row
        assert row.endswith(f"| {label.window_s:g} s |")
