"""What ranks say to each other: JSON and raw numbers, which cannot run code where they arrive, as a pickle could."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, in_one_line

C = TypeVar("C", bound=type)
KIND = "$"
"""The key that marks what JSON has no word for."""
_classes: dict[str, type] = {}


def sendable(cls: C) -> C:
    """Declare that instances of a dataclass may travel between ranks, field by field."""
    _classes[cls.__qualname__] = cls
    return cls


def pack(value: Any) -> bytes:
    """A message of None, numbers, strings, lists, tuples, dicts, paths, bytes, tensors, arrays, errors and `sendable` classes.

    Of an error, its text in one line arrives, and its exit code.

    Raises:
        TypeError: the value has something else in it.
    """
    raw: list[bytes] = []
    text = json.dumps(_described(value, raw)).encode()
    return b"".join([struct.pack("<Q", len(text)), text, *raw])


def unpack(message: bytes) -> Any:
    """The value of a message. Tensors arrive on the CPU.

    Raises:
        ValueError: that is no message.
    """
    view = memoryview(message)
    try:
        (length,) = struct.unpack_from("<Q", view)
        return _restored(json.loads(bytes(view[8 : 8 + length])), view[8 + length :])
    except (struct.error, KeyError, TypeError, AttributeError, UnicodeDecodeError, RuntimeError) as e:
        raise ValueError(f"not a message of another rank ({type(e).__name__})") from e


def _described(value: Any, raw: list[bytes]) -> Any:
    """What JSON can say of a value; what is left goes to `raw`."""
    # JSON's own types, then those that it lacks, with tensors and bytes beside the text.
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list):
        return [_described(v, raw) for v in value]
    if isinstance(value, tuple):
        return {KIND: "tuple", "of": [_described(v, raw) for v in value]}
    if isinstance(value, dict):
        return {KIND: "dict", "of": [[_described(k, raw), _described(v, raw)] for k, v in value.items()]}
    if isinstance(value, PurePath):
        return {KIND: "path", "of": str(value)}
    if isinstance(value, BaseException):
        return {KIND: "error", "of": in_one_line(value), "code": value.code if isinstance(value, UserError) else 1}
    if isinstance(value, bytes):
        return {KIND: "bytes", **_appended(value, raw)}
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        dtype = str(value.dtype).removeprefix("torch.")
        return {KIND: "tensor", "dtype": dtype, "shape": list(value.shape), **_appended(flat.numpy().tobytes(), raw)}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return {KIND: "array", "dtype": value.dtype.str, "shape": list(value.shape), **_appended(value.tobytes(), raw)}
    if dataclasses.is_dataclass(value) and _classes.get(type(value).__qualname__) is type(value):
        fields = {f.name: _described(getattr(value, f.name), raw) for f in dataclasses.fields(value)}
        return {KIND: "class", "name": type(value).__qualname__, "of": fields}
    raise TypeError(f"{type(value).__name__} cannot be sent to other ranks")


def _appended(data: bytes, raw: list[bytes]) -> dict[str, int]:
    begin = sum(map(len, raw))
    raw.append(data)
    return {"at": begin, "bytes": len(data)}


def _restored(value: Any, raw: memoryview) -> Any:
    if isinstance(value, list):
        return [_restored(v, raw) for v in value]
    if isinstance(value, dict):
        return _RESTORED[value[KIND]](value, raw)
    return value


def _piece(value: dict[str, Any], raw: memoryview) -> bytearray:
    data = bytearray(raw[value["at"] : value["at"] + value["bytes"]])
    if len(data) != value["bytes"]:
        raise KeyError("bytes")
    return data


def _tensor(value: dict[str, Any], raw: memoryview) -> Tensor:
    dtype = getattr(torch, value["dtype"])
    data = _piece(value, raw)
    flat = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    return flat.view(dtype).reshape(value["shape"])


def _array(value: dict[str, Any], raw: memoryview) -> np.ndarray:
    dtype = np.dtype(value["dtype"])
    values: np.ndarray = np.frombuffer(_piece(value, raw), dtype).reshape(value["shape"])
    return values


def _error(value: dict[str, Any], raw: memoryview) -> UserError:
    error = UserError(str(value["of"]))
    error.code = int(value["code"])
    return error


_RESTORED: dict[str, Callable[[dict[str, Any], memoryview], Any]] = {
    "tuple": lambda value, raw: tuple(_restored(value["of"], raw)),
    "dict": lambda value, raw: {_restored(k, raw): _restored(v, raw) for k, v in value["of"]},
    "path": lambda value, raw: PurePath(value["of"]),
    "error": _error,
    "bytes": lambda value, raw: bytes(_piece(value, raw)),
    "tensor": _tensor,
    "array": _array,
    "class": lambda value, raw: _classes[value["name"]](**{k: _restored(v, raw) for k, v in value["of"].items()}),
}
