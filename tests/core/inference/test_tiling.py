"""Padding and tiling: exact for networks that look only so far, seamless for the others, for any size and scale."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from relume.core.errors import UserError
from relume.core.inference.tiling import (
    Inference,
    centred_padding,
    forward_padded,
    pad_to_multiple,
    size_multiple,
    tiled,
)


def image(height, width, batch=1, channels=3):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height * width))


class Net(nn.Module):
    """Convolutions that see `radius` pixels around; on a grid of `multiple`; the second output twice as large."""

    def __init__(self, radius=1, multiple=1, scale=1, two=False):
        super().__init__()
        torch.manual_seed(0)
        self.size_multiple = multiple
        self.scale, self.two = scale, two
        self.convs = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(radius))).requires_grad_(False)
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[-2:]))
        m = self.size_multiple
        assert x.shape[-2] % m == x.shape[-1] % m == 0
        y = self.convs(x)
        if m > 1:
            y = F.interpolate(F.avg_pool2d(y, m), scale_factor=m)
        y = y.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
        return (y, F.interpolate(y, scale_factor=2)) if self.two else y


class Global(nn.Module):
    """Its output depends on all that it sees: tiles cannot agree."""

    def forward(self, x):
        return x + x.mean(dim=(-2, -1), keepdim=True)


def test_what_is_given_by_name_reaches_every_call_as_it_is():
    given = []

    def net(x, *, prior):
        given.append(prior)
        return x

    prior = torch.rand(1, 4)
    Inference(tile=8, overlap=2)(net, image(8, 20), prior=prior)
    assert len(given) > 1 and all(g is prior for g in given)


# ------------------------------------------------------------------ padding
@pytest.mark.parametrize(("h", "w", "multiple"), [(5, 9, 8), (16, 8, 8), (13, 7, 4), (6, 6, 1)])
def test_padding_is_torchs_reflection_where_that_is_possible(h, w, multiple):
    x = image(h, w)
    padded, crop = pad_to_multiple(x, multiple)
    expected = F.pad(x, (0, -w % multiple, 0, -h % multiple), mode="reflect")
    assert crop == (h, w)
    assert torch.equal(padded, expected)


def test_padding_reflects_over_and_over():
    x = torch.tensor([[[0.0, 1.0, 2.0]]])
    padded, crop = pad_to_multiple(x, 11)
    assert crop == (1, 3)
    assert padded.shape == (1, 11, 11)
    assert padded[0, 0].tolist() == padded[0, -1].tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]


@pytest.mark.parametrize("size", [(3, 5), (1, 1), (1, 40), (64, 2)])
def test_small_images_through_a_network_with_large_multiples(size):
    net = Net(multiple=32, two=True)
    y, y2 = forward_padded(net, image(*size, batch=2), 32)
    assert y.shape == (2, 3, *size)
    assert y2.shape == (2, 3, 2 * size[0], 2 * size[1])
    assert torch.isfinite(y).all()


def test_the_padding_of_published_interpolation(golden):
    for case in torch.load(golden("vfi/metrics.pt"), weights_only=True)["cases"]:
        if case["name"].startswith("padder"):
            sides = centred_padding(case["input"]["h"], case["input"]["w"], case["config"]["divisor"])
            assert list(sides) == case["output"]["pad_lrtb"]


@pytest.mark.parametrize("scale", [1, 2])
def test_centred_padding_repeats_borders_and_is_cut_off_again(scale):
    assert centred_padding(37, 51, 16) == (6, 7, 5, 6)
    x, net = image(37, 51), Net(1, 16, scale)
    y = forward_padded(net, x, 16, "centred")
    padded = F.pad(x, (6, 7, 5, 6), mode="replicate")
    assert net.seen == [(48, 64)]
    assert torch.equal(y, net(padded)[..., 5 * scale : 42 * scale, 6 * scale : 57 * scale])
    assert not torch.allclose(y, forward_padded(net, x, 16))
    assert Inference(padding="centred")(Net(2, 4), image(9, 7)).shape == (1, 3, 9, 7)


def test_nothing_is_padded_that_fits():
    x = image(16, 24)
    assert pad_to_multiple(x, 8)[0] is x


def test_outputs_are_cropped_by_their_own_scale():
    net = Net(multiple=4, scale=3, two=True)
    y, y2 = forward_padded(net, image(10, 7), 4)
    whole, whole2 = net(pad_to_multiple(image(10, 7), 4)[0])
    assert torch.equal(y, whole[..., :30, :21])
    assert torch.equal(y2, whole2[..., :60, :42])


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x[..., 1:, :],
        lambda x: F.interpolate(x, scale_factor=1.5),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: x.repeat_interleave(2, -1),
        lambda x: x.mean((-2, -1)),
    ],
)
def test_outputs_of_odd_sizes_are_refused(fn):
    with pytest.raises(UserError, match=r"the network made \(1, 3.*of \(1, 3, 8, 8\); .*same integer multiple"):
        forward_padded(fn, image(8, 8), 4)


# ------------------------------------------------------------------ tiles
@pytest.mark.parametrize("radius", [0, 1, 2, 3])
@pytest.mark.parametrize(("h", "w"), [(61, 83), (64, 20), (24, 25), (17, 90)])
def test_tiles_equal_the_whole_when_they_overlap_by_the_receptive_field(radius, h, w):
    net, x = Net(radius), image(h, w, batch=2)
    receptive = 2 * radius + 1
    for overlap in (receptive, receptive + 1, 9):
        assert torch.allclose(tiled(net, x, 24, overlap), net(x), atol=1e-6)
    assert max(max(size) for size in net.seen[:1]) <= 24


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_tiles_equal_the_whole_on_a_grid_with_several_outputs(scale):
    net, x = Net(2, multiple=4, scale=scale, two=True), image(45, 62)
    y, y2 = tiled(net, x, 30, 11, 4)  # 30 is rounded to 28; a pixel sees 2 + 3 pixels around
    assert {max(size) for size in net.seen} == {28}
    whole, whole2 = forward_padded(net, x, 4)
    assert torch.allclose(y, whole, atol=1e-6)
    assert torch.allclose(y2, whole2, atol=1e-6)


def test_too_little_overlap_does_differ():
    net, x = Net(3), image(61, 83)
    assert (tiled(net, x, 24, 1) - net(x)).abs().max() > 1e-3


def test_weights_sum_to_one_exactly():
    for overlap in (0, 1, 5, 12, 19, 23):
        assert torch.equal(tiled(torch.ones_like, image(50, 71), 24, overlap), torch.ones(1, 3, 50, 71))
        x = image(50, 71)
        assert torch.equal(tiled(lambda t: t, x, 24, overlap), x)  # nothing is moved, nothing left out


def test_blending_is_linear():
    calls = iter(range(10))
    y = tiled(lambda t: torch.full_like(t, float(next(calls))), torch.zeros(1, 1, 8, 28), 20, 4)
    step = y[0, 0, 0].diff()
    assert y[0, 0, 0, 0] == 0
    assert y[0, 0, 0, -1] == 1
    assert (step >= 0).all()
    assert step.max() <= 1 / 4 + 1e-6
    assert (step > 0).sum() == 5  # four pixels between 0 and 1: 1/8, 3/8, 5/8, 7/8
    assert y[0, 0, 0, 10:18].tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]


def test_global_networks_blend_without_seams():
    x = image(40, 200)
    x[..., 100:] *= 0.2
    blended = tiled(Global(), x, 48, 16) - x
    hard = tiled(Global(), x, 48, 0) - x
    assert blended.diff(dim=-1).abs().max() < 0.2 * hard.diff(dim=-1).abs().max()


@pytest.mark.parametrize("tile", [40, 41, 1000])
def test_an_image_that_fits_one_tile_is_not_tiled(tile):
    net = Net(2, multiple=4)
    x = image(39, 30)
    assert torch.equal(tiled(net, x, tile, 8, 4), forward_padded(net, x, 4))
    assert net.seen == [(40, 32), (40, 32)]


def test_memory_is_bounded_by_the_tile():
    net = Net(1, multiple=8)
    for size in ((100, 100), (33, 200), (200, 33)):
        tiled(net, image(*size), 40, 10, 8)
    assert max(h * w for h, w in net.seen) <= 40 * 40


def test_every_tile_has_the_same_size():
    net = Net(1, multiple=8)
    tiled(net, image(100, 90), 40, 10, 8)
    assert set(net.seen) == {(40, 40)}  # one compilation, one choice of kernels


@pytest.mark.parametrize(
    ("tile", "overlap", "multiple", "message"),
    [
        (16, 16, 1, "tile 16 and tile overlap 16"),
        (16, 40, 1, "tile 16 and tile overlap 40"),
        (20, 12, 8, r"tile 20 \(rounded to 16\) and tile overlap 12: .* by 8 or more"),
        (16, -1, 1, "must be at least 0"),
    ],
)
def test_overlaps_that_leave_no_step(tile, overlap, multiple, message):
    with pytest.raises(UserError, match=message):
        tiled(Net(), image(50, 50), tile, overlap, multiple)


@pytest.mark.parametrize(("tile", "overlap"), [(8, 7), (16, 15), (10, 8), (9, 0)])
def test_any_overlap_below_the_tile_works(tile, overlap):
    x = image(30, 37)
    assert torch.equal(tiled(lambda t: t, x, tile, overlap), x)


# ------------------------------------------------------------------ the callable that models hold
def test_inference_uses_the_networks_own_multiple_and_the_window():
    net = Net(multiple=4)
    y = Inference()(net, image(10, 9))
    assert y.shape[-2:] == (10, 9)
    Inference(window_size=6)(net, image(10, 9))
    assert net.seen == [(12, 12), (12, 12)]
    Inference(window_size=10)(net, image(10, 9))
    assert net.seen[-1] == (20, 20)


def test_inference_in_tiles():
    net, x = Net(2, multiple=4), image(50, 60)
    assert torch.allclose(Inference(tile=28, overlap=11)(net, x), Inference()(net, x), atol=1e-6)
    assert set(net.seen[:-1]) == {(28, 28)}


@pytest.mark.parametrize("tile", [None, 16])
def test_networks_of_several_images(tile):
    def mean(a, b):
        assert a.shape[1] == 3
        assert b.shape[1] == 1
        return a + 2 * b

    a, b = image(30, 20), image(30, 20, channels=1)
    assert torch.equal(Inference(tile, overlap=4)(mean, a, b), a + 2 * b)


def test_size_multiple_of_wrapped_networks():
    net = Net(multiple=8)
    assert size_multiple(net) == 8
    assert size_multiple(torch.optim.swa_utils.AveragedModel(net)) == 8
    assert size_multiple(nn.DataParallel(net)) == 8
    assert size_multiple(torch.compile(net)) == 8
    assert size_multiple(torch.compile(nn.DataParallel(net))) == 8
    assert size_multiple(nn.Conv2d(1, 1, 1)) == 1
    assert size_multiple(math.sqrt) == 1


class Noisy(torch.nn.Module):
    """Adds noise to whatever it sees."""

    draws_in_evaluation = True

    def forward(self, x):
        return x + torch.rand_like(x)


@pytest.mark.parametrize("tile", [None, 8])
def test_networks_that_draw_make_the_same_of_a_picture_wherever_it_comes(tile):
    network, picture = Noisy().eval(), torch.zeros(1, 3, 20, 20)
    run = Inference(tile=tile, overlap=2)
    alone = run(network, picture)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    together = run(network, torch.cat((picture + 1, picture)))
    assert torch.equal(together[1:], alone)
    assert torch.equal(torch.get_rng_state(), before)
