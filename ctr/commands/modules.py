"""``octr modules``: which research modules are installed, and what they do."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import sys
from typing import Any

HELP = "list the installed research modules, or explain one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a module's name, or package.module:Class"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the list, or one module's docstring and hyper-parameters.

    Returns:
        0, or 1 if an installed module cannot be loaded.
    """
    from ctr.quiet import start_quietly

    sys.path.append(os.getcwd())
    start_quietly()
    from ctr import registry

    if args.name:
        print(explain(registry.load(args.name)))
        return 0
    return _list()


def _list() -> int:
    from ctr import registry
    from ctr.errors import ModuleError

    rows, broken = [("module", "changes", "paper")], []
    for name in registry.available():
        try:
            info = registry.load(name).info
        except ModuleError as error:
            broken.append(str(error))
            continue
        rows.append((name, slots(info), info.paper))
    widths = [max(len(row[place]) for row in rows) for place in (0, 1)]
    for name, changes, paper in rows:
        print(f"{name:<{widths[0]}}  {changes:<{widths[1]}}  {paper}")
    for reason in broken:
        print(f"octr: {reason}", file=sys.stderr)
    return 1 if broken else 0


def slots(info: Any) -> str:
    """Returns the slots a module changes: ``=loss`` is replaced, ``+loss`` extended."""
    return " ".join([*(f"={s}" for s in sorted(info.replaces)),
                     *(f"+{s}" for s in sorted(info.extends))])  # fmt: skip


def explain(cls: type[Any]) -> str:
    """Returns a module's docstring, declaration and hyper-parameters with their defaults."""
    info = cls.info
    lines = [f"{info.name}: {cls.__module__}:{cls.__qualname__}", ""]
    lines += [inspect.cleandoc(cls.__doc__ or "no docstring"), ""]
    lines += [f"paper     {info.paper}"]
    for title, names in (("replaces", sorted(info.replaces)), ("extends", sorted(info.extends)),
                         ("needs", [need.__name__ for need in info.needs]),
                         ("columns", info.columns)):  # fmt: skip
        if names:
            lines.append(f"{title:<10}{', '.join(names)}")
    lines += ["", "hyper-parameters"]
    for field in dataclasses.fields(cls):
        default = "required"
        if field.default is not dataclasses.MISSING:
            default = repr(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = repr(field.default_factory())
        kind = field.type if isinstance(field.type, str) else field.type.__name__
        lines.append(f"  {field.name}: {kind} = {default}")
    if not dataclasses.fields(cls):
        lines.append("  none")
    return "\n".join(lines)
