"""Real-world degradations: what the recipe costs beyond the operations it is made of, and its two engines."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from relume.core.degradations.draws import Draws
from relume.core.degradations.engines import Engine, OpenCVEngine
from relume.core.degradations.filters import USMSharp, usm_sharp
from relume.core.degradations.second_order import (
    BlurOptions,
    Decisions,
    SecondOrder,
    degrade_all,
    degrade_one,
    draw_final_kernel,
)

from .common import Job, Row, best_of, section, time_row

SIDE, SCALE, SAMPLES = 400, 4, 12


def photograph() -> np.ndarray:
    """(400, 400, 3) float32 in [0, 1], about as smooth as a photograph."""
    noise = np.random.RandomState(0).rand(SIDE, SIDE, 3).astype(np.float32)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 1, cv2.NORM_MINMAX))


def sample(seed: int) -> tuple[Decisions, list[np.ndarray]]:
    """Draws and kernels of one sample, with the public values."""
    draws = Draws(seed)
    kernels = [BlurOptions().draw(draws.part(str(i))) for i in range(2)]
    kernels.append(draw_final_kernel(draws.part("sinc"), 0.8, (7, 21)))
    return SecondOrder().decide(draws), [k.astype(np.float32) for k in kernels]


def raw(image: np.ndarray, d: Decisions, kernels: list[np.ndarray], rng: np.random.Generator) -> None:
    """The same operations by OpenCV and NumPy, with nothing around them; areas by OpenCV too."""
    modes = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}

    def noisy(x: np.ndarray, gaussian: bool, amount: float, gray: bool) -> np.ndarray:
        if gaussian:
            field = rng.standard_normal((*x.shape[:2], 1 if gray else 3), np.float32) * np.float32(amount / 255)
            return np.clip(x + field, 0, 1)
        seen = np.clip(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None] if gray else x, 0, 1)
        levels = np.rint(seen * 255).astype(np.uint8)
        photons = 2 ** np.ceil(np.log2(np.count_nonzero(np.bincount(levels.ravel(), minlength=256))))
        light = levels.astype(np.float32) / 255
        field = rng.poisson(light * photons).astype(np.float32) / np.float32(photons) - light
        return np.clip(x + field * np.float32(amount), 0, 1)

    def jpeg(x: np.ndarray, quality: float) -> np.ndarray:
        integers = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
        data = cv2.imencode(".jpg", integers, [cv2.IMWRITE_JPEG_QUALITY, round(quality)])[1]
        return cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.float32) / np.float32(255)

    def sized(x: np.ndarray, side: int, mode: str) -> np.ndarray:
        return np.asarray(cv2.resize(x, (side, side), interpolation=modes[mode]))

    # The second-order degradation in its order: two stages, then the final size and filter.
    small = SIDE // SCALE
    x = cv2.filter2D(image, -1, kernels[0], borderType=cv2.BORDER_REFLECT_101)
    x = sized(x, int(SIDE * d["scale1"]), d["mode1"])
    x = jpeg(noisy(x, d["gaussian1"], d["amount1"], d["gray1"]), d["quality1"])
    if d["blur2"]:
        x = cv2.filter2D(x, -1, kernels[1], borderType=cv2.BORDER_REFLECT_101)
    x = noisy(sized(x, int(small * d["scale2"]), d["mode2"]), d["gaussian2"], d["amount2"], d["gray2"])
    x = jpeg(x, d["quality2"])
    cv2.filter2D(sized(x, small, d["mode3"]), -1, kernels[2], borderType=cv2.BORDER_REFLECT_101)


@section("degradations")
def second_order() -> list[Row]:
    """Target: in a loading process at most 1.3 times the raw operations. All on one thread, averaged over samples."""
    before, before_cv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # Contestants: each engine, with and without the draws, one by one and as a batch.
    try:
        image = photograph()
        planes = torch.from_numpy(image).permute(2, 0, 1)
        drawn = [sample(seed) for seed in range(SAMPLES)]
        given = [(d, [torch.from_numpy(k) for k in kernels]) for d, kernels in drawn]
        engines = {"opencv": OpenCVEngine(), "tensor": Engine()}
        rng = np.random.default_rng(0)

        def ours(engine: Engine) -> Job:
            return lambda: [degrade_one(planes, kernels, d, SCALE, engine) for d, kernels in given]

        def plain() -> None:
            for d, kernels in drawn:
                raw(image, d, kernels, rng)

        def whole() -> None:  # with draws and kernels, as a loading process does it
            for seed in range(SAMPLES):
                d, kernels = sample(seed)
                degrade_one(planes, [torch.from_numpy(k) for k in kernels], d, SCALE, engines["opencv"])

        together = [planes] * SAMPLES, list(zip(*(k for _, k in given), strict=True)), [d for d, _ in given]

        def batch() -> None:
            degrade_all(*together, SCALE, engines["tensor"])

        # Rows, each against the same operations without a framework, or the next slower way.
        times = best_of(5, ours(engines["opencv"]), whole, ours(engines["tensor"]), batch, plain)
        opencv, drawing, tensor, batched, operations = (t / SAMPLES for t in times)
        size = f"{SIDE}x{SIDE}"
        usm = USMSharp()
        by_tensor, by_opencv = best_of(5, lambda: usm(planes[None]), lambda: usm_sharp(image))
        return [
            time_row(f"second-order degradation {size}, opencv engine", opencv, operations, "raw OpenCV and NumPy"),
            time_row(f"second-order degradation {size}, with its draws", drawing, operations, "raw OpenCV and NumPy"),
            time_row(
                f"second-order degradation {size}, tensor engine, per image", tensor, operations, "raw OpenCV and NumPy"
            ),
            time_row(
                f"second-order degradation {size}, a batch of {SAMPLES}, per image", batched, tensor, "one at a time"
            ),
            time_row(f"unsharp mask {size}, tensor", by_tensor, by_opencv, "OpenCV"),
        ]
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(before_cv)
