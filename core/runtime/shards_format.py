"""What ``torch.distributed.checkpoint`` is told about shares of an optimizer's state, and its files read without running code.

It reads its metadata by plain unpickling. Here every class in them becomes a stand-in that holds attributes, as
in `unpickler`; what torch works with is made of those, once each value has been looked at. (This module imports what takes a
second; see `shards`.)
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from ..errors import UserError
from ..files import reading
from .unpickler import Passed, Refused, RestrictedUnpickler, Stub, load_build

METADATA = ".metadata"
"""The file's name, torch's own."""
MOST_BYTES = 1 << 28
"""Most bytes of metadata."""
FILES = re.compile(r"(?:\d{1,6}/)?__\d{1,6}_\d{1,6}\.distcp")
"""Files of data, relative to the folder of the metadata."""
OWN = "torch.distributed.checkpoint.metadata"
CLASSES = {
    **dict.fromkeys(("Metadata", "MetadataIndex", "ChunkStorageMetadata", "TensorStorageMetadata"), OWN),
    **dict.fromkeys(("TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING"), OWN),
    "_StorageInfo": "torch.distributed.checkpoint.filesystem",
}
"""What metadata consist of."""
KINDS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
DTYPES = {name: getattr(torch, name) for name in KINDS}


def _build(unpickler: Any) -> None:
    """As `load_build`; the properties of a tensor have a tuple for a state."""
    state, target = unpickler.stack[-1], unpickler.stack[-2]
    if isinstance(target, Stub) and type(target).__name__ == "TensorProperties" and isinstance(state, tuple):
        unpickler.stack.pop()
        vars(target)["dtype"] = state[0] if state else None
    else:
        load_build(unpickler)


class MetadataUnpickler(RestrictedUnpickler):
    """Reads metadata of ``torch.distributed.checkpoint`` into stand-ins."""

    dispatch: ClassVar[dict[int, Any]] = {**RestrictedUnpickler.dispatch, pickle.BUILD[0]: _build}

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle means here; nothing is imported.

        Raises:
            Refused: anything that metadata do not consist of.
        """
        if CLASSES.get(name) == module:
            return type(name, (Stub,), {})
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("torch", "Size"):
            return torch.Size
        if (module, name) == ("torch.serialization", "_get_layout") or module in ("pathlib", "pathlib._local"):
            return type(name, (Passed,), {})
        raise Refused(f"it names {module}.{name}, which metadata of a checkpoint have not")


def read_metadata(path: Path) -> Any:
    """`Metadata` that were written for `OwnShare`, or by `merged`.

    Raises:
        UserError: they cannot be read, are none, or say what cannot be.
    """
    try:
        data = reading.content(path, MOST_BYTES)
        found = MetadataUnpickler(io.BytesIO(data), (), _refuse, _refuse).load()
        if type(found).__name__ != "Metadata" or not isinstance(found, Stub):
            raise Refused(f"it holds a {type(found).__name__}")
        return _metadata(found, path.parent)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e})") from e
    except Exception as e:  # damage makes pickle and what follows trip over whatever they find
        said = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        raise UserError(f"{path}: no metadata of a checkpoint ({said})") from e


def _refuse(*_: Any) -> Any:
    raise Refused("metadata hold no tensors")


def _sides(value: Any) -> torch.Size:
    if not isinstance(value, torch.Size) or any(n < 0 for n in value):
        raise Refused("a size that is none")
    return value


def _tensor(stub: Any) -> TensorStorageMetadata:
    chunks = [ChunkStorageMetadata(_sides(c.offsets), _sides(c.sizes)) for c in stub.chunks]
    size = _sides(stub.size)
    for chunk in chunks:
        ends = [o + n for o, n in zip(chunk.offsets, chunk.sizes, strict=True)]
        if len(ends) != len(size) or any(e > n for e, n in zip(ends, size, strict=True)):
            raise Refused("a part of a tensor that is not within it")
    if stub.properties.dtype not in DTYPES.values():
        raise Refused("a tensor of an unknown type")
    return TensorStorageMetadata(TensorProperties(dtype=stub.properties.dtype), size, chunks)


def _metadata(stub: Any, folder: Path) -> Any:
    """Metadata of stand-ins, whose every value is what it must be."""
    tensors: dict[str, Any] = {str(name): _tensor(value) for name, value in stub.state_dict_metadata.items()}
    paths = {str(k): tuple(map(str, v)) for k, v in (stub.planner_data or {}).items() if k in tensors}
    places = {}
    for index, info in stub.storage_data.items():
        name, offset = str(index.fqn), _sides(index.offset)
        if not FILES.fullmatch(str(info.relative_path)):
            raise Refused(f"a file {info.relative_path!r}, which is none of a checkpoint")
        chunk = next((c for c in tensors[name].chunks if c.offsets == offset), None)
        size = (folder / info.relative_path).stat().st_size
        if chunk is None or not 0 <= info.offset <= info.offset + info.length <= size:
            raise Refused(f"a place for {name} that is not there")
        if math.prod(chunk.sizes) * tensors[name].properties.dtype.itemsize > info.length:
            raise Refused(f"a part of {name} that is larger than its data")
        places[MetadataIndex(name, offset)] = _StorageInfo(str(info.relative_path), int(info.offset), int(info.length))
    return Metadata(tensors, planner_data=paths, storage_data=places, storage_meta=StorageMeta(), version="1.0.0")


def merged(parts: Mapping[str, Any]) -> Any:
    """`Metadata` of several folders, by folder, as one; each has some parts of all tensors.

    Raises:
        UserError: they do not make whole tensors.
    """
    tensors: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    places: dict[MetadataIndex, _StorageInfo] = {}
    for folder, part in parts.items():
        paths.update(part.planner_data)
        for name, stored in part.state_dict_metadata.items():
            into = tensors.setdefault(name, TensorStorageMetadata(stored.properties, stored.size, []))
            known = [c.offsets for c in into.chunks]
            into.chunks += [c for c in stored.chunks if c.offsets not in known and math.prod(c.sizes) > 0]
        for index, info in part.storage_data.items():
            at = MetadataIndex(index.fqn, index.offset)
            if at not in places and index.offset in [c.offsets for c in tensors[index.fqn].chunks]:
                places[at] = dataclasses.replace(info, relative_path=f"{folder}/{info.relative_path}")
    for name, stored in tensors.items():
        if sum(math.prod(c.sizes) for c in stored.chunks) != math.prod(stored.size):
            raise UserError(f"the ranks' shares of {name} do not make a whole")
    return Metadata(tensors, planner_data=paths, storage_data=places, storage_meta=StorageMeta(), version="1.0.0")


class OwnShare(DefaultSavePlanner):
    """Plans what one rank writes, which makes no whole tensors."""

    def create_global_plan(self, all_plans: Any) -> Any:
        """The plan as it is: that of this rank, whose metadata tell of its parts only."""
        from torch.distributed.checkpoint.default_planner import create_default_global_save_plan

        self.global_plan, metadata = create_default_global_save_plan(all_plans)
        self.metadata = dataclasses.replace(metadata, planner_data=self.mappings)
        return self.global_plan, self.metadata


class OnlyTensors(DefaultLoadPlanner):
    """Plans reading; what would be unpickled is refused."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        """Refuse an object that is no tensor.

        Raises:
            ValueError: always.
        """
        raise ValueError("an object that is no tensor")


class Reader(FileSystemReader):
    """Reads the files of a folder by metadata that have been looked at."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        super().__init__(folder)
        self.found = metadata

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The metadata that were given."""
        return self.found

    def _slice_file(self, file: Any, sinfo: _StorageInfo) -> Any:
        """As torch does it; a part that would unpack to more than it is, is refused."""
        file.seek(sinfo.offset)
        part = io.BytesIO(file.read(sinfo.length))
        with zipfile.ZipFile(part) as archive:
            if sum(e.file_size for e in archive.infolist()) > sinfo.length:
                raise ValueError("a part that unpacks to more than it is")
        part.seek(0)
        return part
