"""``octr route``: which version is stable, which one is on trial, and back."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctr.errors import ConfigError
from ctr.option_types import positive_int

if TYPE_CHECKING:
    from serving.server.routes import Routes

HELP = "say which blessed version is stable or canary; roll back"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("models_dir", type=Path, metavar="MODELS", help="folder of versions")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--stable", type=positive_int, metavar="V", help="pin a version as stable")
    what.add_argument(
        "--rollback", action="store_true", help="pin the blessed version before the stable one"
    )
    what.add_argument(
        "--follow", action="store_true", help="let the newest blessed version be stable again"
    )
    what.add_argument("--promote", action="store_true", help="make the canary the stable version")
    what.add_argument("--canary", type=positive_int, metavar="V", help="put a version on trial")
    what.add_argument("--no-canary", action="store_true", help="end the trial")
    parser.add_argument(
        "--share", type=float, metavar="X", help="part of the requests the canary gets (0.05)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the routes, unless there is nothing to change, and prints them.

    Returns:
        0.

    Raises:
        ConfigError: a version is not blessed, or there is none to go back to.
    """
    from serving.blessing import blessed_versions
    from serving.server.routes import read_routes, write_routes

    if not args.models_dir.is_dir():
        raise ConfigError(f"{args.models_dir} is no folder. Name one that octr export wrote to.")
    blessed = [int(path.name) for path in blessed_versions(args.models_dir)]
    old = read_routes(args.models_dir)
    new = _changed(args, old, blessed)
    if new != old:
        write_routes(args.models_dir, new)
    shown = {**asdict(new), "serving": new.stable_of(blessed), "blessed": blessed}
    print(json.dumps(shown))
    return 0


def _changed(args: argparse.Namespace, old: Routes, blessed: list[int]) -> Routes:
    if args.share is not None and not (args.canary or old.canary):
        raise ConfigError("--share goes with --canary V.")
    if args.stable:
        return replace(old, stable=_blessed(args.stable, blessed))
    if args.follow:
        return replace(old, stable=0)
    if args.canary:
        share = 0.05 if args.share is None else args.share
        return replace(old, canary=_blessed(args.canary, blessed), share=share)
    if args.no_canary:
        return replace(old, canary=0, share=0.0)
    if args.promote:
        if not old.canary:
            raise ConfigError("there is no canary to promote.")
        return replace(old, stable=_blessed(old.canary, blessed), canary=0, share=0.0)
    if args.rollback:
        now = old.stable_of(blessed)
        before = [version for version in blessed if version < now]
        if not before:
            raise ConfigError(f"there is no blessed version before {now} to go back to.")
        # A canary newer than what was just found wanting has nothing to prove.
        return replace(old, stable=before[-1], canary=0, share=0.0)
    return old if args.share is None else replace(old, share=args.share)


def _blessed(version: int, blessed: list[int]) -> int:
    if version not in blessed:
        known = ", ".join(map(str, blessed)) or "none"
        raise ConfigError(f"version {version} is not blessed. Blessed: {known}.")
    return version
