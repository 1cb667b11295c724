"""One update of a step: gradients over micro-batches and ranks, the guard's verdict, the optimizer's step, what is logged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.base import Batch, Update
from ..options.schema import Train
from ..runtime import distributed, parallel
from ..runtime.precision import autocast
from ..runtime.predicated import Stepper, put_back, takes_tensors
from .parts import Parts


class Updater:
    """Back-propagates what a model asks for, and steps its optimizers.

    Args:
        parts: everything that was built.
        train: the ``train`` section.

    Attributes:
        steppers: what steps each optimizer where the update is sound.
        scalers: scaler of fp16's gradients for each optimizer. One for each: an overflow in one network would lower the
            scale of all, and each update would count as a step.
        logged: names of what each update since the last look has logged, of the last step.
        applied: whether an optimizer has stepped in this step.
        buffers: buffers of the networks.
    """

    def __init__(self, parts: Parts, train: Train) -> None:
        self.parts, self.train = parts, train
        self.steppers = {k: Stepper(o, train.cuda_graph and takes_tensors(o)) for k, o in parts.optimizers.items()}
        self.buffers = [b for n in parts.networks.values() for b in n.buffers()]
        fp16 = train.amp == "fp16"
        self.scalers = {k: torch.amp.GradScaler(parts.device.type, enabled=fp16) for k in parts.optimizers}
        self.logged: list[list[str]] = []
        self.applied = False
        self._loose = _parameters_outside_ddp(parts)

    def begin(self) -> None:
        """A step begins."""
        self.logged, self.applied = [], False
        for stepper in self.steppers.values():
            stepper.rates.bring()

    def take(
        self, iteration: int, batches: Sequence[Batch], buffers: Sequence[Tensor] | None = None
    ) -> tuple[dict[str, Tensor | float], set[str]]:
        """Everything of a step that its device does: every update that the model asks for, and averages.

        Args:
            buffers: the networks' buffers, of any shape, as they were before the step; copied here when None.

        Returns:
            The scalars that the step logs, and the optimizers that it asked for.
        """
        guard = self.parts.guard
        before = [b.clone() for b in self.buffers] if buffers is None else buffers
        scalars: dict[str, Tensor | float] = {}
        asked: set[str] = set()
        sound = guard.going
        failed = ~sound  # where steps count no longer, batch statistics stay as they are, too
        generators = [self.parts.model.updates(batch, iteration) for batch in batches]
        while updates := self.differentiate(generators):
            asked.add(updates[0].optimizer)
            # After a bad update the rest of the step would build on one that did not happen: it does not count either.
            sound, worse = self.apply(iteration, updates, batches, scalars, sound)
            failed = failed | worse
        if asked:
            guard.close(sound, failed)
            put_back(~failed, self.buffers, before)
            if self.parts.ema:
                self.parts.ema.update(self.parts.networks, sound)
        return scalars, asked

    def differentiate(self, generators: Sequence[Iterator[Update]]) -> list[Update]:
        """The next update of every micro-batch, back-propagated; an empty list when the step is over.

        Raises:
            RuntimeError: the micro-batches ask for different updates.
        """
        for optimizer in self.parts.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        updates: list[Update] = []
        for i, generator in enumerate(generators):
            with self.synchronised(i == len(generators) - 1):
                with autocast(self.parts.device, self.train.amp):
                    update = next(generator, None)
                if update is None:
                    break
                self.scalers[update.optimizer].scale(update.terms.sum() / len(generators)).backward()
            updates.append(update)
        if updates and (len(updates) != len(generators) or len({(u.optimizer, *u.losses) for u in updates}) != 1):
            raise RuntimeError("the model's micro-batches asked for different updates")
        return updates

    def apply(
        self,
        iteration: int,
        updates: list[Update],
        batches: Sequence[Batch],
        scalars: dict[str, Tensor | float],
        going: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Step the optimizer where every rank's losses and gradients are finite, which only the device knows.

        Args:
            scalars: what the step logs; this update's are added.
            going: whether the step still counts, (), boolean.

        Returns:
            Whether the update counts, and whether it has failed; neither, where fp16's scale was too large.
        """
        name = updates[0].optimizer
        optimizer, scaler, guard = self.parts.optimizers[name], self.scalers[name], self.parts.guard
        # Gradients as the optimizer gets them.
        for p in self._loose:
            if p.grad is not None:
                distributed.mean(p.grad)
        scale = growth = None
        if scaler.is_enabled():
            scaler.unscale_(optimizer)
            scale, growth = kept_scale(scaler)
        # Judge them, and note what is logged.
        parameters = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        norms = gradient_norms(parameters, self.parts.device)
        norm = torch.linalg.vector_norm(norms)
        sound, failed = guard.judge(iteration, updates, batches, parameters, norms, norm, going, scale)
        logged = set(scalars)
        collect(scalars, updates, norm, self.parts.model.leading)
        new = [k for k in scalars if k not in logged]
        if self.logged:  # after another update, which may have failed: then this one did not happen
            scalars.update({k: torch.where(going, scalars[k], torch.nan) for k in new})
        self.logged.append(new)
        self.applied = True
        # The update, which a bad step skips on the device.
        self.clip(parameters, norm)
        self.steppers[name].step(sound)
        if scale is not None and growth is not None:
            scaler.update()  # lowers the scale after an overflow, which is to stay if that is no overflow but a bad step
            put_back(going & ~failed, list(kept_scale(scaler, own=True)), [scale, growth])
        return sound, failed

    def clip(self, parameters: list[nn.Parameter], norm: Tensor) -> None:
        """Clip gradients by value and by their `norm`, a scalar, as the options say."""
        value = self.train.grad_clip_value
        largest = self.train.grad_clip_norm or (0.01 if self.train.use_grad_clip else None)
        if value:
            nn.utils.clip_grad_value_(parameters, value)
            norm = torch.linalg.vector_norm(gradient_norms(parameters, self.parts.device)) if largest else norm
        if largest:
            nn.utils.clip_grads_with_norm_(parameters, largest, norm)

    def look(self, context: Callable[[], Mapping[str, Any]]) -> set[str]:
        """Have the guard say what was bad since the last look. Waits for the device.

        Args:
            context: what a bundle for `replay` holds besides.

        Returns:
            The names of the last step's scalars that are of updates which did not count.

        Raises:
            NonFiniteError: too many steps were bad.
        """
        logged, self.logged = self.logged, []
        first = len(self.parts.guard.entries) - len(logged)
        lost = self.parts.guard.look(self.parts.networks, context)
        for stepper in self.steppers.values():
            stepper.settle()
        return {name for place, names in enumerate(logged, first) if place in lost for name in names}

    @contextlib.contextmanager
    def synchronised(self, last: bool) -> Iterator[None]:
        """Gradients travel between ranks with the last micro-batch only."""
        with contextlib.ExitStack() as stack:
            for network in self.parts.model.networks.values():
                if not last and isinstance(network, nn.parallel.DistributedDataParallel):
                    stack.enter_context(network.no_sync())
            yield


def gradient_norms(parameters: Sequence[nn.Parameter], device: torch.device) -> Tensor:
    """Euclidean norms (k,) of the gradients, of the whole ones where parameters are sharded; (0,) without any."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(0, device=device)
    found = torch._foreach_norm(gradients)
    dtypes = {n.dtype for n in found}
    norms = torch.stack(found if len(dtypes) == 1 else [n.float() for n in found])
    return norms.full_tensor() if hasattr(norms, "full_tensor") else norms


def kept_scale(scaler: torch.amp.GradScaler, own: bool = False) -> tuple[Tensor, Tensor]:
    """The scale of fp16's gradients and the steps since it grew, scalars on the device: copies, or the scaler's `own`."""
    scale, growth = scaler._scale, scaler._growth_tracker
    assert scale is not None and growth is not None
    return (scale, growth) if own else (scale.clone(), growth.clone())


def collect(
    scalars: dict[str, Tensor | float], updates: Sequence[Update], norm: Tensor, leading: str | None = None
) -> None:
    """Add the updates' terms and logs, scalars averaged over micro-batches and detached, to what is logged.

    The sum of the terms, ``l_total``, and the gradient norm are logged under their optimizer's name, without one for the
    `leading` optimizer, or else a step's first.
    """
    terms = torch.stack([u.terms.detach() for u in updates]).mean(dim=0)
    scalars.update(zip(updates[0].losses, terms.unbind(), strict=True))
    for name in updates[0].logs:
        scalars[name] = torch.stack([torch.as_tensor(u.logs[name]).detach().float() for u in updates]).mean()
    first = updates[0].optimizer == leading if leading else "grad_norm" not in scalars
    whose = "" if first else f"_{updates[0].optimizer}"
    scalars[f"l_total{whose}"] = torch.stack([u.terms.detach().sum() for u in updates]).mean()
    scalars[f"grad_norm{whose}"] = norm.detach()


def _parameters_outside_ddp(parts: Parts) -> list[nn.Parameter]:
    """Trained parameters that no wrapper synchronises (learned loss weights): the trainer averages their gradients."""
    if not distributed.active():
        return []
    # What was frozen when its network was wrapped is not DDP's business, even if the model trains it later.
    covered = {
        id(p) for n in parts.networks.values() for p in n.parameters() if p.requires_grad or parallel.is_sharded(n)
    }
    every = {id(p): p for o in parts.optimizers.values() for g in o.param_groups for p in g["params"]}
    return [p for key, p in every.items() if key not in covered]
