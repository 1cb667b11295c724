"""Gradients of a warp that add up: many places in one pixel, and gradients that are no numbers. Prints JSON."""

from __future__ import annotations

import json
import os

os.environ["TRITON_INTERPRET"] = "1"
os.environ["RELUME_KERNELS"] = "on"

import torch
import torch.nn.functional as F
from torch import Tensor

from relume.core.ops.flow_warp import flow_warp


def gradients(x: Tensor, flow: Tensor, grad: Tensor, **options: str) -> tuple[Tensor, ...]:
    x, flow = (t.clone().requires_grad_() for t in (x, flow))
    y = flow_warp(x, flow, **options)
    return y.detach(), *torch.autograd.grad(y, (x, flow), grad)


def crowded(largest: float) -> float:
    """The relative error of an image's gradient where all of 70 x 90 places are in one pixel, by gradients of all sizes."""
    x = torch.rand(1, 2, 70, 90)
    places = torch.stack(torch.meshgrid(torch.arange(90.0), torch.arange(70.0), indexing="xy"), -1)[None]
    flow = torch.tensor([40.3, 20.6]) - places
    grad = largest * torch.randn(x.shape) * torch.logspace(-6, 0, 90)
    found = gradients(x, flow, grad)[1]
    image, place = x.double().requires_grad_(), 2 * (flow + places).double() / torch.tensor([89.0, 69.0]) - 1
    y = F.grid_sample(image, place, align_corners=True)
    (expected,) = torch.autograd.grad(y, image, grad.double())
    return float((found - expected).norm() / expected.norm())


def main() -> None:
    torch.manual_seed(0)
    said: dict[str, object] = {"crowded": [crowded(largest) for largest in (1.0, 1e-30, 1e30)]}
    x, flow, grad = torch.rand(2, 3, 6, 7), 3 * torch.randn(2, 6, 7, 2), torch.randn(2, 3, 6, 7)
    right = gradients(x, flow, grad)
    for name, value in {"nan": torch.nan, "inf": torch.inf}.items():
        wrong = grad.clone()
        wrong[1, 2, 3, 4] = value
        _, of_x, _ = gradients(x, flow, wrong)
        said[name] = [torch.equal(of_x[0], right[1][0]), bool(of_x[1].isnan().all())]
    away = flow.clone()
    away[0, 2, 3, 1] = torch.nan
    for options in ({"padding_mode": "border"}, {"interp_mode": "bicubic"}):
        nowhere = gradients(x, away, grad, **options)[0].isnan()
        said[f"nowhere {options}"] = [int(nowhere.sum()), bool(nowhere[0, :, 2, 3].all())]
    away[0, 2, 3, 1] = torch.inf
    said["far"] = gradients(x, away, grad)[0][0, :, 2, 3].tolist()
    none = torch.zeros_like(grad)
    said["none"] = float(gradients(x, flow, none)[1].abs().max())
    print(json.dumps(said))


if __name__ == "__main__":
    main()
