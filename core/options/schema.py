"""The fixed sections of an option file. Every other block is a ``type:`` block, whose schema is a constructor's signature.

The names and nesting are BasicSR's, so that its option files run unchanged. Sections that a room below reads stand there, with
their reader: loading with the loader, the process group with `core.runtime.distributed`, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import nn

from ...archs import ARCHS
from ...datasets import DATASETS
from ...datasets.loading.options import Loader
from ...losses import LOSSES
from ...schedulers import SCHEDULERS
from ..annotations import (
    OF_ANY_SIZE,
    Count,
    Iterations,
    Names,
    NonNegative,
    Positive,
    Range,
    Rule,
    Section,
    Share,
    setting,
)
from ..errors import did_you_mean
from ..files import COMPONENT
from ..files.ceilings import Ceilings
from ..inference.parts import Cut, EqualParts, Grid, SideBySide
from ..inference.tiling import Padding
from ..metrics import METRICS, MetricKeys
from ..models import MODELS
from ..runtime.devices import Device
from ..runtime.distributed import Dist
from ..runtime.logger import Logger
from ..runtime.optimizers import OPTIMIZERS, OptimizerKeys
from ..runtime.precision import Amp
from ..runtime.speed import Precision, Profile

Seed = Annotated[int, Range(least=0), OF_ANY_SIZE]
NetworkBlock = Annotated[nn.Module, ARCHS]
LossBlock = Annotated[nn.Module, LOSSES]
SchedulerBlock = Annotated[Any, SCHEDULERS]
Phase = Annotated[
    str, Names(r"(train|val|test)(_[\w .+-]{1,99})?", ("train", "val", "val_<name>", "test", "test_<name>"))
]


DatasetBlock = Annotated[Any, DATASETS, Loader]
MetricBlock = Annotated[Any, METRICS, MetricKeys]
OptimizerBlock = Annotated[Any, OPTIMIZERS, OptimizerKeys]


@dataclass(frozen=True, eq=False)
class Paths(Section):
    """Where weights come from and outputs go. ``pretrain_network_<key>`` etc. exist for every ``network_<key>``."""

    resume_state: str | None = setting(None, "A training state to continue from.")
    ignore_resume_networks: list[str] | str = setting(list, "Networks (network_d), or one, not restored on resume.")
    experiments_root: str | None = setting(None, "Folder that holds the experiments; ./experiments when omitted.")
    results_root: str | None = setting(None, "Folder that holds test results; ./results when omitted.")

    def __post_init__(self) -> None:
        if isinstance(self.ignore_resume_networks, str):
            object.__setattr__(self, "ignore_resume_networks", [self.ignore_resume_networks])


RUN = Rule(f"{COMPONENT}; path.experiments_root is the folder that groups runs", COMPONENT.holds)
"""What the name of a run must be."""
PATH_KEYS: dict[str, tuple[Any, str]] = {
    "pretrain_network_": (str | None, "Weights to start from."),
    "param_key_": (str | None, "Entry of the weights file: params, params_ema, or empty for a flat file."),
    "strict_load_": (bool, "Refuse weights whose names or shapes differ."),
    "grow_network_": (bool, "The weights are of a smaller network: what is new starts at zero, or as initialised."),
}
"""Prefixes of the ``path`` keys that exist once per network, with their annotation and description."""


@dataclass(frozen=True, eq=False)
class Train(Section):
    """Optimisation. Besides these: ``*_opt`` losses, ``optim_*`` optimizers, and the model wrapper's own parameters."""

    total_iter: Iterations = setting(None, "Iterations (optimizer steps) to train.")
    total_epoch: Positive | None = setting(None, "Epochs to train, in place of total_iter.")
    ema_decay: Annotated[float, Range(least=0, below=1)] = setting(
        0.0, "Decay of the weights' exponential moving average; 0 is off."
    )
    ema_halflife: Positive | None = setting(None, "Half-life of that average in samples, in place of ema_decay.")
    ema_rampup: Positive | None = setting(None, "Largest half-life at first, as a share of the samples seen so far.")
    scheduler: SchedulerBlock | None = setting(
        None, "Learning-rate schedule of every optimizer; scheduler_<name> for one of its own."
    )
    warmup_iter: Annotated[int, Range(least=-1, in_epochs=True)] = setting(-1, "Linear warm-up iterations; -1 is none.")
    accumulate: Count = setting(1, "Micro-batches per optimizer step.")
    keep_global_batch: bool = setting(
        False,
        "Keep the batch over all ranks when resumed on another number of them, by other micro-batches, if it divides.",
    )
    amp: Amp = setting("off", "Automatic mixed precision.")
    channels_last: bool = setting(False, "NHWC memory layout of networks and images.")
    compile: bool | Literal["default", "reduce-overhead", "max-autotune"] = setting(
        False, "torch.compile, or its mode."
    )
    cuda_graph: bool = setting(
        False,
        "Record each step, forward, backward and update, as one CUDA graph for each shape, with the same numbers.",
    )
    checkpoint_activations: bool = setting(
        False,
        "Keep only the inputs of repeated blocks, and compute the rest again in the backward pass: less memory, slower.",
    )
    matmul_precision: Precision = setting(
        "highest", "Of float32 products and convolutions on a GPU: highest is float32; high and medium allow TF32."
    )
    cudnn_benchmark: bool = setting(
        False, "Let cuDNN try which convolutions are fastest; not with deterministic: true."
    )
    profile: Profile | None = setting(
        None,
        "Measure some iterations: {start: 10, steps: 5} writes a Chrome trace and a table to the experiment's folder.",
    )
    grad_clip_norm: Positive | None = setting(None, "Largest total gradient norm.")
    grad_clip_value: Positive | None = setting(None, "Largest absolute value of a gradient element.")
    use_grad_clip: bool = setting(False, "Restormer's key: clip the gradient norm at 0.01.")
    max_nonfinite: Count = setting(
        10, "Stop (exit code 3) after so many steps in a row with NaN or infinite loss or gradient."
    )
    sync_bn: bool = setting(False, "Batch normalisation over the batch of all ranks, not of each.")
    strategy: Literal["ddp", "fsdp"] = setting("ddp", "How networks are distributed over ranks.")
    grad_compression: Literal["fp16", "bf16"] | None = setting(
        None, "Under ddp, send gradients between ranks in half precision: half the traffic, other rounding."
    )

    zero_optimizer: bool = setting(
        False, "Under ddp, divide the optimizers' memory among ranks (torch's ZeroRedundancyOptimizer)."
    )
    sharded_state: bool = setting(
        False,
        "Under fsdp, each rank writes its own share of the optimizers' state, by torch.distributed.checkpoint; nothing is "
        "gathered. All nodes must see path.experiments_root.",
    )

    def __post_init__(self) -> None:
        if self.zero_optimizer and self.strategy != "ddp":
            raise ValueError("zero_optimizer: is for strategy: ddp; fsdp splits the optimizers' state by itself")
        if self.sharded_state and self.strategy != "fsdp":
            raise ValueError("sharded_state: is for strategy: fsdp; under ddp every rank has the whole state")
        if self.total_epoch is not None and self.total_iter is not None:
            raise ValueError("total_epoch: total_iter is given too; leave one of them out")
        if self.grad_compression is not None and self.strategy != "ddp":
            raise ValueError("grad_compression: is for strategy: ddp; fsdp sends gradients as they are")
        if self.ema_halflife is not None and self.ema_decay > 0:
            raise ValueError("ema_halflife: ema_decay is given too; leave one of them out")
        if self.ema_rampup is not None and self.ema_halflife is None:
            raise ValueError("ema_rampup: there is no ema_halflife that it could shorten")


@dataclass(frozen=True, eq=False)
class Best(Section):
    """Which weights are net_g_best, and what is kept of them."""

    metric: str | None = setting(None, "Metric that chooses them; the first one when omitted.")
    dataset: str | None = setting(
        None, "Name of the validation set that decides, or 'mean' of all; the first that has the metric when omitted."
    )
    keep_state: bool = setting(False, "Also keep their training state, training_states/best.state, to resume from.")


@dataclass(frozen=True, eq=False)
class Val(Section):
    """Validation during training, and what test.py does."""

    val_freq: Iterations | None = setting(None, "Iterations between validations; one at the end when omitted.")
    save_img: bool = setting(
        False, "Save the output images, named after their inputs, with folders in front where names clash."
    )
    amp: Amp = setting("off", "Mixed precision of validation and test, whatever training has.")
    channels_last: bool = setting(False, "NHWC memory layout of networks in test.py; validation has that of training.")
    compile: bool | Literal["default", "reduce-overhead", "max-autotune"] = setting(
        False, "torch.compile, or its mode, of networks in test.py and of averages in validation."
    )
    score_input: bool = setting(
        False, "Also score the input itself (or what else needs no network), as the figure to beat."
    )
    linear_format: Literal["hdr", "exr", "pfm", "npy", "tif", "tiff"] = setting(
        "hdr", "Format of saved HDR outputs, linear radiance; a tone-mapped PNG is saved beside."
    )
    save_comparison: bool = setting(False, "Also save input | output | target side by side.")
    save_grid: Count | None = setting(None, "Also save the first so many outputs of each dataset in one picture.")
    num_pictures: Count = setting(
        1, "Pictures of each validation set that TensorBoard shows, input beside output and target."
    )
    suffix: Annotated[str, COMPONENT] | None = setting(
        None, "Ending of saved image names; the experiment's name when omitted (test)."
    )
    metrics: dict[str, MetricBlock] = setting(dict, "Metrics by free name; each block may add better: higher | lower.")
    best: str | Best | None = setting(
        None,
        "Metric that chooses net_g_best, the first one when omitted; or a block with metric, dataset and keep_state.",
    )
    pbar: bool = setting(True, "Progress bar on a terminal.")
    tile: Count | None = setting(
        None, "Tile side in input pixels for images that do not fit; whole images when omitted."
    )
    tile_overlap: NonNegative = setting(32, "Overlap of neighbouring tiles, in input pixels, blended linearly.")
    tile_pad: NonNegative | None = setting(
        None, "Tiles side by side instead, each seen with so many pixels around it and not blended (HAT's)."
    )
    parts: Count | None = setting(
        None, "Cut an axis of n pixels into n // parts + 1 equal parts that are not blended (DAT, MambaIR: 200)."
    )
    parts_context: Annotated[float, Range(least=0)] = setting(
        16, "Pixels around a part that the network also sees; below 1, the share of its side (MambaIR: 0.1)."
    )
    grids: bool | None = setting(
        False, "Overlapping crops of crop_size_h x crop_size_w, averaged, in place of whole images (NAFNet's)."
    )
    crop_size_h: Annotated[int, Range(least=2)] | None = setting(None, "Height of those crops, in output pixels.")
    crop_size_w: Annotated[int, Range(least=2)] | None = setting(None, "Width of those crops.")
    crop_size_h_ratio: Share | None = setting(None, "The same, as a share of the image's height.")
    crop_size_w_ratio: Share | None = setting(None, "The same, as a share of the image's width.")
    window_size: Count | None = setting(None, "Pad the input to a multiple of this (also padded to the network's own).")
    padding: Padding = setting(
        "reflect", "How: mirrored at the right and bottom, or 'centred': borders repeated on all sides (not of tiles)."
    )
    use_image: bool = setting(True, "Accepted for Restormer's files; metrics are computed on rounded 8-bit images.")
    rgb2bgr: bool = setting(True, "Accepted for Restormer's files; channel order is always handled.")
    max_minibatch: int | None = setting(None, "Accepted for Restormer's files; crops are run one by one.")

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile_pad is None and self.tile_overlap >= self.tile:
            raise ValueError(f"tile_overlap ({self.tile_overlap}) must be smaller than tile ({self.tile})")
        ways = [name for name in ("tile", "parts", "grids") if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(f"{ways[1]}: images are cut by {ways[0]} already; leave one of them out")
        if self.tile_pad is not None and self.tile is None:
            raise ValueError("tile_pad: there is no tile, the side of the tiles")
        if self.grids and not all(self._crop()):
            raise ValueError("grids: needs crop_size_h and crop_size_w, or crop_size_h_ratio and crop_size_w_ratio")
        metric = self.chosen.metric
        if metric is not None and metric not in self.metrics:
            hint = did_you_mean(metric, self.metrics)
            raise ValueError(f"best: no metric is called '{metric}'.{hint} Known: {', '.join(self.metrics) or 'none'}.")

    @property
    def chosen(self) -> Best:
        """`best` as a block."""
        return self.best if isinstance(self.best, Best) else Best(self.best)

    def _crop(self) -> tuple[float | None, float | None]:
        return self.crop_size_h or self.crop_size_h_ratio, self.crop_size_w or self.crop_size_w_ratio

    def cut(self, scale: int) -> Cut | None:
        """How images are cut for a network whose outputs are `scale` times as large; None where `tile` says it, or nothing."""
        height, width = self._crop()
        if self.grids and height and width:
            return Grid(height, width, scale)
        if self.parts is not None:
            return EqualParts(self.parts, self.parts_context)
        return SideBySide(self.tile, self.tile_pad) if self.tile and self.tile_pad is not None else None


@dataclass(frozen=True, eq=False)
class Options(Section):
    """The top level. Besides these: ``network_<key>`` blocks, one for each network the model uses."""

    name: Annotated[str, RUN] = setting(
        doc="Experiment name, which names its folders; 'debug' in it means a debugging run."
    )
    model_type: Annotated[str, MODELS] = setting(doc="Model wrapper.")
    scale: Count = setting(1, "Output size / input size; passed to datasets.")
    num_gpu: NonNegative | Literal["auto"] = setting(
        "auto", "0 forces the CPU; otherwise a GPU is used where there is one."
    )
    device: Device = setting(
        "auto", "Where to compute: auto takes cuda, xpu (Intel) or mps (Apple), whichever there is first, else the cpu."
    )
    manual_seed: Seed | None = setting(0, "Seed of everything random; drawn (and logged) when null.")
    auto_resume: bool = setting(False, "Continue from this experiment's newest checkpoint, as --auto_resume does.")
    deterministic: bool = setting(False, "Ask torch for deterministic kernels.")
    find_unused_parameters: bool = setting(False, "DistributedDataParallel's option of that name.")
    use_static_graph: bool = setting(False, "Accepted for BasicSR's video files.")
    print_network: bool = setting(False, "Accepted for BasicSR's files; the log gives each network's parameters.")
    is_train: bool | None = setting(None, "Accepted from BasicSR's dumped options; train.py or test.py decides.")
    datasets: dict[Phase, DatasetBlock] = setting(dict, "train, val, val_2, test_1, ...: one block per dataset.")
    path: Paths = setting(Paths, "Weights in, outputs out.")
    train: Train | None = setting(None, "Optimisation; absent in a test file.")
    val: Val = setting(Val, "Validation and test.")
    data: Ceilings = setting(Ceilings, "Ceilings of what files may unpack to.")
    logger: Logger = setting(Logger, "Logs and checkpoints.")
    dist_params: Dist = setting(Dist, "Process group.")
    plugins: list[str] = setting(
        list, "Python files (relative to the option file) or modules that register components."
    )

    @property
    def networks(self) -> dict[str, Mapping[str, Any]]:
        """The ``network_<key>`` blocks by key."""
        prefix = "network_"
        return {k.removeprefix(prefix): block for k, block in self.extra.items() if k.startswith(prefix)}

    def sets(self, *phases: str) -> dict[str, Loader]:
        """The ``datasets`` blocks of these phases (``val`` has ``val``, ``val_2``, ...), by their keys."""
        return {k: block for k, block in self.datasets.items() if k.split("_")[0] in phases}
