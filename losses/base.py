"""What every loss may say of itself to the models that call it."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from ..core.errors import UserError


class LossTraits:
    """What Relume asks of a loss besides ``loss(pred, target)``, and what holds for one that says nothing.

    A registered ``nn.Module`` may have any of these; `core.annotations.declared` reads them.
    """

    context: tuple[str, ...] = ()
    """Keyword arguments that it wants besides prediction and target, of those in the model's ``loss_context``. One that wants
    ``gap`` compares with the averaged generator, and has `gaps`."""
    in_features: ClassVar[bool] = False
    """Whether it compares unit features (B, d) instead of images."""
    looks_at_flow: ClassVar[bool] = False
    """Whether models with flow give it flow and the first image, instead of prediction and target."""
    wants_true_flow: ClassVar[bool] = False
    """Whether the batch's ``flow`` takes the place of the first image then."""

    of_discriminator: ClassVar[bool] = False
    """Whether it is called with what a discriminator says of images, which only models with a discriminator can do."""

    def logs(self) -> dict[str, Tensor]:
        """Scalars worth logging that are not optimised, by log name."""
        return {}

    def gaps(self, uniforms: Tensor) -> Tensor:
        """Steps in time (B,) to the point where the averaged generator teaches, from uniform numbers (B,).

        Raises:
            UserError: always; a loss with 'gap' in its context implements it.
        """
        raise UserError(f"{type(self).__name__}: a loss with 'gap' in its context needs a method gaps(uniforms)")


@runtime_checkable
class Distillation(Protocol):
    """A loss by which the prior of DiffIR's second stage learns from that of its first."""

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """What two priors (B, L) differ by as distributions; a scalar."""
        ...
