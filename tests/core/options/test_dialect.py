"""Words of BasicSR's forks: translated or noted, never dropped in silence, and refused where they would change something."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from relume.core import options

BASE = """name: x
model_type: SRModel
scale: 2
{top}
datasets:
  {test}: {{type: PairedImageDataset, dataroot_gt: a, dataroot_lq: b{data}}}
network_g: {{type: MSRResNet, num_feat: 4, num_block: 1, upscale: 2}}
val: {{{val}}}
train: {{total_iter: 2, optim_g: {{type: Adam, lr: 1e-3}}, pixel_opt: {{type: L1Loss}}{train}}}
"""


def resolved(tmp_path: Path, **parts: str) -> options.Resolved:
    """The options of a small file with these additions."""
    path = tmp_path / "x.yml"
    path.write_text(BASE.format(**{"top": "", "test": "test_1", "data": "", "val": "", "train": "", **parts}))
    return options.resolve(path)


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        ({"top": "crop_border: 4"}, "crop_border"),
        ({"data": ", use_cache: true"}, "datasets.test_1.use_cache"),
        ({"val": "use_chop: false"}, "val.use_chop"),
        ({"val": "trans_num: 1"}, "val.trans_num"),
        ({"train": ", max_checkpoints: 20"}, "train.max_checkpoints"),
        ({"train": ", optim_d: {type: Adam, lr: 1e-3}"}, "train.optim_d"),
        ({"val": "flip_seq: true"}, "val.flip_seq"),
    ],
)
def test_what_has_no_effect_is_accepted_and_noted_with_its_line(
    tmp_path: Path, parts: dict[str, str], key: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = resolved(tmp_path, **parts)
    (note,) = map(str, found.notes)
    line = next(
        i for i, text in enumerate((tmp_path / "x.yml").read_text().splitlines(), 1) if key.split(".")[-1] in text
    )
    assert f"x.yml:{line}:" in note
    assert f" {key}: ignored" in note
    assert found.options.train is not None and "optim_d" not in found.options.train
    options.load(tmp_path / "x.yml")
    assert note in caplog.text


@pytest.mark.parametrize(
    "parts",
    [
        {"val": "selfensemble_testing: 3"},
        {"top": "crop_boarder: 4"},
        {"train": ", accumulation_steps: [1, 4]"},
        {"val": "trans_num: 4"},
    ],
)
def test_what_would_change_something_or_is_misspelt_stays_an_error(tmp_path: Path, parts: dict[str, str]) -> None:
    with pytest.raises(options.OptionError, match="unknown key"):
        resolved(tmp_path, **parts)


def test_a_task_and_its_noise_go_together(tmp_path: Path) -> None:
    with pytest.raises(options.OptionError, match=r"x\.yml:6:\d+: datasets\.test_1\.task: denoising_color needs"):
        resolved(tmp_path, data=", task: denoising_color")


def test_other_names_of_training_keys_mean_the_same(tmp_path: Path) -> None:
    found = resolved(tmp_path, train=", accumulation_steps: [4], clip_grad_norm: 0.5")
    train = found.options.train
    assert train is not None
    assert (train.accumulate, train.grad_clip_norm) == (4, 0.5)
    assert any("train.accumulation_steps: taken as accumulate" in str(note) for note in found.notes)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("use_accumulation: true, accumulation_steps: 8", 8),
        ("use_accumulation: false, accumulation_steps: 8", 1),
        ("accumulation_steps: 1, mini_accumulation_steps: [4, 4]", 4),
        ("mini_accumulation_steps: [3]", 3),
    ],
)
def test_the_steps_of_a_fork_s_three_keys(tmp_path: Path, keys: str, expected: int) -> None:
    found = resolved(tmp_path, train=f", {keys}")
    assert found.options.train is not None
    assert found.options.train.accumulate == expected
    assert [str(n).partition("train.")[2] for n in found.notes] == [
        f"{key.partition(':')[0]}: taken as accumulate: {expected}" for key in re.split(r", (?=[a-z])", keys)
    ]


def test_the_steps_of_progressive_stages(tmp_path: Path) -> None:
    stages = {"test": "train", "data": ", iters: [2, 2], mini_batch_sizes: [4, 2]"}
    found = resolved(tmp_path, train=", accumulation_steps: 1, mini_accumulation_steps: [1, 2]", **stages)
    assert found.options.datasets["train"].accumulates == [1, 2]
    assert found.options.train is not None and found.options.train.accumulate == 1
    assert "train.mini_accumulation_steps: taken as datasets.train.accumulates" in "\n".join(map(str, found.notes))
    with pytest.raises(options.OptionError, match="as many entries in each list"):
        resolved(tmp_path, train=", mini_accumulation_steps: [1, 2, 3]", **stages)


def test_one_name_with_two_meanings(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    text = BASE.format(top="", test="val", data="", val="", train="")
    network = "{type: MSRResNet, num_feat: 4, num_block: 1, upscale: 2}"
    for keys, expected in (("num_in_ch: 3, num_out_ch: 3, num_feat: 8", "RCAN"), ("n_feats: 8", "RCAN_n_feats")):
        path.write_text(text.replace(network, f"{{type: RCAN, {keys}}}"))
        found = options.resolve(path)
        assert found.options.networks["g"]["type"] == expected
        said = [str(n) for n in found.notes if "RCAN" in str(n)]
        assert bool(said) == (expected != "RCAN")
    path.write_text(text.replace("PairedImageDataset", "Vimeo90KDataset"))
    with pytest.raises(options.OptionError, match="Vimeo90KNeighboursDataset"):  # which needs a list
        options.resolve(path)
    path.write_text(text.replace("PairedImageDataset,", "Vimeo90KDataset, meta_info_file: x.txt,"))
    assert any("is Vimeo90KNeighboursDataset: frames around" in str(n) for n in options.resolve(path).notes)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("use_chop: true", {"parts": 200, "parts_context": 16}),
        ("trans_num: 8", {"self_ensemble": "dihedral"}),
        ("selfensemble_testing: true", {"self_ensemble": "dihedral"}),
        ("grids: true, crop_size: 256", {"grids": True, "crop_size_h": 256, "crop_size_w": 256}),
        ("grids: true, crop_size_h_ratio: 0.5, crop_size_w_ratio: 1", {"grids": True, "crop_size_h_ratio": 0.5}),
    ],
)
def test_what_forks_do_in_validation(tmp_path: Path, keys: str, expected: dict[str, Any]) -> None:
    val = resolved(tmp_path, val=keys).options.val
    assert {k: val[k] for k in expected} == expected


def test_other_names_of_a_data_set_s_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text(BASE.format(top="", test="test_1", data="", val="", train="").replace("PairedImage", "RealESRGAN"))
    text = path.read_text().replace("dataroot_lq: b", "meta_info_file: list.txt")
    path.write_text(text)
    found = options.resolve(path)
    assert found.options.datasets["test_1"].extra["meta_info"] == "list.txt"
    assert any("datasets.test_1.meta_info_file: taken as meta_info" in str(n) for n in found.notes)


def test_a_translated_value_is_checked_at_its_place(tmp_path: Path) -> None:
    with pytest.raises(options.OptionError, match=r"x\.yml:9:\d+: train\.accumulate: must be at least 1, got 0"):
        resolved(tmp_path, train=", accumulation_steps: 0")


def test_a_key_under_both_names_is_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(options.OptionError, match="unknown key 'accumulation_steps'"):
        resolved(tmp_path, train=", accumulation_steps: 4, accumulate: 2")


def test_numbered_phases_without_an_underscore(tmp_path: Path) -> None:
    assert list(resolved(tmp_path, test="test0").options.datasets) == ["test_0"]
