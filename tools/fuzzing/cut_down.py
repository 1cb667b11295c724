"""An option file cut down to two iterations of a narrow network on generated pictures, for `try_option_files.py --run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite
from relume.core.options import Options

SIDE = 96
"""Side of a generated ground truth's patch; images are a little larger."""
NARROW: Mapping[str, Any] = {
    "dim": 32, "width": 16, "wf": 8, "embed_dim": 60, "num_feat": 16, "num_block": 1, "num_group": 1, "middle_blk_num": 1,
    "num_refinement_blocks": 1, "n_feats": 16, "n_resblocks": 1, "n_resgroups": 1, "num_blks": 2,
}  # fmt: skip
"""Options of networks by which they are made narrow and shallow, where the file gives them."""
ONE_EACH = ("num_blocks", "enc_blk_nums", "dec_blk_nums", "depths", "depth")
"""Lists of which every entry becomes 1, or 2 for networks of alternating blocks."""


VIDEO = ("REDS", "Vimeo90K", "VideoTest", "VideoRecurrent")
"""How the names of data sets of clips begin."""
FRAMES = 5
"""Frames of a clip that a recurrent network is trained on."""


class NotCut(Exception):
    """A file that cannot be cut down by rules, and why."""


def cut_down(opt: Options, folder: Path, side: int | None = None) -> dict[str, Any]:
    """Options for two iterations of what `opt` trains, with one validation and its metrics, on pictures inside `folder`.

    Args:
        opt: options, checked already.
        folder: where pictures are written.
        side: side of a ground truth's patch, if another one than the network's kind asks for.

    Raises:
        NotCut: it trains nothing, or on data that are not pictures in pairs, noisy or degraded by the model.
    """
    values = opt.to_dict()
    if values.get("train") is None or "train" not in values["datasets"]:
        raise NotCut("it trains nothing")
    # The sides of pictures: small, but as small as the networks allow.
    scale = values["scale"]
    sets = {k: v for k, v in values["datasets"].items() if k == "train" or k.startswith("val")}
    first = next((k for k in sets if k != "train"), None)
    judge = str(values.get("network_d", {}).get("type"))
    scans = str(values["network_g"].get("type")).startswith("Mamba")  # slow without a GPU
    side = side or (SIDE // 2 if scans else SIDE)
    side = 128 if judge.startswith("VGGStyle") else side  # that judge takes one size only
    window = values["network_g"].get("window_size")
    if isinstance(window, int):  # some networks take multiples of it only in training
        side = -(-side // (scale * window)) * scale * window
    # Pictures of random numbers instead of the data sets, and narrow networks.
    values["datasets"] = {
        k: pictures(v, scale, folder, k == "train", side) for k, v in sets.items() if k in ("train", first)
    }
    for key in [k for k in values if k.startswith("network_")]:
        values[key] = narrow(values[key])
    # Two iterations, without files that would have to be there.
    train = values["train"]
    train.pop("total_epoch", None)
    train.update(total_iter=2, warmup_iter=-1)
    values["val"].update(
        val_freq=2, save_img=False, grids=False, tile=None, tile_pad=None, window_size=8, max_minibatch=None
    )
    values["val"].pop("best", None)
    values["logger"].update(print_freq=1, save_checkpoint_freq=2, use_tb_logger=False, wandb=None)
    values.update(num_gpu=0, name="cut", **({"gt_size": side} if "gt_size" in values else {}))
    values["path"] = {}
    for key in [k for k in train if k.endswith("_opt") and "Perceptual" in str(train[k].get("type"))]:
        del train[key]  # its weights would have to be downloaded
    return values


def narrow(block: Mapping[str, Any]) -> dict[str, Any]:
    """A network's block with its known sizes made small, and without weights of its parts."""
    block = {k: v for k, v in block.items() if not k.endswith("_path")}
    small = {k: min(v, NARROW[k]) if k in NARROW and isinstance(v, int) else v for k, v in block.items()}
    for key in ONE_EACH:
        if isinstance(small.get(key), (list, tuple)):
            small[key] = [1 for _ in small[key]]
    if isinstance(small.get("num_heads"), (list, tuple)):
        small["num_heads"] = [2 for _ in small["num_heads"]]
    return small


def pictures(block: Mapping[str, Any], scale: int, folder: Path, training: bool, side: int) -> dict[str, Any]:
    """A data set's block on generated pictures.

    Raises:
        NotCut: the block has no folder of pictures.
    """
    # The options that stay, and small numbers for those that cost time.
    kept = {
        k: v
        for k, v in block.items()
        if k not in ("meta_info_file", "meta_info", "iters", "mini_batch_sizes", "gt_sizes")
    }
    kept = {k: v for k, v in kept.items() if k != "accumulates"}
    small = {
        "num_worker_per_gpu": 0,
        "batch_size_per_gpu": 2,
        "dataset_enlarge_ratio": 20,
        "prefetch_mode": None,
        "persistent_workers": False,
    }
    kept.update({k: v for k, v in small.items() if training or k == "num_worker_per_gpu"}, io_backend={"type": "disk"})
    if "gt_size" in kept:
        kept["gt_size"] = side
    stereo = "Stereo" in block["type"]
    if kept.get("gt_size_h"):
        kept.update(gt_size_h=side, gt_size_w=side)
    # Every folder named in the block, filled with a few pictures of fitting sizes.
    places = [k for k in kept if k.startswith("dataroot") and kept[k]]
    if not places:
        raise NotCut(f"{block['type']} has no folder of pictures")
    template = str(kept.get("filename_tmpl", "{}"))
    if block["type"].startswith(VIDEO):
        return clips(kept, places, scale, folder, side)
    for place in places:
        factor = 1 if "lq" in place else scale
        names = ["0", "1", "2"] if factor == scale and "lq" not in place else [template.format(n) for n in "012"]
        target = folder / f"{place}_{factor}_{block['type']}_{training}_{'x'.join(names)}"
        for name in names:
            for view in ("_L", "_R") if stereo else ("",):
                picture(target / f"{name[:1] if stereo else name}{view}.png", factor * (side // scale + 8))
        kept[place] = str(target)
    return kept


def clips(block: dict[str, Any], places: list[str], scale: int, folder: Path, side: int) -> dict[str, Any]:
    """A data set's block on one generated clip: ``000/00000000.png``, ..., or Vimeo-90K's ``00001/0001/im1.png``."""
    vimeo = "Vimeo" in block["type"]
    if "num_frame" in block and "Recurrent" in block["type"] and not vimeo:
        block["num_frame"] = min(block["num_frame"], FRAMES)
    if vimeo or block["type"].startswith("REDS"):
        name, line = ("triples.txt", "00001/0001 7 (256,448,3)") if vimeo else ("clips.txt", "001 8 (720,1280,3)")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{line}\n", encoding="utf-8")
        block["meta_info_file"] = str(folder / name)
    names = [f"00001/0001/im{i + 1}.png" for i in range(7)] if vimeo else [f"001/{i:08}.png" for i in range(8)]
    for place in places:
        factor = 1 if "lq" in place else scale
        target = folder / f"{place}_{factor}_{'vimeo' if vimeo else 'clips'}"
        for name in names:
            picture(target / name, factor * (side // scale + 8))
        block[place] = str(target)
    return block


def picture(path: Path, side: int) -> None:
    """A picture of noise around waves, of this side.

    Raises:
        NotCut: the picture cannot be written.
    """
    if path.exists():
        return
    y, x = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y), np.sin(9 * x * y)], axis=2) / 4 + 0.5
    noise = np.random.RandomState(side).normal(0, 0.05, waves.shape)
    try:
        imwrite(str(path), np.clip(waves + noise, 0, 1))
    except UserError as e:
        raise NotCut(str(e)) from e
