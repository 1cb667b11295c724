"""Augmentations of batches against the original, and the rule of their draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from relume.core.degradations.draws import Draws
from relume.core.errors import UserError
from relume.core.models import batch_mixing
from relume.core.models.batch_mixing import BatchMixing, random_box
from relume.core.models.restoration import RestorationModel


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
    assert not torch.equal(BatchMixing(["cutblur"])(images, 1)["lq"], images["lq"])


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


def test_restoration_mixes_its_batches_by_their_first_seed() -> None:
    class Keep(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = x
            return x

    def seen(first: int) -> torch.Tensor:
        net = Keep()
        model = RestorationModel({"g": net}, {"pixel": torch.nn.L1Loss()}, use_moa=True, moa_augs=["cutmix"])
        list(model.updates({"lq": images, "gt": images, "seed": torch.tensor([first, 1, 2])}, 1))
        return net.seen

    images = torch.rand(3, 3, 16, 16)
    assert torch.equal(seen(7), BatchMixing(["cutmix"])({"lq": images, "gt": images}, 7)["lq"])
    assert not torch.equal(seen(7), seen(8))
