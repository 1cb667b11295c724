"""Whole option files: one mistake each, the line it costs, and the dialects that are no mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relume.core.options import check, load

Mistakes = Callable[..., list[str]]
Loaded = Callable[..., Any]

NET = "type, dim, depths, upsampler, ratio, bias, norm, size, folder, dropout, inner, either"
IN_ALL = " in all: relume explain train)."


# ------------------------------------------------------------------ one mistake, one line
@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("lr: 2e-4", "lr: fast", "x.yml:13:29: train.optim_g.lr: expected a number, got the string 'fast'"),
        ("dim: 16", "dmi: 16",
        f"x.yml:10:3: unknown key 'dmi' in network_g (OptionsNet). Did you mean 'dim'? Accepted: {NET}."),
        ("pixel_opt:", "pixel_op:",
        "x.yml:14:3: unknown key 'pixel_op' in train. Did you mean 'pixel_opt'? Accepted: "),
        (
            "total_iter: 100",
            "total_iter: 100\n  ema_decey: 0.9",
            "x.yml:13:3: unknown key 'ema_decey' in train. Did you mean 'ema_decay'? Accepted: ema_decay, ",
        ),
        ("scale: 2", "scale: 4\nscale: 2", "x.yml:4:1: the key 'scale' is given twice: 4 on line 3, 2 here "
        "(--allow_duplicate_keys takes the last, as BasicSR does)"),
        ("total_iter: 100", "ema_decay: 0.9", "x.yml:12:3: train lacks 'total_iter' (or 'total_epoch')."),
        ("total_iter: 100", "total_iter: 0", "x.yml:12:15: train.total_iter: must be at least 1, got 0"),
        ("total_iter: 100", "total_iter: -5", "x.yml:12:15: train.total_iter: must be at least 1, got -5"),
        ("batch_size_per_gpu: 4", "batch_size_per_gpu: 0",
        "x.yml:6:92: datasets.train.batch_size_per_gpu: must be at least 1, got 0"),
        ("  dim: 16", "  depths: [2]", "x.yml:9:3: network_g (OptionsNet) lacks 'dim'."),
        ("dim: 16", "dim: 16\n  depths: [2, six]",
        "x.yml:11:15: network_g.depths[1]: expected an integer, got the string 'six'"),
        (
            "dim: 16",
            "dim: 16\n  upsampler: pixelshufle",
            "x.yml:11:14: network_g.upsampler: expected one of 'pixelshuffle', 'nearest+conv', '', got the string "
            "'pixelshufle'. Did you mean 'pixelshuffle'?",
        ),
        ("dim: 16", "dim: 16\n  dropout: 1.5", "x.yml:11:12: network_g.dropout: must be at least 0 and below 1, got 1.5"),
        (
            "dim: 16",
            "dim: 16\n  inner: {type: OptionsNet}",
            "x.yml:11:10: network_g.inner (OptionsNet) lacks 'dim'.",
        ),
        (
            "type: OptionsLoss",
            "loss_weight: 1",
            "x.yml:14:14: train.pixel_opt lacks 'type', the name of a loss. Known: ",
        ),
        ("{type: disk}", "{type: dusk}", "x.yml:6:65: datasets.train.io_backend.type: expected one of 'disk', 'lmdb', got "
         "the string 'dusk'. Did you mean 'disk'?"),
        ("dataroot: here", "dataroot_gt: here", "x.yml:6:30: unknown key 'dataroot_gt' in datasets.train (OptionsData). "
         "Did you mean 'dataroot'? Accepted: dataroot, "),
        ("val: {type", "vall: {type", "x.yml:7:3: unknown key 'vall' in datasets. Did you mean 'val'? "
         "Accepted: train, val, val_<name>, test, test_<name>."),
        ("RestorationModel", "RestorationModle", "x.yml:2:13: no model is called 'RestorationModle'. "
         "Did you mean 'RestorationModel'? Known: "),
        ("model_type: RestorationModel\n", "", "x.yml:1:1: the top level lacks 'model_type'."),
        (
            "network_g:\n  type: OptionsNet\n  dim: 16",
            "network_g: 3",
            "x.yml:8:12: network_g: expected a block whose 'type' names an architecture, got the integer 3",
        ),
    ],
)  # fmt: skip
def test_one_mistake_costs_one_line(mistakes: Mistakes, old: str, new: str, line: str) -> None:
    found = mistakes(old, new)
    assert found[0].startswith(line) if line.endswith((": ", ", ")) else found[0] == line
    assert len(found) == 1


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("val: {val_frq: 5}\n", "x.yml:15:7: unknown key 'val_frq' in val. Did you mean 'val_freq'? Accepted: val_freq, "),
        ("val: {val_freq: 0}\n", "x.yml:15:17: val.val_freq: must be at least 1, got 0"),
        ("val: {tile: 32}\n", "x.yml:15:6: val: tile_overlap (32) must be smaller than tile (32)"),
        ("val: {best: psnr}\n", "x.yml:15:13: val.best: no metric is called 'psnr'. Known: none."),
        ("val: {metrics: {p: {type: options_scor}}}\n",
        "x.yml:15:27: no metric is called 'options_scor'. Did you mean 'options_score'? "),
        ("val: {metrics: {p: {type: options_score, better: big}}}\n",
         "x.yml:15:50: val.metrics.p.better: expected one of 'higher', 'lower', got the string 'big'"),
        ("logger: {use_tb_loger: true}\n", "x.yml:15:10: unknown key 'use_tb_loger' in logger. Did you mean 'use_tb_logger'? "),
        ("logger: {wandb: {projekt: x}}\n", "x.yml:15:18: unknown key 'projekt' in logger.wandb. Did you mean 'project'? "
         "Accepted: project, resume_id, mode."),
        ("path: {pretrain_network_G: x.pth}\n", "x.yml:15:8: unknown key 'pretrain_network_G' in path. Did you mean "
         "'pretrain_network_g'? Accepted: "),
        ("network_d: {type: OptionsNet, dim: 3}\n",
        "x.yml:15:1: RestorationModel has no use for 'network_d'. Accepted: network_g."),
        ("plugins_: []\n",
        "x.yml:15:1: unknown key 'plugins_' in the top level. Did you mean 'plugins'? Accepted: plugins, "),
        ("_base_: []\nscale_: 2\n", "x.yml:16:1: unknown key 'scale_' in the top level. Did you mean 'scale'? "),
    ],
)  # fmt: skip
def test_one_mistake_in_further_sections(mistakes: Mistakes, more: str, line: str) -> None:
    (found,) = mistakes(more=more)
    assert found.startswith(line) if line.endswith((" ", ", ")) else found == line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network_g:dim=four", "network_g.dim: expected an integer, got the string 'four'"),
        ("train:optim_g:lr=fast", "train.optim_g.lr: expected a number, got the string 'fast'"),
        ("train:ema_decai=0.5", "unknown key 'ema_decai' in train. Did you mean 'ema_decay'? Accepted: ema_decay, "),
        ("name:deep=1", "name: expected a string, got the block {deep: 1}"),
        ('scale=__import__("os").getcwd()', "scale: expected an integer, got the string '__import__(\"os\").getcwd()'"),
    ],
)
def test_one_mistake_on_the_command_line(mistakes: Mistakes, override: str, message: str) -> None:
    (found,) = mistakes("", "", override)
    line = f"--force_yml {override}: {message}"
    assert found.startswith(line) and found.endswith(IN_ALL) if line.endswith(", ") else found == line


def test_values_from_the_command_line(loaded: Loaded) -> None:
    opt = loaded("", "", "train:optim_g:lr=1e-4", "train:warmup_iter=-1", "manual_seed=123", "val:save_img=true")
    assert (opt.train.optim_g.lr, opt.train.warmup_iter, opt.manual_seed, opt.val.save_img) == (1e-4, -1, 123, True)


def test_all_mistakes_at_once_in_the_order_of_the_file(mistakes: Mistakes) -> None:
    new = "scale: two\nnum_gpu: some\nmanual_seed: -1"
    assert mistakes("scale: 2", new, "name=[1]") == [
        "x.yml:3:8: scale: expected an integer, got the string 'two'",
        "x.yml:4:10: num_gpu: expected an integer or 'auto', got the string 'some'",
        "x.yml:5:14: manual_seed: must be at least 0, got -1",
        "--force_yml name=[1]: name: expected a string, got the list [1]",
    ]


def test_training_needs_an_optimizer_and_a_loss(mistakes: Mistakes) -> None:
    assert mistakes("  optim_g: {type: Adam, lr: 2e-4}\n", "") == [
        "x.yml:12:3: train: there is no optimizer; give one, such as optim_g: {type: Adam, lr: 2e-4}"
    ]
    assert mistakes("pixel_opt: {type: OptionsLoss}", "pixel_opt: ~") == [
        "x.yml:12:3: train: there is no loss; give at least one, such as pixel_opt: {type: L1Loss}"
    ]


def test_an_optimizer_needs_a_network_to_train(mistakes: Mistakes) -> None:
    assert mistakes("  pixel_opt", "  optim_h: {type: Adam}\n  pixel_opt") == [
        "x.yml:14:3: RestorationModel has no use for 'optim_h'. Accepted: optim_g."
    ]
    (line,) = mistakes("optim_g:", "optim_h:")
    assert line == "x.yml:13:3: RestorationModel has no use for 'optim_h'. Accepted: optim_g."


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            "mini_batch_sizes: [8, 4], iters: [10, 20], gt_sizes: [64]",
            "progressive training needs as many entries in each list: mini_batch_sizes has 2, iters has 2, gt_sizes has 1",
        ),
        ("gt_sizes: [64, 128]", "gt_sizes need iters, the iterations of each stage"),
    ],
)
def test_stages_of_progressive_training(mistakes: Mistakes, keys: str, message: str) -> None:
    assert mistakes("batch_size_per_gpu: 4", keys) == [f"x.yml:6:10: datasets.train: {message}"]


def test_scheduler_and_nested_losses_are_checked(mistakes: Mistakes) -> None:
    (line,) = mistakes("total_iter: 100", "total_iter: 100\n  scheduler: {type: MultiStepLR, milestone: [5]}")
    assert line.startswith(
        "x.yml:13:34: unknown key 'milestone' in train.scheduler (MultiStepLR). Did you mean 'milestones'?"
    ) or ("lacks 'milestones'" in line)
    (line,) = mistakes("{type: OptionsLoss}", "{type: OptionsLoss, terms: {a: {type: L1Loss, loss_weight: big}}}")
    assert line == "x.yml:14:73: train.pixel_opt.terms.a.loss_weight: expected a number, got the string 'big'"


def test_options_of_torch_optimizers(mistakes: Mistakes, loaded: Loaded) -> None:
    (line,) = mistakes("{type: Adam, lr: 2e-4}", "{type: Adam, betas: [0.9]}")
    assert line == "x.yml:13:32: train.optim_g.betas: expected 2 values, got 1: [0.9]"
    (line,) = mistakes("{type: Adam,", "{type: Adaam,")
    assert line.startswith("x.yml:13:19: no optimizer is called 'Adaam'. Did you mean 'Adam'?")
    (line,) = mistakes("lr: 2e-4}", "param_groups: [{lr: 1}]}")
    assert line == (
        "x.yml:13:39: train.optim_g.param_groups: entry 0 needs 'params', a regular expression on parameter names"
    )
    opt = loaded("lr: 2e-4}", "lr: 2e-4, betas: [0.9, 0.99], param_groups: [{params: bias, lr: 5e-5}]}")
    assert opt.train.optim_g == {
        "type": "Adam",
        "lr": 2e-4,
        "betas": (0.9, 0.99),
        "param_groups": [{"params": "bias", "lr": 5e-5}],
    }


# ------------------------------------------------------------------ models and their networks
def test_the_model_says_which_networks_there_are(mistakes: Mistakes, loaded: Loaded) -> None:
    assert mistakes("RestorationModel", "OptionsDistilled") == ["x.yml:1:1: the top level lacks 'network_teacher'."]
    teacher = (
        "network_teacher: {type: OldOptionsNet, dim: 8}\npath: {pretrain_network_teacher: t.pth, param_key_critic: ~}\n"
    )
    opt = loaded("RestorationModel", "OptionsDistilled", "train:temperature=2", more=teacher)
    assert opt.network_teacher == {"type": "OldOptionsNet", "dim": 8}
    assert opt.path.pretrain_network_teacher == "t.pth"
    assert opt.path.param_key_critic is None
    assert opt.train.temperature == 2
    assert "network_critic" not in opt
    assert mistakes("RestorationModel", "OptionsDistilled", "train:temperature=hot", more=teacher) == [
        "--force_yml train:temperature=hot: train.temperature: expected a number, got the string 'hot'"
    ]
    (line,) = mistakes("RestorationModel", "OptionsDistilled", more=teacher + "network_x: {type: OptionsNet, dim: 1}\n")
    assert line == (
        "x.yml:17:1: OptionsDistilled has no use for 'network_x'. Accepted: network_g, network_teacher, network_critic."
    )


def test_a_teacher_is_needed_in_training_only(mistakes: Mistakes, loaded: Loaded, good: str) -> None:
    complaint = "x.yml:12:3: train: OptionsTaught is trained with a teacher, 'network_teacher', which is missing"
    assert mistakes("RestorationModel", "OptionsTaught") == [complaint]
    loaded("RestorationModel", "OptionsTaught", more="network_teacher: {type: OptionsNet, dim: 8}\n")
    train = good[good.index("train:\n  total_iter") :]
    assert loaded(train, "val: {val_freq: 1}\n", "model_type=OptionsTaught").train is None


def test_a_model_may_have_optimizers_for_parts(mistakes: Mistakes, loaded: Loaded) -> None:
    teacher = "network_teacher: {type: OptionsNet, dim: 8}\n"
    settings = ("model_type=OptionsTaught", "train:optim_head={type: Adam}")
    assert loaded("pixel_opt", "pixel_opt", *settings, more=teacher).train.optim_head == {"type": "Adam"}
    (line,) = mistakes("pixel_opt", "pixel_opt", settings[0], "train:optim_d={type: Adam}", more=teacher)
    assert line.endswith("OptionsTaught has no use for 'optim_d'. Accepted: optim_g, optim_head.")


def test_a_single_network_may_be_left_out_of_a_resume(loaded: Loaded) -> None:
    path = "path: {ignore_resume_networks: network_g}\n"
    assert loaded("pixel_opt", "pixel_opt", more=path).path.ignore_resume_networks == ["network_g"]


def test_a_model_may_need_no_loss(loaded: Loaded) -> None:
    teacher = "network_teacher: {type: OptionsNet, dim: 8}\n"
    opt = loaded("pixel_opt: {type: OptionsLoss}", "temperature: 3", "model_type=OptionsDistilled", more=teacher)
    assert opt.model_type == "OptionsDistilled"


def test_an_unknown_model_hides_no_other_mistake(mistakes: Mistakes) -> None:
    first, second = mistakes(
        "RestorationModel", "Nope", "network_z:type=OptionsNet", "train:of_the_model=1", "val:its_own=1", "own=1"
    )
    assert first.startswith("x.yml:2:13: no model is called 'Nope'. ")
    assert second == "--force_yml network_z:type=OptionsNet: network_z (OptionsNet) lacks 'dim'."


def test_null_leaves_a_component_out(loaded: Loaded) -> None:
    opt = loaded("total_iter: 100", "total_iter: 100\n  perceptual_opt: ~\n  optim_d: ~\n  scheduler: ~")
    assert "perceptual_opt" not in opt.train and "optim_d" not in opt.train
    assert opt.train.scheduler is None


def test_a_file_for_testing_needs_no_training(loaded: Loaded, good: str) -> None:
    train = good[good.index("train:\n  total_iter") :]
    assert loaded(train, "val: {metrics: {p: {type: options_score, better: lower}}}\n").train is None


def test_a_file_for_testing_says_under_val_what_the_network_is_called_with(
    loaded: Loaded, mistakes: Mistakes, good: str
) -> None:
    train = good[good.index("train:\n  total_iter") :]
    assert loaded(train, "val: {inputs: [lq, mask]}\n").val["inputs"] == ["lq", "mask"]
    (line,) = mistakes(train, f"{train}val: {{inputs: [lq, mask]}}\n")
    assert "val.inputs: is for files without 'train'" in line


# ------------------------------------------------------------------ datasets
def test_what_datasets_get_from_above(loaded: Loaded, mistakes: Mistakes) -> None:
    opt = loaded()
    assert "scale" not in opt.datasets.train and "phase" not in opt.datasets.train
    opt = loaded("dataroot: here", "dataroot: here, scale: 3, phase: val")
    assert (opt.datasets.train.scale, opt.datasets.train.phase) == (3, "val")
    (line,) = mistakes("dataroot: here", "dataroot: here, phase: vall")
    assert "datasets.train.phase: expected one of 'train', 'val', 'test', got the string 'vall'" in line


def test_loading_options_are_always_there(loaded: Loaded) -> None:
    val = loaded().datasets.val
    assert (val.name, val.batch_size_per_gpu, val.prefetch_mode, val.iters) == (None, 1, None, None)
    assert "io_backend" not in val
    assert loaded().datasets.train.io_backend == {"type": "disk"}


# ------------------------------------------------------------------ plugins
def test_plugins_become_absolute(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "registers_nothing.py").write_text("value = 1\n")
    opt = loaded("plugins: [", "plugins: [registers_nothing.py, json.decoder, ")
    assert opt.plugins[:2] == [str(tmp_path / "registers_nothing.py"), "json.decoder"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_one\n", ":1: needs the package no_such_one, which is not installed: pip install no_such_one"),
        ("x = = 1\n", ": SyntaxError: invalid syntax (broken.py, line 1)"),
        ("raise RuntimeError('first\\nsecond')\n", ":1: RuntimeError: first"),
    ],
)
def test_plugins_that_fail(mistakes: Mistakes, tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(code)
    (line,) = mistakes("plugins: [", "plugins: [broken.py, ")
    assert line == f"x.yml:4:11: plugins[0]: broken.py{message}"


def test_plugins_that_are_not_there(mistakes: Mistakes, tmp_path: Path) -> None:
    (tmp_path / "my_arch.py").write_text("")
    (tmp_path / "folder").mkdir()
    assert mistakes("plugins: [", "plugins: [my_arhc.py, folder/, no_such.module, 3, ") == [
        f"x.yml:4:11: plugins[0]: my_arhc.py: no such file: {tmp_path / 'my_arhc.py'}. Did you mean 'my_arch.py'?",
        "x.yml:4:23: plugins[1]: folder/: there is no Python file in this folder",
        "x.yml:4:32: plugins[2]: no_such.module: ModuleNotFoundError: No module named 'no_such' (an installed module, one on "
        "PYTHONPATH, or the path of a .py file is expected)",
    ]


# ------------------------------------------------------------------ dialects
BASICSR = """\
name: 204_Net_Lx2_f256b32_DIV2K_300k_B16G1_wandb
model_type: SRModel
scale: 2
num_gpu: auto  # set num_gpu: 0 for cpu mode
manual_seed: 10
find_unused_parameters: false
use_static_graph: true

datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: datasets/DIV2K/HR
    dataroot_lq: datasets/DIV2K/LR
    meta_info_file: ~
    filename_tmpl: '{}'
    io_backend:
      type: disk
    gt_size: 96
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 6
    batch_size_per_gpu: 16
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
    num_prefetch_queue: 1
    pin_memory: true
    persistent_workers: false
  val:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: datasets/Set5/HR
    dataroot_lq: datasets/Set5/LR
    io_backend:
      type: disk
  val_2: {name: Set14, type: PairedImageDataset, dataroot_gt: datasets/Set14/HR, dataroot_lq: datasets/Set14/LR}

network_g:
  type: EDSR
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 256
  num_block: 32
  upscale: 2
  res_scale: 0.1
  img_range: 255.
  rgb_mean: [0.4488, 0.4371, 0.4040]

path:
  pretrain_network_g: ~
  param_key_g: params_ema
  strict_load_g: true
  resume_state: ~
  ignore_resume_networks: [network_d]

train:
  ema_decay: 0.999
  optim_g:
    type: Adam
    lr: !!float 1e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [200000]
    gamma: 0.5
  total_iter: 300000
  warmup_iter: -1  # no warm up
  pixel_opt:
    type: L1Loss
    loss_weight: !!float 1
    reduction: mean

val:
  val_freq: !!float 5e3
  save_img: false
  pbar: false
  metrics:
    psnr: # metric name, can be arbitrary
      type: calculate_psnr
      crop_border: 2
      test_y_channel: false
      better: higher

logger:
  print_freq: 100
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~

dist_params:
  backend: nccl
  port: 29500
"""

RESTORMER = {
    "model_type: SRModel": "model_type: ImageCleanModel",
    "    use_hflip: true\n    use_rot: true\n": "    geometric_augs: true\n",
    "type: PairedImageDataset\n    dataroot_gt: datasets/DIV2K": "type: Dataset_PairedImage\n    dataroot_gt: datasets/DIV2K",
    "    gt_size: 96\n": "    mini_batch_sizes: [8,5,4]\n    iters: [92000,64000,48000]\n    gt_size: 384\n"
    "    gt_sizes: [128,160,192]\n",
    "    type: MultiStepLR\n    milestones: [200000]\n    gamma: 0.5\n": "    type: CosineAnnealingRestartCyclicLR\n"
    "    periods: [92000, 208000]\n    restart_weights: [1,1]\n    eta_mins: [0.0003,0.000001]\n",
    "  warmup_iter: -1  # no warm up\n": "  warmup_iter: -1\n  use_grad_clip: true\n"
    "  mixing_augs:\n    mixup: false\n    mixup_beta: 1.2\n    use_identity: true\n",
    "  save_img: false\n": "  save_img: false\n  window_size: 8\n  rgb2bgr: true\n  use_image: true\n  max_minibatch: 8\n",
}

NAFNET = {
    BASICSR[BASICSR.index("  type: EDSR") : BASICSR.index("\npath:")]: "  type: NAFNet\n  width: 32\n"
    "  enc_blk_nums: [1, 1, 1, 28]\n  middle_blk_num: 1\n  dec_blk_nums: [1, 1, 1, 1]\n",
    "model_type: SRModel": "model_type: ImageRestorationModel",
    "    use_hflip: true\n": "    use_flip: true\n",
    "    type: MultiStepLR\n    milestones: [200000]\n    gamma: 0.5\n": "    type: TrueCosineAnnealingLR\n    T_max: 200000\n"
    "    eta_min: !!float 1e-7\n",
    "    type: L1Loss\n": "    type: PSNRLoss\n",
    "    weight_decay: 0\n": "    weight_decay: 0.\n",
    "  save_img: false\n": "  save_img: false\n  grids: false\n  use_image: false\n  max_minibatch: 1\n  trans_num: 1\n",
}


@pytest.mark.parametrize("changes", [{}, RESTORMER, NAFNET], ids=["BasicSR", "Restormer", "NAFNet"])
def test_files_of_other_frameworks(write: Callable[..., str], changes: dict[str, str]) -> None:
    text = BASICSR
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    opt = load(write(text))
    assert opt.train.optim_g.lr == 1e-4
    assert opt.val.val_freq == opt.logger.save_checkpoint_freq == 5000
    assert opt.datasets.val_2.name == "Set14"
    assert check(opt) == opt
