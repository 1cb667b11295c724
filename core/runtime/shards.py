"""Each rank's share of the optimizers' state, written by ``torch.distributed.checkpoint``: ``train.sharded_state``.

``training_states/5000.dcp`` holds a folder for each rank, and ``.metadata`` about all of them, in torch's own layout, so that
its tools read it. Metadata are a pickle, which is read here without importing or running anything (see `shards_format`).
Nothing but tensors is in these files; what else an optimizer keeps is in ``5000.state``.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import UserError, first_line
from ..files import temporary_name
from ..files.reading import checksum
from . import distributed
from .checkpoint import CannotWrite, Checkpoints, cannot_write, persist, sync_folder
from .parallel import sharded_owner

log = logging.getLogger("relume")
SHARDED = "sharded"
"""Entry of a training state: the optimizers whose tensors are in the folder beside it."""
DIGEST = 64
"""Characters of a SHA-256."""
Tensors = dict[str, Any]
"""``{"optim_g": {"state": {parameter: {name: tensor}}}}``."""


class Shares:
    """Writes the shares of all ranks, each rank its own. Ranks make it together, and each calls the same at the same time.

    Ranks tell each other when they are done in a process group of their own, so that it can happen in the background.
    """

    def __init__(self) -> None:
        self._group = distributed.hosts()

    def place(self, name: int | str) -> tuple[str, str]:
        """The name under which a checkpoint's shares are kept, and the one under which they are written until all are there."""
        final = f"{name}.dcp"
        return final, distributed.broadcast(temporary_name(Path(final)).name)

    def write(self, checkpoints: Checkpoints, place: tuple[str, str], tensors: Tensors) -> list[tuple[str, str]]:
        """Write this rank's share, and wait for the others'; the main rank gives all a name that counts.

        Returns:
            Checksum and name of each file, relative to the folder of states; on the main rank.

        Raises:
            UserError: this rank cannot write, or another could not, or the folder is not the same for all of them.
        """
        from .shards_format import METADATA

        # Each rank writes its share.
        final, name = place
        folder = checkpoints.states / name
        error, digests = None, ["", ""]
        try:
            digests = persist(lambda: written(folder / str(distributed.rank()), tensors))
        except UserError as e:
            error = e
        # All ranks learn whether all have written, and the first collects the checksums.
        every = self._exchanged("".join(d.ljust(DIGEST) for d in digests))
        if not all(text.strip() for text in every) or error is not None:
            if distributed.is_main():
                shutil.rmtree(folder, ignore_errors=True)
            raise error or UserError(f"{folder}: a rank could not write its share of the optimizer's state")
        if not distributed.is_main():
            return []
        # The description of the whole, and then the name that says that it is complete.
        sums = []
        for rank, text in enumerate(every):
            parts = sorted((folder / str(rank)).glob("*")) if (folder / str(rank)).is_dir() else []
            if not parts:
                raise UserError(
                    f"{folder}: rank {rank} has written elsewhere; with train.sharded_state, path.experiments_root must be "
                    "one folder for all nodes"
                )
            names = ("__0_0.distcp", METADATA)
            found = [text[i * DIGEST : (i + 1) * DIGEST].strip() for i in range(2)]
            sums += [(d, f"{final}/{rank}/{n}") for d, n in zip(found, names, strict=True) if d]
        persist(lambda: _described(folder, len(every)))
        sums.append((checksum(folder / METADATA), f"{final}/{METADATA}"))
        checkpoints.adopt(final, folder)
        return sums

    def _exchanged(self, text: str) -> list[str]:
        """The texts of all ranks, of one length."""
        own = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        every = [torch.empty_like(own) for _ in range(distributed.world_size())]
        try:
            dist.all_gather(every, own, group=self._group)
        except RuntimeError as e:
            raise UserError(f"another rank is gone while checkpoints were written ({first_line(e)})") from e
        return [bytes(t.tolist()).decode() for t in every]


def written(folder: Path, tensors: Tensors) -> list[str]:
    """Write a rank's share into a folder; the checksums of its data and of its metadata.

    Raises:
        CannotWrite: a full disk, no permission.
    """
    from torch.distributed import checkpoint as dcp

    from .shards_format import METADATA, OwnShare

    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        writer = dcp.FileSystemWriter(folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp.save(tensors, storage_writer=writer, planner=OwnShare(), no_dist=True)
        sync_folder(folder)
    except (OSError, RuntimeError, dcp.CheckpointException) as e:
        cause = next((c for c in _causes(e) if isinstance(c, OSError)), None)
        if cause is None:
            raise
        raise CannotWrite(cannot_write(folder, cause), False) from e
    return [checksum(path) if path.is_file() else "" for path in (folder / "__0_0.distcp", folder / METADATA)]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came from, and what torch has collected in it."""
    yield error
    for inner in getattr(error, "failures", {}).values():
        yield inner[0] if isinstance(inner, tuple) else inner
    if error.__cause__ is not None or error.__context__ is not None:
        yield from _causes(error.__cause__ or error.__context__)  # type: ignore[arg-type]


def _described(folder: Path, ranks: int) -> None:
    """Write what torch wants to know about a folder with a share of each rank."""
    from .shards_format import METADATA, merged, read_metadata

    try:
        found = merged({str(rank): read_metadata(folder / str(rank) / METADATA) for rank in range(ranks)})
        aside = temporary_name(folder / METADATA)
        with aside.open("xb") as file:
            pickle.dump(found, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / METADATA)
        sync_folder(folder)
    except OSError as e:
        raise CannotWrite(cannot_write(folder, e), False) from e


# ------------------------------------------------------------------ optimizers
def divided(
    networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> tuple[Tensors, dict[str, dict[str, Any]]]:
    """The state of all sharded optimizers: tensors as ranks hold them, and per optimizer everything else.

    Tensors that all ranks have whole are the main rank's to write.
    """
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
    from torch.distributed.tensor import DTensor

    tensors: Tensors = {}
    others: dict[str, dict[str, Any]] = {}
    for key, optimizer in optimizers.items():
        network = sharded_owner(networks, optimizer)
        if network is None:
            continue
        whole: dict[str, Any] = dict(get_optimizer_state_dict(network, optimizer))
        mine = {
            name: {k: v for k, v in entries.items() if isinstance(v, DTensor) or _is_main_tensor(v)}
            for name, entries in whole["state"].items()
        }
        rest = {n: {k: v for k, v in e.items() if not isinstance(v, Tensor)} for n, e in whole["state"].items()}
        tensors[f"optim_{key}"] = {"state": {n: e for n, e in mine.items() if e}}
        others[key] = {"state": {n: e for n, e in rest.items() if e}, "param_groups": whole["param_groups"]}
    return tensors, others


def _is_main_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and distributed.is_main()


def completed(
    state: Mapping[str, Any],
    path: Path,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> dict[str, Any]:
    """A training state with the tensors from the folder beside it, as parameters are laid out now: split over ranks, or whole.

    Args:
        path: path of the state.

    Raises:
        UserError: the folder cannot be read, or is of another network.
    """
    folder = path.with_suffix(".dcp")
    filled = dict(state["optimizers"])
    for key in state.get(SHARDED, ()):
        if key in optimizers and key in filled:
            found = _read(folder, key, sharded_owner(networks, optimizers[key]))
            rest = filled[key]["state"]
            every = {n: {**rest.get(n, {}), **found.get(n, {})} for n in dict.fromkeys((*found, *rest))}
            filled[key] = {**filled[key], "state": every}
    return {**state, "optimizers": filled}


def _read(folder: Path, key: str, network: nn.Module | None) -> dict[str, dict[str, Tensor]]:
    """What an optimizer remembers, by parameter and name."""
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    from .shards_format import METADATA, OnlyTensors, Reader, read_metadata

    metadata = read_metadata(folder / METADATA)
    layouts: dict[str, Any] = dict(get_model_state_dict(network)) if network is not None else {}
    wanted: dict[str, dict[str, Tensor]] = {}
    for name, place in metadata.planner_data.items():
        if place[:2] == (f"optim_{key}", "state") and len(place) == 4:
            stored = metadata.state_dict_metadata[name]
            dtype = stored.properties.dtype
            alike = place[2] in layouts and layouts[place[2]].shape == stored.size
            empty = torch.zeros_like(layouts[place[2]], dtype=dtype) if alike else torch.zeros(stored.size, dtype=dtype)
            wanted.setdefault(place[2], {})[place[3]] = empty
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            into = {f"optim_{key}": {"state": wanted}}
            dcp.load(into, storage_reader=Reader(folder, metadata), planner=OnlyTensors(), no_dist=True)
    except (dcp.CheckpointException, OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as e:
        cause = [c for c in _causes(e) if c is not e] or [e]
        raise UserError(f"{folder}: cannot be read, it is torn or of another network ({first_line(cause[0])})") from e
    return wanted
