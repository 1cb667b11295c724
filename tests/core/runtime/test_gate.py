"""From other people's exceptions to one line of the user's: which block, which value, what was said."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from runs import options
from torch import nn

from relume.core import cli
from relume.core.errors import UserError
from relume.core.options import OptionError, check
from relume.core.runtime import memory
from relume.core.runtime.gate import Provoked, chain, gate, owner, quoted, refusal, without_it

PLUGIN = '''
import torch
from torch import nn
from relume.archs import ARCHS
from relume.losses import LOSSES
from relume.datasets import DATASETS

@ARCHS.register()
class GateNet(nn.Module):
    """A network with a mistake for every moment."""

    def __init__(self, width: int = 4, blocks: int = 1, item: bool = False, fail: str = "", up: int = 1) -> None:
        super().__init__()
        if fail == "constructor":
            raise KeyError("nobody\\\\x1b[31m expected this")
        if item:
            self.rates = [x.item() for x in torch.linspace(0, 1, 3)]
        self.fail = fail
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*[nn.Identity() for _ in range(blocks)])
        self.last = nn.Sequential(nn.Conv2d(width, 3 * up * up, 3, padding=1), nn.PixelShuffle(up))

    def forward(self, x):
        if self.fail == "forward":
            return torch.ones(2, 3) @ torch.ones(2, 3)
        if self.fail == "memory":
            return torch.empty(1 << 60)
        return self.last(self.body(self.first(x)))

@LOSSES.register()
class GateLoss(nn.Module):
    """A loss with one."""

    def __init__(self, power: float = 1.0, fail: bool = False) -> None:
        super().__init__()
        self.fail = fail

    def forward(self, pred, target):
        return {}["x"] if self.fail else ((pred - target) ** 2).mean()
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("gate") / "gate_components.py"
    path.write_text(PLUGIN)
    return str(path)


@pytest.fixture()
def refused(
    plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """``refused(network_g__width=0)``: what ``relume train`` says on standard error, after exit code 2."""
    monkeypatch.chdir(tmp_path)

    def refused(*arguments: str, code: int = 2, **changes: Any) -> str:
        opt = options(**changes)
        opt["plugins"].append(plugin)
        opt["train"]["total_iter"] = 2
        Path("x.yml").write_text(yaml.safe_dump(opt, sort_keys=False))
        assert cli.main(["train", "-opt", "x.yml", *arguments]) == code
        return capsys.readouterr().err

    return refused


NET = {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 1}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"network_g": {**NET, "num_feat": -3}}, r"x\.yml:\d+:\d+: network_g\.num_feat: RuntimeError: .* \(num_feat: -3\)"),
        ({"network_g": {**NET, "num_feat": 10**8}}, r"x\.yml:\d+:\d+: network_g\.num_feat: would need [\d,]+ GB of memory "
         r"for its weights.*; this machine has \d+ \(num_feat: 100000000\)"),
        ({"train__optim_g": {"type": "SGD", "nesterov": True}}, r"x\.yml:\d+:\d+: train\.optim_g.*nesterov: true.*"),
        ({"datasets__train__num_worker_per_gpu": 1024}, r"x\.yml:\d+:\d+: .*num_worker_per_gpu: must be at most \d+ on this "
         r"machine of \d+ cores?, got 1024"),
        ({"dist_params": {"threads": 10**6}}, r"x\.yml:\d+:\d+: dist_params\.threads: must be at most .*, got 1000000"),
        ({"datasets__train__gt_size": 500}, r"x\.yml:\d+:\d+: datasets\.train: .*gt_size: 500.*"),
    ],
)  # fmt: skip
def test_constructors(refused: Callable[..., str], changes: dict[str, Any], line: str) -> None:
    said = refused(**changes)
    assert re.fullmatch(line, said.strip().splitlines()[-1]), said


def test_a_plugins_author_sees_the_traceback_of_their_file(refused: Callable[..., str]) -> None:
    said = refused(network_g={"type": "GateNet", "fail": "constructor"})
    *traceback, last = said.strip().splitlines()
    assert traceback[0] == "Traceback (most recent call last):"
    assert re.match(r"x\.yml:\d+:\d+: network_g\.fail: .*KeyError: .*expected this", last)
    assert "\x1b" not in last


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"network_g": {"type": "GateNet", "fail": "forward"}}, r"network_g: the first iterations failed: RuntimeError: .*"
         r"\(GateNet with fail: forward\)"),
        ({"network_g": {"type": "GateNet", "fail": "memory"}}, r"network_g: .*memory.*"),
        ({"train__pixel_opt": {"type": "GateLoss", "fail": True}}, r"train\.pixel_opt: the first iterations failed: KeyError: "
         r".*\(GateLoss with fail: true\)"),
    ],
)  # fmt: skip
def test_first_iterations(refused: Callable[..., str], changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    last = refused(**changes).strip().splitlines()[-1]
    assert re.fullmatch(rf"x\.yml:\d+:\d+: {line}", last), last
    (log,) = tmp_path.glob("experiments/toy/train_toy_*.log")
    assert "Traceback (most recent call last):" in log.read_text()


def test_a_loss_that_gives_no_number_names_the_option(refused: Callable[..., str]) -> None:
    said = refused(network_g=NET, train__pixel_opt={"type": "L1Loss", "reduction": "none"}).strip().splitlines()[-1]
    assert re.fullmatch(
        r"x\.yml:\d+:\d+: train\.pixel_opt: L1Loss returned .*a loss returns one number.* \(L1Loss with reduction: none\)",
        said,
    )


def test_a_root_that_no_file_system_has_names_its_option(refused: Callable[..., str]) -> None:
    said = refused(path__experiments_root="x" * 5000).strip().splitlines()[-1]
    assert re.fullmatch(
        r"x\.yml:\d+:\d+: path\.experiments_root: 'x+.*\(5000 characters\).*: too long for a path .*", said
    ), said


def test_a_plateau_of_no_score_is_refused_when_options_are_checked(refused: Callable[..., str]) -> None:
    plateau = {"train__scheduler": {"type": "ReduceLROnPlateau"}, "train__scheduler_g": None}
    said = refused("--check", **plateau, val__metrics={})
    assert re.search(
        r"^x\.yml:\d+:\d+: train\.scheduler: type: ReduceLROnPlateau follows a score.*: give val\.metrics$",
        said,
        re.MULTILINE,
    ), said
    opt = options(**plateau)
    assert check(opt)
    del opt["datasets"]["val"], opt["val"]
    with pytest.raises(OptionError, match=r"give datasets\.val and val\.metrics$"):
        check(opt)


def test_colours_are_named_where_a_loss_has_channels_for_others(refused: Callable[..., str], tmp_path: Path) -> None:
    for name in ("lq", "gt"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0.png"), np.zeros((24, 24, 3), np.uint8))
    pairs = {"type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": "gt", "gt_size": 16, "color": "gray"}
    pairs |= {"num_worker_per_gpu": 0, "batch_size_per_gpu": 1}
    gray = {**NET, "num_in_ch": 1, "num_out_ch": 1}
    said = refused(datasets={"train": pairs}, network_g=gray, train__pixel_opt={"type": "LumaLoss"}, val={})
    assert "datasets.train.color is gray" in said and len(said.strip().splitlines()[-1]) < 500, said


def test_shapes_name_the_options_that_make_them(refused: Callable[..., str]) -> None:
    said = refused(network_g={**NET, "upscale": 3}, train__pixel_opt={"type": "L1Loss"})
    assert "prediction 2x3x36x36, target 2x3x12x12 differ in shape: network_g.upscale is 3, scale is 1" in said
    said = refused(network_g={**NET, "num_in_ch": 1, "num_out_ch": 1}, train__pixel_opt={"type": "L1Loss"})
    assert "network takes 1 channel(s)" in said and "network_g.num_in_ch is 1" in said


def test_debug_prints_the_traceback_and_the_log_has_it(refused: Callable[..., str], tmp_path: Path) -> None:
    wrong = {"network_g": {**NET, "num_feat": -3}}
    assert "Traceback" not in refused(**wrong)
    assert "Traceback (most recent call last)" in refused("--debug", **wrong)
    logs = [p.read_text() for p in tmp_path.glob("experiments/*/train_*.log")]
    assert len(logs) == 2 and all("Trying to create tensor with negative dimension" in text for text in logs)
    refused(code=0)  # and the next run takes the folder as it is
    assert not list(tmp_path.glob("experiments/*archived*"))


def test_loops_over_a_billion_blocks_never_start(refused: Callable[..., str]) -> None:
    for blocks, words in ((10**9, "must be at most 1,000,000,"), (40_000, "has more than 10,000 layers")):
        said = refused(network_g={"type": "GateNet", "blocks": blocks})
        assert "network_g.blocks" in said and words in said, said


def test_a_constructor_that_needs_values_is_built_normally() -> None:
    def build() -> nn.Module:
        return nn.Linear(3, int(torch.ones(()).item()))

    assert memory.weighed(build) is None
    assert memory.weighed(lambda: nn.Linear(2**20, 2**20)) == 4 * (2**40 + 2**20)


def test_weighing_draws_no_random_numbers() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(1)
    np.random.seed(1)

    def build() -> nn.Module:
        np.random.rand(7)
        return nn.Dropout(float(torch.rand(()) > 2))

    memory.weighed(build)
    memory.weighed(lambda: nn.Linear(9, 9))
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


def test_the_least_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    everything = memory.there_is()
    (tmp_path / "memory.max").write_text(f"{3 << 30}\n")
    monkeypatch.setattr(memory, "CGROUPS", (str(tmp_path / "absent"), str(tmp_path / "memory.max")))
    assert memory.there_is() == min(everything, 3 << 30)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2 << 30, -1))
    assert memory.there_is() == 2 << 30
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.there_is() == 2 << 30
    with pytest.raises(UserError, match=r"would need 7\.0 GB of memory for its weights; this machine has 2\.0"):
        memory.refuse_too_large(7 << 30, torch.device("cpu"), for_training=False)
    with pytest.raises(
        UserError, match=r"would need 3\.0 GB of memory for its weights, their gradients and an optimizer"
    ):
        memory.refuse_too_large(1 << 30, torch.device("cpu"), for_training=True)


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(1 << 60),
        lambda: torch.empty(1 << 40, 1 << 40),
        lambda: np.empty(1 << 60),
        lambda: bytearray(1 << 62),
    ],
)
def test_running_out_of_memory_is_known_when_it_is_seen(allocate: Callable[[], Any]) -> None:
    with pytest.raises((RuntimeError, MemoryError, ValueError)) as caught:
        allocate()
    assert memory.ran_out(caught.value)
    assert "memory" in memory.explained(caught.value)
    assert not memory.ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_what_is_of_an_option_already_stays_as_it_is() -> None:
    with pytest.raises(UserError, match=r"^dim must be even, got 3$") as caught, gate("network_g", {"dim": 3}):
        raise UserError("dim must be even, got 3")
    assert caught.value.key == "network_g.dim"
    with pytest.raises(UserError, match=r"^dim must be even, got 3$"), gate("elsewhere"):
        raise caught.value
    with pytest.raises(Provoked) as provoked, gate("val"):
        raise ZeroDivisionError("division by zero")
    assert isinstance(provoked.value.__cause__, ZeroDivisionError)


def test_the_innermost_owner_is_to_blame() -> None:
    class Inner(nn.Module):
        def forward(self) -> None:
            raise ValueError

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self) -> None:
            self.inner()

    outer = Outer()
    with pytest.raises(ValueError) as caught:
        outer()
    assert owner(caught.value, [(None, "none"), (outer, "network_g")]) == "network_g"
    assert owner(caught.value, [(outer.inner, "loss"), (outer, "network_g")]) == "loss"
    assert owner(caught.value, [(nn.Identity(), "other")]) is None


def test_an_error_that_was_raised_from_itself_is_said_once(refused: Callable[..., str]) -> None:
    said = refused(network_g={"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": -1, "num_block": 1})
    assert re.search(
        r"^x\.yml:\d+:\d+: network_g\.num_out_ch: RuntimeError: .* -1.*num_out_ch: -1", said, re.MULTILINE
    ), said
    error = ValueError()
    error.__cause__ = error
    assert list(chain(error)) == [error] and owner(error, []) is None


def test_the_culprit_is_what_it_works_without() -> None:
    def build(block: dict[str, Any]) -> None:
        if block.get("b") == 3:
            raise ValueError

    assert without_it(build, [("a", {"b": 3}), ("b", {"a": 1}), ("c", {"b": 3})]) == ["b"]
    assert without_it(build, [("b", {"b": 3}), ("b", {"b": 1}), ("c", {})]) == ["b", "c"]
    assert not without_it(build, [("a", {"b": 3})])


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"type": "RRDBNet", "num_in_ch": 10**7, "num_out_ch": 3, "scale": 2, "num_block": 1}, "num_in_ch: 10000000"),
        (
            {"type": "MambaIR", "embed_dim": 1, "mlp_ratio": 0.5, "depths": [1], "upscale": 1},
            "0.5 leaves .*embed_dim: 1",
        ),
        ({"type": "DiffIRS2", "timesteps": 10**4}, "timesteps, linear_start, linear_end: 10000 steps with "),
        ({"type": "SwinIR", "patch_size": 1.0, "window_size": 8, "img_size": 8}, "TypeError.*patch_size: 1.0"),
        ({"type": "HAT", "depths": [0, 0], "num_heads": [2], "embed_dim": 12, "window_size": 8}, r"depths: \[0, 0\]"),
        ({"type": "HINet", "depth": 10**6}, "depth: must be at least 1 and at most 32, got"),
    ],
)
def test_a_message_names_the_option_that_is_to_blame(
    refused: Callable[..., str], network: dict[str, Any], said: str
) -> None:
    """Be it one that the network needs, or one besides those that its constructor speaks of."""
    assert re.search(said, refused(network_g=network))


def test_samples_without_their_target_are_said_to_be_of_their_data_set(refused: Callable[..., str]) -> None:
    Path("lq").mkdir()
    Image.new("RGB", (24, 24)).save("lq/a.png")
    data = {"type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": None, "num_worker_per_gpu": 0}
    said = refused(datasets__train={**data, "gt_size": 16}, network_g=NET)
    assert "the samples have no 'gt'" in said and "datasets.train is PairedImageDataset with " in said, said
    assert "dataroot_gt: null" in said and "prefetch_mode" not in said, said  # what is given, and no defaults


def test_of_two_folders_that_a_message_quotes_neither_is_blamed_and_both_are_named() -> None:
    block = {"type": "PairedImageDataset", "dataroot_lq": "/data/lq", "dataroot_gt": ".."}
    assert quoted("3 of 3 ground truths in .. have no input in /data/lq: a.png", block) == [
        "dataroot_lq",
        "dataroot_gt",
    ]
    assert quoted("/data/lq: there are no files to read in this folder", block) == ["dataroot_lq"]
    assert quoted("..: there are no files to read in this folder", block) == ["dataroot_gt"]
    several = {**block, "dataroot_gt": ["/proc/self/mem", ".."]}
    assert quoted("/proc/self/mem: is a file, not a folder.", several) == ["dataroot_gt"]
    unpaired = UserError("3 of 3 ground truths in .. have no input in /data/lq: a.png")
    found = refusal(unpaired, "datasets.val", {**block, "gt_size": 32})
    assert str(found) == f"datasets.val: {unpaired} (dataroot_lq: /data/lq, dataroot_gt: ..)"
    assert found.key == "datasets.val"
