"""Training and testing on clips: phases, rates, averages over clips, windows."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch
import yaml
from torch import nn

from relume.archs import build_network
from relume.core.errors import UserError
from relume.core.imaging.opencv import cv2
from relume.core.inference.tiling import Inference
from relume.core.inference.windows import carried, in_windows, run_clip, streamed
from relume.core.models.video import VideoModel
from relume.core.runtime import checkpoint
from relume.core.runtime.optimizers import build_optimizer
from relume.datasets import build_dataset
from relume.losses import LOSSES


def model(network: dict[str, Any], **options: Any) -> VideoModel:
    return VideoModel({"g": build_network(network)}, {"pixel": LOSSES.build({"type": "L1Loss"})}, **options)


BASIC = {"type": "BasicVSR", "num_feat": 4, "num_block": 1, "flow_levels": 2}
EDVR = {
    **{"type": "EDVR", "num_feat": 4, "deformable_groups": 2, "num_frame": 3},
    **{"num_extract_block": 1, "num_reconstruct_block": 1},
}


def trained(video: VideoModel) -> set[str]:
    return {name for name, p in video.networks["g"].named_parameters() if p.requires_grad}


def test_flow_is_fixed_until_its_iteration_and_resumes_in_the_right_phase() -> None:
    for first in (1, 3):  # from the beginning, and resumed
        video = model(BASIC, fix_flow=5)
        video.begin(first)
        assert trained(video) and not any("spynet" in n for n in trained(video))
        video.begin(4)
        assert not any("spynet" in n for n in trained(video))
        video.begin(5)
        assert any("spynet" in n for n in trained(video))
    video = model(BASIC, fix_flow=5)
    video.begin(6)
    assert len(trained(video)) == len(video.named)


def test_fusion_is_trained_alone_first() -> None:
    video = model(EDVR, tsa_iter=3)
    video.begin(2)
    assert trained(video) and all("fusion" in n for n in trained(video))
    video.begin(3)
    assert len(trained(video)) == len(video.named)
    with pytest.raises(UserError, match="tsa_iter: SRVGGNetCompact has no parameter with fusion") as caught:
        model({"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1}, tsa_iter=3)
    assert "\n" not in str(caught.value)


def test_offsets_that_stray_are_logged_and_said_once() -> None:
    network = build_network({"type": "EDVR", "num_feat": 8, "deformable_groups": 2, "num_extract_block": 1})
    model = VideoModel({"g": network.train()}, {"pixel": LOSSES.get("L1Loss")()})
    with torch.no_grad():
        for layer in model.deformable:
            layer.conv_offset.bias.fill_(70.0)
    batch = {"lq": torch.rand(1, 5, 3, 16, 16), "gt": torch.rand(1, 3, 64, 64)}
    update = next(model.updates(batch, 1))
    line = {k: float(v) for k, v in update.logs.items()}
    assert 60 < line["offsets"] < 80
    assert [said.partition(" are ")[2][:9] for said in model.remarks(line)] == ["70 pixels"] and not [
        *model.remarks(line)
    ]


def test_parts_have_rates_of_their_own() -> None:
    for network, options, part in ((BASIC, {"flow_lr_mul": 0.125}, "spynet"), (EDVR, {"dcn_lr_mul": 0.25}, "dcn")):
        video = model(network, **options)
        block = video.training_blocks({"optim_g": {"type": "Adam", "lr": 1e-3}})["optim_g"]
        optimizer = build_optimizer(video.named_parameters("g"), block)
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        factor = next(iter(options.values()))
        for name, p in video.networks["g"].named_parameters():
            assert rates[id(p)] == pytest.approx(1e-3 * (factor if part in name else 1))


def test_flipped_in_time_and_middle_frames() -> None:
    clip = torch.rand(1, 3, 3, 16, 16)
    video = model(BASIC, flip_seq=True)
    network = video.networks["g"].eval()
    with torch.no_grad():
        both = network(torch.cat([clip, clip.flip(1)], 1))
        expected = (both[:, :3] + both[:, 3:].flip(1)) / 2
        torch.testing.assert_close(video.predict({"lq": clip})["output"], expected)
        video.center_frame_only = True
        torch.testing.assert_close(video.predict({"lq": clip})["output"], expected[:, 1])


def test_windows_cover_every_frame_once() -> None:
    clip = torch.arange(23.0).view(1, 23, 1, 1, 1).expand(1, 23, 3, 2, 2)
    seen = []

    def run(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape[1])
        return 2 * part

    for window, overlap in ((5, 2), (7, 0), (4, 3), (23, 4), (22, 21)):
        assert torch.equal(in_windows(run, clip, window, overlap), 2 * clip)
        assert max(seen) <= window
        seen.clear()
    with pytest.raises(UserError, match="window_overlap: 5 must be less"):
        in_windows(run, clip, 5, 5)


def test_windows_reach_across_no_cut_and_hold_few_frames() -> None:
    alive: list[int] = []
    read: list[float] = []
    windows: list[list[float]] = []

    def frames() -> Iterator[torch.Tensor]:
        for i in range(300):
            read.append(i)
            yield torch.full((1, 1, 1, 1, 1), float(i))

    def run(part: torch.Tensor) -> torch.Tensor:
        windows.append(part.flatten().tolist())
        return part

    cuts = {50, 51, 60, 200}
    made: list[float] = []
    for part in streamed(run, frames(), 8, 3, lambda before, after: float(after) in cuts):
        made += part.flatten().tolist()
        alive.append(len(read) - len(made))
    assert made == list(range(300))
    assert max(alive) <= 8  # frames without a result
    for window in windows:
        assert len(window) <= 8
        assert not any(window[0] < cut <= window[-1] for cut in cuts)
    assert sum(len(w) < 8 for w in windows) == 1  # the scene of one frame; that of nine has two windows
    inner = {n: max(min(n - w[0], w[-1] - n) for w in windows if w[0] <= n <= w[-1]) for n in range(70, 190)}
    assert min(inner.values()) >= 1


def test_states_are_carried_from_window_to_window_and_end_at_cuts() -> None:
    torch.manual_seed(0)
    network = build_network(BASIC).eval()
    clip = torch.rand(1, 10, 3, 8, 12)
    frames = clip.split(1, 1)
    read = [0]

    def counted() -> Iterator[torch.Tensor]:
        for frame in frames:
            read[0] += 1
            yield frame

    def in_parts(window: int, overlap: int, cuts: tuple[int, ...] = ()) -> torch.Tensor:
        read[0], parts = 0, []
        for part in carried(network.continued, counted(), window, overlap, lambda before, after: read[0] - 1 in cuts):
            parts.append(part)
            assert read[0] - sum(p.shape[1] for p in parts) <= window
        return torch.cat(parts, 1)

    with torch.no_grad():
        whole = network(clip)
        torch.testing.assert_close(in_parts(10, 3), whole)
        errors = [float((in_parts(5, overlap) - whole).abs().mean()) for overlap in (0, 2, 4)]
        assert errors[0] > errors[1] > errors[2] > 0  # more is known of what comes after
        network.fusion.weight[:, :4] = 0  # nothing of what comes after is used
        whole = network(clip)
        for window, overlap in ((1, 0), (5, 2), (6, 5)):
            torch.testing.assert_close(in_parts(window, overlap), whole)
        forgetful = torch.cat(list(streamed(network, frames, 5, 2)), 1)
        assert float((forgetful - whole).abs().max()) > 1e-4
        expected = torch.cat([network(part) for part in (clip[:, :3], clip[:, 3:4], clip[:, 4:])], 1)
        torch.testing.assert_close(in_parts(4, 1, cuts=(3, 4)), expected)
        video = VideoModel(
            {"g": network}, {"pixel": LOSSES.build({"type": "L1Loss"})}, window_frames=5, window_overlap=2
        )
        torch.testing.assert_close(video.predict({"lq": clip})["output"], whole)
        video.flip_seq = True
        assert not video.carries
    with pytest.raises(UserError, match="window_overlap: 5 must be less"):
        list(carried(network.continued, frames, 5, 5))


def test_tiles_of_clips_equal_the_whole() -> None:
    class Local(nn.Module):
        takes_frames = 0

        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            frames = clip.flatten(0, 1)
            return nn.functional.interpolate(frames, scale_factor=2).unflatten(0, clip.shape[:2])

    clip = torch.rand(1, 2, 3, 40, 52)
    whole = run_clip(Inference(), Local(), clip)
    assert whole.shape == (1, 2, 3, 80, 104)
    torch.testing.assert_close(run_clip(Inference(tile=24, overlap=8), Local(), clip), whole)


def clips(root: Path, **counts: int) -> dict[str, str]:
    rng = np.random.default_rng(0)
    for clip, count in (counts or {"a": 3, "b": 4}).items():
        for i in range(count):
            gt = rng.integers(0, 255, (64, 64, 3), np.uint8)
            for folder, image in (("gt", gt), ("lq", gt[::4, ::4])):
                path = root / folder / clip / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image)
    return {"dataroot_gt": str(root / "gt"), "dataroot_lq": str(root / "lq")}


@pytest.mark.parametrize("kind", ["recurrent", "windows"])
def test_a_run_averages_over_frames_then_clips(kind: str, tmp_path: Path) -> None:
    roots = clips(tmp_path / "data")
    recurrent = kind == "recurrent"
    test = {"type": "VideoRecurrentTestDataset"} if recurrent else {"type": "VideoTestDataset", "num_frame": 3}
    train = {"type": "ClipsDataset", "num_frame": 3} if recurrent else {"type": "VideoTestDataset", "num_frame": 3}
    opt = runs.options(
        model_type="VideoRecurrentModel" if recurrent else "EDVRModel",
        scale=4,
        plugins=[],
        network_g=BASIC if recurrent else EDVR,
        datasets={
            "train": {**train, **roots, "batch_size_per_gpu": 1, "num_worker_per_gpu": 0},
            "val": {
                "name": "held_out",
                **test,
                **roots,
                "num_worker_per_gpu": 0,
                **({"max_frames": 2} if recurrent else {}),
            },
        },
        train__total_iter=2,
        train__pixel_opt={"type": "CharbonnierLoss"},
        train__scheduler={"type": "MultiStepLR", "milestones": [2]},
        val={"val_freq": 2, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
    )
    opt["train"].update({"fix_flow": 2, "flow_lr_mul": 0.125} if recurrent else {"tsa_iter": 2, "dcn_lr_mul": 0.5})
    runs.train(tmp_path, opt)
    root = tmp_path / "experiments" / "toy"
    (path,) = root.rglob("held_out_scores.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 7
    assert len({row["image"] for row in rows}) == 7
    per_clip = [np.mean([row["psnr"] for row in rows if row["folder"] == clip]) for clip in ("a", "b")]
    found = runs.records(root)[-1]["metrics"]["psnr"]
    assert math.isclose(found, float(np.mean(per_clip)), rel_tol=1e-6)


def test_parts_of_clips_are_scored_as_the_whole(tmp_path: Path) -> None:
    roots = clips(tmp_path / "data")
    block = {"type": "VideoRecurrentTestDataset", **roots}
    whole, parts = (build_dataset({**block, **more}, scale=4) for more in ({}, {"max_frames": 2, "context": 9}))
    assert (len(whole), len(parts)) == (2, 4)
    video = model(BASIC)
    found: dict[str, list[torch.Tensor]] = {"a": [], "b": []}
    for i in range(4):
        item = parts[i]
        tensors = {k: torch.as_tensor(v)[None] for k, v in item.items() if not isinstance(v, str)}
        batch: Any = tensors
        with torch.no_grad():
            made = video.predict(batch)["output"]
        assert made.shape == batch["gt"].shape and video.baselines(batch)["input"].shape[1] == made.shape[1]
        assert item["first"] == sum(len(f) for f in found[item["folder"]])
        found[item["folder"]] += made[0].split(1)
    for i, name in enumerate(("a", "b")):
        with torch.no_grad():
            expected = video.predict({"lq": whole[i]["lq"][None]})["output"][0]
        torch.testing.assert_close(torch.cat(found[name]), expected)  # the context reaches to both ends
    narrow = build_dataset({**block, "max_frames": 2, "context": 1}, scale=4)[3]
    assert (len(narrow["lq"]), len(narrow["gt"]), narrow["left"], narrow["right"], narrow["first"]) == (3, 2, 1, 0, 2)
    video.center_frame_only = True
    with pytest.raises(UserError, match=r"val\.center_frame_only: is of whole clips"):
        video.predict({"lq": narrow["lq"][None], "left": 1, "right": 0})


def in_parts(video: VideoModel, lq: torch.Tensor, own: int, context: int) -> torch.Tensor:
    """What a model makes of a clip (1, T, 3, h, w) in parts, as `VideoRecurrentTestDataset` gives them."""
    count, results = lq.shape[1], []
    for first in range(0, count, own):
        end = min(first + own, count)
        begin, until = max(first - context, 0), min(end + context, count)
        place = {"folder": ["a"], "first": first, "left": first - begin, "right": until - end}
        results.append(video.predict({"lq": lq[:, begin:until], **place})["output"])  # type: ignore[typeddict-item]
    return torch.cat(results, 1)


def film(length: int, dark: bool = False) -> torch.Tensor:
    """Frames (1, length, 3, 16, 16) that differ a little."""
    return torch.rand(1, 1, 3, 16, 16) * 0.3 + torch.rand(1, length, 3, 16, 16) * 0.02 + (0 if dark else 0.6)


def test_parts_of_clips_know_what_came_before_until_a_cut() -> None:
    torch.manual_seed(0)
    video = model(BASIC)
    network = video.networks["g"].eval()
    with torch.no_grad():
        clip = film(11)
        for own, ahead, window in ((3, 2, None), (4, 0, None), (3, 5, 4)):
            video.window_frames, video.window_overlap = window, 1
            steps = carried(network.continued, clip.split(1, 1), *((own + ahead, ahead) if window is None else (4, 1)))
            torch.testing.assert_close(in_parts(video, clip, own, ahead), torch.cat(list(steps), 1))
        video.window_frames = None
        # Another clip of the same name, or a part that is not the next one, begins anew.
        twice = [in_parts(video, clip, 3, 2) for _ in range(2)]
        assert torch.equal(*twice)
        for cut in (6, 7, 8):  # at the border of parts, and elsewhere
            one, other = film(cut), film(11 - cut, dark=True)
            both = in_parts(video, torch.cat([one, other], 1), 3, 4)
            changed = in_parts(video, torch.cat([one, other + 0.05], 1), 3, 4)
            assert torch.equal(both[:, :cut], changed[:, :cut]) and not torch.equal(both[:, cut:], changed[:, cut:])
            changed = in_parts(video, torch.cat([one + 0.05, other], 1), 3, 4)
            assert torch.equal(both[:, cut:], changed[:, cut:]) and not torch.equal(both[:, :cut], changed[:, :cut])


def test_scenes_that_are_too_short_for_a_network_are_restored_too() -> None:
    torch.manual_seed(0)
    video = model({"type": "IconVSR", "num_feat": 8, "num_block": 1}, window_frames=6, window_overlap=2)
    network = video.networks["g"].eval()
    with torch.no_grad():
        short, long = film(2), film(7, dark=True)
        made = video.predict({"lq": torch.cat([long, short], 1)})["output"]
        lengthened = torch.cat([short, *[short[:, -1:]] * 3], 1)
        torch.testing.assert_close(made[:, 7:], network(lengthened)[:, :2])
        with pytest.raises(UserError, match="a clip of 2 frames; temporal_padding 2 needs 5"):
            video.predict({"lq": short})


@pytest.mark.parametrize("kind", ["whole", "parts", "windows"])
def test_scores_of_clips_are_the_same_on_any_number_of_ranks(kind: str, tmp_path: Path) -> None:
    roots = clips(tmp_path / "data", a=3, b=7, c=4)
    network = EDVR if kind == "windows" else BASIC
    more = {"whole": {}, "parts": {"max_frames": 2, "context": 1}, "windows": {"num_frame": 3}}[kind]
    test = {"type": "VideoTestDataset" if kind == "windows" else "VideoRecurrentTestDataset", **more, **roots}
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "g.pth", {"params": build_network(network).state_dict()})
    metrics = {"psnr": {"type": "calculate_psnr", "test_y_channel": True}}
    metrics |= {"tof": {"type": "calculate_tof"}} if kind == "whole" else {}
    found = []
    for ranks in (1, 3):
        opt = {
            **{"name": f"of_{ranks}", "model_type": "VideoModel", "scale": 4, "num_gpu": 0, "network_g": network},
            "datasets": {"test": {"name": "held_out", "num_worker_per_gpu": 0, **test}},
            "path": {"pretrain_network_g": str(tmp_path / "g.pth")},
            "val": {"save_img": False, "metrics": metrics},
        }
        (tmp_path / "opt.yml").write_text(yaml.safe_dump(opt))
        command = [str(runs.REPO / "test.py"), "-opt", "opt.yml", *(["--launcher", "pytorch"] if ranks > 1 else [])]
        end = runs.forked(command, tmp_path, runs.by_hand(ranks, os.environ) if ranks > 1 else [os.environ])
        assert end.returncode == 0, end.stdout + end.stderr
        root = tmp_path / "results" / f"of_{ranks}"
        rows = (root / "visualization" / "held_out_scores.jsonl").read_text()
        said = sorted(line.split("INFO", 1)[-1] for line in end.stdout.splitlines() if "psnr" in line or "tof" in line)
        found.append((rows, said))
    assert len(found[0][0].splitlines()) == 14
    assert any("psnr of b" in line for line in found[0][1])
    assert found[0] == found[1]
