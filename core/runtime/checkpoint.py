"""Checkpoints that survive: written to a temporary file, synced, renamed; checksummed; loaded without running code.

A checkpoint of iteration 5000 is the files ``models/net_<key>_5000.pth`` and ``training_states/5000.state``, and counts only
once ``training_states/5000.sha256`` lists their checksums: that file is written last, and ``sha256sum -c`` understands it.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import torch
from torch import nn

from ..errors import UserError, did_you_mean, expanded, first_line, printable, require, unreadable
from ..errors.paths import NOT_THERE, kind_of
from ..files import is_temporary, reading, replacing, temporary_name
from ..files.reading import checksum, checksum_of
from .strange import refuse_bomb, refuse_exported, refuse_nesting
from .weights import State, of_network, refuse_nonfinite, refuse_other_kinds

log = logging.getLogger("relume")
T = TypeVar("T")
BEST = "best"
"""Name of the checkpoint with the best scores."""
INTERRUPTED = "interrupted"
"""Word in place of an iteration: the checkpoint that an error left, see `Checkpoints.save_interrupted`."""
MOST_BYTES = 1 << 20
"""Most bytes of a manifest."""
OURS = re.compile(r"(?:\.\./models/|[a-z0-9]{1,20}\.dcp/(?:\d{1,6}/)?)?[^/\0]{1,200}")
"""Files that a manifest names, relative to its folder."""

PAUSES = (1.0, 5.0)
"""Seconds before what could not be written is tried again: file systems on a network have such moments."""
LASTING = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)
"""Errors that pausing does not mend."""


class CannotWrite(UserError):
    """A file cannot be written; ``lasting`` says whether that may change by itself."""

    def __init__(self, message: str, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


def persist(write: Callable[[], T]) -> T:
    """Do what writes files, and again after each of `PAUSES` if it cannot.

    Raises:
        CannotWrite: it still could not.
    """
    for pause in PAUSES:
        try:
            return write()
        except CannotWrite as e:
            if e.lasting:
                raise
            log.warning("%s; trying again in %g s", e, pause)
            time.sleep(pause)
    return write()


# -------------------------------------------------------------------- files
def write_atomically(path: Path, write: Any) -> str:
    """Have ``write(file)`` fill a temporary file beside `path`, sync it to disk, rename it; the SHA-256 of its bytes.

    A process that reads `path` at any time sees the old content or the new, never a part.

    Raises:
        CannotWrite: a full disk, no permission.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = checksum_of(file)
        sync_folder(path.parent)
    except OSError as e:
        raise CannotWrite(cannot_write(path, e), e.errno in LASTING) from e
    return digest


def cannot_write(path: Path, error: OSError) -> str:
    """The line that says so, and how much room there is where that is the cause."""
    room = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = next(p for p in (path.parent, *path.parents) if p.exists())
        room = f" ({shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free in {folder})"
    in_the_way = next((p for p in path.parents if p.exists() and not p.is_dir()), None)
    why = f"{in_the_way} is {kind_of(in_the_way)}, not a folder" if in_the_way else error.strerror or str(error)
    return f"{path}: cannot be written: {why}{room}"


class _Remembering:
    """A file for torch, which says "unexpected pos" where writing failed for a reason that the file knew."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> Any:
        try:
            return self.file.write(data)
        except OSError as e:
            self.error = e
            raise

    def flush(self) -> None:
        self.file.flush()


def sync_folder(folder: Path) -> None:
    """Make a rename durable: the directory's own entry must reach the disk too."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders; the file itself is synced
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems cannot sync folders, and need not
        pass
    finally:
        os.close(handle)


def save(path: Path, state: Any) -> str:
    """Save `state` with ``torch.save``, atomically; the SHA-256 of the file.

    Raises:
        OSError: the file cannot be written, see `write_atomically`.
    """

    def write(file: Any) -> None:
        remembering = _Remembering(file)
        try:
            torch.save(state, cast(IO[bytes], remembering))
        except RuntimeError:
            if remembering.error is not None:
                raise remembering.error from None
            raise

    return write_atomically(path, write)


def load(path: str | Path, map_location: str | torch.device = "cpu") -> Any:
    """Load a ``.pth``, ``.state`` or ``.safetensors`` file without ever running code from it.

    Raises:
        UserError: no such file, not a checkpoint, torn, or one that only unpickling arbitrary code could read.
    """
    path = expanded(path)
    if (why := unreadable(path)) is not None:
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() and why == NOT_THERE else []
        raise UserError(f"{path}: {why}.{did_you_mean(path.name, siblings, files=True)}")
    try:
        if path.suffix == ".safetensors":
            return require("safetensors.torch", str(path)).load_file(str(path), device=str(map_location))
        refuse_exported(path)
        refuse_bomb(path)
        found = torch.load(path, map_location=map_location, weights_only=True)
        refuse_nesting(found, path)
        return found
    except pickle.UnpicklingError as e:
        named = re.search(r"GLOBAL (\S+)", str(e))
        raise UserError(
            f"{path}: not a plain weights file: it holds Python objects{f' ({named[1]})' if named else ''}, and Relume never "
            f"runs code from a checkpoint. Take its weights out with: relume convert {path} OUT.pth; or save "
            "torch.save(model.state_dict(), ...) where it was made"
        ) from e
    except UserError:
        raise
    except Exception as e:  # damage makes torch and pickle trip over whatever they find
        raise UserError(f"{path}: cannot be read, it is torn or not a checkpoint ({first_line(e)})") from e


# -------------------------------------------------------------------- a run's checkpoints
class Checkpoints:
    """The checkpoints of one experiment folder.

    Args:
        folder: ``experiments/<name>``.
        keep: how many of the newest to keep; None keeps all. ``net_*_best.pth`` and ``net_*_latest.pth`` always stay.
    """

    def __init__(self, folder: Path, keep: int | None = None) -> None:
        self.models = folder / "models"
        self.states = folder / "training_states"
        self.keep = keep
        self._swept = False

    def iterations(self) -> list[int]:
        """Iterations with a complete checkpoint, oldest first (complete by name: `verify` reads them)."""
        found = (re.fullmatch(r"(\d+)\.sha256", p.name) for p in self.states.glob("*.sha256"))
        return sorted(int(m.group(1)) for m in found if m)

    def has(self, iteration: int) -> bool:
        """Whether there is a complete checkpoint of `iteration`, by its name."""
        return self._manifest(iteration).is_file()

    def save(
        self, iteration: int, networks: Mapping[str, State], state: State, shares: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Write the checkpoint of `iteration`; older ones are pruned only once it is complete. Errors are `persist`'s.

        Args:
            networks: content of ``net_<key>_<iteration>.pth`` for each key, ``{"params": ..., "params_ema": ...}``.
            state: content of ``<iteration>.state``.
            shares: checksum and name of each file of it that is there already (see `shards`).
        """
        persist(lambda: self._write(iteration, networks, state, shares))
        for key in networks:
            link(self.models / f"net_{key}_{iteration}.pth", self.models / f"net_{key}_latest.pth")
        self._prune()
        self._remove(INTERRUPTED)

    def save_interrupted(self, networks: Mapping[str, State], state: State) -> Path:
        """Write what an error would lose as a checkpoint of its own; the path of its state.

        It counts until the next checkpoint is written.
        """
        persist(lambda: self._write(INTERRUPTED, networks, state))
        return self.state_path(INTERRUPTED)

    def _write(
        self, name: int | str, networks: Mapping[str, State], state: State, shares: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.sweep()
        sums = {}
        for key, weights in networks.items():
            path = self.network_path(key, name)
            sums[path] = save(path, weights)
        path = self.state_path(name)
        sums[path] = save(path, state)
        entries = [(digest, os.path.relpath(p, self.states)) for p, digest in sums.items()]
        self._write_manifest(name, [*entries, *shares])

    def adopt(self, name: str, folder: Path) -> None:
        """Give a folder of the states, whose files are all on disk, the name that it has in a checkpoint.

        A folder of that name goes, and the checkpoint that it was part of counts no longer until the new one is written.

        Raises:
            CannotWrite: no permission, and the like.
        """
        target = self.states / name
        try:
            self._manifest(target.stem).unlink(missing_ok=True)
            if target.exists():
                shutil.rmtree(target)
            folder.replace(target)
        except OSError as e:
            raise CannotWrite(cannot_write(target, e), e.errno in LASTING) from e
        sync_folder(self.states)

    def revise(self, iteration: int, state: State) -> None:
        """Replace the state of a complete checkpoint, which can be trusted at every moment. Errors are `persist`'s.

        In between, the manifest lists the checksums of the old file and of the new one.
        """
        persist(lambda: self._revise(iteration, state))

    def _revise(self, iteration: int, state: State) -> None:
        path = self.state_path(iteration)
        aside = temporary_name(path)
        digest = save(aside, state)
        entries = self._entries(iteration)
        self._write_manifest(iteration, [*entries, (digest, path.name)])
        aside.replace(path)
        sync_folder(self.states)
        self._write_manifest(iteration, [*((d, n) for d, n in entries if n != path.name), (digest, path.name)])

    def _write_manifest(self, name: int | str, entries: Sequence[tuple[str, str]]) -> None:
        lines = "".join(f"{digest}  {file}\n" for digest, file in entries)
        write_atomically(self._manifest(name), lambda file: file.write(lines.encode()))

    def _manifest(self, name: int | str) -> Path:
        return self.states / f"{name}.sha256"

    def _entries(self, name: int | str) -> list[tuple[str, str]]:
        """(checksum, file) of a manifest's lines, ``("", line)`` for what is no such line."""
        lines = reading.text(self._manifest(name), MOST_BYTES).splitlines()
        parts = [line.partition("  ") for line in lines]
        return [(digest if gap else "", file if gap else digest) for digest, gap, file in parts]

    def save_best(
        self, networks: Mapping[str, State], state: State | None = None, shares: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Replace ``net_<key>_best.pth``, and ``best.state``, from which a training can go on, where a state is given."""
        if state is not None:
            self._write(BEST, networks, state, shares)
            return
        self._manifest(BEST).unlink(
            missing_ok=True
        )  # the state that a run before this one has kept is of other weights
        self.state_path(BEST).unlink(missing_ok=True)
        shutil.rmtree(self.state_path(BEST).with_suffix(".dcp"), ignore_errors=True)
        for key, weights in networks.items():
            persist(partial(save, self.models / f"net_{key}_best.pth", weights))

    def verify(self, iteration: int | str) -> str | None:
        """Why the checkpoint of `iteration` cannot be trusted, or None when every checksum is right."""
        manifest = self._manifest(iteration)
        if not manifest.is_file():
            return f"{manifest} is missing: the checkpoint was never completed"
        try:
            entries = self._entries(iteration)
        except OSError:
            entries = []
        if not entries or not all(digest for digest, _ in entries):
            return f"{manifest} is torn"
        for name in dict.fromkeys(file for _, file in entries):
            path = self.states / name
            if not OURS.fullmatch(name):
                return f"{manifest} names {printable(name)!r}, which is no file of a checkpoint"
            if not path.is_file():
                return f"{path} is missing"
            if checksum(path) not in [digest for digest, file in entries if file == name]:
                return f"{path} is damaged (its SHA-256 is not the one written down)"
        return None

    def interrupted(self) -> int | None:
        """After which iteration `save_interrupted` was called last; None without a good checkpoint of that kind."""
        if not self._manifest(INTERRUPTED).is_file() or self.verify(INTERRUPTED) is not None:
            return None
        return int(load(self.state_path(INTERRUPTED))["iter"])

    def newest_good(self) -> tuple[int | None, list[str]]:
        """The newest checkpoint whose checksums are right, and what is wrong with the newer ones."""
        problems: list[str] = []
        for iteration in reversed(self.iterations()):
            problem = self.verify(iteration)
            if problem is None:
                return iteration, problems
            problems.append(problem)
        return None, problems

    def state_path(self, iteration: int | str) -> Path:
        """``training_states/<iteration>.state``; or of `INTERRUPTED`."""
        return self.states / f"{iteration}.state"

    def network_path(self, key: str, which: int | str) -> Path:
        """``models/net_<key>_<which>.pth``, where `which` is an iteration, ``latest``, ``best`` or `INTERRUPTED`."""
        return self.models / f"net_{key}_{which}.pth"

    def forget_after(self, iteration: int) -> None:
        """Drop checkpoints newer than `iteration`: a run that resumes there will write them anew."""
        for newer in self.iterations():
            if newer > iteration:
                self._remove(newer)

    def _prune(self) -> None:
        if self.keep is not None:
            for old in self.iterations()[: -self.keep]:
                self._remove(old)

    def _remove(self, iteration: int | str) -> None:
        # The manifest goes first: without it the rest no longer counts, whenever we are interrupted.
        self._manifest(iteration).unlink(missing_ok=True)
        self.state_path(iteration).unlink(missing_ok=True)
        shutil.rmtree(self.state_path(iteration).with_suffix(".dcp"), ignore_errors=True)
        for path in self.models.glob(f"net_*_{iteration}.pth"):
            path.unlink()

    def sweep(self) -> None:
        """Remove temporary files of a process that was killed while writing; the first time those of pictures and records too.

        So while pictures are being written, it must have been called before. Links are neither followed nor removed.
        """
        folders = (self.models, self.states) if self._swept else (self.models.parent,)
        deep, self._swept = not self._swept, True
        for folder in folders:
            for place, below, names in os.walk(folder):  # which does not follow links
                for path in (Path(place, name) for name in below if deep):
                    if path.suffixes[:1] == [".dcp"] and is_temporary(path, folder=True):
                        shutil.rmtree(path, ignore_errors=True)
                below[:] = below if deep else []
                for path in (Path(place, name) for name in names) if not Path(place).is_symlink() else ():
                    if is_temporary(path):
                        path.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Make `target` another name of `source`'s file, atomically; a copy where the file system has no links."""
    temporary = temporary_name(target)
    try:
        os.link(source, temporary)
        temporary.replace(target)
    except OSError:
        write_atomically(target, lambda file: file.write(source.read_bytes()))
    finally:
        temporary.unlink(missing_ok=True)


# -------------------------------------------------------------------- weights
class DoesNotFit(UserError):
    """Weights are of another network."""


def load_weights(
    network: nn.Module,
    path: str | Path,
    param_key: str | None = "params",
    strict: bool = True,
    grow: bool = False,
    content: Mapping[str, Any] | None = None,
) -> list[str]:
    """Load pretrained weights into a network.

    Args:
        param_key: entry of the file; None or a flat file takes what is there.
        strict: refuse differences; otherwise load what matches in name and shape.
        grow: the file may be of a smaller network: see `grown`. What it lacks stays as initialised.
        content: content of the file, where it has been read already.

    Returns:
        What was not loaded, one line per difference: with `strict` nothing, or with `grow` too, what the file lacks.

    Raises:
        UserError: the file cannot be read, or holds what cannot be weights; or differs and `strict` is set (`DoesNotFit`).
    """
    own = network.state_dict()
    state = of_network(load(path) if content is None else content, param_key, own, path)
    refuse_other_kinds(state, own, path)
    refuse_nonfinite(state, path, own)
    absent = [f"missing {k}" for k in own if k not in state]
    if grow:
        state = {**state, **{k: grown(v, own[k].shape) for k, v in state.items() if k in own}}
        if len(absent) == len(own):
            raise UserError(f"{path}: holds nothing of {type(network).__name__}: no name is known to it")
        state.update({k: v for k, v in own.items() if k not in state})
    problems = [] if grow else absent
    problems += [f"unexpected {k}" for k in state if k not in own]
    shaped = [k for k in own if k in state and own[k].shape != state[k].shape]
    problems += [f"{k}: {tuple(state[k].shape)} in the file, {tuple(own[k].shape)} in the network" for k in shaped]
    if strict and problems:
        # A network may translate old names itself in its load_state_dict hooks; only then is the list above too strict.
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError:
            more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise DoesNotFit(
                f"{path}: does not fit {type(network).__name__}: {'; '.join(problems[:3])}{more}"
            ) from None
        return absent if grow else []
    network.load_state_dict({k: v for k, v in state.items() if k not in shaped}, strict=False)
    return [*absent, *problems] if grow else problems


def grown(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """`weight` at the beginning of zeros of `shape`, if that is larger along exactly one dimension; else `weight` itself.

    A layer with new input channels after its old ones then computes what it did before, whatever they bring.
    """
    if weight.dim() != len(shape):
        return weight
    larger = [i for i, (n, m) in enumerate(zip(weight.shape, shape, strict=True)) if n != m]
    if len(larger) != 1 or weight.shape[larger[0]] > shape[larger[0]]:
        return weight
    wide = weight.new_zeros(shape)
    wide.narrow(larger[0], 0, weight.shape[larger[0]]).copy_(weight)
    return wide
