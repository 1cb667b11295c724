"""Augmentations of batches against the original, and the rule of their draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from relume.archs import build_network
from relume.core.degradations.draws import Draws
from relume.core.errors import UserError
from relume.core.models import batch_mixing
from relume.core.models.adversarial.model import ESRGANModel, SRGANModel
from relume.core.models.adversarial.real import RealESRGANModel, RealESRNetModel
from relume.core.models.batch_mixing import BatchMixing, random_box
from relume.core.models.restoration import RestorationModel
from relume.core.models.video import VideoModel
from relume.losses import build_loss


def test_augmentations_equal_the_original_and_keep_their_arguments(golden: Callable[[str], Path]) -> None:
    for case in torch.load(golden("adversarial/augmentations.pt"), weights_only=True)["cases"]:
        gt, lq = case["gt"].clone(), case["lq"].clone()
        out = getattr(batch_mixing, case["function"])(gt, lq, case["scale"], **case["draws"])
        assert (out[0] - case["gt_out"]).abs().max() <= case["atol"], case["name"]
        assert (out[1] - case["lq_out"]).abs().max() <= case["atol"], case["name"]
        assert torch.equal(gt, case["gt"])
        assert torch.equal(lq, case["lq"])


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["mixup", "cutmix", "resizemix"])
def test_input_and_target_stay_in_register(name: str, scale: int) -> None:
    """Flat images: what is mixed is then the same at every scale."""
    lq = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 12, 16) / 4
    gt = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 12 * scale, 16 * scale) / 4
    for seed in range(8):
        mixed = BatchMixing([name])({"lq": lq, "gt": gt}, seed)
        assert torch.allclose(mixed["gt"][..., ::scale, ::scale], mixed["lq"], atol=1e-5)


def test_every_target_is_mixed_as_the_first() -> None:
    lq, gt = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 16, 16)
    mixed = BatchMixing(["cutmix"])({"lq": lq, "gt": gt, "gt_2": gt}, 4)
    assert list(mixed) == ["lq", "gt", "gt_2"]
    assert torch.equal(mixed["gt"], mixed["gt_2"])


def test_a_batch_of_one_is_changed_by_cutblur_alone() -> None:
    images = {"lq": torch.rand(1, 3, 8, 8), "gt": torch.rand(1, 3, 16, 16)}
    for name in ("mixup", "cutmix", "resizemix"):
        assert torch.equal(BatchMixing([name])(images, 1)["lq"], images["lq"])
    for name in ("cutblur", "downup"):
        mixed = BatchMixing([name])(images, 1)
        assert not torch.equal(mixed["lq"], images["lq"])
        assert torch.equal(mixed["gt"], images["gt"])


def test_downup_is_what_two_resizes_give() -> None:
    gt, lq = torch.rand(2, 3, 20, 20), torch.rand(2, 3, 10, 10)
    same, mixed = batch_mixing.downup(gt, lq, 0.5, "nearest-exact", "bilinear")
    picked = lq[..., 1::2, 1::2]
    assert torch.allclose(mixed, torch.nn.functional.interpolate(picked, (10, 10), mode="bilinear"))
    assert torch.equal(same, gt)


def test_frames_of_a_clip_are_changed_alike() -> None:
    clips = {"lq": torch.rand(3, 2, 3, 8, 8), "gt": torch.rand(3, 2, 3, 16, 16)}
    for name in ("mixup", "cutmix", "resizemix", "cutblur", "downup"):
        mixed = BatchMixing([name])(clips, 5)
        for i in range(2):
            frame = BatchMixing([name])({k: v[:, i] for k, v in clips.items()}, 5)
            assert all(torch.allclose(mixed[k][:, i], frame[k], atol=1e-6) for k in clips), name
    with pytest.raises(UserError, match="cutblur needs a target of the input's shape"):
        BatchMixing(["cutblur"])({"lq": clips["lq"], "gt": clips["gt"][:, 0]}, 5)


def test_draws_follow_the_probabilities_and_depend_on_the_seed_alone() -> None:
    images = {"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 8, 8)}
    mixing = BatchMixing(["none", "mixup"], [0.25, 0.75])
    changed = Counter(not torch.allclose(mixing(images, seed)["lq"], images["lq"]) for seed in range(400))
    # Half of the permutations of two are the identity, which mixup does not show.
    assert changed[True] == pytest.approx(150, abs=40)
    assert torch.equal(mixing(images, 9)["gt"], mixing(images, 9)["gt"])


def test_boxes_are_inside_and_never_empty() -> None:
    for seed in range(300):
        row0, column0, row1, column1 = random_box(5, 9, (seed % 10) / 10, Draws(seed))
        assert 0 <= row0 < row1 <= 5
        assert 0 <= column0 < column1 <= 9


def test_one_probability_for_each_is_needed() -> None:
    with pytest.raises(UserError, match="moa_probs: has 1 probabilities for the 2 entries of moa_augs"):
        BatchMixing(["none", "mixup"], [1.0])


class Keep(torch.nn.Module):
    """Returns what it gets, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return x * self.gain


@pytest.mark.parametrize(
    "kind", [RestorationModel, VideoModel, SRGANModel, ESRGANModel, RealESRGANModel, RealESRNetModel]
)
def test_every_model_of_pairs_mixes_its_batches_by_their_first_seed(kind: type[RestorationModel]) -> None:
    adversarial = issubclass(kind, SRGANModel)

    def seen(first: int) -> torch.Tensor:
        networks, losses = {"g": Keep()}, {"pixel": torch.nn.L1Loss()}
        if adversarial:
            networks["d"] = build_network({"type": "UNetDiscriminatorSN", "num_feat": 2})
            losses["gan"] = build_loss({"type": "GANLoss", "gan_type": "vanilla"})
        model = kind(networks, losses, use_moa=True, moa_augs=["cutmix"])
        if kind.top_level is not None:
            model.configure(kind.top_level())
        list(model.updates({"lq": images, "gt": images, "seed": torch.tensor([first, 1, 2])}, 1))
        return networks["g"].seen

    shape = (3, 2, 3, 16, 16) if kind is VideoModel else (3, 3, 16, 16)
    images = torch.rand(shape)
    assert torch.equal(seen(7), BatchMixing(["cutmix"])({"lq": images, "gt": images}, 7)["lq"])
    assert not torch.equal(seen(7), seen(8))
