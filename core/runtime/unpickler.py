"""An unpickler that imports nothing: tensors are rebuilt here, classes become empty stand-ins, all else is refused."""

from __future__ import annotations

import collections
import io
import math
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

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
EXPANDED = 1 << 24
"""Numbers that a tensor may have beyond those in its file, by strides of 0."""
UNUSED = (
    pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.FROZENSET,
    pickle.EXT1, pickle.EXT2, pickle.EXT4,
)  # fmt: skip
"""Operations of pickles that files of weights do not have."""
LONGEST_LINE = 100_000
"""Bytes of a name in a pickle at most."""


class Refused(Exception):
    """A pickle wants something that no network needs."""


class Stub:
    """Stands in for an instance of a class of the network: attributes, and no behaviour."""

    def __init__(self, *arguments: Any) -> None:
        pass


def rebuild_tensor(flat: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    """A tensor of shape `size`: what ``torch._utils._rebuild_tensor_v2`` makes, within the 1-D tensor that holds the storage.

    Raises:
        Refused: the tensor would be larger than its data.
    """
    reach = 1 + offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min([offset, *size, *stride], default=0) < 0 or (0 not in size and reach > flat.numel()):
        raise Refused("a tensor that is larger than its data")
    if math.prod(size) > max(EXPANDED, flat.numel()):
        raise Refused(f"a tensor of {math.prod(size):,} numbers that are only {flat.numel():,}, repeated")
    return flat.as_strided(tuple(size), tuple(stride), offset)


def as_key(key: Any) -> Any:
    """A key of a dictionary or set. Of tuples within tuples the hash can take for ever to compute; weights have none.

    Raises:
        Refused: it is no plain value, and no tuple of those.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(part, (str, bytes, int, float, type(None), torch.dtype, Stub)) for part in parts):
        raise Refused(f"a dictionary with a key of the type {type(key).__name__}")
    return key


class Ordered(collections.OrderedDict[Any, Any]):
    """Stands in for dictionaries, whatever their class."""

    def __init__(self, items: Any = ()) -> None:
        super().__init__()
        for key, value in items.items() if isinstance(items, dict) else items:
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(as_key(key), value)


def as_set(items: Sequence[Any] = ()) -> set[Any]:
    """A set of what can be a key."""
    return {as_key(item) for item in items}


def rebuild_persistent(meta: Mapping[str, Any]) -> Stub:
    """An object that was pickled with the source code of its class (``torch_utils.persistence``): its attributes.

    Raises:
        Refused: the object has no attributes.
    """
    state = meta.get("state") if isinstance(meta, Mapping) else None
    if not isinstance(state, dict):
        raise Refused("an object with source code and without attributes")
    stub = Stub()
    vars(stub).update(state)
    return stub


def rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    """A parameter, of any shape, is its tensor."""
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
    """What older protocols call to write bytes.

    Raises:
        Refused: the encoding is another.
    """
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise Refused(f"bytes in the encoding {encoding!r}")
    return text.encode(encoding)


HARMLESS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): rebuild_persistent,
    ("dnnlib.util", "EasyDict"): Ordered,
    ("collections", "OrderedDict"): Ordered,
    ("_codecs", "encode"): encoded,
    ("builtins", "set"): as_set,
    ("__builtin__", "set"): as_set,
}


class Bounded:
    """A file of which no more is asked than it has, whatever lengths a pickle claims.

    Args:
        file: file, at any position.
        size: bytes of the whole file.
    """

    def __init__(self, file: Any, size: int) -> None:
        self.file, self.size = file, size

    def read(self, count: int) -> bytes:
        """As a file's; short at the end."""
        if count > LONGEST_LINE:  # where it matters
            count = max(0, min(count, self.size - self.file.tell()))
        return bytes(self.file.read(count))

    def readline(self) -> bytes:
        """As a file's."""
        return bytes(self.file.readline(LONGEST_LINE))


def load_build(unpickler: Any) -> None:
    """Give an object its state: those that stand in for others, and dictionaries, take one, and take nothing but entries.

    Raises:
        Refused: it is for a function, a class or a tensor.
    """
    state = unpickler.stack.pop()
    target = unpickler.stack[-1]
    if isinstance(target, Passed):
        return
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    if not isinstance(target, (Stub, Ordered)) or not all(isinstance(p, (dict, type(None))) for p in parts):
        raise Refused(f"a state for {type(target).__name__}, which takes none")
    for part in parts:
        vars(target).update({str(k): v for k, v in (part or {}).items()})


def looking_at(operation: bytes, keys: slice) -> Callable[[Any], None]:
    """An operation of pickles as it is, once those things on the stack that become keys have passed `as_key`.

    Args:
        keys: places of the keys on the stack.
    """

    def load(unpickler: Any) -> None:
        for key in unpickler.stack[keys]:
            as_key(key)
        USUAL[operation[0]](unpickler)

    return load


def load_unknown(unpickler: Any) -> None:
    """Refuse an operation that no file of weights has.

    Raises:
        Refused: always.
    """
    raise Refused("an operation of pickles that no weights need")


USUAL: Mapping[int, Any] = pickle._Unpickler.dispatch


class RestrictedUnpickler(pickle._Unpickler):
    """Unpickles a module into `Stub`s and tensors.

    It is derived from the unpickler in Python, whose memory of objects grows with their number, not with the numbers that a
    pickle gives them, and whose operations can be replaced.

    Args:
        file: the pickle, which can be sought in.
        stubbed: modules whose classes become stubs, besides ``torch.nn``.
        storage: function that gives the data of ``(key, dtype, numel)`` as a 1-D tensor.
        inner: function that reads a file of the older format, which is within the pickle.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        **USUAL,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: looking_at(pickle.SETITEM, slice(-2, -1)),
        pickle.SETITEMS[0]: looking_at(pickle.SETITEMS, slice(None, None, 2)),
        pickle.DICT[0]: looking_at(pickle.DICT, slice(None, None, 2)),
        pickle.ADDITEMS[0]: looking_at(pickle.ADDITEMS, slice(None)),
        **dict.fromkeys((operation[0] for operation in UNUSED), load_unknown),
    }

    def __init__(self, file: Any, stubbed: Sequence[str], storage: Any, inner: Callable[[bytes], Any]) -> None:
        here = file.tell()
        size = file.seek(0, io.SEEK_END)
        file.seek(here)
        super().__init__(Bounded(file, size), encoding="utf-8")
        self.stubbed = stubbed
        self.storage = storage
        self.inner = inner

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle means here; nothing is ever imported.

        Raises:
            Refused: anything but tensors and classes of networks.
        """
        if (module, name) in HARMLESS:
            return HARMLESS[module, name]
        if (module, name) == ("torch.storage", "_load_from_bytes"):  # a file of the older format within the pickle
            return self.inner
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if is_data(module, name):
            return type(name, (Passed,), {})
        if module.startswith(("torch.nn.modules.", "torch.nn.parallel.")) or module in self.stubbed:
            return type(name.rpartition(".")[2], (Stub,), {})
        foreign = module.partition(".")[0] not in {*sys.stdlib_module_names, "__builtin__", "numpy", "torch"}
        hint = f" (if it is a class of the network: --stub {module})" if foreign else "; nothing was run"
        raise Refused(f"it names {module}.{name}, which is neither a tensor nor a network's class{hint}")

    def persistent_load(self, pid: Any) -> Any:
        """Storages, and the classes that the older format keeps with their source code.

        Raises:
            Refused: the object is of another kind.
        """
        kind, *rest = pid
        if kind == "module":
            return rest[0]
        if kind != "storage" or not isinstance(rest[0], torch.dtype):
            raise Refused(f"an object of unknown kind {kind!r}")
        dtype, key, _, count = rest[:4]
        return self.storage(str(key), dtype, int(count))
