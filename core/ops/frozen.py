"""Networks that others look through: neither trained nor saved."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class WithFrozenNetwork(nn.Module):
    """A module with a network that is neither trained nor saved.

    The network is not registered as a submodule. Registered, VGG19's 20 million parameters would be written into every
    checkpoint, asked for by every resume, and offered to the optimizer. It still follows ``.to(device)``, which
    `_apply` hands on, and it stays in evaluation mode, since ``.train()`` does not reach it.

    Args:
        network: network, put into evaluation mode, its parameters frozen.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "network", network.requires_grad_(False).eval())  # past nn.Module's registration

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WithFrozenNetwork:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.network._apply(fn, recurse)
        return self
