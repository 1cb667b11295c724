"""From inputs to result files: what is there already is kept, what cannot be read is passed over, and all of it is said."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError, expanded, first_line
from ..files import reading
from ..imaging.float_formats import FLOAT_WRITERS
from ..imaging.naming import natural_order
from ..imaging.storage import read_bytes, write_bytes
from ..imaging.video_codecs import CONTAINERS, USUAL, Encoding
from ..inference.self_ensemble import Ensemble
from ..load import Restorer, is_options, load
from ..runtime import checkpoint
from ..runtime.precision import Amp
from ..runtime.progress import progress
from . import clips
from .enhancer import Enhancer, Settings
from .inputs import STANDARD, Input, find, result_names
from .journal import Journal, refuse_to_overwrite
from .pictures import PICTURE_DEPTHS, PICTURES, Output, Picture, decode, encode, suffix_of

log = logging.getLogger("relume")


@dataclass(frozen=True)
class InferRequest:
    """What ``relume infer`` is asked for, see its arguments."""

    source: str
    target: str
    ending: str = ""
    format: str | None = None
    bits: int | None = None
    outscale: float | None = None
    tile: int | None = None
    overlap: int | None = None
    batch: int = 1
    dtype: Any = "off"
    compiled: bool = False
    ensemble: Ensemble | None = None
    force: bool = False
    param_key: str | None = None
    encoding: Encoding = USUAL

    @property
    def settings(self) -> Settings:
        """How the model is called."""
        dtype: Amp = self.dtype
        return Settings(self.tile, self.overlap, dtype, self.ensemble, self.compiled, self.outscale)


class Results:
    """The results of a request.

    Args:
        request: what is asked for.
        source: weights, or an option file that names them.
        opt: the option file of weights that do not describe themselves.
        device: device on which to compute.

    Raises:
        UserError: there is no input, no model, or the results would replace other files.
    """

    def __init__(self, request: InferRequest, source: str, opt: str | None, device: torch.device) -> None:
        self.request = request
        self.piped = request.target == STANDARD
        self.inputs = without_results(find(request.source), request)
        self.data = standard_input() if request.source == STANDARD else b""
        self._check_kinds()
        with quiet():
            restorer = load(source, opt, param_key=request.param_key, device=device)
        self.enhancer = Enhancer(restorer, request.settings)
        self.say(loaded(restorer, source, self.enhancer.scale))
        self.output = Output(self._format(), request.bits if request.bits in PICTURE_DEPTHS else None)
        self.targets = [] if self.piped else self._targets()
        self.failed: list[str] = []
        self.opaque = set[str]()  # formats of which it was said that they hold no opacity
        weights = source if not is_options(source) else restorer.model.networks["g"]
        digest = reading.checksum(expanded(str(weights))) if isinstance(weights, str) else repr(source)
        self.journal = Journal(
            self.folder if not self.piped else Path(),
            {**vars(request), "source": "", "target": "", "force": False, "batch": 0, "weights": digest, "opt": opt},
        )

    # ------------------------------------------------------------ names
    def _check_kinds(self) -> None:
        # What the format can hold.
        form, moving = self.request.format, [i.is_clip for i in self.inputs]
        if self.piped and (len(self.inputs) > 1 or any(moving)):
            raise UserError("-o -: standard output takes the result of one picture; give a folder")
        if form is not None and form not in (*PICTURES, *CONTAINERS):
            raise UserError(f"--format: '{form[1:]}' is not written here; png, jpg, tiff, webp, exr, hdr, mp4, ... are")
        if form in CONTAINERS and not all(moving):
            raise UserError(
                f"--format: {form[1:]} is for clips, and {self.inputs[moving.index(False)].path} is a picture"
            )
        if form in PICTURES and all(moving):
            raise UserError(
                f"--format: {form[1:]} is for pictures, and the input is a clip; {', '.join(CONTAINERS)} are"
            )
        # How clips are encoded, at which depth.
        written = [] if form in PICTURES else [form or clips.suffix_for(i.name) for i in self.inputs if i.is_clip]
        if self.is_file and written:
            written = [Path(self.request.target).suffix.lower()]
        clips.refuse_encoding(self.request.encoding, self.request.bits, written, all(moving))
        if self.request.bits == 32 and form is not None and form not in FLOAT_WRITERS:
            raise UserError(f"--depth 32: {form[1:]} holds no floats; {', '.join(f[1:] for f in FLOAT_WRITERS)} do")
        # A file for one result, a folder for several.
        target = Path(self.request.target)
        if not self.is_file and target.suffix.lower() in (*PICTURES, *CONTAINERS) and not target.is_dir():
            kinds = sorted({"clips" if moves else "pictures" for moves in moving})
            raise UserError(
                f"-o: {target} is the name of a file; for results that are {' and '.join(kinds)}, give a folder"
            )
        if self.is_file and form is not None and form != Path(self.request.target).suffix.lower():
            raise UserError(f"--format: {form[1:]} does not go with the name {self.request.target}")

    @property
    def is_file(self) -> bool:
        """Whether the target is the file of one result, not a folder."""
        suffix = Path(self.request.target).suffix.lower()
        kinds = (*CONTAINERS,) if self.inputs[0].is_clip else PICTURES
        return len(self.inputs) == 1 and suffix in kinds and not os.path.isdir(self.request.target)

    @property
    def folder(self) -> Path:
        """Where results go."""
        target = expanded(self.request.target)
        return target.parent if self.is_file else target

    def _format(self) -> str | None:
        if self.is_file and not self.inputs[0].is_clip:
            return Path(self.request.target).suffix.lower()
        if self.request.format in PICTURES:
            return self.request.format
        if self.enhancer.transfer is None:
            return ".tiff" if self.request.bits == 32 else None
        return ".exr" if importlib.util.find_spec("OpenEXR") else ".hdr"

    def _suffix(self, one: Input) -> str:
        if one.is_clip:
            return self.request.format if self.request.format in CONTAINERS else clips.suffix_for(one.name)
        if one.path == STANDARD:
            return self.output.suffix or suffix_of(self.data) or ".png"
        return self.output.suffix_for(one.name)

    def _targets(self) -> list[Path]:
        if self.is_file:
            return [expanded(self.request.target)]
        names = result_names(self.inputs, [self._suffix(i) for i in self.inputs], self.request.ending)
        targets = [self.folder / name for name in names]
        for one, target in zip(self.inputs, targets, strict=True):
            if os.path.exists(one.path) and target.exists() and os.path.samefile(one.path, target):
                raise UserError(f"{target}: its result would replace the input itself; give another -o, or --suffix")
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"-o: {self.folder} is a file, and there are {len(targets)} results; give a folder")
        there = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            why = "cannot be written to" if there.is_dir() else "is a file, not a folder"
            raise UserError(f"-o: {self.request.target}: {there} {why}")
        return targets

    # ------------------------------------------------------------ making them
    def make(self) -> None:
        """Make what is not there yet.

        Raises:
            UserError: results would replace other files, inputs could not be read, or there was nothing to do.
        """
        begun = time.perf_counter()
        if self.piped:
            picture = decode(self._bytes(self.inputs[0]), self.inputs[0].path)
            sys.stdout.buffer.write(self._encoded("standard output", picture, self.enhancer([picture])[0]))
            sys.stdout.buffer.flush()
            return
        waiting = self._waiting()
        tried = len(waiting)
        if waiting:
            self.journal.begun()
            if self.enhancer.takes is not None:
                waiting = self._make_sequences(waiting)
            for group in self._groups(progress("infer", waiting)):
                self._make(group)
        self._conclude(tried, time.perf_counter() - begun)

    def _waiting(self) -> list[tuple[Input, Path]]:
        """Inputs whose results are not there, and where those go."""
        pairs = list(zip(self.inputs, self.targets, strict=True))
        if self.request.force:
            return pairs
        there = [(i, t) for i, t in pairs if t.exists()]
        refuse_to_overwrite([t for i, t in there if not self.journal.wrote(t, i.path)])
        if there and len(there) == len(pairs) and self.journal.complete:
            raise UserError(f"{self.folder}: all {len(there)} results are there already; --force makes them again")
        if there:
            self.say(f"{len(there)} of {len(pairs)} results are there from an earlier run, and are kept")
        return [(i, t) for i, t in pairs if not t.exists()]

    def _groups(self, items: Iterator[tuple[Input, Path]]) -> Iterator[list[tuple[Input, Path, Picture | None]]]:
        """Pictures of one size together, as many as a batch has; clips alone."""
        group: list[tuple[Input, Path, Picture | None]] = []
        for one, target in items:
            if one.is_clip:
                yield [(one, target, None)]
                continue
            picture = self._picture(one)
            if picture is None:
                continue
            if group and (len(group) >= self.request.batch or not alike(group[0][2], picture)):
                yield group
                group = []
            group.append((one, target, picture))
            if self.request.batch == 1:
                yield group
                group = []
        if group:
            yield group

    def _make(self, group: list[tuple[Input, Path, Picture | None]]) -> None:
        one, target, picture = group[0]
        try:
            if picture is None:
                self._make_clip(one, target)
                return
            pictures = [p for _, _, p in group if p is not None]
            made = self.enhancer(pictures)
        except (UserError, RuntimeError) as e:
            for member, _, _ in group:
                self._fail(member, e)
            return
        for (member, path, own), image in zip(group, made, strict=True):
            assert own is not None
            self._write(member, path, own, image)

    def _make_sequences(self, waiting: list[tuple[Input, Path]]) -> list[tuple[Input, Path]]:
        """Make the pictures, those of a folder as frames of a clip in the order of their numbers; what is left are clips.

        Where a result is missing, its whole folder is computed, since frames depend on each other.
        """
        folders: dict[str, list[tuple[Input, Path]]] = {}
        missing = {os.path.dirname(one.path) for one, _ in waiting if not one.is_clip}
        for one, target in zip(self.inputs, self.targets, strict=True):
            if not one.is_clip and os.path.dirname(one.path) in missing:
                folders.setdefault(os.path.dirname(one.path), []).append((one, target))
        for members in folders.values():
            members.sort(key=lambda member: natural_order(member[0].path))
            frames = self._decoded(progress("infer", members))
            for _, scene in itertools.groupby(frames, lambda frame: frame[2].pixels.shape):
                self._make_frames(scene)
        return [(one, target) for one, target in waiting if one.is_clip]

    def _decoded(self, members: Iterator[tuple[Input, Path]]) -> Iterator[tuple[Input, Path, Picture]]:
        for one, target in members:
            if (picture := self._picture(one)) is not None:
                yield one, target, picture

    def _make_frames(self, frames: Iterator[tuple[Input, Path, Picture]]) -> None:
        """Results of pictures of one size, one after the other in time."""
        unwritten: deque[tuple[Input, Path, Picture]] = deque()

        def shown() -> Iterator[Picture]:
            for frame in frames:
                unwritten.append(frame)
                yield frame[2]

        try:
            for image in self.enhancer.clip(shown()):
                one, target, own = unwritten.popleft()
                self._write(one, target, own, image)
        except (UserError, RuntimeError) as e:
            for one, _, _ in [*unwritten, *frames]:
                self._fail(one, e)

    def _write(self, one: Input, target: Path, own: Picture, image: Any) -> None:
        try:
            data = self._encoded(str(target), own, image)
        except UserError as e:
            self._fail(one, e)
            return
        self.journal.note(target, one.path, len(data))
        try:
            write_bytes(target, data)
        except OSError as e:  # of the folder or the disk, so the next one would fail as well
            raise UserError(checkpoint.cannot_write(target, e)) from e

    def _make_clip(self, one: Input, target: Path) -> None:
        encoding = clips.with_depth(self.request.encoding, self.request.bits)
        notes = clips.enhance(self.enhancer, one.path, target, self.request.batch, encoding)
        self.journal.note(target, one.path, target.stat().st_size)
        for note in notes:
            self.say(f"{target}: {note}")

    def _picture(self, one: Input) -> Picture | None:
        """An input, decoded; None where it cannot be, which is said."""
        try:
            return decode(self._bytes(one), one.path)
        except UserError as e:
            self._fail(one, e)
            return None

    def _bytes(self, one: Input) -> bytes:
        return self.data if one.path == STANDARD else read_bytes(one.path)

    def _encoded(self, name: str, source: Picture, image: Any) -> bytes:
        like = self.output.of(source, radiance=self.enhancer.transfer is not None)
        if like.bits != 32 and source.bits == 32 and float(image.max()) > 1:
            log.warning("%s: values above 1 (up to %.3g) are clipped; floats keep them", name, float(image.max()))
        if source.alpha is not None and not like.holds_opacity and like.suffix not in self.opaque:
            self.opaque.add(like.suffix)
            log.warning("%s: its opacity is dropped, which %s does not hold", name, like.suffix)
        return encode(name if Path(name).suffix else f"{name}{like.suffix}", image, like)

    def _fail(self, one: Input, error: BaseException) -> None:
        said = first_line(error)
        if not isinstance(error, UserError):
            said = f"the network cannot take it ({said})"
        line = said if one.path in said else f"{one.path}: {said}"
        if len(self.inputs) == 1:
            raise UserError(line) from error
        self.failed.append(one.path)
        log.error("%s; it is passed over", line)

    def _conclude(self, tried: int, seconds: float) -> None:
        made = tried - len(self.failed)
        each = f", {seconds / made:.2f} s each" if made > 1 else ""
        self.say(f"{self.request.target}: {made} of {len(self.inputs)} made in {seconds:.1f} s{each}")
        if self.failed:
            count = f"{len(self.failed)} of {len(self.inputs)}"
            raise UserError(f"{count} inputs could not be used: {', '.join(self.failed[:10])}")
        self.journal.ended()

    def say(self, line: str) -> None:
        """Print a line where it does not mix with the result."""
        print(line, file=sys.stderr if self.piped else sys.stdout, flush=True)


def without_results(inputs: list[Input], request: InferRequest) -> list[Input]:
    """Inputs that are not in the output folder, where that is a folder inside the input's.

    Raises:
        UserError: nothing else is left.
    """
    out, source = expanded(request.target).resolve(), expanded(request.source)
    if request.target == STANDARD or not source.is_dir() or out == source.resolve():
        return inputs
    left = [i for i in inputs if out not in Path(i.path).resolve().parents]
    if not left:
        raise UserError(f"{request.source}: all that is in it are results in {request.target}")
    return left


def standard_input() -> bytes:
    """All of it.

    Raises:
        UserError: it is a terminal, or empty.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("-i -: standard input is a terminal; pipe a picture into it")
    data = sys.stdin.buffer.read()
    if not data:
        raise UserError("-i -: standard input is empty")
    return data


def alike(first: Picture | None, second: Picture) -> bool:
    """Whether two pictures can be computed together."""
    return first is not None and (first.pixels.shape, first.gray) == (second.pixels.shape, second.gray)


def loaded(restorer: Restorer, source: str, scale: int | None = None) -> str:
    """The line that says what was loaded."""
    network = restorer.model.networks["g"]
    count = sum(p.numel() for p in network.parameters())
    about = restorer.description.get("about") or type(network).__name__
    entry = restorer.model.loaded.get("g") or "weights without an entry"
    enlarges = "" if scale is None else f", scale {scale}"
    return f"{source}: {about}, {count:,} parameters{enlarges}, {entry}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside: what is logged besides warnings is not shown, as one line says it afterwards."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
