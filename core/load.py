"""Trained models for people in a notebook and for commands: from a weights file or an option file to something to call.

>>> import relume  # doctest: +SKIP
>>> clear = relume.load("experiments/mine/models/net_g_best.pth")  # doctest: +SKIP
>>> picture = clear(imageio.imread("murky.png"))  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from . import hub, options
from .building.networks import build_model
from .errors import UserError
from .imaging.normalisation import denormalise, normalise
from .inference.network import explaining_channels, network_trait
from .models.base import Model, model_class
from .options import Options, description, shipped
from .runtime import devices

Source = str | os.PathLike[str] | Mapping[str, Any]
"""A weights file, an option file (``relume:NAME`` for a shipped one), or options."""
Picture = TypeVar("Picture", np.ndarray, Tensor)

PEAKS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""White in arrays of integers."""


def load_model(
    source: Source,
    opt: Source | None = None,
    *,
    param_key: str | None = None,
    device: str | torch.device | None = None,
    untrained: bool = False,
) -> Model:
    """A model ready for inference: its networks in evaluation mode, with weights, on a device.

    Args:
        source: a weights file, or ``hub:NAME`` of public ones; or an option file or options, whose
            ``path.pretrain_network_g`` names the weights.
        opt: the option file or options of a weights file that does not describe itself (written elsewhere, or long ago).
        param_key: entry of the weights file; when omitted, the options' ``path.param_key_g``, else the average where there is
            one.
        device: a GPU, if there is one, when omitted.
        untrained: leave the weights as they are initialised (to measure speed).

    Raises:
        UserError: a file is missing, damaged, or does not fit; or there are no weights.
    """
    return _loaded(source, opt, param_key, device, untrained)[0]


def _loaded(
    source: Source,
    opt: Source | None,
    param_key: str | None,
    device: str | torch.device | None,
    untrained: bool = False,
) -> tuple[Model, dict[str, Any]]:
    """`load_model`, and what the weights say of themselves, or the options of them."""
    if isinstance(source, str) and source.startswith(hub.PREFIX):
        source = str(hub.local(source))
    if is_options(source) or opt is not None:
        described = description.weights_description(_read(source if opt is None else opt))
    else:
        described = description.read(str(source))
        source = description.options_of(described, str(source))
    model = _build(_options(source, opt, untrained), param_key, device)
    return model, described


def _options(source: Source, opt: Source | None, untrained: bool) -> Options:
    """Checked options that name the weights; none of them if `untrained`."""
    if is_options(source):
        values = _read(source).to_dict()
    else:
        assert opt is not None
        values = _read(opt).to_dict()
        values["path"] = {**values["path"], "pretrain_network_g": str(source)}
    # What a training would add to its weights as it starts is in the weights by now.
    path = {k: v for k, v in values["path"].items() if not k.startswith("grow_network_")}
    if untrained:
        path = {k: v for k, v in path.items() if not k.startswith("pretrain_network_")}
    found = options.check({**values, "path": path})
    for key in () if untrained else trained_networks(found):
        if not path.get(f"pretrain_network_{key}"):
            raise UserError(
                f"no weights for network_{key}: name a file, or path.pretrain_network_{key} in the option file"
            )
    return found


def trained_networks(opt: Options) -> list[str]:
    """The networks of some options that training changes and inference needs, so neither teachers nor discriminators."""
    kind = model_class(opt.model_type)
    return [key for key in opt.networks if key not in (*kind.frozen, *kind.discriminators)]


def _build(opt: Options, param_key: str | None, device: str | torch.device | None) -> Model:
    values = opt.to_dict()
    path = values["path"]
    if param_key:
        path.update({f"param_key_{k}": param_key for k in trained_networks(opt) if path.get(f"pretrain_network_{k}")})
    place = torch.device(device or devices.chosen())
    model, networks = build_model(options.check(values), place, for_training=False)
    for network in networks.values():
        network.eval()
    return model


def _read(source: Source) -> Options:
    return options.load(source) if isinstance(source, (str, os.PathLike)) else options.check(source)


def is_options(source: Source) -> bool:
    """Whether a source is an option file or options, and no weights file."""
    return (
        not isinstance(source, (str, os.PathLike))
        or str(source).startswith(shipped.PREFIX)
        or Path(source).suffix.lower() in (".yml", ".yaml")
    )


def load(
    source: Source,
    opt: Source | None = None,
    *,
    param_key: str | None = None,
    device: str | torch.device | None = None,
) -> Restorer:
    """A trained model as a function of one picture; arguments and errors are those of `load_model`."""
    return Restorer(*_loaded(source, opt, param_key, device))


class Pictures(dict[str, Any]):
    """A batch that consists of pictures only, and says so to a model that asks for more, or that never looks at them."""

    def __init__(self, lq: Tensor) -> None:
        # Models that draw random numbers draw the same for the same picture.
        super().__init__(lq=lq, seed=torch.zeros(len(lq), dtype=torch.int64, device=lq.device))
        self.seen = False

    def __getitem__(self, key: str) -> Any:
        self.seen = self.seen or key == "lq"
        return super().__getitem__(key)

    def __missing__(self, key: str) -> Any:
        raise UserError(f"this model needs '{key}' of every sample; relume.load is for models that need a picture only")


class Restorer:
    """A model as a function from one picture to another of the same kind: enhanced, restored, enlarged.

    It takes, and returns as the same type on the same device:

    - numpy arrays (H, W, C): uint8, uint16, or floats in [0, 1]; integers come back rounded and clipped,
    - tensors (C, H, W) or (N, C, H, W), floats in [0, 1]; floats come back as the network gives them, not clipped. Models of
      videos take clips, too, (N, T, C, H, W), and any picture for a clip that stands still.

    Channels are in RGB order (OpenCV reads BGR).

    Args:
        model: ready for inference, see `load_model`.
        described: what its weights say of themselves, see `options.description`.

    Raises:
        UserError: when called with anything else, or where a picture is not all that the model needs.
    """

    def __init__(self, model: Model, described: Mapping[str, Any]) -> None:
        self.model = model
        self.description = dict(described)

    def __call__(self, picture: Picture) -> Picture:
        if isinstance(picture, np.ndarray):
            return self._array(picture)
        if isinstance(picture, Tensor):
            return self._tensor(picture)
        raise UserError(f"a picture is a numpy array or a tensor, not {type(picture).__name__}")

    def _array(self, picture: np.ndarray) -> np.ndarray:
        if picture.ndim != 3 or picture.shape[2] > 4:
            raise UserError(f"a picture in an array is (height, width, channels), not {picture.shape}")
        if self.description["transfer"] is not None:
            raise UserError(
                f"this model's pictures are radiance encoded by {self.description['transfer']}; give a tensor of that, or use "
                "relume test, which makes it from files"
            )
        peak = PEAKS.get(picture.dtype, 1)
        if peak == 1 and picture.dtype.kind != "f":
            raise UserError(f"a picture in an array is uint8, uint16 or float, not {picture.dtype}")
        pixels = torch.from_numpy(np.ascontiguousarray(picture, np.float32) / np.float32(peak))
        made = self._tensor(pixels.permute(2, 0, 1)).permute(1, 2, 0).numpy()
        if peak > 1:
            made = np.rint(np.clip(made, 0, 1) * peak)
        return np.ascontiguousarray(made.astype(picture.dtype))

    @torch.no_grad()
    def _tensor(self, picture: Tensor) -> Tensor:
        # Refuse what is no picture in [0, 1].
        takes = network_trait(self.model.networks["g"], "takes_frames")
        if picture.dim() not in ((3, 4) if takes is None else (3, 4, 5)) or not picture.is_floating_point():
            raise UserError(
                "a picture in a tensor is (C, H, W) or (N, C, H, W), floats in [0, 1], not "
                f"{tuple(picture.shape)} {str(picture.dtype).removeprefix('torch.')}"
            )
        if not picture.numel():
            raise UserError(f"the picture is empty: {tuple(picture.shape)}")
        least, most = (float(v) for v in picture.aminmax())
        if not (least >= -1 and most <= 2):  # beyond any overshoot of a resampling filter; NaN is caught too
            raise UserError(f"the picture's values go from {least:g} to {most:g}; floats are in [0, 1]")
        # To the batch that the model takes, and back to the shape that was given.
        device = next(self.model.networks["g"].parameters()).device
        batch = picture[None] if picture.dim() == 3 else picture
        if takes is not None and batch.dim() == 4:
            batch = batch[:, None].expand(-1, takes or 1, -1, -1, -1)
        mean, std = self.description["mean"], self.description["std"]
        lq = normalise(batch.to(device, torch.float32), mean, std)
        pictures = Pictures(lq)
        with explaining_channels():
            output = self.model.predict(pictures)["output"]
        if not pictures.seen:
            raise UserError(
                "this model makes images without looking at a picture; relume.load_model gives the model itself"
            )
        output = denormalise(output, mean, std).to(picture.device, picture.dtype)
        if picture.dim() < 5 and output.dim() == 5:
            output = output[:, 0]
        return output[0] if picture.dim() == 3 else output

    @torch.no_grad()
    def continued(self, clip: Tensor, state: Any, count: int) -> tuple[Tensor, Any]:
        """The first frames of a clip that goes on where another ended; see `inference.network.NetworkTraits.continued`.

        Args:
            clip: (N, T, C, H, W), floats in [0, 1].
            state: what the call before gave; None at a beginning.
            count: number of frames.
        """
        device = next(self.model.networks["g"].parameters()).device
        mean, std = self.description["mean"], self.description["std"]
        model: Any = self.model
        output, state = model.continued(normalise(clip.to(device, torch.float32), mean, std), state, count)
        return denormalise(output, mean, std).to(clip.device, clip.dtype), state
