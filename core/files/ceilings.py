"""How much a file may unpack to: files of a megabyte can ask for the memory of a whole machine.

The ceilings in force are those of the options that were checked last; they stand in the environment, so that loading
processes have them too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from ..annotations import OF_ANY_SIZE, Range, Section, setting
from ..errors import UserError, printable

Size = Annotated[int, Range(least=1), OF_ANY_SIZE]
VARIABLE = "RELUME_CEILINGS"


@dataclass(frozen=True, eq=False)
class Ceilings(Section):
    """What files of data may be unpacked to."""

    max_pixels: Size = setting(1 << 28, "Pixels that a picture or a video's frame may have.")
    max_unpacked_bytes: Size = setting(1 << 30, "Bytes that an entry of a zip or tar file may unpack to.")
    max_unpacked_total_bytes: Size = setting(
        1 << 40, "Bytes that all entries of a zip or tar file may unpack to together."
    )


def use(ceilings: Ceilings) -> None:
    """Put ceilings in force, here and in processes that are started from now on."""
    limits = ceilings.max_pixels, ceilings.max_unpacked_bytes, ceilings.max_unpacked_total_bytes
    os.environ[VARIABLE] = " ".join(map(str, limits))


def in_force() -> Ceilings:
    """The ceilings of the options that were checked last."""
    found = re.fullmatch(r"(\d{1,18}) (\d{1,18}) (\d{1,18})", os.environ.get(VARIABLE, ""))
    return Ceilings(*map(int, found.groups())) if found else Ceilings()


def refuse_total(sizes: Iterable[int], name: str, error: type[UserError] = UserError) -> None:
    """Refuse an archive whose entries' announced `sizes` are more than ``data.max_unpacked_total_bytes``.

    Raises:
        UserError: the sum of the sizes is larger; of the class `error`.
    """
    total, most = sum(sizes), in_force().max_unpacked_total_bytes
    if total > most:
        raise error(
            f"{printable(name)}: its entries unpack to {total:,} bytes, and data.max_unpacked_total_bytes is {most:,}"
        )
