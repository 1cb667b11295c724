"""Matching: the couplings are those of the transport library, the targets those that the options name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from filling import waves

from relume.core.errors import UserError
from relume.core.models.generation.bank import MemoryBank
from relume.core.models.generation.matching import BankSample, Matching, MatchingOptions, Scheduled
from relume.losses import ot
from relume.schedulers.ramp import Ramp

N, M, D = 6, 20, 5
SETTINGS = Scheduled(epsilon=0.05, fgw_lambda=0.5, temperature=1.0)


def clouds():
    return F.normalize(waves("generated", (N, D)).float(), dim=1), waves("memory", (M, D)).float()


@pytest.fixture
def memory():
    images = waves("images", (M, 3, 2, 2)).float()
    bank = MemoryBank("x", clouds()[1], images, torch.arange(M) % 3, M, False, 0)
    return BankSample(bank, bank.draw(1, M))


@pytest.mark.parametrize("structure", ["euclidean", "sqeuclidean"])
def test_coupling_is_fused_gromov_wasserstein(memory, structure):
    generated, _ = clouds()
    found = Matching(MatchingOptions(structure=structure, labels="ignore")).solve(generated, None, memory, SETTINGS)
    y = memory.features
    square = torch.cdist(generated.double(), y.double()).square()
    own, theirs = torch.cdist(generated.double(), generated.double()), torch.cdist(y.double(), y.double())
    if structure == "sqeuclidean":
        own, theirs = own.square(), theirs.square()
    alpha, epsilon = ot.from_lambda(0.5, 0.05)
    expected = ot.fused_gromov_wasserstein(square, own, theirs, alpha=alpha, epsilon=epsilon, method="log")
    torch.testing.assert_close(found.plan.double(), expected.plan, rtol=1e-3, atol=1e-6)
    assert isinstance(found, ot.FusedCoupling) and found.row_err < 1e-5 and found.col_err < 1e-5


def test_without_structure_it_is_linear(memory):
    generated, _ = clouds()
    settings = SETTINGS._replace(fgw_lambda=0.0)
    found = Matching(MatchingOptions()).solve(generated, None, memory, settings)
    cost = torch.cdist(generated.double(), memory.features.double()).square()
    expected = ot.sinkhorn(cost, epsilon=0.05, cost_scale="max", method="log")
    torch.testing.assert_close(found.plan.double(), expected.plan, rtol=1e-3, atol=1e-6)


def test_classes_keep_to_themselves(memory):
    generated, _ = clouds()
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    same = labels[:, None] == memory.labels

    def share(policy, penalty=1.0):
        options = MatchingOptions(labels=policy, label_penalty=penalty)
        coupling = Matching(options).solve(generated, labels, memory, SETTINGS)
        assert coupling.row_err < 1e-4
        return float(coupling.plan[same].sum())

    assert share("same_class") == pytest.approx(1.0, abs=1e-5)
    assert share("ignore") < share("penalty", 0.2) < share("penalty", 2.0) <= 1
    assert share("penalty", 0.0) == share("ignore")


def test_a_class_without_images_is_named(memory):
    generated, _ = clouds()
    with pytest.raises(UserError, match="none of the memory's 20 rows is of class 7"):
        Matching(MatchingOptions(labels="same_class")).solve(
            generated, torch.tensor([0, 0, 7, 1, 1, 2]), memory, SETTINGS
        )


def test_more_images_than_memory(memory):
    with pytest.raises(UserError, match="21 generated images are matched at once, but the memory has 20 rows"):
        Matching(MatchingOptions()).solve(torch.ones(21, D), None, memory, SETTINGS)


def targets(memory, plan, uniforms=None, temperature=1.0, **options):
    uniforms = torch.full((len(plan),), 0.5) if uniforms is None else uniforms
    return Matching(MatchingOptions(**options)).choose(plan, temperature, uniforms)


@pytest.fixture
def plan(memory):
    return Matching(MatchingOptions()).solve(clouds()[0], None, memory, SETTINGS).plan


def test_target_and_its_feature_are_of_one_image(memory, plan):
    """The original drew images by the order in which features had come, which had nothing to do with them."""
    for kind in ("argmax", "sample", "assignment"):
        chosen = targets(memory, plan, target=kind)
        rows = memory.rows[chosen.columns]
        assert torch.equal(chosen.images(memory), memory.bank.images[rows])
        assert torch.equal(chosen.features(memory), memory.bank.features[rows])


def test_means(memory, plan):
    weights = plan / plan.sum(1, keepdim=True)
    blur = targets(memory, plan, target="barycentre")
    torch.testing.assert_close(blur.images(memory), torch.einsum("nm,mchw->nchw", weights, memory.images))
    torch.testing.assert_close(blur.features(memory).norm(dim=1), torch.ones(N))
    first = targets(memory, plan, target="topk", topk=1)
    torch.testing.assert_close(first.images(memory), targets(memory, plan, target="argmax").images(memory))
    every = targets(memory, plan, target="topk", topk=100)
    torch.testing.assert_close(every.images(memory), blur.images(memory))


def test_samples_follow_the_plan(memory, plan):
    u = (torch.arange(4000) + 0.5) / 4000
    chosen = targets(memory, plan[:1].expand(4000, -1), u, target="sample").columns
    found = chosen.bincount(minlength=M) / 4000
    torch.testing.assert_close(found, (plan[0] / plan[0].sum()).float(), atol=6e-4, rtol=0)


def test_temperature_sharpens(memory, plan):
    torch.testing.assert_close(
        targets(memory, plan, temperature=1e-3, target="barycentre").weights.argmax(1), plan.argmax(1)
    )
    sharp = targets(memory, plan, temperature=0.5, target="barycentre").weights
    torch.testing.assert_close(sharp, plan.square() / plan.square().sum(1, keepdim=True), rtol=1e-4, atol=1e-7)


def test_assignment_repeats_nothing(memory, plan):
    assert targets(memory, plan, target="assignment").distinct == 1.0
    same = torch.zeros(3, M).index_fill_(1, torch.tensor([4]), 1.0)
    assert targets(memory, same, target="argmax").distinct == pytest.approx(1 / 3)


def test_schedules_are_those_of_the_original_report():
    options = MatchingOptions()
    found = Matching(options).settings(3125)
    assert found.fgw_lambda == 0.125 and found.epsilon == pytest.approx(0.08659643233600654, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon: must be positive, got 0.0 to 0.0"),
        ({"fgw_lambda": {"start": 0.0, "end": 1.5, "over": 10}}, "fgw_lambda: must be from 0 to 1, got 0.0 to 1.5"),
        ({"temperature": Ramp(1.0, -1.0, 10)}, "temperature: must be positive"),
    ],
)
def test_impossible_schedules(options, message):
    with pytest.raises(UserError, match=message):
        MatchingOptions(**options)
