"""The Mamba-2 layer (Dao and Gu, ICML 2024), with the parameters, options and initialisation of ``mamba_ssm.Mamba2``.

Weights move freely between the two. The scan is `core.ops.ssd.ssd`, the convolution `core.ops.causal_conv1d.causal_conv1d`.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops import hosts
from ..core.ops.causal_conv1d import causal_conv1d
from ..core.ops.dispatch import device_obstacle, use_kernel
from ..core.ops.precision import at_least_float32
from ..core.ops.rms_norm import rmsnorm_gated
from ..core.ops.rms_norm_sums import rmsnorm_gated_sum
from ..core.ops.ssd import chunk_of, ssd
from ..core.ops.ssd_orders import scan_in_orders


class RMSNormGated(nn.Module):
    """`rmsnorm_gated` with its gain as parameter ``weight``."""

    def __init__(
        self, dim: int, eps: float = 1e-5, group_size: int | None = None, norm_before_gate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps
        self.group_size = group_size
        self.norm_before_gate = norm_before_gate

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """(..., D) and a gate of the same shape, or None -> (..., D)."""
        return rmsnorm_gated(x, self.weight, z, self.eps, self.group_size, self.norm_before_gate)

    def of_orders(self, y: Tensor, z: Tensor) -> Tensor:
        """The sum of ``self(y[:, k], z)`` over k: (B, K, T, D) and (B, T, D) -> (B, T, D)."""
        return rmsnorm_gated_sum(y, self.weight, z, self.eps, self.group_size, self.norm_before_gate)


class Mamba2(nn.Module):
    """Mamba-2: gate, causal convolution and state-space scan between two linear layers; (B, L, d_model) -> the same.

    ``in_proj`` gives, in this order, z0 and x0 of a gated linear branch (when `d_ssm` is smaller than the inner width), the
    gate z, then x, B and C, which pass through convolution and SiLU, then the step sizes dt.

    Args:
        d_model: channels of input and output.
        d_state: N, size of a head's state per channel.
        d_conv: width of the causal convolution.
        conv_init: the convolution's weights start within this distance of 0; PyTorch's default when None.
        expand: inner width over `d_model`.
        headdim: P, channels per head.
        d_ssm: channels that take part in the scan; all of the inner width when None.
        ngroups: G, groups of heads that share B and C.
        A_init_range: -A starts uniformly in this range.
        D_has_hdim: the skip D has a value per channel, not per head.
        rmsnorm: normalise after (or before) gating.
        norm_before_gate: normalise first, then gate.
        dt_min, dt_max, dt_init_floor: dt starts log-uniformly between the first two, at least the third.
        dt_limit: dt is kept within.
        bias: whether the linear layers have one.
        conv_bias: whether the convolution has one.
        chunk_size: steps per chunk of the scan, which changes only its speed; the scan's own choice when None.

    Raises:
        UserError: widths that do not divide or are not positive, or a range that is none.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: int = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        counts = {
            "d_model": d_model,
            "d_state": d_state,
            "d_conv": d_conv,
            "expand": expand,
            "headdim": headdim,
            "d_ssm": d_ssm,
            "ngroups": ngroups,
            "chunk_size": chunk_size,
        }
        for name, value in counts.items():
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UserError(f"Mamba2: {name} must be a whole number of at least 1; it is {value}")
        for name, pair in {"A_init_range": A_init_range, "dt_limit": dt_limit}.items():
            if not isinstance(pair, (tuple, list)) or len(pair) != 2 or pair[0] > pair[1]:
                raise UserError(f"Mamba2: {name} must be two numbers, the smaller first; it is {pair}")
        d_inner = expand * d_model
        self.d_ssm = d_inner if d_ssm is None else d_ssm
        self.headdim = headdim
        self.ngroups = ngroups
        self.d_state = d_state
        self.dt_limit = (dt_limit[0], dt_limit[1])
        self.chunk_size = chunk_size
        if self.d_ssm % headdim or self.d_ssm > d_inner:
            raise UserError(
                f"Mamba2: {self.d_ssm} channels (d_ssm, or expand * d_model = {d_inner}) do not make whole heads of "
                f"headdim {headdim} within {d_inner}"
            )
        heads = self.d_ssm // headdim
        if heads % ngroups:
            raise UserError(f"Mamba2: {heads} heads cannot form {ngroups} groups (ngroups)")
        d_conv_channels = self.d_ssm + 2 * ngroups * d_state
        self.widths = [d_inner - self.d_ssm, d_inner - self.d_ssm, self.d_ssm, d_conv_channels, heads]

        self.in_proj = nn.Linear(d_model, sum(self.widths), bias=bias)
        self.conv1d = nn.Conv1d(d_conv_channels, d_conv_channels, d_conv, groups=d_conv_channels, bias=conv_bias)
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        # The draws come in mamba_ssm's order, so that a seed gives the same network.
        dt = torch.exp(torch.rand(heads) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min))
        dt = dt.clamp(min=dt_init_floor)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(*A_init_range).log())
        self.D = nn.Parameter(torch.ones(self.d_ssm if D_has_hdim else heads))
        self.norm = (
            RMSNormGated(self.d_ssm, group_size=self.d_ssm // ngroups, norm_before_gate=norm_before_gate)
            if rmsnorm
            else None
        )
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias)

    def forward(self, u: Tensor, orders: Tensor | None = None) -> Tensor:
        """(B, L, d_model) -> (B, L, d_model), L >= 1; with `orders` what `in_orders` says."""
        if orders is not None:
            return self.in_orders(u, orders)
        # One product gives the gate, the inputs, both signals and the steps.
        z0, x0, z, xBC, dt = self.in_proj(u).split(self.widths, dim=-1)
        convolved = causal_conv1d(
            xBC.transpose(1, 2), self.conv1d.weight.squeeze(1), self.conv1d.bias, activation="silu"
        )
        assert isinstance(convolved, Tensor)
        sizes = [self.d_ssm, self.ngroups * self.d_state, self.ngroups * self.d_state]
        x, B, C = convolved.transpose(1, 2).split(sizes, dim=-1)
        # The scan, with its decays kept negative by an exponential.
        y = ssd(
            x.unflatten(-1, (-1, self.headdim)),
            dt,
            -torch.exp(at_least_float32(self.A_log)),
            B.unflatten(-1, (self.ngroups, -1)),
            C.unflatten(-1, (self.ngroups, -1)),
            self.chunk_size,
            D=self.D if self.D.shape == self.A_log.shape else self.D.view(-1, self.headdim),
            z=z.unflatten(-1, (-1, self.headdim)) if self.norm is None else None,
            dt_bias=self.dt_bias,
            dt_softplus=True,
            dt_limit=self.dt_limit,
        )
        assert isinstance(y, Tensor)
        # The gate, and the channels that pass by the scan.
        y = y.flatten(2)
        if self.norm is not None:
            y = self.norm(y, z)
        if x0.shape[-1]:
            y = torch.cat([F.silu(z0) * x0, y], dim=-1)
        return self.out_proj(y)

    def scans_blocks(self, u: Tensor) -> bool:
        """Whether inputs like `u` (B, L, dim) may come with orders: on a CPU, where no kernels were asked for."""
        return hosts.asks_freely(u) and not any(
            use_kernel(op, functools.partial(device_obstacle, op, u=u)) for op in ("ssd", "causal_conv1d", "rms_norm")
        )

    def in_orders(self, u: Tensor, orders: Tensor) -> Tensor:
        """The sum of what `forward` makes of the tokens in several orders, at each token.

        Both projections treat a token alone, so that they are done once for all orders.

        Args:
            u: (B, T, d_model).
            orders: the token of each step, (K, T), each a permutation.

        Returns:
            (B, T, d_model).
        """
        count = len(orders)
        z0, x0, z, xBC, dt = self.in_proj(u).split(self.widths, dim=-1)
        y = scan_in_orders(
            xBC,
            F.softplus(dt + self.dt_bias).clamp(*self.dt_limit),
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            -torch.exp(at_least_float32(self.A_log)),
            self.D.view(len(self.A_log), -1),
            orders,
            self.ngroups,
            self.headdim,
            chunk_of(self.chunk_size, u.shape[1]),
        )
        total = y.sum(1) * F.silu(z) if self.norm is None else self.norm.of_orders(y, z)
        if x0.shape[-1]:
            total = torch.cat([count * F.silu(z0) * x0, total], dim=-1)
        bias = self.out_proj.bias
        return F.linear(total, self.out_proj.weight, None if bias is None else count * bias)
