"""A trained model on pictures of any size: what the memory holds at once, in tiles that are blended; batches; ensembles."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.camera import TYPICAL_GAMMA, Curve, estimated_gain
from ...datasets.frame_indices import FramePadding, generate_frame_indices
from ..errors import UserError
from ..imaging.image_io import LARGEST, to_float
from ..imaging.transfer import TRANSFERS, Transfer, radiance
from ..inference import locality, memory
from ..inference.network import channels_taken, network_trait
from ..inference.scenes import Scenes
from ..inference.self_ensemble import Ensemble, self_ensemble
from ..inference.tiling import size_multiple
from ..inference.windows import carried, lengthened, streamed
from ..load import Restorer
from ..models.base import Model
from ..models.generation.model import GenerationModel
from ..models.interpolation import InterpolationModel
from ..models.video import VideoModel
from ..runtime.precision import Amp, autocast, usable
from .pictures import Picture, resized

log = logging.getLogger("relume")
WINDOW = 30
"""Frames that a recurrent network is given at a time, where its model does not say it."""
PROBE = 64
"""Side of the picture with which a network is asked how many channels it takes, and how much it enlarges."""
ELSEWHERE = {InterpolationModel: "interpolates frames: relume interpolate", GenerationModel: "generates: relume sample"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is called.

    Args:
        tile: side of the tiles; 0 for whole pictures; None for what memory holds.
        overlap: overlap of tiles; found when None.
        dtype: what is computed in: ``off`` is float32.
        ensemble: self-ensemble whose answers are averaged; the model's own when None.
        compiled: whether torch.compile compiles the network.
        outscale: size of the result / size of the picture; the network's when None.
    """

    tile: int | None = None
    overlap: int | None = None
    dtype: Amp = "off"
    ensemble: Ensemble | None = None
    compiled: bool = False
    outscale: float | None = None


class Enhancer:
    """Pictures in, pictures out.

    Args:
        restorer: the model, see `core.load`.
        settings: how to call it.

    Attributes:
        scale: size of the network's output / size of its input.
        takes: frames that a network of clips takes, 0 for any number; None of a network of pictures.

    Raises:
        UserError: it is a model of another task, or its network takes something else than pictures.
    """

    def __init__(self, restorer: Restorer, settings: Settings = Settings()) -> None:
        self.restorer, self.settings = restorer, settings
        self.model: Any = restorer.model
        refuse_other_tasks(self.model)
        self.network = self.model.networks["g"]
        self.takes: int | None = network_trait(self.network, "takes_frames")
        self.device = next(self.network.parameters()).device
        parameters = sum(p.numel() for p in self.network.parameters())
        if (dtype := usable(settings.dtype, self.device, parameters)) != settings.dtype:
            log.warning("--dtype: %s is tens of times slower on a CPU; computing in %s", settings.dtype, dtype)
            self.settings = dataclasses.replace(settings, dtype=dtype)
        self.multiple = size_multiple(self.network)
        self.transfer = transfer_of(restorer.description)
        self.own = self.model.inference
        self.tile: int | None = settings.tile or None
        self.overlap: int | None = settings.overlap
        self.short = False  # of memory
        self.needs: dict[int, memory.Need] = {}
        if settings.ensemble is not None and hasattr(self.model, "self_ensemble"):
            self.model.self_ensemble = "none"
        self.channels, self.scale = self._probe()
        if settings.compiled:
            self._need(1)  # which cannot be measured of what is compiled
            self.network.compile()

    def _probe(self) -> tuple[int, int]:
        side = -(-PROBE // self.multiple) * self.multiple
        for channels in (3, 1):
            try:
                made = self._call(torch.full((1, channels, side, side), 0.5), None, 0)
            except (RuntimeError, UserError) as e:
                taken = channels_taken(e)
                if taken is None:
                    raise
                if taken not in (1, 3) or channels == 1:
                    raise UserError(f"the network takes {taken} channels; pictures have 3, or 1") from e
                continue
            return channels, made.shape[-1] // side
        raise UserError("the network takes neither 3 channels nor 1")

    # ------------------------------------------------------------ pictures
    def __call__(self, pictures: list[Picture]) -> list[np.ndarray]:
        """Results of pictures of one size: (H, W, 3) float32, white at 1, or radiance.

        Raises:
            UserError: memory is not enough, or the network cannot take them.
        """
        inputs, factors = zip(*(self._prepared(p) for p in pictures), strict=True)
        batch = torch.from_numpy(inputs[0][None] if len(inputs) == 1 else np.stack(inputs)).permute(0, 3, 1, 2)
        if self.channels == 1:
            gray = all(p.gray for p in pictures)
            batch = batch[:, :1] if gray else batch.reshape(-1, 1, *batch.shape[-2:])
        made = self.run(batch)
        if self.channels == 1 or made.shape[1] == 1:
            colours = made.reshape(len(pictures), -1, *made.shape[-2:])
            made = colours.expand(-1, 3, -1, -1) if colours.shape[1] == 1 else colours
        if made.shape[1] != 3:
            raise UserError(f"the network makes images of {made.shape[1]} channels; pictures have 3, or 1")
        return [self._finished(image, factor) for image, factor in zip(made, factors, strict=True)]

    def clip(self, pictures: Iterable[Picture]) -> Iterator[np.ndarray]:
        """Results of the frames of a clip, in order, from a network of clips: in windows of time, of which none crosses a cut.

        Frames are taken one after the other, and few are held; see `inference.windows.streamed`.
        """
        prepared = (torch.from_numpy(self._prepared(p)[0]).permute(2, 0, 1)[None, None] for p in pictures)
        first = next(prepared, None)
        if first is None:
            return
        scenes = Scenes(itertools.chain([first], prepared), lambda frame: frame)
        window, overlap = self.model.window_frames or WINDOW, self.model.window_overlap
        run = lengthened(self.run, network_trait(self.model.networks["g"], "least_frames"))
        if self.takes:
            overlap, run = self.takes - 1, self._each
            window = max(window, 2 * self.takes)
        windows = (scenes, window, min(overlap, window - 1), lambda before, after: scenes.begins)
        carries = self._carries(first, window)
        for part in carried(self._continued, *windows) if carries else streamed(run, *windows):
            yield from (self._finished(image, 1.0) for image in part[0])

    def _carries(self, frame: Tensor, window: int) -> bool:
        """Whether the network's state goes from window to window: it has one, and so many frames fit into memory as a whole."""
        if self.settings.ensemble is not None or not isinstance(self.model, VideoModel) or not self.model.carries:
            return False
        return self._tile(frame.expand(-1, window, -1, -1, -1)) is None

    @torch.no_grad()
    def _continued(self, part: Tensor, state: Any, count: int) -> tuple[Tensor, Any]:
        try:
            with autocast(self.device, self.settings.dtype):
                return self.restorer.continued(part, state, count)
        except (RuntimeError, MemoryError) as e:
            if not memory.is_out_of_memory(e):
                raise
            height, width = part.shape[-2:]
            raise UserError(
                f"memory was not enough for {part.shape[1]} frames of {width} x {height}; --tile {max(height, width) // 2} "
                "computes them in tiles"
            ) from e

    def _each(self, part: Tensor) -> Tensor:
        """Every frame of (1, T, C, H, W) restored from its neighbours, those beyond the ends replaced."""
        count, takes = part.shape[1], self.takes or 1
        padding: FramePadding = "reflection_circle" if count >= takes else "replicate"
        around = (generate_frame_indices(i, count, takes, padding) for i in range(count))
        return torch.stack([self.run(part[:, numbers]) for numbers in around], 1)

    def _prepared(self, picture: Picture) -> tuple[np.ndarray, float]:
        """(H, W, 3) float32 as the network takes it, and what its result is to be multiplied by."""
        if self.transfer is not None:
            linear = picture.pixels
            if picture.bits != 32:
                ldr = to_float(picture.pixels)
                gain = estimated_gain(ldr, TYPICAL_GAMMA)
                linear = Curve(gain, TYPICAL_GAMMA).linearise(ldr, self.transfer.peak)
            return np.ascontiguousarray(self.transfer.encode(np.maximum(linear, 0)), np.float32), 1.0
        image = picture.pixels.astype(np.float32)
        if picture.bits != 32:
            image /= np.float32(LARGEST[picture.pixels.dtype])
            return image, 1.0
        factor = max(float(image.max()), 1.0)
        return image / np.float32(factor), factor

    def _finished(self, image: Tensor, factor: float) -> np.ndarray:
        """A result (3, H, W) as an array, at the size that is wanted."""
        decode = self.transfer
        made = image.permute(1, 2, 0).float().cpu().numpy() if decode is None else radiance(image, decode)
        if factor != 1:
            made = made * np.float32(factor)
        wanted = self.settings.outscale
        if wanted is not None and wanted != self.scale:
            height, width = (max(round(n / self.scale * wanted), 1) for n in made.shape[:2])
            made = resized(made, (height, width))
        return np.ascontiguousarray(made, np.float32) if made.flags.writeable else np.array(made, np.float32)

    # ------------------------------------------------------------ the network
    @torch.no_grad()
    def run(self, batch: Tensor) -> Tensor:
        """The network's output for (B, C, H, W), or for a clip (1, T, C, H, W), in its space: whole, or in tiles, which are
        halved when memory is short."""
        height, width = batch.shape[-2:]
        tile, overlap = self._tile(batch), 0
        while True:
            if tile is not None and max(height, width) > tile:
                tile, overlap = self._with_overlap(tile, batch)
            try:
                return self._call(batch, tile, overlap)
            except (RuntimeError, MemoryError) as e:
                if not memory.is_out_of_memory(e):
                    raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.short = True
            tile = self.tile = memory.halved(tile, height, width, self.multiple)
            log.warning(
                "memory was not enough for a picture of %d x %d; in tiles of %d from here on", width, height, tile
            )

    def _call(self, batch: Tensor, tile: int | None, overlap: int) -> Tensor:
        if tile is not None or self.settings.tile == 0:
            self.model.inference = dataclasses.replace(self.own, tile=tile, overlap=overlap, cut=None)
        else:
            self.model.inference = self.own
        with autocast(self.device, self.settings.dtype):
            if self.settings.ensemble is None:
                return self.restorer(batch)
            return self_ensemble(self.restorer, batch, self.settings.ensemble)

    def _count(self, batch: Tensor) -> int:
        """Pictures that need as much memory as this batch: frames of a recurrent network's clip are kept."""
        return batch.shape[1] if batch.dim() == 5 and not self.takes else len(batch)

    def _need(self, count: int) -> memory.Need:
        if count not in self.needs:
            alone = lambda x: self._call(x, None, 0)  # noqa: E731
            channels = self.channels if hasattr(self, "channels") else 3
            self.needs[count] = memory.Need(alone, channels, self.multiple, torch.device("cpu"), count)
        return self.needs[count]

    def _tile(self, batch: Tensor) -> int | None:
        """Side of the tiles for a batch; None for none."""
        height, width = batch.shape[-2:]
        # Whole pictures where nothing was asked for and memory suffices.
        if self.tile is None and self.settings.tile is None and (self.own.tile or self.own.cut):
            return None  # the model's own way
        small = height * width <= memory.SIDES[1] ** 2
        if small and self.tile is None:
            return None
        if self.tile is None and self.settings.tile is None:
            need, most = self._need(self._count(batch)), memory.budget(self.device)
            if need.of(height * width) <= most:
                return None
            self.short = True
            return need.side(most, self.multiple)
        # A CPU shares its memory with others, so that each picture is asked again.
        tile = self.tile
        if self.device.type == "cpu" and not small:
            need, most = self._need(self._count(batch)), memory.free(self.device)
            while need.of(min(tile or height, height) * min(tile or width, width)) > most:
                smaller = memory.halved(tile, height, width, self.multiple)
                log.warning(
                    "%s would need about %.1f GiB and %.1f are free; tiles of %d are taken",
                    f"tiles of {tile}" if tile else f"a picture of {width} x {height} as a whole",
                    need.of(min(tile or height, height) * min(tile or width, width)) / 2**30,
                    most / 2**30,
                    smaller,
                )
                tile, self.short = smaller, True
                self.tile = tile
        return tile

    def _with_overlap(self, tile: int, batch: Tensor) -> tuple[int, int]:
        """Tile and overlap with which tiles give what the whole gives, if they can; what they cannot is said, once."""
        wanted = self.settings.overlap
        # Measured once: how far the network looks, and whether tiles give the same at all.
        if self.overlap is None:
            most = {"most": tile} if self.short else {}
            still = batch[:, 0] if batch.dim() == 5 else batch
            found = locality.measure(lambda x: self._call(x, None, 0), still, self.multiple, **most)
            self.overlap = found.overlap
            reason = locality.sees_whole(self.network)
            if reason or found.difference > locality.STEP / 2:
                log.warning(
                    "%s: tiles do not give what the whole picture gives%s: about %.2g of 255 from it; --tile 0 takes pictures "
                    "whole",
                    type(self.network).__name__,
                    f" ({reason})" if reason else "",
                    found.difference * 255,
                )
        if wanted is not None:
            return tile, wanted
        # Tiles must be several times as large as that.
        enough = -(-4 * self.overlap // self.multiple) * self.multiple  # half of it is new in every tile
        if tile < enough:
            if self._need(self._count(batch)).of(enough**2) <= memory.budget(self.device):
                log.info(
                    "tiles of %d pixels, not %d: the network looks %d pixels around", enough, tile, self.overlap // 2
                )
                tile = self.tile = enough
            else:
                return tile, max(min(self.overlap, tile // 4, tile - self.multiple), 0)
        return tile, self.overlap


def refuse_other_tasks(model: Model) -> None:
    """Refuse models that are not a function of one picture.

    Raises:
        UserError: it is one.
    """
    for kind, what in ELSEWHERE.items():
        if isinstance(model, kind):
            raise UserError(f"a {type(model).__name__} {what}")


def transfer_of(description: Mapping[str, Any]) -> Transfer | None:
    """How radiance is encoded for a model, by what its weights say; None for ordinary pictures."""
    block = description["transfer"]
    if block is None or isinstance(block, Transfer):
        return block
    built: Transfer = TRANSFERS.build({"type": block} if isinstance(block, str) else dict(block))
    return built
