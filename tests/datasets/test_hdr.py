"""Pictures and radiance in folders: values of the original, precision, choices, and every mistake."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from filling import image

from relume.core.commands.prepare import meta, pack
from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite
from relume.core.imaging.transfer import TRANSFERS, as_transfer
from relume.datasets import build_dataset, sources
from relume.datasets.camera import Curve, estimated_gain, format_prompt
from relume.datasets.loading.loader import build_train_loader
from relume.datasets.loading.worker import seeded

CURVE = Curve(2.0, 1.8)


def scene(name: str, *size: int) -> np.ndarray:
    """(H, W, 3) radiance in (1, 1000), steps of .hdr files."""
    return 1000 ** image(name, 1, 3, *size)[0].permute(1, 2, 0).numpy()


def write_sample(root: Path, name: str, size: tuple[int, int] = (12, 16), bits: int = 8) -> None:
    """Picture, radiance and prompt of one sample, in the folders lq, gt and dgain."""
    radiance = scene(name, *size)
    imwrite(root / "gt" / f"{name}.hdr", radiance)
    imwrite(root / "lq" / f"{name}.png", CURVE.develop(radiance, 1000.0), bits)
    (root / "dgain").mkdir(exist_ok=True)
    (root / "dgain" / f"{name}.txt").write_text(format_prompt(CURVE))


@pytest.fixture
def block(tmp_path):
    """Three samples: the options of a dataset."""
    for name in "abc":
        write_sample(tmp_path, name)
    roots = {f"dataroot_{k}": str(tmp_path / k) for k in ("lq", "gt", "dgain")}
    return {"type": "LDR_HDR_PairedDataset", **roots}


# ------------------------------------------------------------------ the original
@pytest.mark.parametrize("number", range(21))
def test_the_original(golden, number, tmp_path):
    data = torch.load(golden("hdr/dataset.pt"), weights_only=True)
    case = data["cases"][number]
    file, name = data["files"][case["image"]], case["image"]
    for folder, suffix, content in (
        ("gt", ".hdr", bytes(file["hdr_bytes"].numpy())),
        ("lq", ".png", bytes(file["lq_png_bytes"].numpy())),
        ("dgain", ".txt", file["dgain_txt"].encode()),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}{suffix}").write_bytes(content)
    block = {"type": case["kind"], **{f"dataroot_{k}": str(tmp_path / k) for k in ("lq", "gt", "dgain")}}
    block.update({k: case[k] for k in ("gt_size", "geometric_augs", "mean", "std") if k in case})
    if "gt_recover" in case:
        (tmp_path / "recover").mkdir()
        np.save(tmp_path / "recover" / f"{name}_log_hdr.npy", file["recover"].numpy())
        block["dataroot_gt_recover"] = str(tmp_path / "recover")
    dataset = build_dataset(block, phase=case["phase"], scale=1)
    random.seed(case.get("python_random_seed"))
    item = dataset[0]
    for key in ("lq", "gt", "gt_recover"):
        if key in case:
            assert item[key].dtype == torch.float32
            torch.testing.assert_close(item[key], case[key], rtol=0, atol=2e-6)
    if "returned_keys" in case:
        assert sorted(item) == case["returned_keys"]


# ------------------------------------------------------------------ values
@pytest.mark.parametrize("name", TRANSFERS.names())
def test_values_by_hand(block, name, tmp_path):
    item = build_dataset({**block, "transfer": name}, phase="val")[1]
    encode = as_transfer(name).encode
    radiance = cv2.imread(str(tmp_path / "gt" / "b.hdr"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    picture = cv2.imread(str(tmp_path / "lq" / "b.png"))[..., ::-1].astype(np.float64) / 255
    linear = np.clip(picture**1.8 / 2.0, 0, 1) * 1000
    for key, expected in (("gt", radiance.astype(np.float64)), ("lq", linear)):
        assert item[key].shape == (3, 12, 16)
        assert np.abs(item[key].permute(1, 2, 0).numpy() - encode(expected)).max() < (2e-5 if name == "pq" else 2e-6)
    assert item["lq_path"].endswith("lq/b.png") and item["gt_path"].endswith("gt/b.hdr")


def test_radiance_beyond_the_peak_is_kept_unless_clipped(block, tmp_path):
    imwrite(tmp_path / "gt" / "b.hdr", scene("b", 12, 16) * 4)
    kept, clipped = (build_dataset({**block, "above_peak": k}, phase="val")[1]["gt"] for k in ("keep", "clip"))
    assert kept.max() > 1.1 and clipped.max() == 1
    assert torch.equal(kept.clamp(max=1), clipped)


def test_pictures_keep_16_bits(block, tmp_path):
    exact = as_transfer("log1p").encode(CURVE.linearise(CURVE.develop(scene("b", 12, 16), 1000.0), 1000.0))
    errors = []
    for bits in (8, 16):
        write_sample(tmp_path, "b", bits=bits)
        lq = build_dataset(block, phase="val")[1]["lq"].permute(1, 2, 0).numpy()
        errors.append(float(np.abs(lq - exact).max()))
    assert errors[1] < errors[0] / 50


@pytest.mark.parametrize("suffix", [".exr", ".npy", ".pfm", ".tif", ".png", "16.tif"])
def test_every_format_of_radiance(block, suffix, tmp_path):
    if suffix == ".exr":
        pytest.importorskip("OpenEXR")
    radiance = scene("b", 12, 16)
    for file in (tmp_path / "gt").iterdir():
        if file.stem != "b":
            file.rename(tmp_path / file.name)
            (tmp_path / "lq" / f"{file.stem}.png").unlink()
    (tmp_path / "gt" / "b.hdr").unlink()
    integers = suffix in (".png", "16.tif")
    file = tmp_path / "gt" / f"b{suffix.removeprefix('16')}"
    imwrite(file, radiance / 1000 if integers else radiance, 16 if integers else 32)
    scale = {"gt_scale": 1000.0} if integers else {}
    gt = build_dataset({**block, **scale}, phase="val")[0]["gt"]
    error = np.abs(as_transfer("log1p").decode(gt.permute(1, 2, 0).numpy()) - radiance).max()
    assert error < (0.02 if integers else 2e-3)


def test_gt_scale(block, tmp_path):
    once = build_dataset(block, phase="val")[0]["gt"]
    imwrite(tmp_path / "gt" / "a.hdr", scene("a", 12, 16) / 1024)
    again = build_dataset({**block, "gt_scale": 1024.0}, phase="val")[0]["gt"]
    torch.testing.assert_close(once, again)


# ------------------------------------------------------------------ the layout of the NTIRE challenges
@pytest.fixture
def challenge(tmp_path):
    """Two scenes in one folder, each image's 16 bits in full use; the options of a dataset, and the radiance by id."""
    scenes = {i: scene(i, 12, 16) for i in ("0000", "0001")}
    for name, radiance in scenes.items():
        ratio = 65535 / radiance.max()
        imwrite(tmp_path / f"{name}_gt.png", np.rint(radiance * ratio).astype(np.uint16))
        np.save(tmp_path / f"{name}_alignratio.npy", ratio)
        np.save(tmp_path / f"{name}_exposures.npy", np.array([-3.0, 0.0, 3.0]))
        for stops, exposure in enumerate(("short", "medium", "long")):
            imwrite(tmp_path / f"{name}_{exposure}.png", Curve(0.5 * 8**stops, 2.24).develop(radiance, 1000.0))
    roots = dict.fromkeys(("dataroot_lq", "dataroot_gt", "dataroot_alignratio"), str(tmp_path))
    settings = {"filename_tmpl": "{}_medium", "dgain": 4.0, "gamma": 2.24}
    return {"type": "LDR_HDR_PairedDataset", **roots, **settings}, scenes


def test_ratios_of_16_bit_ground_truths(challenge, tmp_path):
    block, scenes = challenge
    dataset = build_dataset(block, phase="val")
    assert len(dataset) == 2
    for i, (name, radiance) in enumerate(scenes.items()):
        item = dataset[i]
        assert item["lq_path"].endswith(f"{name}_medium.png") and item["gt_path"].endswith(f"{name}_gt.png")
        found = as_transfer("log1p").decode(item["gt"].permute(1, 2, 0).numpy())
        assert np.abs(found - radiance).max() < radiance.max() / 65535 + 1e-3
    for name in scenes:
        for kind in ("gt.png", "alignratio.npy"):
            folder = tmp_path / kind.split(".")[0]
            folder.mkdir(exist_ok=True)
            (tmp_path / f"{name}_{kind}").rename(folder / f"{name}{'.png' if kind == 'gt.png' else '_' + kind}")
    apart = {f"dataroot_{k}": str(tmp_path / k) for k in ("gt", "alignratio")}
    assert torch.equal(build_dataset({**block, **apart}, phase="val")[1]["gt"], item["gt"])
    doubled = build_dataset(
        {**block, **apart, "gt_scale": 2.0, "transfer": {"type": "mu_law", "peak": 2000.0}}, phase="val"
    )
    once = build_dataset({**block, **apart, "transfer": "mu_law"}, phase="val")
    torch.testing.assert_close(doubled[0]["gt"], once[0]["gt"])


def test_what_is_wrong_with_ratios(challenge, tmp_path):
    block, scenes = challenge
    ratio, truth = tmp_path / "0001_alignratio.npy", tmp_path / "0001_gt.png"
    for bad, message in (
        (np.array(0.0), r"0001_alignratio\.npy: a positive number is expected, not 0"),
        (np.array([1.0, 2.0]), r"0001_alignratio\.npy: one number is expected in it, not float64 of the shape \(2,\)"),
        (np.array(np.nan), "a positive number is expected, not nan"),
        (
            np.array([1.0], dtype=object),
            r"0001_alignratio\.npy: not a readable \.npy array of numbers \(Object arrays cannot",
        ),
    ):
        np.save(ratio, bad)
        with pytest.raises(UserError, match=message):
            build_dataset(block, phase="val")[1]
    np.save(ratio, 60.0)
    imwrite(truth, scenes["0001"] / 1000)
    with pytest.raises(UserError, match=r"0001_gt\.png: holds uint8 samples; dataroot_alignratio is for 16-bit files"):
        build_dataset(block, phase="val")[1]
    truth.unlink()
    with pytest.raises(UserError, match=r"1 of 2 files \*_alignratio\.npy have no <name>_gt\.png or <name>\.png: 0001"):
        build_dataset(block, phase="val")
    with pytest.raises(UserError, match="dataroot_alignratio goes with dataroot_gt, in folders"):
        build_dataset({**block, "dataroot_gt": None}, phase="test")
    for file in tmp_path.glob("*_alignratio.npy"):
        file.unlink()
    with pytest.raises(UserError, match=r"dataroot_alignratio: there is no <name>_alignratio\.npy in"):
        build_dataset(block, phase="val")


# ------------------------------------------------------------------ training
def test_patches_are_cut_before_they_are_encoded_and_the_same_from_both(block):
    dataset = build_dataset({**block, "gt_size": 8, "geometric_augs": True}, phase="train")
    whole = build_dataset(block, phase="val")[0]
    found = set()
    for seed in range(40):
        with seeded(seed):
            item = dataset[0]
        assert item["lq"].shape == item["gt"].shape == (3, 8, 8)
        pairs = torch.stack([whole["lq"].flatten(1), whole["gt"].flatten(1)], -1)
        known = {tuple(p) for p in pairs.permute(1, 0, 2).reshape(-1, 6).tolist()}
        assert all(
            tuple(p) in known
            for p in torch.stack([item["lq"], item["gt"]], -1).permute(1, 2, 0, 3).reshape(-1, 6).tolist()
        )
        found.add(item["gt"].numpy().tobytes())
        with seeded(seed):
            assert torch.equal(dataset[0]["gt"], item["gt"])
    assert len(found) > 20


def test_small_images_are_continued_by_reflection(block):
    dataset = build_dataset({**block, "gt_size": 40}, phase="train")
    whole = build_dataset(block, phase="val")[0]["gt"]
    gt = dataset[0]["gt"]
    assert gt.shape == (3, 40, 40)
    assert torch.equal(gt[:, :12, :16], whole) and torch.equal(gt[:, 12:24, :16], whole.flip(1))
    assert torch.equal(gt[:, :12, 16:32], whole.flip(2))


# ------------------------------------------------------------------ the camera's curve
def test_the_curve_given_or_guessed(block, tmp_path):
    own = build_dataset(block, phase="val")[0]["lq"]
    without = {k: v for k, v in block.items() if k != "dataroot_dgain"}
    assert torch.equal(build_dataset({**without, "dgain": 2.0, "gamma": 1.8}, phase="val")[0]["lq"], own)
    other = build_dataset({**block, "gamma": 2.4}, phase="val")[0]["lq"]
    assert not torch.equal(other, own)
    picture = cv2.imread(str(tmp_path / "lq" / "a.png"))[..., ::-1].astype(np.float32) / 255
    guess = {"dgain": estimated_gain(picture, 1.8, 0.05), "gamma": 1.8}
    guessed = build_dataset({**without, "estimate_dgain": True, "gamma": 1.8, "scene_key": 0.05}, phase="val")[0]["lq"]
    assert torch.equal(guessed, build_dataset({**without, **guess}, phase="val")[0]["lq"])
    train = {**without, "estimate_dgain": True, "gt_size": 8}
    whole = build_dataset({**without, "estimate_dgain": True}, phase="val")[0]["lq"]
    patch = build_dataset(train, phase="train")[0]["lq"]
    assert set(patch.flatten().tolist()) <= set(whole.flatten().tolist()), "the guess is the whole picture's"


# ------------------------------------------------------------------ pairing
def test_pictures_alone_can_be_tested(block):
    alone = {k: v for k, v in block.items() if k != "dataroot_gt"}
    item = build_dataset(alone, phase="test")[0]
    assert set(item) == {"lq", "lq_path"}
    assert torch.equal(item["lq"], build_dataset(block, phase="test")[0]["lq"])
    with pytest.raises(UserError, match="dataroot_gt is missing"):
        build_dataset(alone, phase="train")


def test_lmdb_meta_files_templates_and_home_folders(block, tmp_path, monkeypatch):
    expected = [build_dataset(block, phase="val")[i] for i in range(3)]
    kinds = {"lq": "images", "gt": "radiance", "dgain": "prompts"}
    for k, kind in kinds.items():
        assert pack(str(tmp_path / k), str(tmp_path / f"{k}.lmdb"), kind=kind) == 3
    lmdb = {**block, **{f"dataroot_{k}": str(tmp_path / f"{k}.lmdb") for k in kinds}, "io_backend": {"type": "lmdb"}}
    packed = build_dataset(lmdb, phase="val")
    meta(str(tmp_path / "gt"), str(tmp_path / "meta.txt"), kind="radiance")
    lines = (tmp_path / "meta.txt").read_text().splitlines()
    assert lines[0] == "a.hdr (12,16,3)"
    (tmp_path / "meta.txt").write_text("\n".join(lines[1:]))
    some = build_dataset({**block, "meta_info_file": str(tmp_path / "meta.txt")}, phase="val")
    for i, item in enumerate(expected):
        assert torch.equal(packed[i]["lq"], item["lq"]) and torch.equal(packed[i]["gt"], item["gt"])
        if i:
            assert torch.equal(some[i - 1]["gt"], item["gt"]) and some[i - 1]["lq_path"] == item["lq_path"]
    assert len(some) == 2
    monkeypatch.setenv("HOME", str(tmp_path))
    home = {**block, **{f"dataroot_{k}": f"~/{k}" for k in kinds}}
    assert torch.equal(build_dataset(home, phase="val")[0]["lq"], expected[0]["lq"])
    for folder, suffix in (("lq", ".png"), ("dgain", ".txt")):
        for name in "abc":
            (tmp_path / folder / f"{name}{suffix}").rename(tmp_path / folder / f"{name}_ldr{suffix}")
    renamed = build_dataset({**block, "filename_tmpl": "{}_ldr"}, phase="val")
    assert torch.equal(renamed[2]["lq"], expected[2]["lq"])


def test_twenty_thousand_triples_are_paired_by_name(monkeypatch):
    """In whatever order they are listed. (Comparing all with all takes minutes, as the original did.)"""
    count, suffixes = 20_000, {"lq": "jpg", "gt": "hdr", "dgain": "txt"}

    def listed(root: str) -> list[str]:
        step = {"lq": 1, "gt": 7, "dgain": 11}[root]
        return [f"{i * step % count:05d}.{suffixes[root]}" for i in range(count)]

    monkeypatch.setattr(sources, "list_files", listed)
    dataset = build_dataset({"type": "LDR_HDR_PairedDataset", **{f"dataroot_{k}": k for k in suffixes}}, phase="train")
    assert len(dataset) == count
    for i in (0, 1, 7777, count - 1):
        sample = dataset.samples[i]
        names = (sample.lq_name, sample.gt_name, dataset.prompts[i])
        assert names == (f"{i:05d}.jpg", f"{i:05d}.hdr", f"{i:05d}.txt")


# ------------------------------------------------------------------ another network's estimate
def test_estimates_in_radiance_and_under_another_encoding(block, tmp_path):
    recover = {"dataroot_gt_recover": str(tmp_path / "recover")}
    for name in "abc":
        encoded = as_transfer("log1p").encode(scene(name, 12, 16))
        imwrite(tmp_path / "recover" / f"{name}.npy", 1000 * encoded)
    stored = build_dataset({**block, **recover, "transfer": "mu_law"}, phase="val")[0]["gt_recover"]
    (tmp_path / "recover" / "a.npy").unlink()
    imwrite(tmp_path / "recover" / "a.pfm", scene("a", 12, 16))
    linear = build_dataset({**block, **recover, "transfer": "mu_law"}, phase="val")[0]["gt_recover"]
    expected = as_transfer("mu_law").encode(torch.from_numpy(scene("a", 12, 16)).permute(2, 0, 1))
    torch.testing.assert_close(linear, expected)
    torch.testing.assert_close(stored, expected, rtol=0, atol=1e-5)
    (tmp_path / "recover" / "b.npy").unlink()
    with pytest.raises(UserError, match=r"dataroot_gt_recover: 1 of 3 pictures have no estimate in .*: b\.png"):
        build_dataset({**block, **recover}, phase="val")


# ------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataroot_dgain": None}, "dataroot_dgain is missing: .*estimate_dgain: true"),
        ({"scale": 2}, "scale 2: pictures and radiance have the same size"),
        ({"gt_size": 0}, "gt_size: a positive number"),
        ({"gt_scale": -1.0}, "gt_scale: a positive number"),
        ({"filename_tmpl": "x"}, "filename_tmpl: 'x' needs"),
        ({"dgain": -1.0}, "dgain: a positive number"),
        ({"transfer": "log"}, r"no transfer function is called 'log'. Known: log1p"),
    ],
)
def test_impossible_options(block, options, message):
    with pytest.raises(UserError, match=message):
        build_dataset({**block, **options}, phase="train")


def broken(root: Path, what: str) -> None:
    gt, lq, prompt = root / "gt" / "b.hdr", root / "lq" / "b.png", root / "dgain" / "b.txt"
    bad = scene("b", 12, 16)
    if what == "nan":
        bad[3, 4, 1] = np.nan
        cv2.imwrite(str(gt.with_suffix(".pfm")), bad)
        gt.unlink()
    elif what == "negative":
        bad[3, 4, 1] = -0.25
        imwrite(gt.with_suffix(".npy"), bad)
        gt.unlink()
    elif what == "8 bits":
        imwrite(gt.with_suffix(".png"), bad / 1000)
        gt.unlink()
    elif what == "16 bits":
        imwrite(gt.with_suffix(".png"), bad / 1000, 16)
        gt.unlink()
    elif what == "not an image":
        gt.write_text("dgain: 1")
    elif what == "size":
        imwrite(gt, scene("b", 12, 18))
    elif what == "garbled":
        prompt.write_text("dgain: a lot\ngamma: 2\n")
    elif what == "picture":
        lq.write_bytes(lq.read_bytes()[:200])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", r"gt/b\.pfm: has NaN or infinite values"),
        ("negative", r"gt/b\.npy: has negative radiance \(down to -0\.25\)"),
        ("8 bits", r"gt/b\.png: is an 8-bit picture, not HDR radiance; ground truths are \.hdr"),
        ("16 bits", r"gt/b\.png: holds uint16 samples; say with gt_scale"),
        ("not an image", r"gt/b\.hdr: "),
        ("size", r"gt/b\.hdr: is 12x18 \(height x width\), but .*lq/b\.png is 12x16"),
        ("garbled", r"dgain/b\.txt:1: dgain is 'a lot', which is not a number"),
        ("picture", r"lq/b\.png: cannot be decoded"),
    ],
)
def test_bad_files_are_named_in_one_line(block, what, message, tmp_path):
    broken(tmp_path, what)
    dataset = build_dataset(block, phase="train")
    dataset[0], dataset[2]
    with pytest.raises(UserError, match=message) as caught:
        dataset[1]
    assert "\n" not in str(caught.value)
    if what in ("nan", "negative", "garbled", "picture"):
        skipping = build_dataset({**block, "on_error": "skip"}, phase="val")
        assert skipping[1]["lq_path"].endswith("c.png")


def test_missing_files_are_named(block, tmp_path):
    (tmp_path / "dgain" / "c.txt").unlink()
    with pytest.raises(UserError, match=r"dataroot_dgain: 1 of 3 pictures have no prompt file in .*dgain: c\.png"):
        build_dataset(block, phase="train")
    (tmp_path / "gt" / "a.hdr").unlink()
    with pytest.raises(UserError, match=r"1 of 3 inputs in .*lq have no ground truth in .*gt: a\.png"):
        build_dataset(block, phase="train")
    (tmp_path / "gt" / "x.jpg").touch()
    for name in "bc":
        (tmp_path / "gt" / f"{name}.hdr").unlink()
    with pytest.raises(UserError, match=r"gt: there are no files to read in this folder \(looked for \.hdr"):
        build_dataset(block, phase="train")


def test_outputs_are_decoded_where_images_are_normalised_too(block):
    assert build_dataset(block, phase="val").transfer is not None
    assert build_dataset({**block, "mean": [0.5] * 3, "std": [0.5] * 3}, phase="val").transfer is not None


def test_the_same_from_any_worker(block):
    """As a spawned process gets it."""
    for options in (block, {**block, "transfer": {"type": "pu21", "nits": 1000.0}}):
        dataset = build_dataset({**options, "gt_size": 8, "geometric_augs": True}, phase="train")
        again = pickle.loads(pickle.dumps(dataset))
        with seeded(3):
            ours = dataset[1]
        with seeded(3):
            theirs = again[1]
        assert torch.equal(ours["lq"], theirs["lq"]) and torch.equal(ours["gt"], theirs["gt"])


def test_gain_and_exponent_reach_the_batch(block):
    """So that a network can be conditioned on them: inputs: [lq, dgain]."""
    assert "dgain" not in build_dataset(block, phase="val")[0]
    block = {**block, "with_dgain": True}
    item = build_dataset(block, phase="val")[0]
    batch = torch.utils.data.default_collate([{k: v for k, v in item.items() if k in ("dgain", "gamma")}] * 2)
    assert batch["dgain"].shape == batch["gamma"].shape == (2,) and batch["dgain"].dtype == torch.float32
    fixed = {k: v for k, v in block.items() if k != "dataroot_dgain"}
    item = build_dataset({**fixed, "dgain": 3.0, "gamma": 1.5}, phase="val")[0]
    assert (item["dgain"], item["gamma"]) == (3.0, 1.5)


@pytest.mark.parametrize("transfer", sorted(TRANSFERS))
def test_on_the_device_the_numbers_are_the_same(block, transfer):
    block |= {
        "transfer": transfer,
        "gt_size": 8,
        "geometric_augs": True,
        "mean": [0.5],
        "std": [0.5],
        "with_dgain": True,
    }
    for clipped in ("keep", "clip"):
        here, there = (
            build_dataset({**block, "above_peak": clipped, "gt_scale": 3.0, "on_device": on}, phase="train", scale=1)
            for on in (False, True)
        )
        loading = {"batch_size_per_gpu": 2, "num_worker_per_gpu": 0, "send_uint8": True}
        a, b = (next(build_train_loader(d, loading, seed=5)) for d in (here, there))
        assert a.keys() == b.keys() and a["lq_path"] == b["lq_path"]
        for key in ("lq", "gt", "dgain", "gamma"):
            torch.testing.assert_close(b[key], a[key], rtol=0, atol=2e-5)
    assert build_dataset({**block, "on_device": True}, phase="val", scale=1)[0].keys() >= {"lq", "gt"}
