"""The non-finite guard: a step with a NaN or infinite loss or gradient is skipped by all ranks together, and explained."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import NonFiniteError
from .models.base import Batch, Update
from .runtime import checkpoint, distributed

log = logging.getLogger("relume")


@dataclass
class Verdict:
    """What the guard says of one update: is it sound on every rank, and did some rank get a stop signal."""

    finite: bool
    losses_finite: bool
    stop_code: int


class Guard:
    """Judges every update, counts bad steps in a row, and leaves a replayable bundle when there were too many.

    Args:
        limit: consecutive bad steps after which training stops (``train.max_nonfinite``).
        folder: where the bundle goes.
        device: of the networks.
    """

    def __init__(self, limit: int, folder: Path, device: torch.device) -> None:
        self.limit = limit
        self.folder = folder
        self.device = device
        self.in_a_row = 0

    def judge(self, updates: Sequence[Update], norm: Tensor, stop_code: int) -> Verdict:
        """Agree with the other ranks on an update whose gradients are ready.

        One collective and one host synchronisation per update. The gradient norm travels along: after synchronisation it
        must be the same everywhere, and where it is not, some network was called behind DistributedDataParallel's back.

        Raises:
            RuntimeError: gradients differ between ranks.
        """
        losses = torch.stack([v.detach().float() for u in updates for v in u.losses.values()])
        bad_loss = (~torch.isfinite(losses)).any().float()
        norm = norm.detach().float()
        bad_norm = (~torch.isfinite(norm)).float()
        safe = torch.nan_to_num(norm, nan=0.0, posinf=0.0, neginf=0.0)
        stop = torch.tensor(float(stop_code), device=self.device)
        report = distributed.maximum(torch.stack([bad_loss, bad_norm, stop, safe, -safe]))
        any_bad_loss, any_bad_norm, code, largest, minus_smallest = report.tolist()
        finite = not any_bad_loss and not any_bad_norm
        if finite and largest + minus_smallest > 1e-3 * largest:
            raise RuntimeError(
                f"gradients differ between ranks (norms from {-minus_smallest:.6g} to {largest:.6g}): the model must call its "
                "networks through self.networks[key](...), not through a submodule of theirs"
            )
        return Verdict(finite, not any_bad_loss, int(code))

    def passed(self) -> None:
        """A whole step was sound."""
        self.in_a_row = 0

    def failed(
        self,
        iteration: int,
        updates: Sequence[Update],
        batches: Sequence[Batch],
        networks: Mapping[str, nn.Module],
        context: Mapping[str, Any],
    ) -> None:
        """A step was skipped: say which loss, which samples, which gradients; stop when it is the last straw.

        Args:
            networks: unwrapped; untouched since the step failed, so that the bundle replays it.
            context: what else the bundle should hold (options as YAML text, whether these name plug-ins, seed, rank).

        Raises:
            NonFiniteError: the limit is reached; the bundle is on disk.
        """
        self.in_a_row += 1
        findings = distributed.gather(_findings(updates, batches, networks))
        # Gradients are those of all ranks: where a loss says which rank is to blame, the others only see what came of it.
        first = max((cause for cause, text in findings if text), default=False)
        ranks: dict[str, list[str]] = {}
        for rank, (cause, text) in enumerate(findings):
            if text and cause == first:
                ranks.setdefault(text, []).append(str(rank))
        for text, whose in ranks.items() if distributed.is_main() else ():  # who speaks for all of them
            several = f"ranks {', '.join(whose)}" if len(whose) > 1 else f"rank {whose[0]}"
            where = f" on {several}" if len(findings) > 1 else ""
            log.warning("iteration %d skipped%s (%d in a row): %s", iteration, where, self.in_a_row, text)
        if self.in_a_row < self.limit:
            return
        bundle = self.folder / f"nonfinite_{iteration}_rank{distributed.rank()}.pt"
        checkpoint.save(
            bundle,
            {
                **context,
                "iteration": iteration,
                "batches": [dict(b) for b in batches],
                "networks": {k: n.state_dict() for k, n in networks.items()},
                "losses": [{k: float(v.detach()) for k, v in u.losses.items()} for u in updates],
            },
        )
        distributed.barrier()
        raise NonFiniteError(
            f"training stopped at iteration {iteration}: {self.in_a_row} steps in a row had NaN or infinite values. "
            f"Replay the last one with: relume replay {bundle}{' --plugins' if context.get('plugins') else ''}. "
            "Usual cures: a lower lr, train.grad_clip_norm, train.amp: off or bf16"
        )

    def refuse_weights(self, iteration: int, *kinds: Mapping[str, nn.Module]) -> None:
        """Agree with the other ranks that weights may be kept; called, on all ranks, before they are written.

        Args:
            kinds: networks by key, and their averages.

        Raises:
            NonFiniteError: some weights or buffers are NaN or infinite.
        """
        bad = spoilt(*kinds)
        count = torch.tensor([float(len(bad))], device=self.device)
        if distributed.maximum(count).item() > 0:
            which = f" ({', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''})" if bad else ""
            raise NonFiniteError(
                f"training stopped at iteration {iteration}: the weights are NaN or infinite{which}, and are not saved; older "
                "checkpoints stay as they are. Usual cures: a lower lr, train.grad_clip_norm, train.amp: off or bf16"
            )


def spoilt(*kinds: Mapping[str, nn.Module]) -> list[str]:
    """What is NaN or infinite here, on this rank alone, in networks by key, and their averages."""
    return [f"network_{key}: {name}" for networks in kinds for key, n in networks.items() for name in _spoilt(n)]


def _spoilt(network: nn.Module) -> list[str]:
    """Names of parameters and buffers, this rank's part of them, with NaN or infinite values."""
    floats = {k: v.detach() for k, v in network.state_dict().items() if v.is_floating_point() or v.is_complex()}
    local = {k: v.to_local() if hasattr(v, "to_local") else v for k, v in floats.items()}
    if all(v.numel() == 0 for v in local.values()):
        return []
    # One look at the device for all of them: the sum of a tensor times zero is zero unless something in it is not finite.
    if bool(torch.isfinite(torch.stack([(v * 0).sum().abs().float() for v in local.values()])).all()):
        return []
    return [k for k, v in local.items() if not torch.isfinite(v).all()]


def _findings(
    updates: Sequence[Update], batches: Sequence[Batch], networks: Mapping[str, nn.Module]
) -> tuple[bool, str]:
    """Whether a loss is not finite on this rank, and what is not, in words; an empty string when all is well here."""
    sentences = []
    for update, batch in zip(updates, batches, strict=True):
        bad = [f"{k} = {float(v.detach())}" for k, v in update.losses.items() if not torch.isfinite(v).all()]
        if bad:
            paths = [p for k, v in batch.items() if k.endswith("_path") and isinstance(v, (list, tuple)) for p in v]
            sentences.append(f"{', '.join(bad)} for {', '.join(map(str, paths)) or 'samples without paths'}")
    if sentences:
        return True, "; ".join(sentences)
    bad_gradients = [
        f"{key}.{name}"
        for key, network in networks.items()
        for name, p in network.named_parameters()
        if p.grad is not None and not torch.isfinite(p.grad).all()
    ]
    if bad_gradients:
        more = f" and {len(bad_gradients) - 3} more" if len(bad_gradients) > 3 else ""
        return False, f"the losses are finite, the gradients of {', '.join(bad_gradients[:3])}{more} are not"
    return False, ""
