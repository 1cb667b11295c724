"""Weights out of pickles that only arbitrary code could load, without importing or running anything that they name or carry.

Tensors are rebuilt here, classes of a network become empty stand-ins, source code is dropped unread, all else is refused. What
plain ``torch.load(weights_only=True)`` can read needs none of this: see `checkpoint.load`.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import UserError
from . import checkpoint, weights

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
WRAPPINGS = (*weights.WRAPPINGS, "ema")
"""Keys under which a network is filed: the usual ones, then that of EDM."""
EXPANDED = 1 << 24
"""Numbers that a tensor may have beyond those in its file, by strides of 0."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of a file in the format before PyTorch 1.6."""


# ------------------------------------------------------------------ the restricted unpickler
class Refused(Exception):
    """A pickle wants something that no network needs."""


class Stub:
    """Stands in for an instance of a class of the network: attributes, and no behaviour."""

    def __init__(self, *arguments: Any) -> None:
        pass


def rebuild_tensor(flat: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    """What ``torch._utils._rebuild_tensor_v2`` does, on a 1-D tensor for a storage; refuses to leave it."""
    reach = 1 + offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min([offset, *size, *stride], default=0) < 0 or (0 not in size and reach > flat.numel()):
        raise Refused("a tensor that is larger than its data")
    if math.prod(size) > max(EXPANDED, flat.numel()):
        raise Refused(f"a tensor of {math.prod(size):,} numbers that are only {flat.numel():,}, repeated")
    return flat.as_strided(tuple(size), tuple(stride), offset)


class PlainDict(dict[str, Any]):
    """Stands in for dictionaries whose entries are attributes as well."""


def rebuild_persistent(meta: Mapping[str, Any]) -> Stub:
    """An object that was pickled with the source code of its class (``torch_utils.persistence``): its attributes."""
    state = meta.get("state") if isinstance(meta, Mapping) else None
    if not isinstance(state, dict):
        raise Refused("an object with source code and without attributes")
    stub = Stub()
    vars(stub).update(state)
    return stub


def rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    """A parameter is its tensor."""
    return data


class Passed(Stub):
    """Stands in for data beside the tensors (a score, a date, a path), which is passed over."""

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """As of a list."""

    def __setitem__(self, key: Any, item: Any) -> None:
        """As of a dictionary."""


DATA = {
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
    "numpy.dtypes": None,
    "argparse": ("Namespace",),
    **dict.fromkeys(
        ("builtins", "__builtin__"), ("list", "dict", "tuple", "int", "float", "str", "bool", "complex", "bytearray")
    ),
    "collections": ("defaultdict", "Counter", "deque"),
    "datetime": None,
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "pathlib": None,
    "pathlib._local": None,
    "torch": ("device", *(str(d).removeprefix("torch.") for d in DTYPES.values())),
    "torch.torch_version": ("TorchVersion",),
    "types": ("SimpleNamespace",),
    "uuid": ("UUID",),
}
"""Classes and functions of plain data, by module (None for all of it), that checkpoints name besides their tensors."""


def is_data(module: str, name: str) -> bool:
    """Whether a name in a pickle is one of plain data."""
    return module in DATA and (DATA[module] is None or name in (DATA[module] or ()))


def encoded(text: str, encoding: str = "latin1") -> bytes:
    """What older protocols call to write bytes."""
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise Refused(f"bytes in the encoding {encoding!r}")
    return text.encode(encoding)


HARMLESS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): rebuild_persistent,
    ("dnnlib.util", "EasyDict"): PlainDict,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): encoded,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickles a module into `Stub`s and tensors.

    Args:
        file: the pickle.
        stubbed: modules whose classes become stubs, besides ``torch.nn``.
        storage: gives the data of ``(key, dtype, numel)`` as a 1-D tensor.
    """

    def __init__(self, file: Any, stubbed: Sequence[str], storage: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.stubbed = stubbed
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle means here; nothing is ever imported.

        Raises:
            Refused: anything but tensors and classes of networks.
        """
        if (module, name) in HARMLESS:
            return HARMLESS[module, name]
        if (module, name) == ("torch.storage", "_load_from_bytes"):  # a file of the older format within the pickle
            return lambda data: read_legacy(io.BytesIO(data), self.stubbed)
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if is_data(module, name):
            return Passed
        if module.startswith(("torch.nn.modules.", "torch.nn.parallel.")) or module in self.stubbed:
            return type(name.rpartition(".")[2], (Stub,), {})
        foreign = module.partition(".")[0] not in {*sys.stdlib_module_names, "__builtin__", "numpy", "torch"}
        hint = f" (if it is a class of the network: --stub {module})" if foreign else "; nothing was run"
        raise Refused(f"it names {module}.{name}, which is neither a tensor nor a network's class{hint}")

    def persistent_load(self, pid: Any) -> Any:
        """Storages, and the classes that the older format keeps with their source code."""
        kind, *rest = pid
        if kind == "module":
            return rest[0]
        if kind != "storage" or not isinstance(rest[0], torch.dtype):
            raise Refused(f"an object of unknown kind {kind!r}")
        dtype, key, _, count = rest[:4]
        return self.storage(str(key), dtype, int(count))


def read_zip(path: Path, stubbed: Sequence[str]) -> Any:
    """The object in a file of ``torch.save``."""
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

        return RestrictedUnpickler(io.BytesIO(archive.read(pickles[0])), stubbed, storage).load()


def read_legacy(file: BinaryIO, stubbed: Sequence[str]) -> Any:
    """The object in a plain pickle, or in a file of ``torch.save`` before PyTorch 1.6: pickles, then the storages' numbers."""
    found: dict[str, Tensor] = {}
    size = file.seek(0, io.SEEK_END)
    file.seek(0)

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if count * dtype.itemsize > size:
            raise Refused("a tensor that is larger than its data")
        return found.setdefault(key, torch.empty(count, dtype=dtype))

    def next_pickle() -> Any:
        return RestrictedUnpickler(file, stubbed, storage).load()

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
    """`count` numbers, little-endian."""
    if len(data) < count * dtype.itemsize:
        raise Refused("a tensor that is larger than its data")
    return torch.frombuffer(bytearray(data), dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


# ------------------------------------------------------------------ from what was saved to a state dict
def read(path: Path, stubbed: Sequence[str] = ()) -> dict[str, Tensor]:
    """The state dict in anyone's checkpoint, whatever it is wrapped in; arguments and errors are those of `unpickle`."""
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
        if zipfile.is_zipfile(path):
            return read_zip(path, stubbed)
        with path.open("rb") as file:
            return read_legacy(file, stubbed)
    except Refused as e:
        raise UserError(f"{path}: refused: {e}") from e
    except UserError:
        raise
    except Exception as e:  # pickle raises whatever a damaged file makes it trip over
        raise UserError(f"{path}: cannot be read, it is torn or not a checkpoint ({checkpoint.first_line(e)})") from e


def state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    """Tensors by name of what was unpickled from `path`.

    Raises:
        UserError: it is no network.
    """
    if isinstance(found, Mapping):
        inner = next((found[k] for k in WRAPPINGS if isinstance(found.get(k), (Stub, Mapping))), None)
        if inner is not None:
            return state_dict(inner, path)
        state = dict(found)
    else:
        state = module_state(found, path)
    if not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path}: holds no network's state dict")
    return {k: v.contiguous().clone() for k, v in weights.strip(state).items()}


def module_state(module: Any, path: Path, prefix: str = "", above: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """What ``module.state_dict()`` gave, from a stub of the module."""
    if not isinstance(module, Stub) or id(module) in above:
        raise UserError(f"{path}: holds no network ({type(module).__name__})")
    parts = vars(module)
    transient = parts.get("_non_persistent_buffers_set", ())
    buffers = {k: v for k, v in parts.get("_buffers", {}).items() if k not in transient}
    own = {**parts.get("_parameters", {}), **buffers}
    state = {f"{prefix}{k}": v for k, v in own.items() if v is not None}
    for name, child in parts.get("_modules", {}).items():
        if child is not None:
            state.update(module_state(child, path, f"{prefix}{name}.", (*above, id(module))))
    return state
