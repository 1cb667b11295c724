"""Published figures of frame interpolation, to print beside one's own.

PSNR in dB and SSIM as printed; interpolation error on Middlebury as the mean absolute difference. `SOURCES` says where each
figure was read. Parameters marked "counted" were counted from the authors' code. An XVFI of other papers may be one that they
trained anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SOURCES = {
    "a": "EMA-VFI (Zhang et al., CVPR 2023), tables 1 and 2",
    "b": "MGMVFI, tables 1 and 2 (runtimes: 2048x1024 on an RTX A6000)",
    "c": "README of LC-Mamba (Miinuuu/LC-Mamba@212450d)",
    "d": "README of XVFI (JihyongOh/XVFI)",
    "e": "README of M2M (feinanshan/M2M_VFI)",
}
"""Sources, by the letter that stands behind a method's name."""

LEVELS = ("easy", "medium", "hard", "extreme")


@dataclass(frozen=True)
class Published:
    """What was published of one method.

    Attributes:
        method: name of the method, and sources.
        scores: published scores, by test set, then by metric.
        parameters: number of parameters, in millions.
        runtime: time that an image takes, and where it was measured.
    """

    method: str
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    parameters: float | None = None
    runtime: str = ""


def _row(
    method: str,
    vimeo: tuple[float, ...] = (),
    ucf: tuple[float, ...] = (),
    snu: tuple[tuple[float, ...], ...] = (),
    xtest: tuple[float | None, float | None] = (None, None),
    xiph: tuple[float, ...] = (),
    middlebury: float | None = None,
    parameters: float | None = None,
    runtime: str = "",
) -> Published:
    """(psnr[, ssim]) of each set; X-TEST and Xiph as (2K, 4K) PSNR."""
    sets: dict[str, tuple[float | None, ...]] = {"Vimeo90K": vimeo, "UCF101": ucf}
    sets.update(zip((f"SNU-FILM {level}" for level in LEVELS), snu, strict=False))
    for name, pair in (("X-TEST", xtest), ("Xiph", xiph)):
        sets.update({f"{name} {size}": (value,) for size, value in zip(("2K", "4K"), pair, strict=False)})
    scores = {
        name: {metric: value for metric, value in zip(("psnr", "ssim"), values, strict=False) if value is not None}
        for name, values in sets.items()
    }
    if middlebury is not None:
        scores["Middlebury"] = {"ie": middlebury}
    return Published(method, {name: found for name, found in scores.items() if found}, parameters, runtime)


METHODS = (
    _row(
        "RIFE [a, b]",
        (35.61, 0.9779),
        (35.28, 0.9690),
        ((39.80, 0.9903), (35.76, 0.9787), (30.36, 0.9351), (25.27, 0.8601)),
        xiph=(36.19, 33.76),
        middlebury=1.96,
        parameters=10.71,
        runtime="parameters counted, with the teacher",
    ),
    _row("RIFEm [a]", xtest=(31.43, 30.58)),
    _row(
        "IFRNet [a]",
        (35.80,),
        (35.29,),
        ((40.03,), (35.94,), (30.41,), (25.05,)),
        (31.53, 30.46),
        (36.00, 33.99),
        1.95,
    ),
    _row("IFRNet-L [b]", (36.20, 0.9808), (35.42,), ((40.10,), (36.12,), (30.63,), (25.26,))),
    _row(
        "M2M [a, e]",
        (35.47, 0.9778),
        (35.28, 0.9694),
        ((39.66, 0.9904), (35.74, 0.9794), (30.30, 0.9360), (25.08, 0.8604)),
        (32.13, 30.88),
        (36.44, 33.92),
        2.09,
    ),
    _row(
        "VFIFormer [a]",
        (36.50, 0.9816),
        (35.43, 0.9700),
        ((40.13, 0.9907), (36.09, 0.9799), (30.67, 0.9378), (25.43, 0.8643)),
        middlebury=1.82,
    ),
    _row(
        "AMT-L [b]",
        (36.35, 0.9815),
        (35.39, 0.9698),
        ((39.95, 0.9913), (36.09, 0.9805), (30.75, 0.9384), (25.41, 0.8638)),
    ),
    _row(
        "AMT-G [b]",
        (36.53, 0.9817),
        (35.41, 0.9699),
        ((39.88, 0.9913), (36.12, 0.9805), (30.78, 0.9385), (25.43, 0.8644)),
    ),
    _row(
        "EMA-VFI-S [a]",
        (36.07, 0.9797),
        (35.34, 0.9696),
        ((39.81, 0.9906), (35.88, 0.9795), (30.69, 0.9375), (25.47, 0.8632)),
        (31.89, 30.89),
        (36.55, 34.25),
        1.94,
        14.49,
        "30 ms at 480p on an RTX 2080 Ti; parameters counted",
    ),
    _row(
        "EMA-VFI [a]",
        (36.64, 0.9819),
        (35.48, 0.9701),
        ((39.98, 0.9910), (36.09, 0.9801), (30.94, 0.9392), (25.69, 0.8661)),
        (32.85, 31.46),
        (36.90, 34.67),
        1.81,
        65.66,
        "332 ms [b]; averaged with frames turned by 180 degrees; parameters counted",
    ),
    _row(
        "SGM-VFI [b]",
        (35.81, 0.9793),
        (35.34, 0.9693),
        ((40.14, 0.9907), (36.06, 0.9795), (30.81, 0.9375), (25.59, 0.8646)),
        xiph=(36.57, 34.23),
        parameters=20.8,
        runtime="1169 ms",
    ),
    _row(
        "VFIMamba [b]",
        (36.64, 0.9819),
        (35.45, 0.9702),
        ((40.51, 0.9912), (36.40, 0.9805), (30.99, 0.9401), (25.79, 0.8682)),
        xiph=(37.13, 34.62),
        parameters=66.07,
        runtime="415 ms; averaged with frames turned by 180 degrees; also trained on X4K1000FPS; parameters counted",
    ),
    _row(
        "LC-Mamba-B [b]",
        (36.43,),
        (35.39,),
        ((40.07,), (36.08,), (30.59,), (25.35,)),
        xiph=(36.90, 34.26),
        parameters=16.2,
        runtime="786 ms",
    ),
    _row(
        "LC-Mamba-B [c]",
        (36.52,),
        (35.47,),
        ((40.20,), (36.30,), (31.00,), (25.83,)),
        xiph=(37.33, 35.14),
        middlebury=1.90,
        parameters=16.2,
    ),
    _row(
        "LC-Mamba-C [c]",
        (36.10,),
        (35.38,),
        ((40.10,), (36.11,), (30.81,), (25.69,)),
        xiph=(37.12, 34.81),
        middlebury=1.94,
        parameters=4.3,
    ),
    _row(
        "LC-Mamba-E [c]",
        (36.20,),
        (35.42,),
        ((40.15,), (36.19,), (30.89,), (25.81,)),
        xiph=(37.17, 34.99),
        middlebury=1.96,
        parameters=6.7,
    ),
    _row(
        "MGMVFI [b]",
        (36.67, 0.9820),
        (35.53, 0.9710),
        ((40.45, 0.9910), (36.38, 0.9804), (31.04, 0.9411), (25.86, 0.8732)),
        xiph=(37.15, 34.65),
        parameters=78.4,
        runtime="428 ms",
    ),
    _row("XVFI [b, d]", (35.09,), (35.17,), ((39.93,), (35.37,), (29.58,), (24.17,)), (None, 30.12)),
)
"""All methods, in the order in which tables list them."""


def published_scores(test_set: str) -> list[Published]:
    """What was published on ``Vimeo90K``, ``UCF101``, ``Middlebury``, ``SNU-FILM hard``, ``X-TEST 4K``, ``Xiph 2K``, ..."""
    return [method for method in METHODS if test_set in method.scores]
