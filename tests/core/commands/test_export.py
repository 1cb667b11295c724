"""relume export: files that give what torch gives, and say what they are."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import relume
from relume.archs import build_network
from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.load import load
from relume.core.options import check, description
from relume.core.runtime import checkpoint
from relume.core.use import onnx_model, tracing
from relume.core.use.functions import subject_of

SLOW = pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="slow; set RELUME_SLOW_TESTS=1")
SMALL = {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}


@pytest.fixture
def export(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    data = {"type": "SingleImageDataset", "dataroot_lq": "x", "mean": [0.4, 0.5, 0.6], "std": [0.5, 0.5, 0.5]}
    opt = {"name": "x", "model_type": "SRModel", "scale": 2, "network_g": SMALL, "datasets": {"test": data}}
    nets = [build_network(SMALL).state_dict() for _ in range(2)]
    about = description.weights_description(check(opt), average=True)
    checkpoint.save(Path("w.pth"), {"params": nets[0], "params_ema": nets[1], "relume": about})

    def call(target: str, *arguments: str) -> tuple[int, str]:
        code = main(["export", "--weights", "w.pth", "-o", target, *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def test_safetensors_are_the_average_and_read_back(export, tmp_path):
    code, said = export("m.safetensors")
    assert code == 0 and "params_ema" in said and "largest difference from torch on 3 inputs: 0\n" in said
    image = np.random.RandomState(0).randint(0, 256, (9, 11, 3)).astype(np.uint8)
    wanted = relume.load("w.pth", device="cpu")(image)
    np.testing.assert_array_equal(relume.load("m.safetensors", device="cpu")(image), wanted)
    cv2.imwrite("a.png", image[..., ::-1])
    assert main(["infer", "-i", "a.png", "-o", "b.png", "--weights", "m.safetensors", "--device", "cpu"]) == 0
    np.testing.assert_array_equal(cv2.imread("b.png")[..., ::-1], wanted)
    assert export("h.safetensors", "--fp16")[0] == 0
    assert Path("h.safetensors").stat().st_size < Path("m.safetensors").stat().st_size
    code, said = export("n.safetensors", "--fp16", "--tolerance", "0")
    assert code == 2 and "above --tolerance 0; not written" in said and not Path("n.safetensors").exists()
    code, said = export("m.safetensors")
    assert code == 2 and "is there already; --force overwrites" in said


def test_onnx_gives_the_same_at_any_size(export):
    onnxruntime = pytest.importorskip("onnxruntime")
    code, said = export("m.onnx")
    assert code == 0 and "any batch and height and width, scale 2" in said
    session = onnxruntime.InferenceSession("m.onnx")
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert given.type == made.type == "tensor(float)" and given.shape[1] == 3
    x = torch.rand(3, 3, 21, 34)
    wanted = relume.load("w.pth", device="cpu")(x)
    assert np.abs(session.run(None, {given.name: x.numpy()})[0] - wanted.numpy()).max() < 1e-5
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["scale"] == "2" and metadata["architecture"] == "MSRResNet"
    assert json.loads(metadata["relume"])["network"] == {**SMALL}


@pytest.mark.parametrize(("name", "what"), [("m.onnx", "an ONNX file"), ("m.pt2", "a program of torch.export")])
def test_what_other_programs_run_is_no_weights_file(export, capsys, name, what):
    Path(name).write_bytes(b"\x08\x0a")
    cv2.imwrite("a.png", np.zeros((8, 8, 3), np.uint8))
    for command in (["infer", "-i", "a.png", "-o", "b.png", "--weights", name], ["convert", name, "c.pth"]):
        assert main(command) == 2
        assert f"{name}: is {what}, which holds no weights by their names; give the file" in capsys.readouterr().err


def test_a_program_of_torch_gives_the_same(export):
    assert export("m.pt2")[0] == 0
    x = torch.rand(1, 3, 20, 31)
    made = torch.export.load("m.pt2").module()(x)
    torch.testing.assert_close(made, relume.load("w.pth", device="cpu")(x))


def test_a_stable_sort_is_one_in_onnx_as_well():
    """Of equal values the first stays first."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")

    class Order(torch.nn.Module):
        def forward(self, x):
            return torch.argsort(x, dim=-1, stable=True) + torch.sort(x, dim=-1, stable=True, descending=True)[0]

    program = torch.export.export(Order(), (torch.rand(2, 9),))
    x = torch.randint(0, 3, (2, 9)).float()
    run = onnx_model.session_of(onnx_model.as_onnx(program), onnx, onnxruntime)
    np.testing.assert_array_equal(run(x), Order()(x))


def test_rules_for_onnx_files_are_those_that_there_are_and_say_once_what_is_said_twice():
    known = importlib.import_module("onnxscript.rewriter.rules.common")
    assert not [n for n in onnx_model.RULES if not hasattr(known, n)], "onnxscript calls them otherwise now"

    class Twice(torch.nn.Module):
        def forward(self, x):
            with torch.autocast("cpu", enabled=False):
                return (x * 1 + 0).exp() + x.exp()

    with tracing.no_sections_without_autocast():
        program = torch.export.export(Twice(), (torch.rand(2, 9),))
    assert [n.op_type for n in onnx_model.as_onnx(program).graph.node] == ["Exp", "Add"]
    assert torch.autocast is torch.amp.autocast


class Exponent(torch.nn.Module):
    def forward(self, x):
        return x ** x.max().item()


class Choice(torch.nn.Module):
    def forward(self, x):
        return x + ["a", "b"].index(["a", "b"][x.argmax()])


def test_a_refusal_names_the_operation_or_the_line():
    with torch.no_grad():
        program = torch.export.export(Exponent(), (torch.rand(1, 3),))
    with pytest.raises(UserError, match=r"^ONNX cannot hold it: aten\.pow\.Tensor_Scalar: [^\n]+$"):
        onnx_model.as_onnx(program)
    with pytest.raises(UserError, match=r"^torch\.export cannot follow it: test_export\.py:\d+: [^\n]+$"):
        tracing.traced(Choice(), torch.rand(2, 3, 4, 4), (None, None))


@SLOW
def test_half_precision_and_compiled_packages(export):
    """``--fp16`` of ONNX: half the bytes, within its own tolerance; ``--aoti``: a package that runs without the network."""
    onnxruntime = pytest.importorskip("onnxruntime")
    assert export("m.onnx")[0] == 0
    code, said = export("h.onnx", "--fp16")
    assert code == 0 and "float16" in said, said
    session = onnxruntime.InferenceSession("h.onnx")
    assert (
        session.get_inputs()[0].type == "tensor(float)"
        and session.get_modelmeta().custom_metadata_map["fp16"] == "true"
    )
    x = torch.rand(1, 3, 20, 31)
    wanted = relume.load("w.pth", device="cpu")(x)
    assert np.abs(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0] - wanted.numpy()).max() < 2e-2
    code, said = export("m.pt2", "--aoti")
    assert code == 0, said
    torch.testing.assert_close(torch._inductor.aoti_load_package("m.pt2")(x), wanted, rtol=0, atol=1e-4)


FRAMES = {
    **{"type": "HybridVFI", "F": 4, "window_size": 2, "depths": [0, 1, 0], "num_heads": [1, 1, 1]},
    **{"mlp_ratios": [1, 1, 1], "backbone_mode": "gated_attn_only"},
}
IMAGES = {
    **{"type": "OneStepGenerator", "img_resolution": 8, "model_channels": 4, "channel_mult": [1], "num_blocks": 1},
    **{"attn_resolutions": [], "dropout": 0.0},
}


def other(network: dict, kind: str, **changes: object) -> torch.nn.Module:
    """Weights of another task in w.pth."""
    opt = {"name": "x", "model_type": kind, "network_g": {**network, **changes}}
    net = build_network(opt["network_g"]).eval()
    checkpoint.save(Path("w.pth"), {"params": net.state_dict(), "relume": description.weights_description(check(opt))})
    return net


def test_networks_of_frames_and_of_noise_are_functions_of_one_tensor(export):
    for network, kind in ((FRAMES, "InterpolationModel"), (IMAGES, "GenerationModel")):
        other(network, kind)
        code, said = export(f"{kind}.safetensors")
        assert code == 0 and "on 3 inputs: 0\n" in said, said
    restorer = load("InterpolationModel.safetensors", device="cpu")
    x = torch.rand(1, 6, 22, 40)  # no multiple of what the network needs
    with torch.no_grad():
        expected = restorer.model.between(x[:, :3], x[:, 3:], 0.5)
        torch.testing.assert_close(subject_of(restorer).function()(x), expected)
    subject, noise = subject_of(load("GenerationModel.safetensors", device="cpu")), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = ((subject.network.sample(noise) + 1) / 2).clamp(0, 1)
        torch.testing.assert_close(subject.function()(noise), expected)
    assert (subject.channels, subject.size) == (3, (8, 8))
    other(IMAGES, "GenerationModel", label_dim=3)
    code, said = export("classes.pt2")
    assert code == 2 and "takes a class beside the noise" in said


def test_noise_that_a_network_draws_is_that_of_its_model(export):
    """A file gives what relume.load gives, and the same every time."""
    tiny = {"dim": 4, "num_blocks": [1] * 4, "num_refinement_blocks": 1, "heads": [1] * 4, "n_encoder_res": 1}
    other({"type": "DiffIRS2", **tiny}, "DiffIRS2Model")
    restorer, x = load("w.pth", device="cpu"), torch.rand(2, 3, 24, 40)
    function = subject_of(restorer).function()
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(function(x), restorer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("m.tflite",), "m.tflite is to end in .onnx, .safetensors or .pt2"),
        (("m.onnx", "--aoti"), "--aoti: is of .pt2, not .onnx"),
        (("m.pt2", "--fp16"), "--fp16: is of .onnx and .safetensors"),
        (("m.onnx", "--tolerance", "-1"), "--tolerance: must be at least 0"),
        (("m.onnx", "--param_key", "other"), "has no entry 'other'"),
    ],
)
def test_mistakes_are_one_line(export, arguments, message):
    code, said = export(*arguments)
    assert code == 2 and message in said.splitlines()[-1]
