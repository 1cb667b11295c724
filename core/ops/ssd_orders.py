"""What Mamba-2 does to the same tokens in several orders, on a CPU: convolution, SiLU and state-space scan at once.

The projections before and after treat every token alone and are done once for all orders (`archs.mamba2.Mamba2.in_orders`).
Here tokens are fetched into an order block by block, in the cache, and results go back to their tokens: no sequence is ever
whole in memory. Kept for the backward pass are the inputs and a state per block; the rest is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .ssd_chunks import Layout, Memory, ScanBlock, safe_tile, totals

CACHED = 1 << 18
"""Elements of a block, of all orders and channels."""


def scan_in_orders(
    inputs: Tensor,
    dt: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    D: Tensor,
    orders: Tensor,
    groups: int,
    width: int,
    chunk: int,
) -> Tensor:
    """`core.ops.ssd.ssd` of `causal_conv1d` with SiLU, in every order; differentiable once. All float32, or all float64.

    Args:
        inputs: what the convolution takes, (B, T, H P + 2 G N).
        dt: step sizes, (B, T, H), not negative.
        weight: (H P + 2 G N, taps).
        bias: (H P + 2 G N) or None.
        A: (H).
        D: (H, P) or (H, 1).
        orders: the token of each step, (K, T), each a permutation.
        groups: G.
        width: P.
        chunk: steps per chunk of the scan, a power of two.

    Returns:
        (B, K, T, H P): what each order makes of each token, by tokens.
    """
    y: Tensor = _Scan.apply(inputs, dt, weight, bias, A, D, orders, groups, width, chunk)
    return y


class _Given(NamedTuple):
    """What the passes share."""

    inputs: Tensor
    dt: Tensor
    """Step sizes in every order, (B, K, T, H)."""
    weight: Tensor
    bias: Tensor | None
    A: Tensor
    D: Tensor
    orders: Tensor
    groups: int
    width: int
    chunk: int
    tile: int

    def windows(self) -> list[slice]:
        """Steps of the blocks, whole chunks but for the last."""
        count, length = self.orders.shape
        step = max(CACHED // (count * self.inputs.shape[2] * self.chunk), 1) * self.chunk
        return [slice(start, min(start + step, length)) for start in range(0, length, step)]


class _Window:
    """Some steps of all orders of a sample, and what precedes the scan there, in memory used again."""

    def __init__(self, given: _Given, sample: int, steps: slice, memory: Memory) -> None:
        self.given, self.memory = given, memory
        orders = given.orders[:, steps]
        self.taps = given.weight.shape[1]
        self.tokens = orders.flatten()
        self.places = (orders + torch.arange(len(orders))[:, None] * given.orders.shape[1]).flatten()
        """The same among the tokens of all orders, one after another."""
        self.shape = orders.shape
        before = max(steps.start - self.taps + 1, 0)
        known = given.orders[:, before : steps.stop]
        missing = self.shape[1] + self.taps - 1 - known.shape[1]
        self.raw = self.fetched("raw", given.inputs[sample], torch.cat([known[:, :1].expand(-1, missing), known], 1))
        self.raw[:, :missing] = 0
        self.sums = self.convolved("sums", self.raw, given.weight, given.bias)
        active = torch.ops.aten.silu.out(self.sums, out=memory("active", *self.sums.shape))
        self.layout = Layout(slice(0, len(orders)), slice(0, self.shape[1]), given.chunk, given.groups, memory)
        x, B, C = self.parts(active)
        self.block = ScanBlock(self.layout, x, given.dt[sample, :, steps], given.A, B, C, given.D, given.tile)

    def fetched(self, name: str, rows: Tensor, index: Tensor) -> Tensor:
        """Rows (N, E) by their numbers (K, S): (K, S, E)."""
        out = self.memory(name, index.numel(), rows.shape[1])
        torch.index_select(rows, 0, index.flatten(), out=out)
        return out.view(*index.shape, -1)

    def convolved(self, name: str, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(K, S + taps - 1, E) -> (K, S, E): to each step come those after it, by the columns of `weight`."""
        length = self.shape[1]
        out = self.memory(name, len(rows), length, rows.shape[2])
        columns = weight.t().contiguous()
        if bias is None:
            torch.mul(rows[:, :length], columns[0], out=out)
        else:
            torch.addcmul(bias, rows[:, :length], columns[0], out=out)
        for k in range(1, self.taps):
            out.addcmul_(rows[:, k : k + length], columns[k])
        return out

    def parts(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (K, S, H, P), B and C (K, S, G, N), as views of (K, S, H P + 2 G N)."""
        inner = self.given.A.shape[0] * self.given.width
        x, B, C = t.split([inner, *[(t.shape[-1] - inner) // 2] * 2], -1)
        groups = self.given.groups
        return x.unflatten(-1, (-1, self.given.width)), B.unflatten(-1, (groups, -1)), C.unflatten(-1, (groups, -1))


def _windows(given: _Given, sample: int, memory: Memory, backwards: bool = False) -> Iterator[tuple[slice, _Window]]:
    steps = given.windows()
    for found in reversed(steps) if backwards else steps:
        yield found, _Window(given, sample, found, memory)


def _forward(given: _Given) -> tuple[Tensor, list[Tensor]]:
    """The result, and the states before all blocks, sample after sample."""
    (count, length), heads = given.orders.shape, given.A.shape[0]
    inner = heads * given.width
    y = given.inputs.new_zeros(len(given.inputs), count, length, inner)
    states = (given.inputs.shape[2] - inner) // 2 // given.groups
    memory, starts = Memory(given.inputs), []
    for sample in range(len(y)):
        state = given.inputs.new_zeros(count, given.groups, states, heads // given.groups, given.width)
        for _, window in _windows(given, sample, memory):
            starts.append(state)
            rows, state = window.block.forward(state)
            out = memory("out", *window.shape, heads, given.width)
            window.layout.store(out, rows)
            y[sample].flatten(0, 1).index_add_(0, window.places, out.view(-1, inner))
    return y, starts


class _Gradients(NamedTuple):
    """Of the inputs; `dt` in every order, `weight` transposed."""

    inputs: Tensor
    dt: Tensor
    weight: Tensor
    bias: Tensor
    A: Tensor
    D: Tensor


def _backward(grad: Tensor, given: _Given, starts: list[Tensor]) -> _Gradients:
    count, channels = len(given.orders), given.inputs.shape[2]
    # Sums over all blocks, and results that each block writes in part.
    found = _Gradients(
        inputs=torch.zeros_like(given.inputs),
        dt=torch.empty_like(given.dt),
        weight=given.weight.new_zeros(given.weight.shape[1], channels),
        bias=given.weight.new_zeros(channels),
        A=torch.zeros_like(given.A),
        D=torch.zeros_like(given.D),
    )
    memory, position = Memory(given.inputs), len(starts)
    for sample in reversed(range(len(grad))):
        state = torch.zeros_like(starts[0])
        later = grad.new_zeros(count, given.weight.shape[1] - 1, channels)
        # Blocks from the last to the first: the scan, then the activation, then the convolution.
        for steps, window in _windows(given, sample, memory, backwards=True):
            # Through the scan.
            position -= 1
            of = window.fetched("grad in order", grad[sample].flatten(0, 1), window.places.view(window.shape))
            rows = window.layout.rows(of.unflatten(-1, (-1, given.width)), "grad")
            g = window.block.backward(rows, starts[position], state)
            state = g.state
            torch.addcmul(g.dt, g.a, window.layout.per_head(given.A), out=g.dt)
            window.layout.store(found.dt[sample, :, steps], g.dt)
            totals(window.layout, window.block, g, found.A, found.D)
            # Through SiLU and the convolution, which reaches into the block before.
            sums = memory("grad of sums", count, window.shape[1] + later.shape[1], channels)
            sums[:, window.shape[1] :] = later
            inside = sums[:, : window.shape[1]]
            for part, gradient in zip(window.parts(inside), (g.x, g.B[:, :, None], g.C[:, :, None]), strict=True):
                window.layout.store(part, gradient)
            torch.ops.aten.silu_backward.grad_input(inside, window.sums, grad_input=inside)
            later = sums[:, : later.shape[1]].clone()
            _of_convolution(window, sums, inside, found, sample)
    return found


def _of_convolution(window: _Window, sums: Tensor, inside: Tensor, found: _Gradients, sample: int) -> None:
    """Add a block's share of the convolution's gradients, from that of its results, `inside`, the head of `sums`."""
    product = window.memory("product of taps", *inside.shape)
    for k in range(window.taps):
        torch.mul(inside, window.raw[:, k : k + inside.shape[1]], out=product)
        found.weight[k] += product.flatten(0, 1).sum(0)
    found.bias.add_(inside.sum(1).sum(0))  # in one sum torch goes through the rows one number at a time
    back = window.convolved("back", sums, window.given.weight.flip(1), None)
    found.inputs[sample].index_add_(0, window.tokens, back.flatten(0, 1))


class _Scan(Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        dt: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        A: Tensor,
        D: Tensor,
        orders: Tensor,
        *numbers: int,
    ) -> Tensor:
        ordered = dt[:, orders]
        ctx.numbers = *numbers, safe_tile((ordered * A).flatten(0, 1), numbers[2])
        y, starts = _forward(_Given(inputs, ordered, weight, bias, A, D, orders, *ctx.numbers))
        ctx.save_for_backward(inputs, ordered, weight, bias, A, D, orders, *starts)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, ordered, weight, bias, A, D, orders, *starts = ctx.saved_tensors
        g = _backward(grad, _Given(inputs, ordered, weight, bias, A, D, orders, *ctx.numbers), starts)
        dt = g.dt.new_zeros(len(g.dt), *g.dt.shape[2:])
        dt.index_add_(1, orders.flatten(), g.dt.flatten(1, 2))
        return g.inputs, dt, g.weight.t(), None if bias is None else g.bias, g.A, g.D, None, None, None, None
