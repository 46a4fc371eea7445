from __future__ import annotations

from pathlib import Path

import numpy as np

from ctr.config import override
from ctr.harness.costs import KEYS, paired_ratios
from ctr.harness.experiment import parse
from ctr.harness.stream import open_stream
from ctr.learner import Learner
from ctr.recipe import named_recipe


def test_a_larger_tower_is_found_to_cost_more(random_data: Path) -> None:
    stream = open_stream(parse({"name": "c", "stream": {"data": str(random_data)}}))
    tiny = ["model.hidden=[8]", "model.dim=4", "table_rows=2048", "batch_size=32"]
    base, wide = (
        Learner(override(named_recipe("mlp"), [*tiny, *more]), stream.schema, 1, n_batches=16)
        for more in ([], ["model.hidden=[512, 512]"])
    )
    ratios = paired_ratios(base, wide, stream, 6)
    assert {key: len(found) for key, found in ratios.items()} == dict.fromkeys(KEYS, 6)
    # About 20 in truth: far beyond what a busy machine does to a median.
    assert np.median(ratios["cpu_us_per_example"]) > 2.0
