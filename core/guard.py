"""The non-finite guard: a step with a NaN or infinite loss or gradient is skipped by all ranks together, and explained."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
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
class StepReport:
    """What an update leaves to be looked at later: numbers on the device, and words."""

    iteration: int
    losses: Tensor
    """(n,), of the micro-batches one after the other."""
    names: Sequence[Sequence[str]]
    """Names of each micro-batch's losses."""
    norms: Tensor
    """(k,), of the gradients."""
    parameters: Sequence[nn.Parameter]
    """Parameters whose gradients they are."""
    words: Sequence[Mapping[str, Any]]
    """What each micro-batch holds besides tensors."""
    report: Tensor
    """See `Guard.judge`."""

    def again(self, iteration: int, batches: Sequence[Batch]) -> StepReport:
        """What the same update leaves of another step, with copies of the numbers that it has now."""
        numbers = {k: getattr(self, k).clone() for k in ("losses", "norms", "report")}
        return dataclasses.replace(self, iteration=iteration, words=words_of(batches), **numbers)


class Guard:
    """Judges every update, counts bad steps in a row, and leaves a replayable bundle when there were too many.

    It judges on the device, where a bad step is taken back, and asks nothing. What was bad is said when somebody looks: see
    `look`. From too many bad steps in a row on no step counts, so that a look finds everything as it was then.

    Args:
        limit: consecutive bad steps after which training stops (``train.max_nonfinite``).
        folder: folder in which the bundle goes.
        device: device of the networks.
        trained_by: the optimizers and losses with their values, for who has to find out why there were too many.
    """

    def __init__(self, limit: int, folder: Path, device: torch.device, trained_by: str = "") -> None:
        self.limit = limit
        self.cures = "Usual cures: a lower lr, train.grad_clip_norm, train.amp: off or bf16"
        self.cures += f" ({trained_by})" if trained_by else ""
        self.folder = folder
        self.device = device
        self.counted = torch.zeros((), dtype=torch.int32, device=device)
        """Bad steps in a row on the device, always up to date, and always in the same place."""
        self.entries: list[StepReport] = []
        self.kept: list[dict[str, Any]] = []
        self.in_a_row = 0

    @property
    def in_a_row(self) -> int:
        """Bad steps in a row, when it was last looked."""
        return self._in_a_row

    @in_a_row.setter
    def in_a_row(self, count: int) -> None:
        count = min(count, self.limit - 1)  # who goes on after too many may try again
        self._in_a_row = count
        self.counted.fill_(count)
        self._steps = 0

    def must_look(self, batches: Sequence[Batch]) -> bool:
        """Whether a step with these micro-batches needs a `look` before: earlier ones may have to be kept, of other shapes."""
        return self._in_a_row + self._steps >= self.limit and not alike(self.kept, batches)

    @property
    def going(self) -> Tensor:
        """Whether steps still count, (), boolean."""
        return self.counted < self.limit

    def begin(self, batches: Sequence[Batch]) -> None:
        """Keep a step's micro-batches as it begins."""
        if self._in_a_row + self._steps < self.limit:
            self.kept = [dict(b) for b in batches]  # there cannot have been too many yet
        else:
            going = self.going
            for kept, batch in zip(self.kept, batches, strict=True):
                kept.update({k: torch.where(going, v, kept[k]) for k, v in batch.items() if isinstance(v, Tensor)})
        self._steps += 1

    def judge(
        self,
        iteration: int,
        updates: Sequence[Update],
        batches: Sequence[Batch],
        parameters: Sequence[nn.Parameter],
        norms: Tensor,
        norm: Tensor,
        going: Tensor,
        scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Agree with the other ranks, on the device, on an update whose gradients are ready.

        The gradient norm travels along: after synchronisation it must be the same everywhere, and where it is not, some
        network was called behind DistributedDataParallel's back.

        Args:
            parameters: parameters that have gradients.
            norms: norms of those gradients, (k,).
            norm: norm of all of them together.
            going: whether the step still counts, ().
            scale: loss scale of fp16's gradients; one that can be lowered explains gradients that are not finite.

        Returns:
            Whether the update is to be applied, and whether it failed: neither, where only the scale was too large.
        """
        losses = torch.cat([u.terms.detach() for u in updates])
        bad_loss = (~torch.isfinite(losses)).any().float()
        norm = norm.detach().float()
        bad_norm = (~torch.isfinite(norm)).float()
        safe = torch.nan_to_num(norm, nan=0.0, posinf=0.0, neginf=0.0)
        report = distributed.maximum(torch.stack([bad_loss, bad_norm, safe, -safe]))
        finite = (report[0] + report[1]) == 0
        excused = torch.zeros_like(finite) if scale is None else (report[0] == 0) & ~finite & (scale >= 1.0)
        report = torch.cat([report, torch.stack([finite, excused]).float()])
        names = [list(u.losses) for u in updates]
        self.entries.append(StepReport(iteration, losses, names, norms.detach(), parameters, words_of(batches), report))
        return going & finite, going & ~finite & ~excused

    def close(self, sound: Tensor, failed: Tensor) -> None:
        """Count a step from two boolean scalars: whether all its updates were sound, and whether one has failed."""
        self.counted.copy_(torch.where(failed, self.counted + 1, torch.where(sound, 0, self.counted)))

    def look(self, networks: Mapping[str, nn.Module], context: Callable[[], Mapping[str, Any]] = dict) -> set[int]:
        """Say what was bad since the last look: which losses, which samples, which gradients. Waits for the device.

        Args:
            networks: unwrapped.
            context: what else a bundle should hold (options as YAML text, whether these name plug-ins, seed, rank).

        Returns:
            The places in this look of updates that did not count, of the updates since the last one.

        Raises:
            RuntimeError: gradients differ between ranks.
            NonFiniteError: there were too many in a row; the bundle, which replays the last of them, is on disk.
        """
        # Every step since the last look, read from the device at once.
        entries, self.entries = self.entries, []
        if not entries:
            return set()
        reports = torch.stack([e.report for e in entries]).tolist()
        count, lost, step, bad = self._in_a_row, set[int](), -1, False
        for place, (entry, report) in enumerate(zip(entries, reports, strict=True)):
            _, _, largest, minus_smallest, finite, excused = report
            if place and entry.iteration != step and not bad:
                count = 0
            if entry.iteration != step:
                step, bad = entry.iteration, False
            elif bad:
                lost.add(place)
                continue
            # Ranks whose gradients differ would train different networks.
            if finite and largest + minus_smallest > 1e-3 * largest:
                raise RuntimeError(
                    f"gradients differ between ranks (norms from {-minus_smallest:.6g} to {largest:.6g}): the model must call "
                    "its networks through self.networks[key](...), not through a submodule of theirs"
                )
            if finite:
                continue
            # A bad step, which counts unless an overflow of fp16 excuses it.
            bad = True
            if excused:
                continue
            count += 1
            self._say(entry, count, networks)
            if count >= self.limit:
                self._stop(entry, count, networks, context())
        self.in_a_row = count if bad else 0
        return lost

    def _say(self, entry: StepReport, count: int, networks: Mapping[str, nn.Module]) -> None:
        findings = distributed.gather(_findings(entry, networks))
        # Gradients are those of all ranks: where a loss says which rank is to blame, the others only see what came of it.
        first = max((cause for cause, text in findings if text), default=False)
        ranks: dict[str, list[str]] = {}
        for rank, (cause, text) in enumerate(findings):
            if text and cause == first:
                ranks.setdefault(text, []).append(str(rank))
        for text, whose in ranks.items() if distributed.is_main() else ():  # who speaks for all of them
            several = f"ranks {', '.join(whose)}" if len(whose) > 1 else f"rank {whose[0]}"
            where = f" on {several}" if len(findings) > 1 else ""
            log.warning("iteration %d skipped%s (%d in a row): %s", entry.iteration, where, count, text)

    def _stop(
        self, entry: StepReport, count: int, networks: Mapping[str, nn.Module], context: Mapping[str, Any]
    ) -> None:
        bundle = self.folder / f"nonfinite_{entry.iteration}_rank{distributed.rank()}.pt"
        values = iter(entry.losses.tolist())
        checkpoint.save(
            bundle,
            {
                **context,
                "iteration": entry.iteration,
                "batches": [{**kept, **words} for kept, words in zip(self.kept, entry.words, strict=True)],
                "networks": {k: n.state_dict() for k, n in networks.items()},
                "losses": [{k: next(values) for k in names} for names in entry.names],
            },
        )
        distributed.barrier()
        raise NonFiniteError(
            f"training stopped at iteration {entry.iteration}: {count} steps in a row had NaN or infinite values. "
            f"Replay the last one with: relume replay {bundle}{' --plugins' if context.get('plugins') else ''}. "
            f"{self.cures}"
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
                f"checkpoints stay as they are. {self.cures}"
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


def words_of(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """What micro-batches hold besides tensors."""
    return [{k: v for k, v in b.items() if not isinstance(v, Tensor)} for b in batches]


def alike(some: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two steps' batches have tensors of the same names, shapes and kinds."""

    def shapes(batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{k: (v.shape, v.dtype) for k, v in b.items() if isinstance(v, Tensor)} for b in batches]

    return shapes(some) == shapes(others)


def _findings(entry: StepReport, networks: Mapping[str, nn.Module]) -> tuple[bool, str]:
    """Whether a loss is not finite on this rank, and what is not, in words; an empty string when all is well here."""
    sentences, values = [], iter(entry.losses.tolist())
    for names, words in zip(entry.names, entry.words, strict=True):
        found = {name: next(values) for name in names}
        bad = [f"{k} = {v}" for k, v in found.items() if not math.isfinite(v)]
        if bad:
            paths = [p for k, v in words.items() if k.endswith("_path") and isinstance(v, (list, tuple)) for p in v]
            sentences.append(f"{', '.join(bad)} for {', '.join(map(str, paths)) or 'samples without paths'}")
    if sentences:
        return True, "; ".join(sentences)
    whose = {id(p): f"{key}.{name}" for key, network in networks.items() for name, p in network.named_parameters()}
    norms = zip(entry.parameters, entry.norms.tolist(), strict=True)
    bad = [whose.get(id(p), "a loss") for p, norm in norms if not math.isfinite(norm)]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        return False, f"the losses are finite, the gradients of {', '.join(bad[:3])}{more} are not"
    return False, ""
