"""Paired and single images."""

from __future__ import annotations

import logging
import random

import cv2
import numpy as np
import pytest
import torch

from relume.core.commands.prepare import pack
from relume.core.errors import UserError
from relume.core.imaging.image_io import imread
from relume.datasets import build_dataset


def chw(path):
    return torch.from_numpy(imread(path)).permute(2, 0, 1)


def build(paired, **options):
    return build_dataset({**paired, **options}, phase=options.get("phase", "train"), scale=1)


def scaled(tmp_path, write_images, scale, lq=(10, 12), gt=None, count=2):
    gt = gt or (lq[0] * scale, lq[1] * scale)
    write_images(tmp_path / "gt", {f"{i}": gt for i in range(count)})
    write_images(tmp_path / "lq", {f"{i}x{scale}": lq for i in range(count)})
    return {
        "type": "PairedImageDataset",
        "dataroot_gt": str(tmp_path / "gt"),
        "dataroot_lq": str(tmp_path / "lq"),
        "filename_tmpl": f"{{}}x{scale}",
    }


def test_validation_gives_whole_images_in_order(paired, tmp_path):
    dataset = build(paired, phase="val", gt_size=16, use_hflip=True, use_rot=True)
    assert len(dataset) == 8
    item = dataset[3]
    assert item["lq_path"] == str(tmp_path / "input" / "03.png")
    assert item["gt_path"] == str(tmp_path / "gt" / "03.png")
    assert torch.equal(item["lq"], chw(item["lq_path"])) and torch.equal(item["gt"], chw(item["gt_path"]))
    assert torch.equal(dataset[-1]["gt"], dataset[7]["gt"])
    with pytest.raises(IndexError):
        dataset[8]


def test_training_gives_aligned_patches(paired):
    dataset = build(paired, gt_size=16, use_flip=True, use_rot=True)
    seen = set()
    for _ in range(20):
        item = dataset[0]
        assert item["gt"].shape == (3, 16, 16) and item["gt"].is_contiguous()
        assert torch.equal(item["gt"], item["lq"])  # the fixture writes the same images to both folders
        seen.add(item["gt"].numpy().tobytes())
    assert len(seen) > 15


def test_every_augmentation_is_off_unless_asked_for(paired):
    whole = chw(build(paired, phase="val")[0]["gt_path"]).unfold(1, 16, 1).unfold(2, 16, 1).reshape(3, -1, 16, 16)
    for _ in range(5):
        patch = build(paired, gt_size=16)[0]["gt"]
        assert (whole == patch[:, None]).all(dim=(0, 2, 3)).any()


def test_scale_cuts_the_input_patch_smaller(tmp_path, write_images):
    opt = scaled(tmp_path, write_images, 4)
    item = build_dataset({**opt, "gt_size": 16}, phase="train", scale=4)[0]
    assert item["lq"].shape == (3, 4, 4) and item["gt"].shape == (3, 16, 16)


def test_sizes_that_do_not_match_are_explained(tmp_path, write_images):
    opt = scaled(tmp_path, write_images, 4, lq=(10, 12), gt=(41, 50))
    item = build_dataset(opt, phase="val", scale=4)[0]
    assert item["gt"].shape == (3, 40, 48)  # a benchmark's uncut ground truth
    assert torch.equal(item["gt"], chw(item["gt_path"])[:, :40, :48])
    for scale, phase in ((4, "train"), (2, "val"), (3, "val")):
        with pytest.raises(
            UserError, match=rf"gt/0\.png: is 41x50 .*scale {scale} its input .*lq/0x4\.png needs .*Is scale"
        ):
            build_dataset(opt, phase=phase, scale=scale)[0]


def test_inputs_alone(paired, tmp_path):
    folder = str(tmp_path / "input")
    for opt in (
        {**paired, "dataroot": None, "dataroot_lq": folder},
        {"type": "SingleImageDataset", "dataroot_lq": folder},
    ):
        item = build_dataset(opt, phase="test", scale=4)[2]
        assert set(item) == {"lq", "lq_path"}
        assert torch.equal(item["lq"], chw(item["lq_path"]))
    patch = build_dataset({**paired, "dataroot": None, "dataroot_lq": folder, "gt_size": 32}, phase="train", scale=2)[0]
    assert patch["lq"].shape == (3, 16, 16)


def test_several_roots_with_weights(tmp_path, write_images):
    for root, count in (("a", 6), ("b", 2)):
        for kind in ("gt", "input"):
            write_images(tmp_path / root / kind, {f"{i}": (16, 16) for i in range(count)})
    opt = {"type": "PairedImageDataset", "dataroot": [str(tmp_path / "a"), str(tmp_path / "b")]}
    assert build_dataset(opt).sampling_weights is None
    dataset = build_dataset({**opt, "weights": [1, 3]})
    assert len(dataset) == 8
    assert dataset.sampling_weights.sum() == pytest.approx(1)
    assert dataset.sampling_weights[:6].sum() == pytest.approx(0.25)
    for weights in ([1], [1, -1], [0, 0]):
        with pytest.raises(UserError, match="weights: 2 folders"):
            build_dataset({**opt, "weights": weights})
    with pytest.raises(UserError, match="meta_info_file"):
        build_dataset({**opt, "meta_info": "x.txt"})


def test_sixteen_bit_inputs_keep_their_precision(tmp_path, write_images):
    for kind in ("gt", "input"):
        write_images(tmp_path / kind, {"0": (20, 20)}, bits=16)
    item = build_dataset({"type": "PairedImageDataset", "dataroot": str(tmp_path)}, phase="val")[0]
    assert len(torch.unique(item["gt"])) > 1000
    assert torch.equal(item["gt"], chw(item["gt_path"]))


def test_gray_and_rgba_files_become_rgb(tmp_path, caplog):
    rng = np.random.RandomState(0)
    for kind in ("gt", "input"):
        (tmp_path / kind).mkdir()
        for name, channels in (("gray", 1), ("rgba", 4), ("rgba2", 4)):
            image = rng.randint(0, 255, (20, 20, channels)).astype(np.uint8)
            assert cv2.imwrite(str(tmp_path / kind / f"{name}.png"), image)
    dataset = build_dataset({"type": "PairedImageDataset", "dataroot": str(tmp_path)}, phase="val")
    with caplog.at_level(logging.WARNING, logger="relume"):
        assert [dataset[i]["lq"].shape for i in range(3)] == [(3, 20, 20)] * 3
    assert torch.equal(dataset[0]["lq"][0], dataset[0]["lq"][2])
    messages = [r.getMessage() for r in caplog.records]
    assert len(messages) == 2 and "gt: " in messages[1] and "input: " in messages[0]


def test_resize_comes_before_the_patch_and_is_that_of_the_ground_truth(tmp_path, write_images):
    opt = scaled(tmp_path, write_images, 2)
    item = build_dataset({**opt, "resize": [16, 24]}, phase="val", scale=2)[0]
    assert item["gt"].shape == (3, 16, 24) and item["lq"].shape == (3, 8, 12)
    item = build_dataset({**opt, "resize": [32, 32], "gt_size": 32}, phase="train", scale=2)[0]
    assert item["gt"].shape == (3, 32, 32)
    with pytest.raises(UserError, match="multiples of scale 2; got 15"):
        build_dataset({**opt, "resize": [16, 15]}, phase="val", scale=2)


def test_luma_and_normalisation(paired):
    whole = build(paired, phase="val")[0]["gt"]
    item = build(paired, phase="val", color="y", mean=[0.5], std=[0.25])[0]
    y = (torch.tensor([65.481, 128.553, 24.966]) @ whole.flatten(1) + 16).view(1, 40, 48) / 255
    assert torch.allclose(item["gt"], (y - 0.5) / 0.25, atol=1e-5)


def test_restormers_augmentation_continues_small_images(paired):
    random.seed(0)
    dataset = build(paired, gt_size=64, geometric_augs=True)
    dataset.require_patch(64)
    assert dataset[0]["gt"].shape == (3, 64, 64)


def test_patches_larger_than_an_image_are_found_before_training(paired, tmp_path, write_images):
    write_images(tmp_path / "input", {"08": (20, 48)})
    write_images(tmp_path / "gt", {"08": (20, 48)})
    dataset = build(paired, gt_size=32)
    with pytest.raises(UserError, match=r"gt_size 32 is larger than 1 of 9 images .*08\.png \(20x48\)"):
        dataset.require_patch(32)
    dataset.require_patch(20)
    with pytest.raises(UserError, match=r"08\.png: is 20x48"):
        dataset[8]
    with pytest.raises(UserError, match=r"gt_size 48 is larger than the size \[32, 32\]"):
        build(paired, resize=[32, 32]).require_patch(48)


def test_damaged_files_are_raised_or_skipped(paired, tmp_path, caplog):
    path = tmp_path / "input" / "03.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"input/03\.png.*on_error: skip"):
        build(paired, phase="val")[3]
    dataset = build(paired, phase="val", on_error="skip")
    with caplog.at_level(logging.WARNING, logger="relume"):
        assert dataset[3]["lq_path"].endswith("04.png")
    assert "03.png" in caplog.records[0].getMessage()
    assert dataset.readable(3)[0] == 4
    for file in (tmp_path / "gt").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 8 samples"):
        dataset[0]
    with pytest.raises(UserError, match="on_error"):
        build(paired, on_error="ignore")


def test_lmdb_holds_the_same_images(tmp_path, write_images):
    sizes = {f"s/{i}": (20 + i, 24) for i in range(4)}
    for kind in ("gt", "lq"):
        write_images(tmp_path / kind, sizes, bits=16)
        assert pack(str(tmp_path / kind), str(tmp_path / f"{kind}.lmdb")) == 4
    roots = {"dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq")}
    disk = build_dataset({"type": "PairedImageDataset", **roots}, phase="val")
    opt = {"type": "PairedImageDataset", **{k: f"{v}.lmdb" for k, v in roots.items()}, "io_backend": {"type": "lmdb"}}
    for dataset in (build_dataset(opt, phase="val"), build_dataset(opt, phase="val")):  # the same database twice
        assert len(dataset) == 4
        for i in range(4):
            assert torch.equal(dataset[i]["gt"], disk[i]["gt"])
            assert dataset[i]["lq_path"] == str(tmp_path / "lq.lmdb" / f"s/{i}.png")
    with pytest.raises(UserError, match=r"larger than 2 of 4 images.*s/0\.png \(20x24\), .*s/1\.png \(21x24\)"):
        build_dataset({**opt, "gt_size": 22}).require_patch(22)
    with pytest.raises(UserError, match=r"lq: is not an LMDB folder"):
        build_dataset({**opt, **roots}, phase="val")


@pytest.mark.parametrize(
    ("backend", "message"),
    [({"type": "memcached"}, "no type 'memcached'"), ({"type": "disk", "servers": 1}, "unknown key 'servers'")],
)
def test_unknown_backends(paired, backend, message):
    with pytest.raises(UserError, match=message):
        build(paired, io_backend=backend)


def test_remote_folders(tmp_path, write_images):
    root = f"memory://{tmp_path.name}"
    for kind in ("gt", "input"):
        write_images(f"{root}/{kind}", {f"s/{i}": (20, 24) for i in range(3)})
    dataset = build_dataset({"type": "PairedImageDataset", "dataroot": root, "gt_size": 8}, phase="train")
    dataset.require_patch(8)
    assert len(dataset) == 3
    item = dataset[2]
    assert item["gt"].shape == (3, 8, 8) and item["gt_path"] == f"{root}/gt/s/2.png"


@pytest.mark.parametrize("template", ["x4", ""])
def test_a_template_without_a_place_for_the_stem(paired, template):
    with pytest.raises(UserError, match="filename_tmpl"):
        build(paired, filename_tmpl=template)


@pytest.mark.parametrize(("task", "channels"), [("denoising_color", 3), ("denoising_gray", 1)])
def test_forks_denoising_adds_the_noise_of_their_validation(paired, tmp_path, task, channels):
    clean = {"type": "PairedImageDataset", "dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": "nowhere", "task": task}
    item = build(clean, noise=15, phase="val")[3]
    bgr = cv2.imread(str(tmp_path / "gt" / "03.png"), cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE)
    image = bgr.astype(np.float32) / 255
    noisy = image + np.random.RandomState(0).normal(0, 15 / 255, image.shape)
    for key, expected in (("gt", image), ("lq", noisy)):
        expected = expected[..., ::-1] if channels == 3 else expected[..., None]
        # The PNG reader's gray and ours may differ by one level where a half is rounded.
        allowed = 1e-6 if channels == 3 else 1.01 / 255
        np.testing.assert_allclose(item[key].permute(1, 2, 0).numpy(), expected, atol=allowed)
    training = build(clean, noise=15, gt_size=32, use_hflip=True)
    added = torch.stack([i["lq"] - i["gt"] for i in (training[0] for _ in range(8))])
    assert added.shape == (8, channels, 32, 32)
    assert float(added.std() * 255) == pytest.approx(15, rel=0.05)
    assert not torch.equal(added[0], added[1])


def test_forks_compression_artefacts_are_learnt_in_gray(paired, tmp_path):
    pairs = {k: str(tmp_path / v) for k, v in (("dataroot_gt", "gt"), ("dataroot_lq", "input"))}
    item = build({"type": "PairedImageDataset", **pairs, "task": "CAR"}, phase="val")[0]
    levels = item["lq"] * 255
    assert item["lq"].shape == (1, 40, 48)
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    expected = cv2.imread(str(tmp_path / "input" / "00.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_allclose(levels[0].numpy(), expected, atol=1.01)


@pytest.mark.parametrize("options", [{"task": "denoising_color"}, {"task": "CAR", "color": "y"}, {"noise": 15}])
def test_forks_tasks_that_lack_something(paired, tmp_path, options):
    pairs = {k: str(tmp_path / v) for k, v in (("dataroot_gt", "gt"), ("dataroot_lq", "input"))}
    with pytest.raises(UserError, match=r": (task|noise): "):
        build({"type": "PairedImageDataset", **pairs}, **options)
