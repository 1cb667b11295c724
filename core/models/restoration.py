"""Paired restoration: one image in, one or several images out (SR, denoising, deblurring, underwater enhancement, ...)."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...losses.balance import Balance, BalanceMode, BalanceStart
from ..annotations import given_otherwise
from ..degradations.limits import Probabilities
from ..errors import UserError, did_you_mean
from ..inference.network import network_trait
from ..inference.self_ensemble import Ensemble, self_ensemble
from ..inference.tiling import as_tuple, size_multiple
from . import MODELS
from .augment import MultiScale, resize_batch
from .base import Batch, Model, Update, flat_terms
from .batch_mixing import DEFAULT, Augmentation, Mixing, mistakes_of_mixing

Values = dict[str, dict[str, Tensor]]
"""Terms by log name, of losses by option key."""


@MODELS.register(
    aliases=(
        "SRModel",  # BasicSR
        "ImageCleanModel",  # Restormer
        "ImageRestorationModel",  # NAFNet, HINet
        # Forks' wrappers that train as SRModel does. What they do beyond it in validation, networks here ask for themselves
        # (padding to their window), or `core.options.dialect` says in options of ``val`` (tiles).
        "SwinIRModel",
        "HATModel",
        "DRCTModel",
        "DATModel",
        "HITModel",
        "CRAFT_Model",
        "ATDModel",
        "MambaIRModel",
        "MambaIRv2Model",
        "MambaIRv2LightModel",
    )
)
class RestorationModel(Model):
    """The losses of the options on every output of the network.

    A network with one output is trained on ``gt``. One with several returns a tuple, the first being *the* output unless the
    network says otherwise (``result_output``); output i,
    counted from 1, is compared with ``gt_<i>`` of the batch where the dataset gives one (``dataroot_gt_2``), else with
    ``gt``, either bilinearly resized to the output's size. (Phaseformer's second output is twice as large as its input.)

    What is minimised is ``sum_o u_o sum_i w_i L_oi`` over outputs o and losses i. The weights are 1 (``fixed``; give losses
    their ``loss_weight``, outputs theirs in `output_weights`), or those of a `losses.balance.Balance`: ``random`` and
    frozen as in the original underwater networks, or learned: ``softmax``, ``uncertainty``. The original dual-branch
    recipe is ``balance: random, balance_outputs: random, output_weights: [1, 1]``. Weights are logged as ``w_<loss>``
    and ``w_output_<i>``, and saved with the training state.

    Args:
        output_weights: factor of each output's losses; 1 each when omitted.
        output_losses: names (without ``_opt``) of the losses of each output; all of them when omitted.
        balance: balance of the losses, shared by all outputs.
        balance_outputs: balance of the outputs; how many there are must then be said by `output_weights` or `output_losses`.
        balance_entropy: strength of the entropy term in the balance ``softmax``.
        balance_start: whether balances that learn begin with ``equal`` or ``random`` weights.
        multi_scale: factors, one of which is drawn for every batch to resize it by; none when omitted.
        inputs: items of the samples that the network is called with, in this order: ``[lq, mask]`` where the data set's
            samples have a mask as well; ``lq`` alone when omitted. Images of the input's size are padded and tiled with it.
            A file without ``train`` has it under ``val``.
        mixing_augs: Restormer's mixup of whole batches, ``{mixup: true, mixup_beta: 1.2, use_identity: true}``.
        use_moa: change every batch by one augmentation of `moa_augs`, see `batch_mixing`.
        moa_augs: augmentations to choose from.
        moa_probs: probabilities of those augmentations; all alike when omitted.
        self_ensemble: mean of the answers for symmetries of the input: ``dihedral`` for all eight, see
            `core.inference.self_ensemble`; of *the* output, for models of one input.

    Raises:
        UserError: `output_losses` and the losses do not fit together, the number of outputs is needed and not given, or the
            network is called with other than `inputs`.
    """

    inference_options: ClassVar[tuple[str, ...]] = ("self_ensemble",)
    shared_options: ClassVar[tuple[str, ...]] = ("inputs",)

    def __init__(
        self,
        networks: dict[str, nn.Module],
        losses: dict[str, nn.Module],
        *,
        output_weights: list[float] | None = None,
        output_losses: list[list[str]] | None = None,
        balance: BalanceMode = "fixed",
        balance_outputs: BalanceMode = "fixed",
        balance_entropy: float = 1.0,
        balance_start: BalanceStart = "equal",
        multi_scale: list[float] | None = None,
        inputs: list[str] | None = None,
        mixing_augs: dict[str, bool | float] | None = None,
        use_moa: bool = False,
        moa_augs: list[Augmentation] = list(DEFAULT),  # noqa: B006 - not modified
        moa_probs: Probabilities | None = None,
        self_ensemble: Ensemble = "none",
    ) -> None:
        super().__init__(networks, losses)
        self.loss_keys = list(self.losses)
        self.output_weights = output_weights
        # There are no losses where a training file is only tested.
        self.output_losses = assigned(output_losses, self.loss_keys) if output_losses and losses else None
        outputs = len(output_weights or output_losses or ())
        if balance_outputs != "fixed" and not outputs:
            raise UserError("train.balance_outputs needs output_weights, one for each output, such as [1, 1]")
        self.balance = Balance([stem(k) for k in self.loss_keys], balance, balance_entropy, balance_start)
        names = [f"output_{i}" for i in range(1, outputs + 1)]
        self.balance_outputs = Balance(names, balance_outputs, balance_entropy, balance_start)
        # Among the losses, what they learn is put on the device, trained, logged and saved.
        if balance != "fixed":
            self.losses["balance"] = self.balance
        if balance_outputs != "fixed":
            self.losses["balance_outputs"] = self.balance_outputs
        self.inputs = inputs or ["lq"]
        if self_ensemble != "none" and len(self.inputs) > 1:
            raise UserError("val.self_ensemble: is for networks of one input; inputs has several")
        refuse_other_inputs(networks["g"], self.inputs)
        self.self_ensemble = self_ensemble
        self.multi_scale = MultiScale(multi_scale) if multi_scale is not None else None
        self.mixing = Mixing(mixing_augs, use_moa, moa_augs, moa_probs)

    @classmethod
    def mistakes(cls, opt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from mistakes_of_mixing(opt)
        if opt["train"] is not None and opt["val"].get("inputs") is not None:
            yield "val.inputs", "is for files without 'train'; here train.inputs says it, for validation as well"
        train = opt["train"] or {}
        modes = {train.get(key, "fixed") for key in ("balance", "balance_outputs")}
        for key, learning in (("balance_entropy", {"softmax"}), ("balance_start", {"softmax", "uncertainty"})):
            if given_otherwise(train, key, RestorationModel) and not modes & learning:
                needed = " or ".join(sorted(learning))
                yield f"train.{key}", f"has no effect where neither balance nor balance_outputs is {needed}"

    def prepared(self, batch: Batch, step: int) -> Batch:
        """Its images changed as the options say."""
        return {**batch, **self.augmented(self.images(batch), batch)}

    def stage(self, step: int) -> Hashable:
        return None

    def images(self, batch: Batch) -> dict[str, Tensor]:
        """``lq``, all targets, and images that the network is called with besides: (B, C, H, W) each."""
        given = self.given(batch)
        need_items("train", ["gt"], batch)
        extra = {k for k, v in given.items() if is_image(v, given["lq"] if "lq" in given else batch["lq"])}
        return {k: v for k, v in batch.items() if k in extra or re.fullmatch(r"lq|gt(_\d+)?", k)}

    def updates(self, batch: Batch, step: int) -> Iterator[Update]:
        batch = self.ready(batch, step)
        given, images = self.given(batch), self.images(batch)
        outputs = as_tuple(self.networks["g"](*(images.get(k, v) for k, v in given.items())))
        self._check_outputs(len(outputs))
        others = {f"output_{i}": output for i, output in enumerate(outputs[1:], start=2)}
        self.keep_pictures(input=images["lq"], output=outputs[0], **others, target=images["gt"])
        values = []
        for i, output in enumerate(outputs, start=1):
            target = images.get(f"gt_{i}", images["gt"])
            if len(outputs) > 1:
                height, width = output.shape[-2:]
                target = resize_batch(target, (height, width))
            keys = self.output_losses[i - 1] if self.output_losses else self.loss_keys
            values.append(self.loss_values(output, target, keys))
        yield Update("g", self.objective(values), self.loss_logs())

    def given(self, batch: Batch) -> dict[str, Any]:
        """What the network is called with, by name, in order.

        Raises:
            UserError: the samples have no such item.
        """
        need_items("train.inputs", self.inputs, batch)
        return {name: batch[name] for name in self.inputs}

    def augmented(self, images: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Mixed and resized as the options say: ``lq`` and all targets alike.

        Args:
            images: (B, C, H, W) by name.
            batch: batch that has these images.
        """
        images = self.mixing(images, batch)
        if self.multi_scale is not None:
            images = self.multi_scale(images, size_multiple(self.networks["g"]))
        return images

    def objective(self, values: list[Values]) -> dict[str, Tensor]:
        """Weighted scalars by log name; their sum is minimised.

        Args:
            values: unweighted values of each output.
        """
        loss_shares, output_shares = self.balance.shares(), self.balance_outputs.shares()
        under_loss: dict[str, list[Tensor]] = defaultdict(list)
        under_output: dict[str, list[Tensor]] = defaultdict(list)
        terms: dict[str, Tensor] = {}
        for i, output in enumerate(values, start=1):
            factor = self.output_weights[i - 1] if self.output_weights else 1.0
            share = factor * output_shares[f"output_{i}"]
            weighted: Values = {}
            for key, parts in output.items():
                loss_share = loss_shares[stem(key)]
                weighted[key] = {term: share * loss_share * value for term, value in parts.items()}
                total = torch.stack([v.float() for v in parts.values()]).sum()
                under_loss[stem(key)].append(share * total)
                under_output[f"output_{i}"].append(factor * loss_share * total)
            terms.update(flat_terms(weighted, f"l_{i}_" if len(values) > 1 else "l_"))
        penalties = [self.balance.penalty(under_loss), self.balance_outputs.penalty(under_output)]
        learned = [p for p in penalties if p is not None]
        return {**terms, "l_balance": torch.stack(learned).sum()} if learned else terms

    def _check_outputs(self, found: int) -> None:
        for name, given in (("output_weights", self.output_weights), ("output_losses", self.output_losses)):
            if given is not None and len(given) != found:
                raise UserError(f"train.{name} has {len(given)} entries, but the network has {found} output(s)")

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        given = self.given(batch)
        network = self.networks["g"]
        if self.self_ensemble != "none":
            return {"output": self_ensemble(self._result, next(iter(given.values())), self.self_ensemble)}
        images = {k: v for k, v in given.items() if is_image(v, batch["lq"])}
        if len(images) == len(given):
            outputs = as_tuple(self.inference(network, *images.values()))
        else:
            outputs = as_tuple(self.inference(Called(network, given, list(images)), *images.values()))
        result = network_trait(network, "result_output") % len(outputs)
        return {"output" if i == result else f"output_{i + 1}": y for i, y in enumerate(outputs)}

    def _result(self, image: Tensor) -> Tensor:
        """*The* output for an image."""
        outputs = as_tuple(self.inference(self.networks["g"], image))
        place: int = network_trait(self.networks["g"], "result_output")
        return outputs[place % len(outputs)]


def need_items(key: str, names: Iterable[str], batch: Batch) -> None:
    """Refuse samples that lack what an option needs of them.

    Raises:
        UserError: an item is not there.
    """
    absent = [name for name in names if name not in batch]
    if absent:
        there = [name for name in batch if name not in ("index", "seed", "seeds")]
        hint = did_you_mean(absent[0], there)
        raise UserError(f"{key}: the samples have no '{absent[0]}'.{hint} They have: {', '.join(there)}.")


def refuse_other_inputs(network: nn.Module, inputs: list[str]) -> None:
    """Refuse a network that cannot be called with so many items of the samples.

    Raises:
        UserError: its ``forward`` takes other arguments.
    """
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):  # of what is not written in Python
        return
    try:
        signature.bind(*inputs)
    except TypeError as e:
        kind = type(network).__name__
        raise UserError(
            f"network_g: {kind} is called with {', '.join(inputs)}, and its forward takes {', '.join(signature.parameters)}; "
            "name the items of the samples that it needs, such as train: {inputs: [lq, mask]} (val: in a file without train)"
        ) from e


class Called:
    """A network as a function of the images among its inputs alone; the others stay what they are."""

    def __init__(self, network: nn.Module, given: dict[str, Any], images: list[str]) -> None:
        self.network, self.given, self.images = network, given, images
        self.size_multiple = size_multiple(network)

    def __call__(self, *images: Tensor) -> Any:
        return self.network(*{**self.given, **dict(zip(self.images, images, strict=True))}.values())


def is_image(value: Any, like: Tensor) -> bool:
    """Whether an item of a batch is an image (B, C, H, W) of the size of another, and so is cut and padded with it."""
    return isinstance(value, Tensor) and value.dim() == 4 and value.shape[-2:] == like.shape[-2:]


def stem(key: str) -> str:
    """``pixel`` of ``pixel_opt``."""
    return key.removesuffix("_opt")


def assigned(outputs: list[list[str]], keys: list[str]) -> list[list[str]]:
    """Option keys of each output's losses, which `outputs` gives without ``_opt``.

    Raises:
        UserError: there is no such loss, an output has none, or a loss no output.
    """
    stems = [stem(k) for k in keys]
    for name in [n for names in outputs for n in names]:
        if name not in stems:
            accepted = ", ".join(stems) or "none"
            raise UserError(
                f"train.output_losses: no loss is called '{name}'.{did_you_mean(name, stems)} There are: {accepted}."
            )
    if not all(outputs):
        raise UserError("train.output_losses: every output needs at least one loss")
    unused = set(stems) - {n for names in outputs for n in names}
    if unused:
        raise UserError(f"train.output_losses: no output has the loss '{min(unused)}'; leave it out instead")
    return [[f"{name}_opt" for name in names] for names in outputs]
