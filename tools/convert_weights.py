"""Turn checkpoints of the originals into Relume's, names as they were: .safetensors, or .pth with ``{params: state dict}``.

``python tools/convert_weights.py ORIGINAL OUT.safetensors [-opt FILE.yml] [--stub MODULE ...]``

Reads bare state dicts, the usual wrappings of them, pickles of whole modules, and the pickles of EDM that carry
the source code of their classes, without importing or running anything that such a pickle names or carries: tensors are
rebuilt here, classes of the network become empty stand-ins, source code is dropped unread, all else is refused.

``-opt`` names an option file whose ``network_g`` the weights are for. Names and shapes are then compared. Left out are
parameters that never had an effect in the original, if the network does without (``drop_dead: true``), and the embedding of
augmentations of EDM's networks; the embedding of classes stays as initialised where the file has none. Any other difference
is an error.
"""

import sys
from pathlib import Path

# Python puts this folder on sys.path; its list.py must not shadow anything.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]

import argparse
import collections
import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import torch
from torch import Tensor

from relume.archs import build_network
from relume.core import options
from relume.core.errors import UserError, require
from relume.core.runtime import checkpoint

STUBBED = (
    "__main__",
    "final_model",
    "final_model_AGSSF1",
    "Final_model_AGSSF",
    "model",
    "model_with_eca",
    "model_without_CA",
    "network1",
    "phaseformer",
    "spectroformer_paper",
)
"""Modules that the originals' classes were defined in, as whole-module pickles name them."""

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
WRAPPINGS = (*checkpoint.WRAPPINGS, "ema")
"""Keys under which a network is filed: the usual ones, then that of EDM."""
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


HARMLESS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): rebuild_persistent,
    ("dnnlib.util", "EasyDict"): PlainDict,
    ("collections", "OrderedDict"): collections.OrderedDict,
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
    """The state dict in an original's file, whatever it is wrapped in.

    Raises:
        UserError: no such file, a damaged one, or one that holds more than a network.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if zipfile.is_zipfile(path):
            found = read_zip(path, (*STUBBED, *stubbed))
        else:
            with path.open("rb") as file:
                found = read_legacy(file, (*STUBBED, *stubbed))
    except Refused as e:
        raise UserError(f"{path}: refused: {e}") from e
    except UserError:
        raise
    except Exception as e:  # pickle raises whatever a damaged file makes it trip over
        raise UserError(f"{path}: cannot be read, it is torn or not a checkpoint ({checkpoint.first_line(e)})") from e
    return flat_state(found, path)


def flat_state(found: Any, path: Path) -> dict[str, Tensor]:
    """Tensors by name of what was unpickled."""
    if isinstance(found, Mapping):
        inner = next((found[k] for k in WRAPPINGS if isinstance(found.get(k), (Stub, Mapping))), None)
        if inner is not None:
            return flat_state(inner, path)
        state = dict(found)
    else:
        state = module_state(found, path)
    if not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path}: holds no network's state dict")
    return {k: v.contiguous().clone() for k, v in checkpoint.strip(state).items()}


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


def fitted(state: dict[str, Tensor], block: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """`state` as the network of `block` holds it, and the names that the network itself leaves out (dead parameters).

    Raises:
        UserError: other differences in names or shapes.
    """
    network = build_network(block)
    own = network.state_dict()
    given = state
    state = {k: v for k, v in given.items() if k in own or k != "model.map_augment.weight"}
    if "model.map_layer0.weight" in state:  # one of EDM's
        state = {**{k: v for k, v in own.items() if k.startswith("model.map_label.")}, **state}
    try:
        network.load_state_dict(state)
    except RuntimeError:
        problems = [f"{k} is missing" for k in own if k not in state]
        problems += [
            f"{k} is {tuple(state[k].shape)}, not {tuple(v.shape)}"
            for k, v in own.items()
            if k in state and state[k].shape != v.shape
        ]
        problems += [f"{k} is unknown" for k in state if k not in own]
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"the weights do not fit {block['type']}: {'; '.join(problems[:3])}{more}") from None
    return dict(network.state_dict()), [k for k in given if k not in own]


def convert(source: Path, target: Path, block: Mapping[str, Any] | None = None, stubbed: Sequence[str] = ()) -> str:
    """Convert one file; a line that says what was done.

    Raises:
        UserError: it cannot be read, or does not fit the network of `block`; `target` exists.
    """
    if target.exists():
        raise UserError(f"{target}: is there already; remove it first")
    state = read(source, stubbed)
    notes = ""
    if block is not None:
        given = state.keys()
        state, dropped = fitted(state, block)
        added = [k for k in state if k not in given]
        notes += (
            f", without {len(dropped)} that the network does not have ({', '.join(dropped[:3])})" if dropped else ""
        )
        notes += f"; not in the original, as initialised: {', '.join(added)}" if added else ""
    if target.suffix == ".safetensors":
        module = require("safetensors.torch", str(target))
        checkpoint.write_atomically(target, lambda file: file.write(module.save(state)))
    else:
        checkpoint.save(target, {"params": state})
    return f"{target}: {len(state)} tensors, {sum(v.numel() for v in state.values()):,} numbers{notes}"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path, help="checkpoint of an original")
    parser.add_argument("out", type=Path, help="what to write, .safetensors or .pth")
    parser.add_argument("-opt", "--opt", help="option file whose network_g the weights must fit")
    parser.add_argument(
        "--stub", nargs="+", default=[], metavar="MODULE", help="modules of the pickled network's classes"
    )
    arguments = parser.parse_args(argv)
    try:
        block = options.load(arguments.opt).network_g if arguments.opt else None
        print(convert(arguments.original, arguments.out, block, arguments.stub))
    except UserError as e:
        print(e, file=sys.stderr)
        return e.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
