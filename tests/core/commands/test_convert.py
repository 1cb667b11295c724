"""Checkpoints of the originals: whatever they are wrapped in, and whatever hides in them."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
import types
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

import relume
from relume.archs import build_network
from relume.core.cli import main
from relume.core.commands import convert
from relume.core.errors import UserError
from relume.core.runtime import checkpoint, pickles


@pytest.fixture
def original(monkeypatch):
    """A network whose class is defined in a module that is gone once it has been pickled."""
    module = types.ModuleType("model_with_eca")

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.rand(1, 2, 1, 1))
            self.register_buffer("mask", torch.arange(3), persistent=True)
            self.register_buffer("scratch", torch.ones(2), persistent=False)
            self.act = nn.GELU()
            self.absent = None

    class Restormer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 4, 3, bias=False)
            self.blocks = nn.ModuleList([Attention(), Attention()])
            self.tied = self.embed
            self.norm = nn.BatchNorm2d(4)
            self.embed.weight.data = self.embed.weight.data.to(memory_format=torch.channels_last)

    for cls in (Attention, Restormer):
        cls.__module__, cls.__qualname__ = "model_with_eca", cls.__name__
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "model_with_eca", module)
    torch.manual_seed(0)
    return Restormer()


def save(what, path, **options):
    torch.save(what, path, **options)
    sys.modules.pop("model_with_eca", None)
    return path


def same(path, expected):
    found = checkpoint.load(path)
    assert list(found) in (["params"], ["params", "relume"])
    assert found["params"].keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found["params"][key], value), key


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [lambda n: n, nn.DataParallel, lambda n: {"epoch": 3, "model": n}])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
def test_whole_modules(original, tmp_path, wrap, legacy):
    expected = {k: v.clone() for k, v in original.state_dict().items()}
    path = save(wrap(original), tmp_path / "best.pth", _use_new_zipfile_serialization=not legacy)
    assert main(["convert", *[str(path), str(tmp_path / "out.pth")]]) == 0
    same(tmp_path / "out.pth", expected)
    assert "model_with_eca" not in sys.modules


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model", "params_ema"])
def test_state_dicts(tmp_path, key, legacy):
    state = OrderedDict(
        [("module.a.weight", torch.rand(2, 3).t()), ("module.b", torch.rand(4).half()), ("module.n", torch.tensor(7))]
    )
    path = save(
        {"epoch": 1, key: state} if key else state, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy
    )
    main(["convert", *[str(path), str(tmp_path / "out.pth")]])
    same(tmp_path / "out.pth", {k.removeprefix("module."): v for k, v in state.items()})


# ------------------------------------------------------------------ what must not happen
class Reducer:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def attacks(flag):
    """Files that, unpickled carelessly, would create `flag`."""
    command = f"touch {flag}"
    return {
        "system": Reducer(os.system, command),
        "eval": Reducer(eval, f"open({str(flag)!r}, 'w')"),
        "getattr": Reducer(getattr, os, "system"),
        "in a state dict": OrderedDict(weight=torch.ones(2), evil=Reducer(os.system, command)),
        "torch.load": Reducer(torch.load, str(flag)),
        "numpy": Reducer(__import__("numpy").load, str(flag)),
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("attack", ["system", "eval", "getattr", "in a state dict", "torch.load", "numpy"])
def test_nothing_in_a_checkpoint_is_run(tmp_path, capsys, attack, legacy):
    flag, out = tmp_path / "flag", tmp_path / "out.pth"
    evil = attacks(flag)[attack]
    if attack == "getattr":
        evil = Reducer(getattr, nn.Conv2d, "__init__")  # modules cannot be pickled
    path = save(evil, tmp_path / "evil.pth", _use_new_zipfile_serialization=not legacy)
    assert main(["convert", *[str(path), str(out)]]) == 2
    assert "refused: it names " in capsys.readouterr().err
    assert not flag.exists() and not out.exists()


def test_other_files_are_explained(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        pickles.read(tmp_path / "x.pth")
    torch.jit.save(torch.jit.script(nn.Conv2d(1, 1, 1)), tmp_path / "script.pth") if sys.version_info < (
        3,
        10,
    ) else None
    with zipfile.ZipFile(tmp_path / "script.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"N.")
        archive.writestr("archive/constants.pkl", b"N.")
    with pytest.raises(UserError, match="TorchScript"):
        pickles.read(tmp_path / "script.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(UserError, match="cannot be read"):
        pickles.read(tmp_path / "text.pth")
    with pytest.raises(UserError, match="holds no network's state dict"):
        pickles.read(save({"epoch": 3}, tmp_path / "epoch.pth"))
    (tmp_path / "old.pth").write_bytes(pickle.dumps(1) * 5)
    with pytest.raises(UserError, match=r"refused: it is no file of torch\.save"):
        pickles.read(tmp_path / "old.pth")
    save({"a": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="is there already"):
        convert.convert(tmp_path / "a.pth", tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.txt: is to end in \.safetensors or \.pth"):
        convert.convert(tmp_path / "a.pth", tmp_path / "a.txt")


def test_unknown_modules_of_networks_can_be_named(original, tmp_path):
    for cls in {type(m) for m in original.modules()}:
        if cls.__module__ == "model_with_eca":
            cls.__module__ = "my_net"
            sys.modules.setdefault("my_net", types.ModuleType("my_net")).__dict__[cls.__name__] = cls
    path = save(original, tmp_path / "x.pth")
    sys.modules.pop("my_net")
    with pytest.raises(UserError, match=r"names my_net.Restormer.*--stub my_net"):
        pickles.read(path)
    assert pickles.read(path, ["my_net"]).keys() == original.state_dict().keys()


# ------------------------------------------------------------------ fitting to Relume's networks
FITS = {
    "spectroformer_small": {"type": "Spectroformer", "dim": 16, "num_blocks": [2, 3, 3, 4]},
    "agssf1_default": {"type": "SpectroformerAGSSF", "variant": "agssf1"},
    "agssf_official_default": {"type": "SpectroformerAGSSF", "variant": "official"},
    "spectro_model_default": {"type": "SpectroformerAGSSF", "variant": "model"},
    "without_ca_default": {"type": "SpectroformerAGSSF", "variant": "without_ca"},
    "phaseformer_default": {"type": "Phaseformer"},
}


@pytest.mark.parametrize("name", FITS)
def test_every_original_fits_its_network(golden, tmp_path, name):
    manifest = json.loads(golden("underwater/state_dict_manifest.json").read_text())[name]["state_dict"]
    state = {k: torch.zeros(shape) for k, shape in manifest}
    block = {**FITS[name]}
    kept, dropped, _ = convert.fitted(state, block)
    assert dropped == [] and kept.keys() == state.keys()
    if name != "spectroformer_small":
        kept, dropped, _ = convert.fitted(state, {**block, "drop_dead": True})
        assert dropped and not set(dropped) & set(kept)


def test_differences_are_refused():
    block = {"type": "SRVGGNetCompact", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_conv": 1, "upscale": 2}
    state = build_network(block).state_dict()
    kept, dropped, _ = convert.fitted(dict(state), block)
    assert dropped == [] and all(torch.equal(kept[k], v) for k, v in state.items())
    first = next(iter(state))
    with pytest.raises(UserError, match=rf"does not fit SRVGGNetCompact: {first} is missing"):
        convert.fitted({k: v for k, v in state.items() if k != first}, block)
    with pytest.raises(UserError, match="extra is unknown"):
        convert.fitted({**state, "extra": torch.ones(1)}, block)
    with pytest.raises(UserError, match=rf"{first} is \(1,\), not"):
        convert.fitted({**state, first: torch.ones(1)}, block)


TINY = {"type": "SRVGGNetCompact", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_conv": 1, "upscale": 2}


def test_options_name_the_network(tmp_path):
    block = TINY
    (tmp_path / "x.yml").write_text(f"name: x\nmodel_type: RestorationModel\nnetwork_g: {json.dumps(block)}\n")
    state = build_network(block).state_dict()
    path = save(state, tmp_path / "a.pth")
    arguments = [str(path), str(tmp_path / "out.pth"), "-opt", str(tmp_path / "x.yml")]
    assert main(["convert", *arguments]) == 0
    same(tmp_path / "out.pth", state)


@pytest.mark.parametrize("trunk", ["model.1.sub", "RRDB_trunk"])
def test_first_names_of_esrgan_become_those_of_today(tmp_path, capsys, trunk):
    block = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 4, "num_feat": 4, "num_block": 2}
    network = build_network({**block, "num_grow_ch": 2})
    inner = ".0" if trunk.startswith("model") else ""
    firsts = {
        "model.1.sub": ["model.0", "model.1.sub.2", "model.3", "model.6", "model.8", "model.10"],
        "RRDB_trunk": ["conv_first", "trunk_conv", "upconv1", "upconv2", "HRconv", "conv_last"],
    }[trunk]
    now = ["conv_first", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    old = {}
    for key, value in network.state_dict().items():
        for new, first in zip(now, firsts, strict=True):
            key = f"{first}.{key.removeprefix(new + '.')}" if key.startswith(f"{new}.") else key
        key = re.sub(r"^body\.(\d+)\.rdb(\d)\.conv(\d)\.", rf"{trunk}.\1.RDB\2.conv\3{inner}.", key)
        old[key] = value
    assert not old.keys() & network.state_dict().keys() or trunk == "RRDB_trunk"
    (tmp_path / "o.yml").write_text(
        json.dumps({"name": "x", "model_type": "SRModel", "scale": 4, "network_g": {**block, "num_grow_ch": 2}})
    )
    path, out = save(old, tmp_path / "old.pth"), tmp_path / "new.pth"
    assert main(["convert", str(path), str(out), "-opt", str(tmp_path / "o.yml")]) == 0
    said = capsys.readouterr().out
    assert "without" not in said and "as initialised" not in said
    same(out, network.state_dict())


# -------------------------------------------------------------------- pickles that carry source code
EDM = {"type": "OneStepGenerator", "img_resolution": 8, "model_channels": 8, "num_blocks": 1, "attn_resolutions": [4]}
EDM |= {"channel_mult": [1, 2], "augment_dim": 9}


@pytest.fixture
def edm_pickle(monkeypatch, tmp_path):
    """``edm_pickle(network, **others)``: a file whose classes are calls of a reconstructor, each with source code."""
    for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("was run")

    class EasyDict(dict):
        pass

    for thing, name in ((_reconstruct_persistent_obj, "torch_utils.persistence"), (EasyDict, "dnnlib.util")):
        thing.__module__, thing.__qualname__ = name, thing.__name__
        setattr(sys.modules[name], thing.__name__, thing)
    flag = tmp_path / "flag"

    class Pickler(pickle.Pickler):
        def reducer_override(self, thing):
            if not isinstance(thing, nn.Module) or type(thing).__module__.startswith("torch."):
                return NotImplemented
            state = {k: v for k, v in vars(thing).items() if k.startswith("_") or isinstance(v, (int, float, str))}
            state |= {"_init_args": (), "_init_kwargs": EasyDict(channels=8)}
            source = f"open({str(flag)!r}, 'w')\nclass {type(thing).__name__}: pass"
            meta = {
                "type": "class",
                "version": 6,
                "module_src": source,
                "class_name": type(thing).__name__,
                "state": state,
            }
            return _reconstruct_persistent_obj, (meta,), None

    def write(network, **others):
        path = tmp_path / "edm.pkl"
        with path.open("wb") as file:
            Pickler(file).dump(
                {"ema": network, "loss_fn": nn.Identity(), "dataset_kwargs": EasyDict(path="x"), **others}
            )
        for name in ("torch_utils.persistence", "dnnlib.util"):
            sys.modules.pop(name)
        return path

    yield write
    assert not flag.exists()


def test_source_code_in_a_pickle_is_dropped_unread(edm_pickle, tmp_path):
    network = build_network(EDM)
    state = pickles.read(edm_pickle(network))
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("classes", [0, 10])
def test_edm_weights_become_a_generator(edm_pickle, tmp_path, capsys, classes):
    network = build_network(EDM)
    block = {k: v for k, v in EDM.items() if k != "augment_dim"} | {"label_dim": classes}
    options = tmp_path / "o.yml"
    options.write_text(f"name: x\nmodel_type: RestorationModel\nnetwork_g: {json.dumps(block)}\n")
    out = tmp_path / "out.safetensors"
    assert main(["convert", *[str(edm_pickle(network)), str(out), "-opt", str(options)]]) == 0
    said = capsys.readouterr().out
    assert "without 1 that the network does not have (model.map_augment.weight)" in said
    assert ("as initialised: model.map_label.weight, model.map_label.bias" in said) == bool(classes)
    fresh = build_network(block)
    checkpoint.load_weights(fresh, out)
    x, labels = torch.randn(2, 3, 8, 8), None
    with torch.no_grad():
        if not classes:
            torch.testing.assert_close(fresh.eval()(x, 0.3, labels), network.eval()(x, 0.3))


def test_edm_weights_of_other_widths_are_refused(edm_pickle):
    state = pickles.read(edm_pickle(build_network(EDM)))
    with pytest.raises(UserError, match=r"conv0\.weight is \(8, 8, 3, 3\), not \(16, 8, 3, 3\), and \d+ more"):
        convert.fitted(state, {**EDM, "channel_mult": [2, 2]})


class Command:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize("hidden", ["beside", "in a storage"])
def test_commands_in_such_pickles_are_refused(edm_pickle, hidden):
    extra = Command()
    if hidden == "in a storage":  # a file of torch's older format, inside the pickle, that is none
        extra = Reducer(torch.storage._load_from_bytes, pickle.dumps(Command()))
    with pytest.raises(UserError, match=r"refused: it names (posix|nt)\.system"):
        pickles.read(edm_pickle(build_network(EDM), loss_fn=extra))


def test_objects_with_source_code_need_attributes(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n(}Vstate\nI1\nstR.")
    with pytest.raises(UserError, match="an object with source code and without attributes"):
        pickles.read(tmp_path / "x.pkl")


@pytest.mark.parametrize("out", ["out.pth", "out.safetensors"])
def test_what_is_converted_for_an_option_file_says_so(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    network = build_network(TINY)
    save(network.state_dict(), tmp_path / "original.pth")
    opt = {"name": "t", "model_type": "RestorationModel", "network_g": TINY}
    opt["datasets"] = {"test": {"type": "SingleImageDataset", "dataroot_lq": "x"}}
    (tmp_path / "o.yml").write_text(json.dumps(opt))
    assert main(["convert", "original.pth", out, "-opt", "o.yml"]) == 0
    again = f"again{(tmp_path / out).suffix}"
    if out.endswith(".pth"):  # what has been described stays so
        assert main(["convert", out, "again.safetensors"]) == 0
        again = "again.safetensors"
    else:
        again = out
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = network.eval()(image)
    for file in (out, again):
        assert torch.equal(relume.load(file, device="cpu")(image), expected)


# ------------------------------------------------------------------ the authors' own layouts
def restormers(golden, recipe):
    """Restormer's releases have ``params``."""
    case = recipe("underwater/golden_recipe.py").load_case(golden("underwater/arch_restormer_tiny.pt"))
    config = {"model_type": "RestorationModel", "network_g": {"type": "Restormer", **case["config"]}}
    return config, {"params": case["state_dict"]}, case["inputs"], case["outputs"][0], 0


def diffirs(golden, recipe):
    """DiffIR's have ``params`` and ``params_ema``, each with the buffers of its diffusion under several names."""
    case = torch.load(golden("hdr/s2.pt"), weights_only=True)
    config = {"model_type": "DiffIRS2Model", "network_g": {"type": "DiffIRS2", **case["config"]}}
    content = {"params": {k: v + 1 for k, v in case["state_dict"].items()}, "params_ema": case["state_dict"]}
    return config, content, [case["input"]["lq"]], case["output"]["eval_sr"], case["seeds"]["eval"]


def interpolators(golden, recipe):
    """VFIMamba, EMA-VFI and the thesis save what DistributedDataParallel wraps: every name begins with ``module.``"""
    (case, *_) = torch.load(golden("vfi/model_gated_attn_only.pt"), weights_only=True)["cases"]
    options = {k: v for k, v in case["config"].items() if k not in ("loss", "salt", "weights")}
    config = {"model_type": "InterpolationModel", "network_g": {"type": "HybridVFI", **options}}
    content = {f"module.{k}": v for k, v in case["state_dict"].items()}
    return config, content, [case["input"]["x"]], case["output"]["pred"], 0


@pytest.mark.parametrize("made", [restormers, diffirs, interpolators])
def test_files_of_authors_give_what_their_networks_gave(golden, recipe, tmp_path, made):
    config, content, inputs, expected, seed = made(golden, recipe)
    (tmp_path / "x.yml").write_text(json.dumps({"name": "x", **config}))
    path, out = save(content, tmp_path / "theirs.pth"), tmp_path / "ours.safetensors"
    assert main(["convert", str(path), str(out), "-opt", str(tmp_path / "x.yml")]) == 0
    network = relume.load(str(out), device="cpu").model.networks["g"].eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        found = network(*inputs)
    found = found[0] if isinstance(found, tuple) else found
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
