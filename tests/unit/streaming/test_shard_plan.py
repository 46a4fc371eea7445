import numpy as np
import pytest

from streaming.shard_plan import TimeGrid, merge_histograms, plan_shards


@pytest.mark.parametrize("spread", [1, 50, 10**6, 10**15])
@pytest.mark.parametrize("shard_rows", [1, 7, 100, 1000])
def test_every_row_lands_in_its_shard_once(spread, shard_rows):
    times = np.sort(np.random.default_rng(0).integers(0, spread, 300))
    grid = TimeGrid.over(int(times[0]), int(times[-1]))
    plan = plan_shards(grid.count(times), grid, shard_rows)
    taken = []
    for k, low, high in plan.overlapping(times):
        skip, take = plan.skips[k], plan.takes[k]
        rows = np.arange(low, high)[skip : skip + take]
        assert len(rows) == take
        taken += rows.tolist()
    assert taken == list(range(300))
    assert plan.takes.tolist()[:-1] == [shard_rows] * (len(plan.takes) - 1)


def test_dropped_rows_count_negative():
    grid = TimeGrid(0, 0)
    shown = grid.count(np.array([1, 1, 2, 5]))
    bins, gone = grid.count(np.array([1, 5]))
    plan = plan_shards(merge_histograms([shown, (bins, -gone)]), grid, 1)
    assert plan.starts_us.tolist() == [1, 2]
    assert plan.takes.tolist() == [1, 1]


def test_nothing_gives_no_shard():
    assert len(plan_shards(merge_histograms([]), TimeGrid(0, 0), 10).takes) == 0
