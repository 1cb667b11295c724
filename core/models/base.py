"""The contract between a task and the trainer: what one step means, and what inference means. Everything else is shared."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...losses.base import LossTraits
from ..annotations import declared, shape_of
from ..errors import UserError
from ..inference.tiling import Inference
from ..runtime.step_graph import Unrepeatable
from . import MODELS

Batch = dict[str, Any]
"""One collated batch: tensors ``lq``, ``gt`` (B, C, H, W) in [0, 1], and lists of strings such as ``lq_path``."""


class Ready(Batch):
    """A batch that `Model.prepared` has seen."""


@dataclass
class Update:
    """One optimizer step asked for by a model: the trainer back-propagates ``sum(losses)`` and steps `optimizer`.

    Attributes:
        optimizer: which ``optim_<name>`` of the options steps, e.g. ``"g"``.
        losses: scalar tensors by log name (``l_pix``, ...); their sum is minimised.
        logs: further scalars to log, not optimised.
    """

    optimizer: str
    losses: Mapping[str, Tensor]
    logs: Mapping[str, Tensor | float] = field(default_factory=dict)

    @cached_property
    def terms(self) -> Tensor:
        """The losses one after the other, (n,), float32."""
        return torch.stack([v.float() for v in self.losses.values()])


def model_class(name: str) -> type[Model]:
    """The model wrapper called `name` (an option file's ``model_type``).

    Raises:
        UserError: nothing is called so.
    """
    found: Any = MODELS.get(name)
    kind: type[Model] = found
    return kind


class Model:
    """A task: its networks, its losses, one training step, one inference.

    Subclasses override `updates` and `predict`, and whatever else differs. Keyword parameters that a subclass adds to its
    constructor become keys of the ``train`` section, those in `inference_options` of ``val``.

    Networks must be *called* through ``self.networks[key](...)``, never through a submodule of theirs: the trainer may have
    put DistributedDataParallel around them, which sees calls of the whole network only.

    Args:
        networks: networks by key, ``{"g": net}`` for the option block ``network_g``. All are trained unless named in `frozen`.
        losses: losses by name without ``_opt``, ``{"pixel": L1Loss()}`` for the option block ``pixel_opt``.
    """

    required_networks: ClassVar[tuple[str, ...]] = ("g",)
    """Networks without which the model makes no sense; a missing one is an option error."""
    optional_networks: ClassVar[tuple[str, ...]] = ()
    """Networks it can use besides; any other ``network_*`` block is an option error."""
    frozen: ClassVar[tuple[str, ...]] = ()
    """Networks that are neither trained nor distributed nor saved. Those that are not required are teachers: training
    cannot do without them, and testing does not build them."""
    discriminators: ClassVar[tuple[str, ...]] = ()
    """Trained networks that judge what others make. Training cannot do without them, testing does not build them, and losses
    of a discriminator's answers (``gan_opt``) need one. They are called several times before one is differentiated."""
    optimizers: ClassVar[tuple[str, ...]] = ()
    """Names of optimizers (``optim_<name>``) besides those of the trained networks; see `named_parameters`."""
    find_unused_parameters: ClassVar[bool] = False
    """Whether some updates leave some parameters of a network without a gradient, which DistributedDataParallel must know."""
    averaged: ClassVar[tuple[str, ...]] = ("g",)
    """Networks with an exponential moving average when ``train.ema_decay`` > 0; `predict` then runs on the average."""

    leading: ClassVar[str | None] = None
    """The optimizer whose rates and gradient norm the log shows as *the* ones, also in steps without it; when None, that of a
    step's first update."""
    top_level: ClassVar[type | None] = None
    """A dataclass of keys that this model reads at the top level of the option file; see `configure`."""

    samples_seen: int = 0
    """Samples that training has taken so far over all ranks, those of the current step included. The trainer keeps it."""

    showing: bool = False
    """Whether `updates` is asked to keep pictures; the trainer sets it for the steps whose pictures it shows."""
    pictures: Mapping[str, Tensor] = MappingProxyType({})
    """What `keep_pictures` has kept of this step."""
    parts_of_stages: ClassVar[tuple[str, ...]] = ()
    """Parts of ``network_g`` that a stage and the one before it do not share; of its weights they may lack or be left over."""
    counts_images: ClassVar[bool] = False
    """Whether progress is spoken of in thousands of images, so that the log says how many seconds those take."""

    own_side: int | None = None
    """Pixels a side of the images that it trains on, where no patches are cut from them."""
    mixes_samples: bool = False
    """Whether what a sample is trained to become depends on the others of its micro-batch."""
    loss_context: ClassVar[tuple[str, ...]] = ()
    """Keyword arguments that losses can have here besides prediction and target; a loss names those it needs in ``context``."""
    needs_losses: ClassVar[bool] = True
    """Whether training without any ``*_opt`` loss is an option error."""
    inference_options: ClassVar[tuple[str, ...]] = ()
    """Constructor parameters that concern `predict`: keys of the ``val`` section."""
    shared_options: ClassVar[tuple[str, ...]] = ()
    """Constructor parameters that concern both: keys of ``train``, or of ``val`` in a file without ``train``."""
    inference: Inference = Inference()
    """How `predict` calls a network on an image: padded to its multiple, tiled if ``val.tile`` says so."""

    @classmethod
    def takes(cls, option: str, section: str) -> bool:
        """Whether a parameter of the constructor is a key of this section, ``train`` or ``val``."""
        return option in cls.shared_options or (option in cls.inference_options) == (section == "val")

    def __init__(self, networks: dict[str, nn.Module], losses: dict[str, nn.Module]) -> None:
        self.networks = dict(networks)
        self.averages: Mapping[str, nn.Module] = {}
        """The moving averages of `averaged` networks during training, unwrapped, in evaluation mode; the trainer fills it."""
        self.loaded: dict[str, str | None] = {}
        """The entry of its weights file that a network was loaded from; None of a flat file."""
        self.losses = nn.ModuleDict({f"{name}_opt": loss for name, loss in losses.items()})
        for key, loss in self.losses.items():
            missing = [name for name in declared(loss, "context", LossTraits) if name not in self.loss_context]
            if missing:
                wants = f"{type(loss).__name__} needs {', '.join(missing)}"
                raise UserError(f"{key}: {wants} of every sample, which {type(self).__name__} does not have")
        for key in self.frozen:
            if key in self.networks:
                self.networks[key].requires_grad_(False).eval()

    # ------------------------------------------------------------ to override
    def updates(self, batch: Batch, step: int) -> Iterator[Update]:
        """One training step on one (micro-)batch: yield an `Update` per optimizer step, in order.

        The trainer calls this for every micro-batch of an iteration before it takes the first update of any, so that a method
        which is not itself a generator function may note what all of them hold. Each generator goes on after its update has
        been applied. They advance in lockstep, and must yield the same optimizers in the same order.

        Args:
            batch: batch on the device, in the layout of the options.
            step: the iteration, counted from 1.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def prepared(self, batch: Batch, step: int) -> Batch:
        """What a step on one (micro-)batch draws on the host, which no graph can hold: ``train.cuda_graph``
        calls it before `updates`, whose parameters are the same.

        Returns:
            The batch with what became of its images, and with what was drawn. An `updates` that needs this gets it by `ready`.
        """
        return batch

    def ready(self, batch: Batch, step: int) -> Batch:
        """A batch that `prepared` has seen, once."""
        return batch if isinstance(batch, Ready) else Ready(self.prepared(batch, step))

    def stage(self, step: int) -> Hashable:
        """What `updates` depends on besides its batch, once that is `ready`: iterations of the same stage do the same work on
        the device, and ``train.cuda_graph`` records one of them for all. A class with an `updates` of its own says this anew.

        Raises:
            Unrepeatable: no two of them do the same work.
        """
        raise Unrepeatable(f"{type(self).__name__} does not say what its steps depend on (Model.stage)")

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Inference on one batch, without gradients: ``{"output": (B, C, H, W), ...}``; the ground truth may be absent.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def drawn(self) -> dict[str, Tensor]:
        """Random numbers that network_g takes by name beside a picture, of one picture whose seed is 0: (1, ...) each."""
        return {}

    def flow(self, batch: Batch) -> Tensor | None:
        """Motion that the network estimates beside its answer, (B, 2 k, H, W) in pixels, for metrics of flow; None without."""
        return None

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        """Answers of the output's shape without a network, for ``val.score_input``; pictures show that called ``input``."""
        return {"input": batch["lq"]} if "lq" in batch else {}

    def configure(self, keys: Any) -> None:
        """Called once after construction, with an instance of `top_level`, by models that have one."""

    @classmethod
    def mistakes(cls, opt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What is wrong with options whose every value is right by itself: dotted keys and what is the matter with each."""
        yield from ()

    def begin(self, step: int) -> None:
        """Called once, before networks are distributed and after optimizers know all that they will train.

        The place to set ``requires_grad`` of what is not trained yet at iteration `step`, the first of this process. `updates`
        may set it anew at any iteration.
        """

    def prepare(self, dataset: Any, device: torch.device) -> None:
        """Called once before training, after networks are on `device` and before a resume (to fill a memory bank, say)."""

    def training_blocks(self, train: Mapping[str, Any]) -> Mapping[str, Any]:
        """The blocks ``optim_<name>``, ``scheduler_<name>`` and ``scheduler`` of `train`, the checked ``train`` section.

        Override to make some of them from the model's own options, where a dialect has other keys for them.
        """
        return {k: v for k, v in train.items() if k == "scheduler" or k.startswith(("optim_", "scheduler_"))}

    def named_parameters(self, optimizer: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters that ``optim_<optimizer>`` trains: those of the network of that key, and for "g" those of losses."""
        yield from self.networks[optimizer].named_parameters()
        if optimizer == "g":
            yield from self.losses.named_parameters(prefix="losses")

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs beyond networks and optimizers. Tensors and plain containers only."""
        return {"losses": self.losses.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.losses.load_state_dict(state["losses"])

    def imagined(self, count: int, side: int, scale: int, frames: int = 1) -> Batch:
        """Made-up samples to try a step with, without a data set: their ground truth is (count, 3, side, side) in [0, 1].

        Clips have so many `frames`.

        What `prepare` brings a step is there afterwards, made up too. A model that wants more than pairs adds it here.
        """
        truth, small = torch.rand(count, 3, side, side), torch.rand(count, 3, side // scale, side // scale)
        return {"lq": small, "gt": truth, "gt_recover": truth, "seed": torch.arange(count)}

    def remarks(self, line: Mapping[str, float]) -> Iterator[str]:
        """What else there is to say, as warnings, of the numbers of a line of the log."""
        yield from ()

    # ------------------------------------------------------------ shared
    def keep_pictures(self, **images: Tensor) -> None:
        """Called by `updates`: images (B, C, H, W) in the range of the data set, of which the first is shown if that is wanted.

        Of a step's micro-batches, the first one's are kept.
        """
        if self.showing and not self.pictures:
            self.pictures = {name: image[:1].detach() for name, image in images.items()}

    def loss_values(
        self, pred: Tensor, target: Tensor, only: Iterable[str] | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """The losses of the options on one pair: by option key (``pixel_opt``), the loss's terms by log name.

        Args:
            only: option keys; all losses when None.

        Raises:
            UserError: a loss cannot compare prediction and target, whose shapes differ.
        """
        values = {}
        for key in self.losses if only is None else only:
            try:
                value = self.losses[key](pred, target)
            except Exception as e:
                if isinstance(e, UserError) or pred.shape == target.shape:
                    raise
                shapes = f"prediction {shape_of(pred)}, target {shape_of(target)} differ in shape"
                raise UserError(f"{type(self.losses[key]).__name__}: {shapes}") from e
            if isinstance(value, tuple):  # as BasicSR's perceptual loss has it: the loss of content, and that of style
                named = zip((log_name(key), "style", *map(str, range(3, 9))), value, strict=False)
                value = {name: term for name, term in named if term is not None}
            terms = {log_name(key): value} if isinstance(value, Tensor) else value
            refuse_no_terms(key, self.losses[key], terms)
            values[key] = dict(terms)
        return values

    def loss_terms(self, pred: Tensor, target: Tensor, prefix: str = "l_") -> dict[str, Tensor]:
        """Every loss of the options on one pair, a scalar each under BasicSR's log names: ``pixel_opt`` gives ``l_pix``."""
        return flat_terms(self.loss_values(pred, target), prefix)

    def loss_logs(self) -> dict[str, Tensor]:
        """What the losses themselves want logged (learned weights), scalars by name."""
        logged: dict[str, Tensor] = {}
        for loss in self.losses.values():
            logged.update(declared(loss, "logs", LossTraits)())
        return logged


def refuse_no_terms(key: str, loss: nn.Module, terms: Any) -> None:
    """Refuse what a loss gave, unless it is one number, or several by name.

    Raises:
        UserError: the loss returned anything else.
    """
    wrong = [terms] if not isinstance(terms, Mapping) else [t for t in terms.values() if not is_number(t)]
    if wrong:
        what = shape_of(wrong[0]) if isinstance(wrong[0], Tensor) else type(wrong[0]).__name__
        raise UserError(
            f"train.{key}: {type(loss).__name__} returned {what}; a loss returns one number (a tensor), or a dict of them"
        )


def is_number(term: Any) -> bool:
    """Whether a loss's term can be summed and differentiated."""
    return isinstance(term, Tensor) and term.numel() == 1


def flat_terms(values: Mapping[str, Mapping[str, Tensor]], prefix: str = "l_") -> dict[str, Tensor]:
    """Scalars by log name, of losses by option key; `prefix` is put before every name."""
    terms: dict[str, Tensor] = {}
    for key, parts in values.items():
        for term, value in parts.items():
            # Two losses may have terms of one name; the option's key distinguishes them.
            terms[prefix + term if prefix + term not in terms else f"{prefix}{log_name(key)}_{term}"] = value
    return terms


def log_name(key: str) -> str:
    """BasicSR's short names of loss terms.

    >>> log_name("pixel_opt"), log_name("perceptual_opt"), log_name("fft_opt")
    ('pix', 'percep', 'fft')
    """
    stem = key.removesuffix("_opt")
    return {"pixel": "pix", "perceptual": "percep"}.get(stem, stem)
