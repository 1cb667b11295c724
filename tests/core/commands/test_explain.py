"""``relume explain``: sections, keys, components, and what it says of names that nothing has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import relume
from relume.core.cli import main
from relume.core.options import reference


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def test_alone_it_lists_the_sections(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys)
    assert all(f"\n  {name} " in text for name in ("datasets", "path", "train", "val", "logger", "dist_params"))
    assert "relume list losses" in text


@pytest.mark.parametrize(
    ("asked", "kind", "default", "example"),
    [
        ("val.tile", "an integer or null, at least 1", "null", "val: {tile: 1024}"),
        ("tile", "an integer or null, at least 1", "null", "val: {tile: 1024}"),
        ("train.ema_decay", "a number, at least 0 and below 1", "0.0", "train: {ema_decay: 0.999}"),
        ("train.amp", "one of 'off', 'bf16', 'fp16'", "'off'", "train: {amp: "),
        ("CharbonnierLoss.eps_squared", "true or false", "false", "_opt: {type: CharbonnierLoss, eps_squared: "),
        ("EDSR.num_in_ch", "an integer", "required", "network_g: {type: EDSR, num_in_ch: "),
        ("datasets.val.num_worker_per_gpu", "an integer, at least 0", "2", "datasets: {train: {num_worker_per_gpu: "),
        ("logger.wandb.project", "a string or null", "null", "logger: {wandb: {project: "),
        ("scale", "an integer, at least 1", "1", "scale: "),
        ("train.encoder_iter", "an integer", "", "train: {encoder_iter: "),
        ("data.max_pixels", "an integer", "268435456", "data: {max_pixels: "),
        ("val.best.metric", "a string or null", "null", "val: {best: {metric: "),
        ("train.optim_g.lr", "a number", "0.001", "train: {optim_g: {type: AdamW, lr: "),
        ("train.pixel_opt.loss_weight", "a number", "1.0", "_opt: {type: L1Loss, loss_weight: "),
        ("train.scheduler.T_max", "an integer", "required", "scheduler: {type: TrueCosineAnnealingLR, T_max: "),
        ("val.metrics.psnr.crop_border", "an integer", "0", "metrics: {psnr: {type: calculate_psnr, crop_border: "),
        ("datasets.train.gt_size", "an integer or null", "null", "{train: {type: PairedImageDataset, gt_size: "),
        ("gt_size", "an integer or null", "null", "{train: {type: PairedImageDataset, gt_size: "),
    ],
)
def test_a_key_has_type_default_and_example(
    asked: str, kind: str, default: str, example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, asked)
    assert f"  type     {kind}" in text and f"  default  {default}" in text and example in text


def test_sections_and_components_name_all_of_their_keys(capsys: pytest.CaptureFixture[str]) -> None:
    for section in ("", *reference.SECTIONS):
        text = said(capsys, section or "(top)")
        assert all(k.name in text for k in reference.section(section))
    text = said(capsys, "PairedImageDataset")
    assert all(f"  {k.name}  (" in text for k in reference.component("datasets", "PairedImageDataset"))
    assert "names an optimizer" in said(capsys, "optim_g") and "names a loss" in said(capsys, "train.my_own_opt")
    assert "names a metric" in said(capsys, "val.metrics.psnr") and "relume:NAME" in said(capsys, "_base_")
    assert "double with every halving" in said(capsys, "BaselineLocal.width"), (
        "of NAFNet, to which two docstrings point"
    )
    assert "names a scheduler" in said(capsys, "train.scheduler_g") and "a string or a block" in said(
        capsys, "val.best"
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("val.til", "'val' has no key 'til'. Did you mean 'tile'?"),
        ("CharbonierLoss", "no key, section or component 'CharbonierLoss'. Did you mean 'CharbonnierLoss'?"),
        ("CharbonnierLoss.epss", "'CharbonnierLoss' has no key 'epss'. Did you mean 'eps'?"),
        ("ema_decey", "Did you mean 'ema_decay'?"),
        ("train.optim_g.lrr", "no optimizer has a key 'lrr'. Did you mean 'lr'?"),
        ("val.best.metrik", "'val.best' has no key 'metrik'. Did you mean 'metric'?"),
    ],
)
def test_a_name_that_nothing_has(asked: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", asked]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_every_key_has_a_description() -> None:
    schema = json.loads((Path(relume.__file__).parent / "options" / "schema.json").read_text())
    definitions = {name: block for name, block in schema["$defs"].items() if not name.endswith("(required)")}
    without = [
        f"{name}.{key}: {value.get('description')}"
        for name, block in {**definitions, "": schema}.items()
        for key, value in block.get("properties", {}).items()
        if key != "type" and value.get("description", "").lower() in ("", "see there.", "see above.")
    ]
    assert without == []
