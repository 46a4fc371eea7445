"""Whatever order, repetition and cutting the log arrives in, the same shards come out."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ctr.schema import Feature, Label, Schema
from streaming.ingest import IngestOptions, ingest
from streaming.source import Events, Impressions, Source

WINDOW_S = 20
SCHEMA = Schema(
    name="t",
    features=(Feature("user"),),
    labels=(Label("click"),),
    columns={"example_id": ("id",), "event_time": ("ts",)},
)
SOURCE = Source(
    event_time="s",
    impressions=Impressions(input=("imp*.csv",)),
    events=(Events(label="click", input=("clk*.csv",), window_s=WINDOW_S),),
)
# Different times, so that the order of the log decides nothing.
impressions = st.lists(st.integers(0, 300), min_size=1, max_size=30, unique=True)
clicks = st.lists(st.tuples(st.integers(0, 31), st.integers(0, 320)), max_size=30)


def write(folder: Path, name: str, header: str, rows: list[str], n_files: int) -> None:
    for i in range(n_files):
        (folder / f"{name}-{i}.csv").write_text("\n".join([header, *rows[i::n_files]]) + "\n")


def run(folder: Path, data: Path, piece_bytes: int):
    options = IngestOptions(shard_rows=7, piece_bytes=piece_bytes)
    summary = ingest(SCHEMA, SOURCE, [str(folder)], data, options)
    return (data / "manifest.jsonl").read_bytes(), summary


# No shrinking: each try is two whole pipelines.
@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(times=impressions, events=clicks, draw=st.data())
def test_order_repetition_and_cutting_do_not_matter(times, events, draw):
    rows = [f"i{k},{t},u{k % 4}" for k, t in enumerate(times)]
    hits = [f"i{k},{t}" for k, t in events]
    with tempfile.TemporaryDirectory() as folder:
        plain, mixed = Path(folder, "plain"), Path(folder, "mixed")
        for path in (plain, mixed):
            path.mkdir()
        write(plain, "imp", "id,ts,user", rows, 1)
        write(plain, "clk", "id,ts", hits, 1)
        expected, summary = run(plain, Path(folder, "a"), 1 << 20)
        repeated = rows + draw.draw(st.lists(st.sampled_from(rows), max_size=10))
        again = hits + (draw.draw(st.lists(st.sampled_from(hits), max_size=10)) if hits else [])
        n_files = draw.draw(st.integers(1, 3))
        write(mixed, "imp", "id,ts,user", draw.draw(st.permutations(repeated)), n_files)
        write(mixed, "clk", "id,ts", draw.draw(st.permutations(again)), n_files)
        found, other = run(mixed, Path(folder, "b"), draw.draw(st.integers(10, 400)))
    assert found == expected
    assert other.duplicates == len(repeated) - len(rows)
    reached = {k for k, t in events if k < len(times) and 0 <= t - times[k] <= WINDOW_S}
    assert summary.positives == other.positives == {"click": len(reached)}
    assert summary.events["click"]["joined"] == other.events["click"]["joined"] == len(reached)
