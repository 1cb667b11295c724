"""Weights that say nothing of themselves: whose they are, by their names and shapes."""

from __future__ import annotations

import logging
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_zoo import SLOW, TINY, images, outputs, slow

import relume
from relume.archs import build_network, zoo
from relume.archs.zoo.detection import UNKNOWABLE, detect
from relume.core import options
from relume.core.cli import main
from relume.core.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated", "ignore::DeprecationWarning")
RRDB = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2}
OURS: dict[str, dict[str, Any]] = {
    "RRDBNet": RRDB,
    "SRVGGNetCompact": {"num_feat": 8, "num_conv": 2},
    "NAFNet": {"width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1], "middle_blk_num": 1},
    "Restormer": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2]},
}
NOT_RECOGNISED = {"DnCNN": None, "DRUNet": None, "FBCNN": None}
"""In these tiny settings: spandrel knows their usual depth only."""
FIXED = {"GFPGANv1Clean", "RestoreFormer"}
"""Recognised, but spandrel takes their usual sizes for granted."""
TESTED = [n for n in zoo.names() if n in TINY and n not in {*NOT_RECOGNISED, *FIXED}]


@pytest.mark.parametrize("name", [*OURS, *(pytest.param(n, marks=slow) if n in SLOW else n for n in TESTED)])
def test_weights_tell_whose_they_are(name: str) -> None:
    torch.manual_seed(0)
    net = build_network({"type": name, **(OURS.get(name) or TINY[name][0])}).eval()
    found = detect(net.state_dict())
    assert found is not None and found.network["type"] == name
    yaml.safe_dump(found.network)
    other = build_network(found.network).eval()
    other.load_state_dict(net.state_dict(), strict=True)
    inputs = images(name, 1) if name in TINY else [torch.rand(1, 3, 16, 16)]
    with torch.no_grad():
        expected, same = outputs(net, inputs)[0], outputs(other, inputs)[0]
    assert found.scale == expected.shape[-1] // inputs[0].shape[-1] or name.startswith("SAFMN_BCIE")
    if name in UNKNOWABLE:
        assert "weights do not tell" in found.about
    else:
        assert torch.equal(expected, same)


def test_what_nobody_recognises() -> None:
    for name in NOT_RECOGNISED:
        assert detect(build_network({"type": name, **TINY[name][0]}).state_dict()) is None
    assert detect({"weight": torch.zeros(3)}) is None


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """RRDBNet's weights under the names of ESRGAN's first release."""
    places = {"conv_first": "0", "conv_up1": "3", "conv_up2": "6", "conv_hr": "8", "conv_last": "10"}
    found = {}
    for key, value in state.items():
        first, rest = key.split(".", 1)
        if first == "body":
            block, dense, conv, kind = rest.split(".")
            found[f"model.1.sub.{block}.RDB{dense[3:]}.{conv}.0.{kind}"] = value
        else:
            found[f"model.{places[first]}.{rest}" if first in places else f"model.1.sub.2.{rest}"] = value
    return found


def test_esrgans_old_names(tmp_path: Path) -> None:
    net = build_network({"type": "RRDBNet", **RRDB})
    state = net.state_dict()
    old = old_names(state)
    middle = {
        k.replace("model.1.sub.2.", "trunk_conv.").replace("model.1.sub", "RRDB_trunk"): v for k, v in old.items()
    }
    for before, after in (
        ("0", "conv_first"),
        ("3", "upconv1"),
        ("6", "upconv2"),
        ("8", "HRconv"),
        ("10", "conv_last"),
    ):
        middle = {k.replace(f"model.{before}.", f"{after}."): v for k, v in middle.items()}
    middle = {
        k.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if "RDB" in k else k: v for k, v in middle.items()
    }
    for names in (old, middle):
        other = build_network({"type": "RRDBNet", **RRDB})
        other.load_state_dict(names, strict=True)
        assert all(torch.equal(v, state[k]) for k, v in other.state_dict().items())
        found = detect(names)
        assert found is not None and found.network == {"type": "RRDBNet", **RRDB, "scale": 4}
    torch.save(old, tmp_path / "old.pth")
    picture = torch.rand(3, 9, 10)
    with torch.no_grad():
        expected = net.eval()(picture[None])[0]
    assert torch.allclose(relume.load(tmp_path / "old.pth", device="cpu")(picture), expected, atol=1e-6)


# ------------------------------------------------------------------ whole commands
@pytest.mark.parametrize("with_network", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_test_runs_on_published_weights(
    with_network: bool, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    block = {"type": "SPAN", **TINY["SPAN"][0]}
    state = build_network(block).state_dict()
    if suffix == ".pth":
        torch.save({"params_ema": {f"module.{k}": v for k, v in state.items()}}, "span.pth")
    else:
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in state.items()}, "span.safetensors")
    from relume.core.imaging.opencv import cv2

    for name, size in (("gt", 32), ("lq", 16)):
        Path(name).mkdir()
        cv2.imwrite(f"{name}/0.png", torch.randint(0, 255, (size, size, 3), dtype=torch.uint8).numpy())
    opt = {
        "name": "published",
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": 0,
        "datasets": {"test": {"name": "own", "type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq"}},
        "path": {"pretrain_network_g": f"span{suffix}"},
        "val": {"metrics": {"psnr": {"type": "calculate_psnr"}}},
        **({"network_g": block} if with_network else {}),
    }
    Path("t.yml").write_text(yaml.safe_dump(opt))
    assert main(["test", "-opt", "t.yml"]) == 0
    assert (tmp_path / "results/published/metrics.json").is_file()
    if not with_network:
        assert main(["check", "t.yml"]) == 0
        assert "note: t.yml:" in (said := capsys.readouterr().out) and "its weights are of SPAN" in said


def test_what_is_said_when_it_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(build_network({"type": "SwinIR", **TINY["SwinIR"][0]}).state_dict(), tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, "relume"):
        relume.load(tmp_path / "x.pth", device="cpu")
    (line,) = [r.getMessage() for r in caplog.records if "these are weights of" in r.getMessage()]
    assert line.startswith(
        f"{tmp_path / 'x.pth'}: these are weights of SwinIR (spandrel, Apache-2.0); network_g: {{type: SwinIR, "
    )


def test_a_file_without_network_that_nobody_recognises(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "x.pth")
    path = {"pretrain_network_g": str(tmp_path / "x.pth")}
    with pytest.raises(UserError, match="lacks 'network_g'"):
        options.check({"name": "x", "model_type": "SRModel", "path": path})


def test_the_page_of_weights_is_the_table() -> None:
    namespace = runpy.run_path(str(Path(relume.__file__).parent / "tools" / "make_weights_page.py"))
    assert namespace["PAGE"].read_text(encoding="utf-8") == namespace["page"](), "run tools/make_weights_page.py"
