"""What `core.ops.self_test` finds of every op in the interpreter, and of kernels that were broken on purpose: prints JSON."""

from __future__ import annotations

import json
import os

os.environ["TRITON_INTERPRET"] = "1"
os.environ["RELUME_KERNELS"] = "on"

import torch

from relume.core.errors import UserError
from relume.core.ops import (  # noqa: F401 - every op registers its case
    causal_conv1d,
    census,
    channel_attention,
    charbonnier,
    dispatch,
    filter_images,
    flow_warp,
    fourier,
    gradient,
    jpeg,
    laplacian,
    launching,
    layer_norm,
    log_sinkhorn,
    ms_ssim,
    pixelwise,
    rms_norm,
    rms_norm_triton,
    selective_scan,
    self_test,
    simple_gate,
    sinkhorn,
    smoothness,
    spectral_mixing,
    ssd,
    ssim,
    window_attention,
)
from relume.core.ops.rms_norm import plain, rmsnorm_gated

CPU = torch.device("cpu")
X, WEIGHT, Z = torch.rand(2, 3, 8), torch.rand(8), torch.rand(2, 3, 8)


def broken(kernel: str, error: float) -> None:
    """Let the kernel of `rms_norm` of this name add `error` to the first tensor that it writes."""
    right = launching.launch
    written = {"_rms_forward": 3, "_rms_backward": 5}[kernel]

    def launch(function, grid, *args, **constants):
        right(function, grid, *args, **constants)
        if function.__name__ == kernel:
            args[written].add_(error)

    rms_norm_triton.launch = launch
    self_test.FAULTS.clear()


def called() -> str:
    """What the op says under ``on``, or whether it equals the plain form."""
    try:
        y = rmsnorm_gated(X, WEIGHT, Z)
    except UserError as e:
        return str(e)
    return "plain" if torch.equal(y, plain(X, WEIGHT, Z, 1e-5, 8, True)) else "fused"


def main() -> None:
    said = {"faults": {op: self_test.fault(op, torch.float32, CPU) for op in self_test.CASES}}
    said["launched"] = dict(launching.LAUNCHED)
    said["half"] = self_test.fault("rms_norm", torch.bfloat16, CPU)
    said["right"] = called()
    broken("_rms_forward", 0.01)
    said["value"] = called()
    broken("_rms_backward", 0.01)
    said["gradient"] = called()
    rms_norm_triton.launch = None
    self_test.FAULTS.clear()
    said["raises"] = called()
    # Under auto kernels are for GPUs: let this CPU count as one.
    os.environ["RELUME_KERNELS"] = "auto"
    dispatch.device_obstacle = lambda op, **tensors: None
    import relume.core.ops.rms_norm as module

    module.device_obstacle = dispatch.device_obstacle
    warned: list[str] = []
    self_test.log.warning = lambda text, *args: warned.append(text % args)  # type: ignore[method-assign]
    broken("_rms_forward", 0.01)
    said["auto"] = [called(), called()]
    said["decision"] = dispatch.decisions()
    said["warned"] = warned
    print(json.dumps(said))


if __name__ == "__main__":
    main()
