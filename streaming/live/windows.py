"""What has left the join, cut into shards of equal stretches of time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ctr.data.manifest import Shard, file_sha256, sync
from ctr.data.shard_write import write_rows
from streaming.files import scratch_file
from streaming.live.attribution import BEGINNING
from streaming.live.layout import CORRECTION
from streaming.live.rules import JoinRules
from streaming.order_write import SHARD_FOLDER

_WINDOW, _ORDER = "_live.window", "_live.order"


def cut_windows(
    rows: Sequence[pa.RecordBatch], from_us: int, until_us: int, rules: JoinRules
) -> list[tuple[int, pa.Table]]:
    """Returns ``(end of the window, its rows)`` in order; what is in a window is put in order.

    A window holds what left between two ticks of the clock, whether the clock went tick by tick
    or jumped, so that shards do not depend on how the input was cut into drains.

    Args:
        rows: Examples and corrections of one step, corrections by label.
        from_us: Clock before the step.
        until_us: Clock after it, a tick.
        rules: Of the join.
    """
    if not rows:
        return []
    table = pa.Table.from_batches(list(rows))
    tick = rules.tick_us
    moved = table.column("event_time").cast(pa.int64()).to_numpy() + rules.wait_us
    window = -(-moved // tick)
    first = from_us // tick + 1 if from_us > BEGINNING else int(window.min())
    window = np.clip(window, first, max(first, until_us // tick))
    order = np.repeat(np.arange(len(rows)), [batch.num_rows for batch in rows])
    table = table.append_column(_WINDOW, pa.array(window)).append_column(_ORDER, pa.array(order))
    keys = (_WINDOW, "event_time", CORRECTION, "example_id", _ORDER)
    table = table.sort_by([(name, "ascending") for name in keys]).combine_chunks()
    window = table.column(_WINDOW).to_numpy()
    table = table.drop_columns([_WINDOW, _ORDER])
    edges = np.flatnonzero(np.diff(window, prepend=window[0] - 1, append=window[-1] + 1))
    return [
        (int(window[low]) * tick, table.slice(low, high - low))
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]


def write_windows(
    windows: Sequence[tuple[int, pa.Table]],
    data_dir: Path,
    sequence: int,
    rules: JoinRules,
    shard_rows: int,
) -> list[Shard]:
    """Writes windows as shards of at most ``shard_rows`` rows, numbered from ``sequence``."""
    folder = data_dir / SHARD_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Shard] = []
    for end_us, table in windows:
        for low in range(0, table.num_rows, shard_rows):
            part = table.slice(low, shard_rows)
            times = part.column("event_time").cast(pa.int64()).to_numpy()
            number = sequence + len(shards)
            with scratch_file(folder) as temporary:
                write_rows(part, temporary)
                digest, size = file_sha256(temporary), temporary.stat().st_size
                sync(temporary)
                name = f"{number:07d}-{digest[:12]}.parquet"
                temporary.replace(folder / name)
            shards.append(
                Shard(
                    number,
                    f"{SHARD_FOLDER}/{name}",
                    part.num_rows,
                    size,
                    digest,
                    int(times.min()),
                    int(times.max()),
                    end_us - rules.wait_us - rules.lateness_us,
                )
            )
    if shards:
        sync(folder)
    return shards
