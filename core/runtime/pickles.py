"""Weights out of pickles that only arbitrary code could load, without importing or running anything that they name or carry.

Tensors are rebuilt here, classes of a network become empty stand-ins, source code is dropped unread, all else is refused. What
plain ``torch.load(weights_only=True)`` can read needs none of this: see `checkpoint.load`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import UserError, first_line
from . import weights
from .strange import DEEPEST, refuse_bomb, refuse_exported
from .unpickler import EXPANDED, Refused, RestrictedUnpickler, Stub

WRAPPINGS = (*weights.WRAPPINGS, "ema")
"""Keys under which a network is filed: the usual ones, then that of EDM."""
REPEATED = 16
"""How often all tensors together may have the numbers that are in their file."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of a file in the format before PyTorch 1.6."""


def read_zip(path: Path, stubbed: Sequence[str]) -> Any:
    """The object in a file of ``torch.save``.

    Raises:
        UserError: the file is TorchScript, or was written on a big-endian machine.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [n for n in names if n.endswith("/data.pkl")]
        if len(pickles) != 1 or any(n.endswith("/constants.pkl") for n in names):
            raise UserError(f"{path}: is no file of torch.save (TorchScript is not read)")
        root = pickles[0].removesuffix("data.pkl")
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in names else b"little"
        if order != b"little":
            raise UserError(f"{path}: was written on a big-endian machine")
        found: dict[str, Tensor] = {}

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if key not in found:
                found[key] = as_tensor(archive.read(f"{root}data/{key}"), dtype, count)
            return found[key]

        return unpickled(io.BytesIO(archive.read(pickles[0])), stubbed, storage)


def unpickled(file: Any, stubbed: Sequence[str], storage: Any) -> Any:
    """What is in a pickle; arguments as of `RestrictedUnpickler`."""
    return RestrictedUnpickler(file, stubbed, storage, lambda data: read_legacy(io.BytesIO(data), stubbed)).load()


def read_legacy(file: BinaryIO, stubbed: Sequence[str]) -> Any:
    """The object in a plain pickle, or in a file of ``torch.save`` before PyTorch 1.6: pickles, then the storages' numbers.

    Raises:
        Refused: the file is not one of ``torch.save``, or its tensors claim more than it holds.
    """
    found: dict[str, Tensor] = {}
    size = file.seek(0, io.SEEK_END)
    file.seek(0)

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if count * dtype.itemsize > size:
            raise Refused("a tensor that is larger than its data")
        return found.setdefault(key, torch.empty(count, dtype=dtype))

    def next_pickle() -> Any:
        return unpickled(file, stubbed, storage)

    first = next_pickle()
    if isinstance(first, (Stub, Mapping)):
        return first
    if first != LEGACY_MAGIC:
        raise Refused("it is no file of torch.save")
    _, _, result, keys = (next_pickle() for _ in range(4))
    for key in keys:
        target = found[str(key)]
        count = int.from_bytes(file.read(8), "little")
        target.copy_(as_tensor(file.read(count * target.itemsize), target.dtype, count))
    return result


def as_tensor(data: bytes, dtype: torch.dtype, count: int) -> Tensor:
    """`count` numbers, little-endian, of shape (count,).

    Raises:
        Refused: `data` is too short.
    """
    if len(data) < count * dtype.itemsize:
        raise Refused("a tensor that is larger than its data")
    return torch.frombuffer(bytearray(data), dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


# ------------------------------------------------------------------ from what was saved to a state dict
def read(path: Path, stubbed: Sequence[str] = ()) -> dict[str, Tensor]:
    """The state dict in anyone's checkpoint, tensors of any shape by name; arguments and errors are those of `unpickle`."""
    return state_dict(unpickle(path, stubbed), path)


def unpickle(path: Path, stubbed: Sequence[str] = ()) -> Any:
    """What is in anyone's checkpoint: tensors, plain values, and a `Stub` for each part of a network.

    Args:
        path: a file of ``torch.save``, of any version, or a plain pickle.
        stubbed: modules whose classes are parts of the network, besides ``torch.nn``.

    Raises:
        UserError: no such file, a damaged one, or one that holds more than a network.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        refuse_exported(path)
        refuse_bomb(path)
        if zipfile.is_zipfile(path):
            return read_zip(path, stubbed)
        with path.open("rb") as file:
            return read_legacy(file, stubbed)
    except Refused as e:
        raise UserError(f"{path}: refused: {e}") from e
    except UserError:
        raise
    except Exception as e:  # pickle raises whatever a damaged file makes it trip over
        raise UserError(f"{path}: cannot be read, it is torn or not a checkpoint ({first_line(e)})") from e


def state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    """Tensors of any shape by name, from what was unpickled from `path`.

    Raises:
        UserError: it is no network.
    """
    for _ in range(DEEPEST):
        wrappings = WRAPPINGS if isinstance(found, Mapping) else ()
        inner = next((found[k] for k in wrappings if isinstance(found.get(k), (Stub, Mapping))), None)
        if inner is None:
            break
        found = inner
    state = dict(found) if isinstance(found, Mapping) else module_state(found, path)
    if not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path}: holds no network's state dict")
    there = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in state.values()}
    if sum(v.numel() * v.element_size() for v in state.values()) > REPEATED * sum(there.values()) + 4 * EXPANDED:
        raise UserError(f"{path}: refused: tensors of far more numbers than are in the file, repeated")
    return {k: v.contiguous().clone() for k, v in weights.strip(state).items()}


def module_state(module: Any, path: Path, prefix: str = "", above: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """What ``module.state_dict()`` gave, from a stub of the module.

    Raises:
        UserError: `module` stands for no network.
    """
    if not isinstance(module, Stub) or id(module) in above or len(above) > DEEPEST:
        raise UserError(f"{path}: holds no network ({type(module).__name__})")
    parts = vars(module)
    if not all(isinstance(parts.get(k, {}), Mapping) for k in ("_parameters", "_buffers", "_modules")):
        raise UserError(f"{path}: holds no network ({type(module).__name__})")
    transient = parts.get("_non_persistent_buffers_set", ())
    buffers = {k: v for k, v in parts.get("_buffers", {}).items() if k not in transient}
    own = {**parts.get("_parameters", {}), **buffers}
    state = {f"{prefix}{k}": v for k, v in own.items() if v is not None}
    for name, child in parts.get("_modules", {}).items():
        if child is not None:
            state.update(module_state(child, path, f"{prefix}{name}.", (*above, id(module))))
    return state
