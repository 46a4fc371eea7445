"""Which version is ``stable`` and which is ``canary``: a small file beside the versions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ctr.data.manifest import write_atomically
from ctr.errors import ConfigError

ROUTES = "routes.json"


@dataclass(frozen=True)
class Routes:
    """Where requests go that name no version.

    Attributes:
        stable: Version pinned as ``stable``; 0 follows the newest blessed one.
        canary: Version that gets ``share`` of the requests; 0 for none.
        share: Between 0 and 1.
    """

    stable: int = 0
    canary: int = 0
    share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("stable", "canary"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigError(f"routes: {name} must be a version number, received {value!r}.")
        if isinstance(self.share, bool) or not isinstance(self.share, int | float):
            raise ConfigError(f"routes: share must be a number, received {self.share!r}.")
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(f"routes: share must be in [0, 1], received {self.share}.")

    def stable_of(self, blessed: Sequence[int]) -> int:
        """Returns the stable version among the blessed ones, ascending; 0 if there is none.

        A canary is on trial, so following skips it.
        """
        if self.stable:
            return self.stable if self.stable in blessed else 0
        settled = [version for version in blessed if version != self.canary]
        return settled[-1] if settled else 0


def read_routes(models_dir: Path) -> Routes:
    """Reads the routes of a folder of versions; without a file the newest one is followed.

    Raises:
        ConfigError: the file is damaged.
    """
    path = models_dir / ROUTES
    try:
        table = json.loads(path.read_text())
        known = {f.name for f in fields(Routes)}
        return Routes(**{key: value for key, value in table.items() if key in known})
    except FileNotFoundError:
        return Routes()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}). Remove it, or use octr route.") from None


def write_routes(models_dir: Path, routes: Routes) -> None:
    """Puts routes in place; a running server follows within its polling interval."""
    write_atomically(models_dir / ROUTES, json.dumps(asdict(routes)).encode())
