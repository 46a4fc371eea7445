"""``octr bench anchor``: Vowpal Wabbit, one pass over the very same rows, over a grid of settings.

The peer's predictions while training are made before each update, so they are progressive as ours
are, and are scored by the same code. Nothing is held out for choosing a setting: the best of the
grid is chosen in hindsight, per metric, in the peer's favour.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr.bench.record import add_data_argument, add_output_argument, write_record
from ctr.option_types import names

if TYPE_CHECKING:
    from ctr.bench.scoring import Rows

HELP = "Vowpal Wabbit on the same rows over a grid of settings, as the number to beat"

#: Settings tried, by name. All are logistic, one pass; -l is the learning rate (0.5 by default),
#: adaptive normalised invariant updates are the default, and -q :: crosses all pairs of features.
GRID: dict[str, tuple[str, ...]] = {
    **{f"linear, -l {rate}": ("-l", rate) for rate in ("0.05", "0.1", "0.2", "0.5", "1", "2")},
    "linear, --sgd": ("--sgd",),
    "linear, --ftrl": ("--ftrl",),
    "linear, --coin": ("--coin",),
    **{f"crosses, -l {rate}": ("-q", "::", "-l", rate) for rate in ("0.02", "0.1", "0.2", "0.5")},
}
_ALWAYS = ("--loss_function", "logistic", "--link", "logistic", "-b", "22", "--quiet")
#: The peer computes in single precision and prints six decimals: an exact 0 or 1 is a rounding.
_SMALLEST = 5e-7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_data_argument(parser)
    parser.add_argument(
        "--features",
        type=names,
        default=(),
        metavar="A,B",
        help="features the peer sees (default: all but the crosses)",
    )
    parser.add_argument(
        "--vw-python",
        default=sys.executable,
        metavar="PYTHON",
        help="interpreter that has the package vowpalwabbit (default: this one)",
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the grid, one setting after another, and prints a Markdown table.

    Raises:
        CtrError: the options or the data cannot be used, or the peer cannot run.
    """
    from ctr.bench.scoring import read_rows
    from ctr.bench.vw_text import write_vw_text
    from ctr.data import manifest

    peer = peer_version(args.vw_python)
    schema, _ = manifest.load(args.data)
    seen = args.features or [feature.name for feature in schema.features if not feature.cross]
    rows = read_rows(args.data)
    results = []
    with tempfile.TemporaryDirectory(prefix="octr-anchor-") as folder:
        text = Path(folder) / "examples.vw"
        write_vw_text(args.data, rows, seen, text)
        for name, options in GRID.items():
            print(f"{name} ...", file=sys.stderr, flush=True)
            results.append({"name": name, **run_setting(args.vw_python, text, options, rows)})
    print(f"vowpalwabbit {peer}, one pass, features {', '.join(seen)}\n")
    print(anchor_table(results))
    write_record(args.output, data=args.data, features=seen, vowpalwabbit=peer, settings=results)
    return 0


def peer_version(python: str) -> str:
    """Returns the version of the peer that an interpreter has.

    Raises:
        ConfigError: it has none, or there is no such interpreter.
    """
    import subprocess

    from ctr.errors import ConfigError

    program = "from importlib.metadata import version; print(version('vowpalwabbit'))"
    try:
        found = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"{python} cannot import vowpalwabbit ({type(error).__name__}). Install it there with "
            "pip install vowpalwabbit, or name another interpreter with --vw-python."
        ) from None
    return found.stdout.strip()


def run_setting(python: str, text: Path, options: tuple[str, ...], rows: Rows) -> dict[str, Any]:
    """Learns the examples once, in order, and scores the predictions made on the way.

    Args:
        python: Interpreter that has the peer.
        text: Examples in the peer's text format.
        options: Of the setting.
        rows: The examples' labels.

    Returns:
        ``options``, ``cpu_us_per_example`` and ``wall_s`` of the whole process, and what
        :func:`ctr.bench.scoring.score` says.
    """
    from ctr.bench.child import run_child
    from ctr.bench.scoring import score

    predictions = text.with_name("predictions.txt")
    command = [python, "-m", "vowpalwabbit", "-d", str(text), "-p", str(predictions)]
    usage = run_child([*command, *_ALWAYS, *options])
    scores = score(rows, read_progressive(predictions, len(rows.label)))
    predictions.unlink()
    return {
        "options": " ".join((*_ALWAYS, *options)),
        "cpu_us_per_example": 1e6 * usage.cpu_s / len(rows.label),
        "wall_s": usage.wall_s,
        **scores,
    }


def read_progressive(path: Path, n_rows: int) -> Any:
    """Reads the peer's predictions, float32[n_rows].

    Raises:
        StreamError: there are not as many as examples.
    """
    import numpy as np

    from ctr.errors import StreamError

    prob = np.array(path.read_bytes().split(), dtype=np.float32)
    if len(prob) != n_rows:
        raise StreamError(
            f"{path}: {len(prob):,} predictions for {n_rows:,} examples. The peer read the text "
            "differently; report this with the schema."
        )
    return np.clip(prob, _SMALLEST, 1 - _SMALLEST)


def anchor_table(results: list[dict[str, Any]]) -> str:
    """Returns the settings as a Markdown table, the best by log loss over all rows first."""
    from ctr.bench.quality_tables import METRICS, SPANS, spread, table

    metrics = [metric for metric in METRICS if metric[1] in results[0]["all"]]
    head = ["setting"]
    for span, _ in SPANS:
        head += [f"{title}, {span}" for title, _, _ in metrics]
    body = []
    for result in sorted(results, key=lambda r: r["all"]["log_loss"]):
        cells = [
            spread([result[key][name]], decimals)
            for _, key in SPANS
            for _, name, decimals in metrics
        ]
        body.append([result["name"], *cells, f"{result['cpu_us_per_example']:.1f}"])
    return table([*head, "CPU us/example"], body)
