"""The state-space scan in matrix products: the plain version of `core.ops.ssd.ssd`, forward and backward.

Notation, per head with P channels and states of size N (Dao and Gu, "Transformers are SSMs", ICML 2024, section 6)::

    a_t = dt_t A      c_t = a_1 + ... + a_t within a chunk of Q steps      u_t = dt_t x_t
    y_l = exp(c_l) h C_l  +  sum over s <= l of exp(c_l - c_s) (C_l . B_s) u_s        h: state at the chunk's start
    h'  = exp(c_Q) h      +  sum over s of exp(c_Q - c_s) u_s B_s^T                   state at its end

Heads of a group share C_l . B_s, and so can share the matrix products if the decays stay out of the Q x Q matrices. Here
``exp(c_l - c_s)`` is always a product of a factor per step s and a factor per step l, which scale rows before and after a
product for all heads at once. Within a chunk there are two kinds of links between steps:

- *tiles* of q steps on the diagonal, factored around their middle, which is safe while the decay in a tile stays within
  ``SAFE``; q is the largest power of two for which it does, usually Q itself;
- *halves*: the second half of 2q, 4q, ... Q steps from the first, factored around the border, so that no exponent is positive.

Exponents are differences of float64 sums, and d/da_t is summed over the links across t, never taken as the difference between
links that end and links that begin, which would cancel: strong decay costs time (levels of halves), not accuracy.

On a CPU the work goes by blocks of chunks that fit its cache, in memory used again and again. Kept for the backward pass: the
inputs and one state per block. Memory is linear in L, and the factor does not depend on Q.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from . import hosts
from .deterministic import running_sum
from .precision import widest

SAFE = 88.0
"""Largest sum of |a| in a tile: factors then lie within exp(+-44), and float32 has room for the data beside them."""
CACHED = 1 << 18
"""Elements of x, or of B if it is wider, in a block on a CPU."""


def scan_chunks(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, initial: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """The scan of float32 or float64 tensors; differentiable once.

    Args:
        x: (B, L, H, P), L >= 1.
        dt: (B, L, H), >= 0.
        A: (H).
        B, C: (B, L, G, N).
        D: (H, P), (H, 1) or None.
        initial: the first state, (B, G, N, H/G, P).
        chunk: Q, a power of two.

    Returns:
        y (B, L, H, P) with the term D x, and the last state, (B, G, N, H/G, P).
    """
    tensors = (x, dt, A, B, C, D, initial)
    result: tuple[Tensor, Tensor] = _Scan.apply(*tensors, chunk, least_tile(*tensors) or safe_tile(dt * A, chunk))
    return result


def least_tile(x: Tensor, *others: Tensor | None) -> int:
    """1 in training where asking would wait for a device, else 0: the largest that is safe. Shapes are those of `scan_chunks`.

    Single steps are safe whatever the decay is, and cost the scan twice as much.
    """
    trained = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *others))
    return int(trained and not hosts.asks_freely(x))


# ------------------------------------------------------------------------------------------------------------- layout
class Layout:
    """A block of samples and steps: from (B, L, heads or groups, ...) to rows (R, Q, ...), and back.

    R runs over samples, chunks and groups; what is left of heads is those of the group.
    """

    def __init__(self, samples: slice, steps: slice, chunk: int, groups: int, memory: Memory) -> None:
        self.samples, self.steps, self.chunk, self.groups, self.memory = samples, steps, chunk, groups, memory
        self.length = steps.stop - steps.start
        self.chunks = -(-self.length // chunk)
        self.batch = samples.stop - samples.start

    def rows(self, t: Tensor, name: str) -> Tensor:
        """A part of `t` (B, L, ...) by chunks: a view where there is one group and nothing to pad, else in the memory called
        `name`.
        """
        t = t[self.samples, self.steps]
        missing = self.chunks * self.chunk - self.length
        if missing:  # with zeros: dt = 0 neither decays nor writes
            t = F.pad(t, (*[0, 0] * (t.dim() - 2), 0, missing))
        t = t.unflatten(1, (-1, self.chunk)).unflatten(3, (self.groups, -1)).transpose(2, 3)
        if self.groups > 1:
            t = self.memory(name, *t.shape).copy_(t)
        return t.flatten(0, 2)

    def per_head(self, t: Tensor) -> Tensor:
        """(H, ...) -> (R, 1, heads, ...)."""
        t = t.unflatten(0, (self.groups, 1, -1))
        return t.expand(self.batch * self.chunks, *t.shape).flatten(0, 1)

    def by_chunk(self, t: Tensor) -> Tensor:
        """(R, ...) -> (samples, chunks, groups, ...)."""
        result: Tensor = t.unflatten(0, (self.batch, self.chunks, self.groups))
        return result

    def store(self, out: Tensor, rows: Tensor) -> None:
        target = out[self.samples, self.steps].unflatten(2, (self.groups, -1))
        t = self.by_chunk(rows).transpose(2, 3)
        if self.length == self.chunks * self.chunk:
            target.unflatten(1, (-1, self.chunk)).copy_(t)
        else:
            target.copy_(t.flatten(1, 2)[:, : self.length])


def layouts(x: Tensor, B: Tensor, chunk: int, memory: Memory) -> Iterator[list[Layout]]:
    """The blocks in the order of steps, for every sample, or for all at once where memory is no hierarchy of caches.

    `x` (batch, length, heads, width) and `B` (batch, length, groups, states) are read for their shapes.
    """
    batch, length, heads, width = x.shape
    whole = length // chunk * chunk
    on_cpu = x.device.type == "cpu"
    stride = max(CACHED // (max(heads * width, B.shape[2] * B.shape[3]) * chunk), 1) * chunk if on_cpu else length
    steps = [slice(s, min(s + stride, whole)) for s in range(0, whole, stride)]
    if whole < length:
        steps.append(slice(whole, length))
    for i in range(batch if on_cpu else 1):
        samples = slice(i, i + 1) if on_cpu else slice(0, batch)
        yield [Layout(samples, s, chunk, B.shape[2], memory) for s in steps]


class Memory:
    """Tensors that blocks use in turn, by name: first touches of fresh memory would take longer than the arithmetic."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.held: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        held = self.held.get(name)
        size = torch.Size(shape).numel()
        if held is None or held.numel() < size:
            held = self.held[name] = torch.empty(size, dtype=self.like.dtype, device=self.like.device)
        return held[:size].view(shape)


def _wide(x: Tensor) -> torch.dtype:
    """For sums over many steps: float64 where the device of `x` has it."""
    return widest(x.device)


def safe_tile(a: Tensor, chunk: int) -> int:
    """The largest power of two up to `chunk` so that the decay in no tile of so many steps exceeds SAFE; 1 if none.

    `a` holds the logarithms of the decays, (batch, length, heads).
    """
    total = F.pad(a.abs(), (0, 0, 0, -a.shape[1] % chunk))
    peaks = [total.amax()]
    for _ in range(chunk.bit_length() - 1):
        total = total.unflatten(1, (-1, 2)).sum(2)
        peaks.append(total.amax())
    fitting = [1 << i for i, peak in enumerate(torch.stack(peaks).tolist()) if peak <= SAFE]
    return max(fitting, default=1)


# -------------------------------------------------------------------------------------------------------------- links
class _Link(NamedTuple):
    """Late steps from early ones: ``y[late] += rise * (C[late] B[early]^T) (fall * u[early])``, per chunk or part of one.

    Of a tile, where early and late are the same steps, only l > s counts.
    """

    size: int
    halves: bool
    fall: Tensor
    rise: Tensor

    def early(self, t: Tensor) -> Tensor:
        """(R, Q, ...) -> (R', size, ...), a view."""
        return self._part(t, 0)

    def late(self, t: Tensor) -> Tensor:
        """(R, Q, ...) -> (R', size, ...), a view."""
        return self._part(t, 1)

    def _part(self, t: Tensor, half: int) -> Tensor:
        parts: Tensor = (
            t.unflatten(1, (-1, 2, self.size))[:, :, half] if self.halves else t.unflatten(1, (-1, self.size))
        )
        return parts.flatten(0, 1)

    def product(self, late: Tensor, early: Tensor, memory: Tensor) -> Tensor:
        """(R', size, K) twice -> (R', size, size)."""
        torch.bmm(late, early.transpose(1, 2), out=memory)
        return memory if self.halves else memory.tril_(-1)

    def across(self, weights: Tensor, memory: Tensor) -> tuple[Tensor, Tensor | None]:
        """Sums of weights (R', size, size) over all l >= t > s: (R', size) for t in late and for t in early steps.

        The steps of a tile are one and the same: the sums are first.
        """
        if self.halves:
            return running_sum(weights.sum(2).flip(1), 1).flip(1), _before(weights.sum(1))
        earlier = torch.ones_like(weights[0]).triu_(1)
        return torch.matmul(weights, earlier, out=memory).tril_().sum(1), None


def _before(t: Tensor) -> Tensor:
    """Sums over what comes before each place of dimension 1."""
    return running_sum(F.pad(t, (*[0, 0] * (t.dim() - 2), 1, -1)), 1)


# -------------------------------------------------------------------------------------------------------------- blocks
class Gradients(NamedTuple):
    """Gradients of the inputs, as rows; `product` is x times the output's gradient, `meeting` its sum over P."""

    x: Tensor
    dt: Tensor
    a: Tensor
    B: Tensor
    C: Tensor
    product: Tensor
    meeting: Tensor
    state: Tensor


class ScanBlock:
    """One block of chunks as rows: x (R, Q, heads, P), dt and c (R, Q, heads), B and C (R, Q, N)."""

    def __init__(
        self,
        layout: Layout,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        tile: int,
    ) -> None:
        self.layout, self.memory, self.tile = layout, layout.memory, tile
        self.x, self.dt = layout.rows(x, "x"), layout.rows(dt, "dt")
        self.B, self.C = layout.rows(B, "B rows").squeeze(2), layout.rows(C, "C rows").squeeze(2)
        self.c = running_sum((self.dt * layout.per_head(A)).to(_wide(x)), 1)
        self.own = (self.B * self.C).sum(-1, keepdim=True)  # a step's link to itself
        direct = (self.own * self.dt)[..., None]
        self.direct = direct if D is None else direct + layout.per_head(D)
        self.rise = self.factor(self.c)[..., None]
        self.fall = self.factor(self.c[:, -1:] - self.c)[..., None]
        self.kept = layout.by_chunk(self.factor(self.c[:, -1]))[:, :, :, None, :, None]

    def factor(self, exponent: Tensor) -> Tensor:
        return exponent.exp().to(self.x.dtype)

    def scaled(self, name: str, t: Tensor, factor: Tensor) -> Tensor:
        """The product of two tensors of any shape, in the memory called `name`."""
        return torch.mul(t, factor, out=self.memory(name, *t.shape))

    def links(self) -> Iterator[_Link]:
        c = self.c.unflatten(1, (-1, self.tile)).flatten(0, 1)
        middle = (c[:, :1] + c[:, -1:]) / 2
        yield _Link(self.tile, False, self.factor(middle - c)[..., None], self.factor(c - middle)[..., None])
        size = self.tile
        while size < self.layout.chunk:
            first, second = (t.flatten(0, 1) for t in self.c.unflatten(1, (-1, 2, size)).unbind(2))
            border = first[:, -1:]
            yield _Link(size, True, self.factor(border - first)[..., None], self.factor(second - border)[..., None])
            size *= 2

    def scores(self, link: _Link) -> Tensor:
        rows = self.B.shape[0] * self.B.shape[1] // link.size // (2 if link.halves else 1)
        return link.product(link.late(self.C), link.early(self.B), self.memory("scores", rows, link.size, link.size))

    def carry(self, name: str, steps: Tensor, rows: Tensor, edge: Tensor, backwards: bool = False) -> Tensor:
        """States between chunks: ``h[i + 1] = kept[i] h[i] + w[i]``, backwards ``h[i] = kept[i] h[i + 1] + w[i]``.

        Args:
            name: name of the memory for them.
            steps, rows: (R, Q, N) and (R, Q, heads, P); w is the product over Q.
            edge: what the chain starts from, (samples, G, N, heads, P).

        Returns:
            (samples, chunks + 1, G, N, heads, P).
        """
        n = self.layout.chunks
        product = self.memory(name + " added", len(rows), steps.shape[2], rows.shape[2] * rows.shape[3])
        torch.bmm(steps.transpose(1, 2), rows.flatten(2), out=product)
        added = self.layout.by_chunk(product.view(*product.shape[:2], *rows.shape[2:])).unbind(1)
        out = self.memory(name, edge.shape[0], n + 1, *edge.shape[1:])
        states, kept = out.unbind(1), self.kept.unbind(1)
        states[n if backwards else 0].copy_(edge)
        for i in reversed(range(n)) if backwards else range(n):
            source, target = (i + 1, i) if backwards else (i, i + 1)
            torch.addcmul(added[i], kept[i], states[source], out=states[target])
        return out

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Output, (R, Q, heads, P), and the state after the block."""
        dt = self.dt[..., None]
        states = self.carry("states", self.B, self.scaled("fallen", self.x, self.fall * dt), state)
        y = self.memory("y", *self.x.shape)
        torch.bmm(self.C, _rows(states[:, :-1]), out=y.view(*y.shape[:2], -1))
        y.mul_(self.rise)
        for link in self.links():
            fallen = self.scaled("fallen", link.early(self.x), link.fall * link.early(dt))
            update = self.memory("update", *fallen.shape)
            torch.bmm(self.scores(link), fallen.flatten(2), out=update.view(*update.shape[:2], -1))
            link.late(y).addcmul_(update, link.rise)
        return y.addcmul_(self.x, self.direct), states[:, -1].clone()

    def backward(self, grad: Tensor, state: Tensor, grad_state: Tensor) -> Gradients:
        """Gradients of the inputs, in their shapes, from those of output and last state, and from the state before the block.

        ``g.a`` sums over all links across a step. Through the states these are what the state before the chunk gives to that
        step and later ones, what earlier steps leave in the state after it, and what passes from the one to the other.
        """
        shape, dt = self.x.shape, self.dt[..., None]
        fallen = self.scaled("fallen", self.x, self.fall * dt)
        risen = self.scaled("risen", grad, self.rise)
        states = self.carry("states", self.B, fallen, state)
        grads = self.carry("gradients", self.C, risen, grad_state, backwards=True)
        before, after = _rows(states[:, :-1]), _rows(grads[:, 1:])
        g = Gradients(
            x=torch.matmul(self.B, after, out=self.memory("u", *shape[:2], before.shape[2]))
            .view(shape)
            .mul_(self.fall),
            dt=torch.empty(self.dt.shape, dtype=self.dt.dtype, device=self.dt.device),
            a=(states[:, :-1] * grads[:, 1:]).mul_(self.kept).sum((3, 5)).flatten(0, 2)[:, None].repeat(1, shape[1], 1),
            B=torch.bmm(fallen.flatten(2), after.transpose(1, 2), out=self.memory("B", *self.B.shape)),
            C=torch.bmm(risen.flatten(2), before.transpose(1, 2), out=self.memory("C", *self.C.shape)),
            product=self.memory("product", *shape),
            meeting=torch.empty(self.dt.shape, dtype=self.dt.dtype, device=self.dt.device),
            state=grads[:, 0].clone(),
        )
        torch.sum(torch.mul(self.x, g.x, out=g.product), -1, out=g.dt)
        g.a.add_(_before(g.dt * self.dt))
        torch.bmm(self.C, before, out=g.product.view(*shape[:2], -1))
        g.a.add_(running_sum(g.product.mul_(risen).sum(-1).flip(1), 1).flip(1))
        for link in self.links():
            self.backward_link(link, grad, g)
        # A step's link to itself.
        torch.sum(torch.mul(self.x, grad, out=g.product), -1, out=g.meeting)
        grad_own = (g.meeting * self.dt).sum(-1, keepdim=True)
        g.C.addcmul_(grad_own, self.B)
        g.B.addcmul_(grad_own, self.C)
        g.dt.addcmul_(self.own, g.meeting)
        g.x.mul_(dt).addcmul_(grad, self.direct)
        return g

    def backward_link(self, link: _Link, grad: Tensor, g: Gradients) -> None:
        """Add a link's share of the gradients, in their shapes; ``g.x`` is that of u here."""
        fallen = self.scaled("fallen", link.early(self.x), link.fall * link.early(self.dt)[..., None])
        risen = self.scaled("risen", link.late(grad), link.rise)
        scores = self.scores(link)
        total, one, spare = (self.memory(name, *scores.shape) for name in ("grad scores", "of a head", "spare"))
        for head in range(fallen.shape[2]):
            product = link.product(risen[:, :, head], fallen[:, :, head], one if head else total)
            torch.mul(product, scores, out=spare)
            if head:
                total += product
            arrives, leaves = link.across(spare, one)
            link.late(g.a)[..., head] += arrives
            if leaves is not None:
                link.early(g.a)[..., head] += leaves
        # Not baddbmm_: into parts of a tensor it multiplies matrices one by one.
        early, late = link.early(self.B), link.late(self.C)
        link.late(g.C).add_(torch.bmm(total, early, out=self.memory("linked", *early.shape)))
        link.early(g.B).add_(torch.bmm(total.transpose(1, 2), late, out=self.memory("linked", *late.shape)))
        part = self.memory("update", *fallen.shape)
        torch.bmm(scores.transpose(1, 2), risen.flatten(2), out=part.view(*part.shape[:2], -1))
        part.mul_(link.fall)
        link.early(g.x).add_(part)
        link.early(g.dt).add_(part.mul_(link.early(self.x)).sum(-1))


def _rows(states: Tensor) -> Tensor:
    """(samples, chunks, G, N, heads, P) -> (R, N, heads * P)."""
    return states.flatten(0, 2).flatten(2)


def forward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, initial: Tensor, chunk: int, tile: int
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Output, last state, and the state before each block, in the shapes of `scan_chunks`; `tile` is the largest safe one."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    last = torch.empty_like(initial)
    memory = Memory(x)
    starts = []
    for sequence in layouts(x, B, chunk, memory):
        samples = sequence[0].samples
        state = initial[samples]
        for layout in sequence:
            starts.append(state)
            rows, state = ScanBlock(layout, x, dt, A, B, C, D, tile).forward(state)
            layout.store(y, rows)
        last[samples] = state
    return y, last, starts


def backward(
    grad: Tensor,
    grad_last: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None],
    starts: Sequence[Tensor],
    chunk: int,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of the six inputs and of the initial state, in their shapes."""
    x, dt, A, B, C, D = inputs
    grad_x, grad_dt, grad_B, grad_C = (torch.empty_like(t) for t in (x, dt, B, C))
    grad_A = torch.zeros_like(A)
    grad_D = None if D is None else torch.zeros_like(D)
    grad_initial = torch.empty_like(grad_last)
    memory = Memory(x)
    position = 0
    for sequence in layouts(x, B, chunk, memory):
        samples = sequence[0].samples
        state = grad_last[samples]
        for i in reversed(range(len(sequence))):
            layout = sequence[i]
            block = ScanBlock(layout, x, dt, A, B, C, D, tile)
            g = block.backward(layout.rows(grad, "grad"), starts[position + i], state)
            state = g.state
            layout.store(grad_x, g.x)
            layout.store(grad_dt, torch.addcmul(g.dt, g.a, layout.per_head(A)))
            layout.store(grad_B, g.B[:, :, None])
            layout.store(grad_C, g.C[:, :, None])
            totals(layout, block, g, grad_A, grad_D)
        grad_initial[samples] = state
        position += len(sequence)
    return grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_initial


def totals(layout: Layout, block: ScanBlock, g: Gradients, grad_A: Tensor, grad_D: Tensor | None) -> None:
    """Add a block's share of the gradients of A and D, in their shapes: sums over all steps, of numbers of both signs."""
    wide = _wide(block.x)
    grad_A += layout.by_chunk(g.a * block.dt).sum((0, 1, 3), dtype=wide).flatten()
    if grad_D is not None:
        terms = g.product if grad_D.shape[1] > 1 else g.meeting[..., None]
        grad_D += layout.by_chunk(terms).sum((0, 1, 3), dtype=wide).flatten(0, 1)


class _Scan(Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        *inputs, _, chunk, tile = args
        y, last, starts = forward(*args)
        ctx.save_for_backward(*inputs, *starts)
        ctx.chunk, ctx.tile = chunk, tile
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        x, dt, A, B, C, D, *starts = ctx.saved_tensors
        return *backward(grad, grad_last, (x, dt, A, B, C, D), starts, ctx.chunk, ctx.tile), None, None
