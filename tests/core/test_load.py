"""core/load.py: weights that say what they are, read by us and by others; models for inference; one picture in, one out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from runs import options

import relume
from relume.archs import build_network
from relume.core import load as loading
from relume.core.building.networks import build_model
from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.options import check, description
from relume.core.options import load as load_options
from relume.core.pipeline import train_pipeline
from relume.core.runtime import checkpoint
from relume.core.runtime import weights as weights_files

SMALL = {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}
WEIGHTS = "experiments/toy/models/net_g_latest.pth"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def described(**changes: Any) -> dict[str, Any]:
    """Options of a network that doubles the size, in BasicSR's x2 way."""
    data = {"type": "SingleImageDataset", "dataroot_lq": "nowhere"}
    return {
        "name": "x2",
        "model_type": "SRModel",
        "scale": 2,
        "network_g": SMALL,
        "datasets": {"test": data},
        **changes,
    }


def written(path: str, opt: dict[str, Any], *entries: str) -> torch.nn.Module:
    """A described weights file; the network that the last of `entries` is of."""
    torch.manual_seed(0)
    networks = {entry: build_network(opt["network_g"]) for entry in entries or ("params",)}
    about = description.weights_description(check(opt), average="params_ema" in networks)
    checkpoint.save(Path(path), {**{k: n.state_dict() for k, n in networks.items()}, **weights_files.described(about)})
    return list(networks.values())[-1].eval()


def trained(**changes: Any) -> dict[str, Any]:
    opt = options(train__total_iter=2, val__val_freq=None, train__ema_decay=0.5, **changes)
    train_pipeline(opt)
    return opt


# ------------------------------------------------------------------ what training writes
def test_training_says_what_it_has_trained() -> None:
    trained(val__tile=16, val__tile_overlap=4, network_g__width=4)
    for which in ("2", "latest"):
        weights = torch.load(f"experiments/toy/models/net_g_{which}.pth", weights_only=True)
        assert list(weights) == ["params", "params_ema", "relume"]
    entry = weights_files.about_itself(weights)
    assert entry["network"] == {"type": "ToyNet", "width": 4}
    assert (entry["key"], entry["average"], entry["iteration"]) == ("g", "params_ema", 2)
    assert (entry["val"]["tile"], entry["val"]["padding"], entry["range"]) == (16, "reflect", [0.0, 1.0])
    for part in weights.values():  # as programs expect that go through all that there is
        assert all(torch.equal(tensor, part[k]) for k, tensor in part.items())


def test_the_best_weights_say_so_too_and_resuming_goes_on() -> None:
    opt = options(train__total_iter=2, val__val_freq=1)
    train_pipeline(opt)
    best = torch.load("experiments/toy/models/net_g_best.pth", weights_only=True)
    about = weights_files.about_itself(best)
    assert about["iteration"] in (1, 2) and about["average"] is None
    opt["train"]["total_iter"] = 3
    train_pipeline(opt, auto_resume=True)
    assert weights_files.about_itself(torch.load(WEIGHTS, weights_only=True))["iteration"] == 3


def test_a_trained_model_is_found_again_without_its_option_file() -> None:
    opt = trained(val__tile=16, val__tile_overlap=4)
    image = torch.rand(1, 3, 40, 29)
    path = {"pretrain_network_g": WEIGHTS, "param_key_g": "params_ema"}
    expected, networks = build_model(check({**opt, "path": path}), torch.device("cpu"), for_training=False)
    networks["g"].eval()
    with torch.no_grad():
        assert torch.equal(relume.load(WEIGHTS, device="cpu")(image), expected.predict({"lq": image})["output"])
    model = relume.load_model(WEIGHTS, device="cpu")
    assert not model.networks["g"].training and model.inference.tile == 16


def test_data_sets_say_how_pictures_are_encoded() -> None:
    paired = {"type": "PairedImageDataset", "dataroot_gt": "a", "dataroot_lq": "b", "mean": [0.5] * 3}
    hdr = {"type": "SyntheticHDRDataset", "source": "skimage", "transfer": {"type": "mu_law", "mu": 500}}
    for block, expected in (
        (paired, ([0.5] * 3, None, None)),
        (hdr, (None, None, {"type": "mu_law", "mu": 500})),
        ({**hdr, "transfer": "pq"}, (None, None, "pq")),
        ({k: v for k, v in hdr.items() if k != "transfer"}, (None, None, "log1p")),
    ):
        about = description.weights_description(check(described(datasets={"train": block})))
        assert (about["mean"], about["std"], about["transfer"]) == expected


@pytest.mark.parametrize("more", [{}, {"mean": [0.3]}, {"std": [0.2]}, {"mean": [0.4], "std": [0.5]}], ids=str)
def test_a_network_of_luma_is_given_luma(more: dict[str, list[float]]) -> None:
    from relume.core.imaging.normalisation import normalise
    from relume.datasets.transforms import to_tensor, with_channels

    block = {"type": "PairedImageDataset", "dataroot_gt": "a", "dataroot_lq": "b", "color": "y", **more}
    about = description.weights_description(check(described(datasets={"train": block})))
    image = np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 12, 1).repeat(3, 2)
    trained_on = normalise(to_tensor(with_channels(image, "y")), more.get("mean"), more.get("std"))
    used_on = normalise(to_tensor(image[..., :1]), about["mean"], about["std"])
    assert torch.allclose(trained_on, used_on, atol=1e-5)


# ------------------------------------------------------------------ others read the same file
def test_spandrel_reads_it_as_before() -> None:
    spandrel = pytest.importorskip("spandrel")
    opt = described(
        network_g={"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1},
        scale=4,
    )
    network = written("rrdb.pth", opt, "params", "params_ema")
    found = spandrel.ModelLoader(device="cpu").load_from_file("rrdb.pth")
    image = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        assert torch.allclose(found(image), network(image).clamp(0, 1), atol=1e-6)


def test_a_reader_in_basicsrs_way_finds_its_entries() -> None:
    network = written("x.pth", described(), "params")
    file = torch.load("x.pth", map_location=lambda storage, loc: storage, weights_only=True)
    param_key = "params" if "params_ema" not in file and "params" in file else "params_ema"
    build_network(SMALL).load_state_dict(file[param_key], strict=True)
    assert file[param_key].keys() == network.state_dict().keys()


@pytest.mark.parametrize("param_key", [None, "", "params"])
def test_our_own_loaders_pass_over_the_entry(param_key: str | None) -> None:
    network = written("x.pth", described())
    fresh = build_network(SMALL)
    checkpoint.load_weights(fresh, "x.pth", param_key)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), network.parameters(), strict=True))
    assert main(["convert", "x.pth", "y.pth"]) == 0
    assert torch.load("y.pth", weights_only=True)["params"].keys() == network.state_dict().keys()


# ------------------------------------------------------------------ which weights
def test_the_average_is_taken_unless_told_otherwise() -> None:
    written("x.pth", described(), "params", "params_ema")
    state = {k: v for k, v in torch.load("x.pth", weights_only=True).items() if k != "relume"}
    for param_key, expected in ((None, "params_ema"), ("params", "params"), ("params_ema", "params_ema")):
        model = relume.load_model("x.pth", param_key=param_key, device="cpu")
        found = model.networks["g"].state_dict()
        assert all(torch.equal(v, state[expected][k]) for k, v in found.items())
    Path("o.yml").write_text(yaml.safe_dump(described(path={"pretrain_network_g": "x.pth", "param_key_g": "params"})))
    found = relume.load_model("o.yml", device="cpu").networks["g"].state_dict()
    assert all(torch.equal(v, state["params"][k]) for k, v in found.items())


@pytest.mark.parametrize(
    ("wanted", "content", "name"),
    [
        (None, {"params": 1, "params_ema": 1, "relume": {}}, "params_ema"),
        ("params", {"params": 1, "params_ema": 1}, "params"),
        ("params_ema", {"params": 1}, "params"),
        (None, {"epoch": 3, "state_dict": 1}, "state_dict"),
        (None, None, None),
    ],
)
def test_the_entry_that_was_taken_is_known(
    wanted: str | None, content: dict[str, Any] | None, name: str | None
) -> None:
    state = build_network(SMALL).state_dict()
    file = state if content is None else {k: state if v == 1 else v for k, v in content.items()}
    checkpoint.save(Path("x.pth"), {**file})
    assert relume.load("x.pth", described(), param_key=wanted, device="cpu").model.loaded == {"g": name}


@pytest.mark.parametrize("flat", [True, False])
def test_weights_of_others_need_an_option_file(flat: bool) -> None:
    state = build_network(SMALL).state_dict()
    torch.save(state if flat else {"params": state}, "bare.pth")
    with pytest.raises(
        UserError, match=r"^bare\.pth: does not say which network it is for; give the option file .*-opt$"
    ):
        relume.load_model("bare.pth")
    Path("o.yml").write_text(yaml.safe_dump(described()))
    found = relume.load_model("bare.pth", "o.yml", device="cpu").networks["g"].state_dict()
    assert all(torch.equal(v, state[k]) for k, v in found.items())


def test_mistakes_are_one_line() -> None:
    Path("o.yml").write_text(yaml.safe_dump(described()))
    network = written("x.pth", described())
    about = description.weights_description(check(described()))
    for entry, message in (
        ({**about, "format": 2}, "describes its network in format 2, and this Relume knows format 1"),
        ({**about, "network": {"type": "Nonsense"}}, "cannot be built here .*Nonsense"),
        ({**about, "network": {"type": "N"}, "plugins": ["mine.py"]}, "It was trained with plugins: mine.py"),
        ("text", "does not say which network"),
        ({"json": torch.tensor([123], dtype=torch.uint8)}, "what it says of itself cannot be read"),
        ({"json": torch.tensor([0.5])}, "what it says of itself cannot be read"),
    ):
        checkpoint.save(Path("wrong.pth"), {"params": network.state_dict(), "relume": entry})
        with pytest.raises(UserError, match=message) as caught:
            relume.load("wrong.pth")
        assert str(caught.value).startswith("wrong.pth: ") and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"^no weights for network_g: name a file, or path\.pretrain_network_g in"):
        relume.load_model("o.yml")
    with pytest.raises(UserError, match=r"y\.pth: no such file\. Did you mean 'x\.pth'"):
        relume.load_model("y.pth")
    Path("torn.pth").write_bytes(Path("x.pth").read_bytes()[:200])
    with pytest.raises(UserError, match="torn"):
        relume.load("torn.pth")


def test_untrained_models_need_no_weights() -> None:
    model = relume.load_model(described(path={"pretrain_network_g": "gone.pth"}), untrained=True, device="cpu")
    assert type(model.networks["g"]).__name__ == "MSRResNet"


# ------------------------------------------------------------------ one picture
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_a_picture_comes_back_as_its_kind(dtype: Any) -> None:
    network = written("x.pth", described())
    peak = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    pixels = (np.random.RandomState(0).rand(9, 7, 3) * peak).astype(dtype)
    before = pixels.copy()
    made = relume.load("x.pth", device="cpu")(pixels)
    with torch.no_grad():
        given = torch.from_numpy((pixels / peak).astype(np.float32)).permute(2, 0, 1)[None]
        expected = network(given)[0].permute(1, 2, 0).numpy()
    if peak > 1:
        expected = np.rint(np.clip(expected, 0, 1) * peak)
    assert made.dtype == dtype and made.shape == (18, 14, 3) and np.array_equal(pixels, before)
    assert np.abs(made.astype(np.float64) - expected).max() <= (1 if peak > 1 else 1e-6)


def test_tensors_keep_their_rank_type_and_device() -> None:
    written("x.pth", described())
    enlarge = relume.load("x.pth", device="cpu")
    image = torch.rand(2, 3, 8, 6)
    both = enlarge(image)
    assert both.shape == (2, 3, 16, 12) and not both.requires_grad
    assert torch.allclose(enlarge(image[1]), both[1], atol=1e-6)
    assert enlarge(image.half()).dtype == torch.float16


def test_mean_and_std_of_the_training_set_are_taken_off_and_put_back() -> None:
    mean, std = [0.2, 0.4, 0.6], [0.5, 0.25, 0.5]
    data = {"type": "PairedImageDataset", "dataroot_gt": "a", "dataroot_lq": "b", "mean": mean, "std": std}
    network = written("x.pth", described(datasets={"train": data}))
    image = torch.rand(1, 3, 8, 8)
    m, s = (torch.tensor(v).reshape(3, 1, 1) for v in (mean, std))
    with torch.no_grad():
        expected = network((image - m) / s) * s + m
    assert torch.allclose(relume.load("x.pth", device="cpu")(image), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"is \(height, width, channels\), not \(8, 8\)"),
        (np.zeros((3, 8, 8), np.uint8), r"is \(height, width, channels\), not \(3, 8, 8\)"),
        (np.zeros((8, 8, 3), np.int64), "is uint8, uint16 or float, not int64"),
        (np.full((8, 8, 3), 200.0), r"values go from 200 to 200; floats are in \[0, 1\]"),
        (np.full((8, 8, 3), np.nan), "values go from nan"),
        (np.zeros((0, 8, 3), np.uint8), r"the picture is empty: \(3, 0, 8\)"),
        (np.zeros((8, 8, 1), np.uint8), r"takes 3 channel\(s\) where images, .* have 1"),
        (np.zeros((8, 8, 4), np.uint8), r"takes 3 channel\(s\) where images, .* have 4"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"floats in \[0, 1\], not \(3, 8, 8\) uint8"),
        (torch.zeros(8, 8), r"not \(8, 8\) float32"),
        ("x.png", "a numpy array or a tensor, not str"),
    ],
)
def test_what_is_no_picture(picture: Any, message: str) -> None:
    written("x.pth", described())
    with pytest.raises(UserError, match=message):
        relume.load("x.pth", device="cpu")(picture)


def test_encoded_radiance_is_not_mistaken_for_a_picture() -> None:
    hdr = {"type": "SyntheticHDRDataset", "source": "skimage"}
    written("x.pth", described(datasets={"train": hdr}))
    model = relume.load("x.pth", device="cpu")
    with pytest.raises(UserError, match="radiance encoded by log1p; give a tensor"):
        model(np.zeros((8, 8, 3), np.uint8))
    assert model(torch.zeros(3, 8, 8)).shape == (3, 16, 16)


def test_models_that_draw_random_numbers_draw_the_same_for_the_same_picture() -> None:
    opt = load_options("relume:hdr/small/test.yml").to_dict()
    opt["datasets"] = {"test": {"type": "SingleImageDataset", "dataroot_lq": "nowhere"}}
    checkpoint.save(Path("s2.pth"), {"params": build_network(opt["network_g"]).state_dict()})
    image = torch.rand(1, 3, 40, 24)
    with pytest.raises(UserError, match="no weights for network_g"):
        relume.load_model({**opt, "path": {"pretrain_network_S1": "s1.pth"}})
    model = relume.load("s2.pth", {**opt, "path": {}}, device="cpu")
    assert torch.equal(model(image), model(image)) and model(image).shape == image.shape


def test_models_that_need_more_than_a_picture_say_so() -> None:
    vfi = {"type": "HybridVFI", "F": 8, "window_size": 2, "depths": [1, 1, 1], "backbone_mode": "gated_attn_only"}
    written("vfi.pth", described(model_type="InterpolationModel", network_g=vfi, scale=1))
    with pytest.raises(UserError, match="needs 'img0' of every sample"):
        relume.load("vfi.pth", device="cpu")(torch.rand(3, 32, 32))
    generator = {
        "type": "OneStepGenerator",
        "img_resolution": 8,
        "model_channels": 8,
        "channel_mult": [1],
        "num_blocks": 1,
    }
    written("gen.pth", described(model_type="GenerationModel", network_g=generator, scale=1))
    with pytest.raises(UserError, match="without looking at a picture"):
        relume.load("gen.pth", device="cpu")(torch.rand(3, 8, 8))


def test_importing_relume_is_cheap() -> None:
    code = "import sys, relume; print('torch' in sys.modules, relume.__version__); relume.load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", relume.__version__, "True"]
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        relume.laod  # noqa: B018
    assert relume.load is loading.load


def test_a_network_of_several_inputs_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "masked.py").write_text(
        "import torch\nclass Masked(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(4, 3, 3, padding=1)\n    def forward(self, x, mask):\n"
        "        return self.conv(torch.cat([x, mask], 1))\n"
    )
    train = {"total_iter": 1, "optim_g": {"type": "Adam", "lr": 0.1}, "pixel_opt": {"type": "L1Loss"}}
    opt = described(network_g={"type": "Masked"}, plugins=[str(tmp_path / "masked.py")])
    opt = {**opt, "train": {**train, "inputs": ["lq", "mask"]}}
    check(opt)  # which imports its plug-ins
    written("masked.pth", opt, "params")
    found = relume.load("masked.pth", device="cpu")
    with pytest.raises(UserError, match=r"the samples have no 'mask'"):
        found(torch.rand(3, 8, 8))
    batch = {"lq": torch.rand(1, 3, 8, 8), "mask": torch.rand(1, 1, 8, 8)}
    assert found.model.predict(batch)["output"].shape == (1, 3, 8, 8)
