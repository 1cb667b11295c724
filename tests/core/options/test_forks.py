"""Forks' own files as plug-ins, in the four layouts that there are, and a student's folder; nobody edits them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from forks import OVER, PLAIN, TORCH, VENDORED, write
from torch import Tensor

from relume.archs import ARCHS, build_network
from relume.core import options
from relume.core.errors import UserError
from relume.core.metrics import METRICS, calculate_metric
from relume.datasets import DATASETS, build_dataset
from relume.datasets.loading.sampler import SampleKey
from relume.datasets.loading.worker import SeededDataset
from relume.losses import LOSSES, build_loss

IMAGE = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def checked(plugins: list[Path | str], **network: Any) -> options.Resolved:
    """Options with these plug-ins and this network, checked as a file's would be, with their notes."""
    opt = {
        "name": "fork",
        "model_type": "SRModel",
        "num_gpu": 0,
        "plugins": [str(p) for p in plugins],
        "network_g": network or {"type": "WideNet"},
    }
    return options._checked(options.from_python(opt), [])


def made(opt: options.Resolved) -> Tensor:
    """What the network of some options makes of `IMAGE`, and that it can be trained."""
    net = build_network(opt.options.network_g)
    result: Tensor = net(IMAGE)
    result.mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    return result


@pytest.fixture(autouse=True)
def _nobody_sees_basicsr() -> Any:
    before = {m for m in sys.modules if m.split(".")[0] in ("basicsr", "hat")}
    yield
    assert {m for m in sys.modules if m.split(".")[0] in ("basicsr", "hat")} == before


# ------------------------------------------------------------------ the four layouts
@pytest.mark.parametrize("whole", [False, True])
def test_a_fork_with_a_basicsr_of_its_own(whole: bool, tmp_path: Path) -> None:
    fork = write(tmp_path, VENDORED)
    opt = checked([fork if whole else fork / "basicsr/archs/wide_arch.py"], type="WideNet", num_feat=4, res_scale=0.5)
    assert made(opt).shape == (2, 3, 16, 24)
    assert ARCHS.parameters("WideNet")["num_block"].default == 1
    # The fork's files come first, ours stand in for what is missing or cannot be imported.
    module = sys.modules[ARCHS.get("WideNet").__module__]
    assert module.scandir() == ["of the fork"] and module.OF_THE_FORK
    assert module.img2tensor.__module__ == "relume.core.compat.utils.img_util"


@pytest.mark.parametrize("whole", [False, True])
def test_a_fork_without_registries(whole: bool, tmp_path: Path) -> None:
    fork = write(tmp_path, PLAIN)
    opt = checked([fork if whole else fork / "basicsr/models/archs/plain_arch.py"], type="PlainNetLocal", width=8)
    assert made(opt).shape == IMAGE.shape


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("inits", [False, True])
def test_a_package_over_an_installed_basicsr(whole: bool, inits: bool, tmp_path: Path) -> None:
    files = {k: v for k, v in OVER.items() if inits or not k.endswith("__init__.py")}
    fork = write(tmp_path, files)
    opt = checked([fork if whole else fork / "hat/archs/hat_arch.py"], type="OverNet", drop_path_rate=0.1)
    assert made(opt).shape == (2, 3, 16, 24)


def test_a_file_that_was_taken_out_of_its_fork(tmp_path: Path) -> None:
    """Its relative imports are of files that stayed behind; BasicSR has them, and so has Relume."""
    text = """
        from torch import nn
        from ..utils.registry import ARCH_REGISTRY
        from .arch_util import make_layer, ResidualBlockNoBN
        from ..losses.loss_util import weighted_loss
        from .vgg_arch import VGGFeatureExtractor
        from basicsr.archs.spynet_arch import SpyNet
        from basicsr.archs.basicvsr_arch import ConvResidualBlocks
        from basicsr.archs.swinir_arch import RSTB, PatchEmbed, window_partition
        from basicsr.ops.upfirdn2d import upfirdn2d
        from basicsr.losses.gan_loss import GANLoss

        @ARCH_REGISTRY.register()
        class LoneNet(nn.Module):
            def __init__(self, num_feat=4):
                super().__init__()
                self.body = nn.Sequential(nn.Conv2d(3, num_feat, 3, 1, 1), make_layer(ResidualBlockNoBN, 2, num_feat=num_feat))
                self.last = ConvResidualBlocks(num_feat, 3, 1)

            def forward(self, x):
                return self.last(self.body(x))
    """
    for place in ("lone_arch.py", "archs/lone_arch.py", "a/b/archs/lone_arch.py"):
        fork = write(tmp_path / place[:5].strip("/"), {place: text})
        assert made(checked([fork / place], type="LoneNet")).shape == IMAGE.shape


def test_a_package_with_a_basicsr_inside(tmp_path: Path) -> None:
    """CodeFormer's layout: files are imported under two names, and are the same all the same."""
    archs = "face/basicsr/archs"
    fork = write(
        tmp_path,
        {
            "face/basicsr/__init__.py": "raise RuntimeError('nobody runs this')",
            "face/basicsr/utils/registry.py": "raise RuntimeError('registers must register in Relume')",
            f"{archs}/parts_arch.py": """
                from torch import nn
                from face.basicsr.utils.registry import ARCH_REGISTRY

                @ARCH_REGISTRY.register()
                class Parts(nn.Conv2d):
                    pass
            """,
            f"{archs}/outer_arch.py": """
                from torch import nn
                from basicsr.archs import parts_arch
                from face.basicsr.archs.parts_arch import Parts
                from face.basicsr.utils.registry import ARCH_REGISTRY

                @ARCH_REGISTRY.register()
                class OuterNet(nn.Module):
                    def __init__(self):
                        super().__init__()
                        assert parts_arch.Parts is Parts
                        self.conv = Parts(3, 3, 3, padding=1)

                    def forward(self, x):
                        return self.conv(x)
            """,
        },
    )
    for plugin in (fork, fork / archs / "outer_arch.py"):
        assert made(checked([plugin], type="OuterNet")).shape == IMAGE.shape


@pytest.mark.parametrize("whole", [False, True])
def test_plain_torch_files(whole: bool, tmp_path: Path) -> None:
    folder = write(tmp_path, TORCH)
    opt = checked([folder if whole else folder / "net.py"], type="StudentNet", dim=4, colour="red")
    assert made(opt).shape == IMAGE.shape
    (note,) = (n.text for n in opt.notes)
    assert note == "network_g: StudentNet takes any key, so these cannot be checked: colour"


def test_types_are_guessed_from_defaults(tmp_path: Path) -> None:
    plugin = write(tmp_path, PLAIN) / "basicsr/models/archs/plain_arch.py"
    with pytest.raises(UserError, match=r"network_g\.width: expected an integer or a number, got the string 'wide'"):
        checked([plugin], type="PlainNet", width="wide")
    with pytest.raises(UserError, match="unknown key 'widht' in network_g"):
        checked([plugin], type="PlainNet", widht=3)


# ------------------------------------------------------------------ data sets, losses, metrics
@pytest.fixture()
def pairs(tmp_path: Path) -> dict[str, Any]:
    """Options of the fork's data set, with pictures."""
    rng = np.random.default_rng(0)
    for name, size in (("gt", 32), ("lq", 16)):
        (tmp_path / name).mkdir()
        for i in range(3):
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), rng.integers(0, 256, (size, size, 3), np.uint8))
    return {
        "type": "NoisyPairDataset",
        "name": "pairs",
        "dataroot_gt": str(tmp_path / "gt"),
        "dataroot_lq": str(tmp_path / "lq"),
        "io_backend": {"type": "disk"},
        "gt_size": 16,
        "use_hflip": True,
        "use_rot": True,
    }


def data_options(fork: Path, block: dict[str, Any]) -> options.Resolved:
    opt = {
        "name": "fork",
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": 0,
        "plugins": [str(fork / "basicsr/data/noisy_dataset.py")],
        "datasets": {"train": block},
        "network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3},
    }
    return options._checked(options.from_python(opt), [])


def test_a_data_set_gets_its_block_as_a_dict_of_its_own(pairs: dict[str, Any], tmp_path: Path) -> None:
    resolved = data_options(write(tmp_path / "fork", VENDORED), pairs)
    assert "takes any key, so these cannot be checked: dataroot_gt" in resolved.notes[0].text
    block = resolved.options.datasets["train"]
    dataset = build_dataset(block, phase="train", scale=2)
    assert dataset.opt["phase"] == "train" and dataset.opt["scale"] == 2 and dataset.opt["type"] == "NoisyPairDataset"
    assert dataset.opt["dataroot_gt"] == pairs["dataroot_gt"] and len(dataset) == 3
    item = dataset[0]
    assert item["lq"].shape == (3, 8, 8) and item["gt"].shape == (3, 16, 16) and "mask" not in item
    assert "type" not in dataset.opt["io_backend"] and block["io_backend"]["type"] == "disk"
    dataset.gt_size = 8
    assert dataset[1]["gt"].shape == (3, 8, 8)


def test_its_random_choices_are_a_function_of_seed_epoch_and_sample(pairs: dict[str, Any], tmp_path: Path) -> None:
    block = data_options(write(tmp_path / "fork", VENDORED), pairs).options.datasets["train"]
    first = SeededDataset(build_dataset(block, phase="train", scale=2), seed=5)
    other = SeededDataset(build_dataset(block, phase="train", scale=2), seed=5)
    for _ in range(3):
        other[SampleKey(0, 0, 0)]  # whatever was drawn before
    keys = [SampleKey(epoch, i, i) for epoch in (0, 1) for i in range(3)]
    items = [first[key]["lq"] for key in keys]
    assert all(torch.equal(other[key]["lq"], item) for key, item in zip(reversed(keys), reversed(items), strict=True))
    assert not torch.equal(items[0], items[3])


def test_what_a_constructor_raises_is_one_line(pairs: dict[str, Any], tmp_path: Path) -> None:
    block = {k: v for k, v in pairs.items() if k != "io_backend"}
    opt = data_options(write(tmp_path / "fork", VENDORED), block).options.datasets["train"]
    with pytest.raises(
        UserError, match=r"^dataset pairs: dataset NoisyPairDataset: KeyError: 'io_backend' \(noisy_dataset"
    ):
        build_dataset(opt, phase="train", scale=2)


def test_losses(tmp_path: Path) -> None:
    for files, path, name in (
        (VENDORED, "basicsr/losses/losses.py", "LogLoss"),
        (PLAIN, "basicsr/models/losses/losses.py", "PlainLoss"),
    ):
        options.plugins.import_plugin(str(write(tmp_path / name, files) / path), tmp_path)
        loss = build_loss({"type": name, "loss_weight": 2.0})
        value = loss(IMAGE, IMAGE.flip(0))
        value = value[0] if isinstance(value, tuple) else value
        difference = (IMAGE - IMAGE.flip(0)).double()
        expected = (difference.square() + 1e-3).log().mean() if name == "LogLoss" else difference.abs().mean()
        assert float(value) == pytest.approx(2 * float(expected), rel=1e-5)


def test_a_loss_may_return_what_basicsrs_perceptual_loss_returns(tmp_path: Path) -> None:
    from relume.core.models.restoration import RestorationModel

    options.plugins.import_plugin(str(write(tmp_path, VENDORED) / "basicsr/losses/losses.py"), tmp_path)
    model = RestorationModel({"g": torch.nn.Identity()}, {"pixel": build_loss({"type": "LogLoss"})})
    assert list(model.loss_terms(IMAGE, IMAGE)) == ["l_pix"]


def test_metrics(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image, other = (rng.integers(0, 256, (8, 9, 3), np.uint8) for _ in range(2))
    fork = write(tmp_path / "a", VENDORED) / "basicsr/metrics/blur_metric.py"
    old = write(tmp_path / "b", PLAIN) / "basicsr/metrics/plain_metrics.py"
    metrics = {
        "blur": {"type": "calculate_blur", "crop_border": 0},
        "plain": {"type": "calculate_plain", "crop_border": 0},
    }
    opt = {
        "name": "fork",
        "model_type": "SRModel",
        "plugins": [str(fork), str(old)],
        "network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3},
        "val": {"metrics": metrics},
    }
    resolved = options._checked(options.from_python(opt), [])
    assert resolved.options.val.metrics["blur"]["better"] == "higher"
    assert (
        sum(
            "does not say which of two scores is the better one; taking better: higher" in n.text
            for n in resolved.notes
        )
        == 2
    )
    weights = np.array([24.966, 128.553, 65.481]) / 255
    expected = np.abs((image.astype(float) - other) @ weights).mean()
    assert calculate_metric({"img": image, "img2": other}, metrics["blur"]) == pytest.approx(expected, rel=1e-4)
    assert calculate_metric({"img": image, "img2": image}, metrics["plain"]) == 1.0


# ------------------------------------------------------------------ whose is meant
def test_a_plug_ins_name_comes_first_and_only_for_its_own_options(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "mine.py": """
        import torch
        class EDSR(torch.nn.Module):
            def __init__(self, mine: int = 1):
                super().__init__()
    """
        },
    )
    opt = checked([folder / "mine.py"], type="EDSR", mine=2)
    assert [n.text for n in opt.notes] == [
        f"network_g: EDSR is the one of {folder / 'mine.py'}, in place of Relume's own"
    ]
    assert type(build_network(opt.options.network_g)).__module__.startswith("relume.core.options.plugins._")
    other = checked([], type="EDSR", num_in_ch=3, num_out_ch=3)
    assert type(build_network(other.options.network_g)).__module__ == "relume.archs.edsr"
    options.check(opt.options)  # which is what a run does first
    assert build_network(opt.options.network_g) is not None and "mine" in ARCHS.parameters("EDSR")


def test_a_folders_architectures_come_first_and_what_basicsr_has_is_ours(tmp_path: Path) -> None:
    fork = write(tmp_path, VENDORED)
    opt = checked([fork], type="SwinIR", anything=2)
    assert [n.text for n in opt.notes] == [f"network_g: SwinIR is the one of {fork}, in place of a library's"]
    assert LOSSES.get("L1Loss").__module__ == "relume.losses.pixel" and LOSSES.get("LogLoss").__name__ == "LogLoss"
    assert DATASETS.get("NoisyPairDataset") and METRICS.get("calculate_blur")


# ------------------------------------------------------------------ what cannot be
def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    folder = write(
        tmp_path, {"net.py": "import torch\nfrom helpers import f\n", "helpers.py": "import cupy_nobody_has\n"}
    )
    with pytest.raises(UserError) as caught:
        checked([folder / "net.py"], type="Net")
    needs = "needs the package cupy_nobody_has, which is not installed: pip install cupy_nobody_has"
    assert str(caught.value) == f"plugins[0]: {folder / 'helpers.py'}:1: {needs}"


def test_a_name_of_basicsr_that_nobody_has(tmp_path: Path) -> None:
    folder = write(tmp_path, {"net.py": "import torch\nfrom basicsr.utils.nonsense import f\n"})
    with pytest.raises(UserError, match=r"net\.py:2: basicsr\.utils\.nonsense: neither the fork's folder nor Relume's"):
        checked([folder / "net.py"], type="Net")
    folder = write(tmp_path / "b", {"net.py": "from basicsr.archs.arch_util import nonsense\n"})
    with pytest.raises(UserError, match=r"net\.py:1: ImportError: cannot import name 'nonsense'"):
        checked([folder / "net.py"], type="Net")


def test_model_wrappers_are_refused_by_name(tmp_path: Path) -> None:
    fork = write(tmp_path, {**VENDORED, **OVER})
    for path, name in (("basicsr/models/wide_model.py", "WideModel"), ("hat/models/hat_model.py", "OverModel")):
        with pytest.raises(UserError, match=rf"{path}: a model wrapper of BasicSR's \({name}\).*docs/port_a_model\.md"):
            checked([fork / path])
    opt = {"name": "x", "model_type": "WideModel", "plugins": [str(fork)], "network_g": {"type": "WideNet"}}
    with pytest.raises(
        UserError, match=r"wide_model\.py: a model wrapper of BasicSR's \(WideModel\).*docs/port_a_model\.md"
    ):
        options.check(opt)


def test_a_name_that_is_not_found_says_plugins(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"Code of your own, or of a fork, is named under plugins: \[file\.py, or a folder\]"
    ):
        checked([], type="NobodysNet")
    plugin = write(tmp_path, TORCH) / "net.py"
    with pytest.raises(UserError, match=r"net\.py, under plugins, has Block, Norm, StudentNet\."):
        checked([plugin], type="NobodysNet")


# ------------------------------------------------------------------ whole runs
def test_a_forks_option_file_trains_and_resumes_bit_for_bit(
    pairs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relume.core.pipeline import train_pipeline

    fork = write(tmp_path / "fork", VENDORED)
    block = {**pairs, "batch_size_per_gpu": 2}
    opt = {
        "name": "fork",
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 3,
        "plugins": [str(fork)],
        "datasets": {
            "train": {**block, "num_worker_per_gpu": 2},
            "val": {**block, "name": "held_out", "num_worker_per_gpu": 0, "batch_size_per_gpu": 1},
        },
        "network_g": {"type": "WideNet", "num_feat": 4},
        "train": {"total_iter": 4, "optim_g": {"type": "Adam", "lr": 1e-3}, "pixel_opt": {"type": "LogLoss"}},
        "val": {"val_freq": 2, "metrics": {"blur": {"type": "calculate_blur", "crop_border": 2, "better": "lower"}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2},
    }
    for name, iterations in (("whole", [4]), ("halves", [2, 4])):
        (tmp_path / name).mkdir()
        for count in iterations:
            shorter = {**opt, "train": {**opt["train"], "total_iter": count}}
            monkeypatch.chdir(tmp_path / name)
            results = train_pipeline(shorter, auto_resume=True)
    states = [
        torch.load(tmp_path / n / "experiments/fork/models/net_g_4.pth", weights_only=True) for n in ("whole", "halves")
    ]
    assert all(torch.equal(v, states[1]["params"][k]) for k, v in states[0]["params"].items())
    assert results["held_out"]["blur"] > 0
