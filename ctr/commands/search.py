"""``octr search``: widths and ranks of hidden layers for a given cost, from one pass."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctr.option_types import names, non_negative_int, positive_int

HELP = "find layer widths and bottleneck ranks at a share of a model's cost, in one pass"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("--data", type=Path, required=True, help="folder written by octr ingest")
    parser.add_argument(
        "--target", type=float, required=True, metavar="SHARE",
        help="cost aimed at in multiply-adds, as a share of the recipe's, e.g. 0.9",
    )  # fmt: skip
    parser.add_argument("--recipe", default="wide_dcn", help="wide_dcn (default), dlrm or mlp")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", dest="settings",
        help="change a field of the recipe, e.g. model.dim=32; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--option", action="append", default=[], metavar="FIELD=VALUE", dest="options",
        help="change a field of the search, e.g. gamma=-0.05; `octr modules width_search` lists "
        "them; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--rows", type=non_negative_int, default=0, metavar="N",
        help="search on the first N examples and leave the rest to judge the result (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--measure", action="store_true",
        help="aim at CPU time: measure first what the rest of a step is worth in multiply-adds",
    )  # fmt: skip
    parser.add_argument("--labels", type=names, default=(), metavar="A,B", help="as for octr train")
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="decides initial values and samples"
    )
    parser.add_argument(
        "--method", choices=("controller", "random"), default="controller",
        help="random trains random towers of that cost one by one, for comparison",
    )  # fmt: skip
    parser.add_argument(
        "--trials", type=positive_int, default=4, metavar="N", help="towers of a random search"
    )
    parser.add_argument(
        "--to", type=Path, metavar="FILE",
        help="write an experiment page that compares the result with the recipe (octr replay FILE)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=positive_int, default=0,
        help="threads inside one operation (default: all cores)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Searches, prints the result as JSON and writes the page."""
    from ctr.quiet import start_quietly

    start_quietly(args.threads)
    from ctr.config import override
    from ctr.harness.arms import module_from_settings
    from ctr.harness.experiment import parse
    from ctr.harness.stream import open_stream
    from ctr.progress import Progress
    from ctr.recipe import named_recipe
    from ctr.search.measure import measured_overhead
    from ctr.search.methods import at_random, by_controller
    from ctr.techniques.width_search import WidthSearch

    table = _page(args)
    stream = open_stream(parse(table, "search"), args.rows)
    module = module_from_settings("width_search", [f"target={args.target}", *args.options])
    assert isinstance(module, WidthSearch)
    recipe = override(named_recipe(args.recipe), args.settings)
    labels = tuple(table.get("labels", ()))
    if args.measure:
        module = replace(module, overhead=measured_overhead(recipe, stream, labels))
    random = args.method == "random"
    with Progress(stream.rows * (args.trials if random else 1)) as progress:
        if random:
            found = at_random(
                recipe, module, stream, labels, args.seed, args.trials, progress.update
            )
        else:
            found = by_controller(recipe, module, stream, labels, args.seed, progress.update)
    print(json.dumps({**found, "overhead": module.overhead}))
    print("octr: as options of octr train:", *_options(found["settings"]), file=sys.stderr)
    if args.to:
        _write(args.to, table, found)
        print(f"octr: next: octr replay {args.to}", file=sys.stderr)
    return 0


def _options(settings: list[str]) -> list[str]:
    return [f"--set '{setting}'" for setting in settings]


def _page(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the page of the comparison, still without the result."""
    stream: dict[str, Any] = {"data": str(args.data)}
    if args.rows:
        stream["burn_in"] = args.rows  # what was searched on is not judged on
    page: dict[str, Any] = {"name": "search", "stream": stream}
    if args.labels:
        page["labels"] = list(args.labels)
    page["base"] = {"recipe": args.recipe, "set": list(args.settings)}
    return page


def _write(path: Path, page: dict[str, Any], found: dict[str, Any]) -> None:
    """Writes the page as TOML, whose strings, numbers and lists are those of JSON."""
    from ctr.data.manifest import write_atomically

    lines = [f"name = {json.dumps(path.stem)}"]
    if "labels" in page:
        lines.append(f"labels = {json.dumps(page['labels'])}")
    for name in ("stream", "base"):
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in page[name].items()]
    lines += [
        "", f"# {found['cost']:.3f} of the base's cost; asked for {found['target']}",
        "[[arms]]", f'name = "searched at {found["target"]}"',
        f"set = {json.dumps(found['settings'])}",
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, ("\n".join(lines) + "\n").encode())
