"""Ops on images of several sizes, in the interpreter, against their plain forms in float64: a script that prints JSON.

Of the filter the largest errors; of JPEG with soft rounding too, and with steps the share of pixels that differ, since there a
last bit decides which way a coefficient is rounded.
"""

from __future__ import annotations

import json
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

from relume.core.degradations.jpeg import DiffJPEG
from relume.core.errors import UserError
from relume.core.ops import launching
from relume.core.ops.filter_images import filtered, filtered_all
from relume.core.ops.jpeg import recompressed, recompressed_all

launching.interpreted = lambda: False  # tiles as on a GPU: several programs, and ragged edges
SIZES = ((17, 70), (9, 33), (1, 3))


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference; shapes must agree, and nan counts as a difference."""
    return max(float((a - b).abs().max().nan_to_num(nan=9.0)) for a, b in zip(found, expected, strict=True))


def filters() -> dict[str, object]:
    images = [drawn(2, *size) - 0.3 for size in SIZES]
    kernels = [drawn(3, 3) * (drawn(3, 3) > 0.3) for _ in images]
    os.environ["RELUME_KERNELS"] = "off"
    expected = filtered_all([i.double() for i in images], [k.double() for k in kernels])
    os.environ["RELUME_KERNELS"] = "on"
    launching.LAUNCHED.clear()
    found = filtered_all(images, kernels)
    launches = sum(launching.LAUNCHED.values())
    same = filtered(images[1][None].to(memory_format=torch.channels_last), kernels[1][None])
    mixed = filtered_all(images[1:], [kernels[1], kernels[2][1:2, 1:2]])
    return {
        "filter": worst(found, expected),
        "filter_launches": launches,
        "filter_alone": torch.equal(same[0], found[1]) and torch.equal(mixed[0], found[1]),
        "filter_empty": len(filtered(torch.rand(0, 3, 4, 4), torch.rand(0, 3, 3))) == 0,
    }


def compressions() -> dict[str, object]:
    said: dict[str, object] = {}
    images = [drawn(3, *size) for size in SIZES]
    factor = torch.tensor([0.3, 2.0, 1 / 255])
    for table, soft in (("basicsr", True), ("standard", False), ("standard", True)):
        coding = DiffJPEG(soft, table).coding
        os.environ["RELUME_KERNELS"] = "off"
        expected = recompressed_all([i.double() for i in images], factor.double(), coding)
        os.environ["RELUME_KERNELS"] = "on"
        launching.LAUNCHED.clear()
        found = recompressed_all(images, factor, coding)
        said["jpeg_launches"] = sum(launching.LAUNCHED.values())
        far = torch.cat([((a - b).abs() > 2e-5).flatten() for a, b in zip(found, expected, strict=True)])
        said[f"{table}, {'soft' if soft else 'steps'}"] = worst(found, expected) if soft else float(far.float().mean())
    said["jpeg_alone"] = torch.equal(recompressed(images[0][None], factor[:1], coding)[0], found[0])
    said["jpeg_empty"] = len(recompressed(torch.rand(0, 3, 4, 4), torch.rand(0), coding)) == 0
    return said


def refused() -> list[str]:
    """What is said where kernels are insisted on and cannot run."""
    calls = (
        lambda: filtered(torch.rand(1, 3, 4, 4).double(), torch.rand(1, 3, 3)),
        lambda: recompressed(torch.rand(1, 3, 4, 4, requires_grad=True), torch.ones(1), DiffJPEG().coding),
    )
    found = []
    for call in calls:
        try:
            call()
        except UserError as e:
            found.append(str(e))
    return found


def main() -> None:
    torch.set_num_threads(1)
    said = filters() | compressions()
    said["refused"] = refused()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
