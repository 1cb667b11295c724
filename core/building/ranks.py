"""What the ranks of a run compare before they begin: command, options, code, and the data that each of them sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import changes
from ..annotations import plain
from ..options.schema import Options
from ..runtime import distributed


def require_same_run(opt: Options, command: str) -> None:
    """Compare options and code.

    Raises:
        RanksError: they differ on some rank.
    """
    if distributed.world_size() == 1:
        return
    from ..runtime import alike

    values = {k: v for k, v in changes.flat(plain(opt)) if k != "plugins"}  # wherever they lie, their code is compared
    alike.require({"command": command, **values, **alike.of_code(opt.plugins)})


def require_same_data(sets: Mapping[str, Any]) -> None:
    """Compare the contents of datasets, by name.

    Raises:
        RanksError: they differ on some rank, which sees other files then.
    """
    if distributed.world_size() == 1:
        return
    from ...datasets.loading.contents import contents
    from ..runtime import alike

    found = {name: contents(dataset) for name, dataset in sets.items()}
    alike.require({f"{what} of '{name}'": v for name, facts in found.items() for what, v in facts.items()})
