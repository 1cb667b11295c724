"""Scenes of known motion against direct formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from relume.archs.vfi.flow import backwarp
from relume.datasets.moving import Layer, Motion, motion_field, random_scene, render

SIZE = (20, 24)
CENTRE = (9.5, 11.5)


def ramp(height: int = 64, width: int = 80) -> torch.Tensor:
    """A texture whose colour is its place, so that a mean over a pixel is the colour at its centre."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    return torch.stack([y, x, torch.full_like(y, 0.5)])


def noise(seed: int, size: int = 64) -> torch.Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("time", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("motion", [Motion((3.25, -1.5)), Motion((0.0, 0.0), turn=0.4), Motion((1.0, 2.0), -0.3, 0.2)])
def test_a_frame_shows_the_texture_where_the_formula_says(motion, time):
    texture = ramp()
    frame = render([Layer(texture, (31.0, 40.0), CENTRE, motion)], SIZE, time)
    u = time - 0.5
    for y, x in ((0, 0), (5, 17), (19, 23)):
        dy, dx = y - CENTRE[0] - motion.shift[0] * u, x - CENTRE[1] - motion.shift[1] * u
        a, k = motion.turn * u, math.exp(-motion.growth * u)
        expected = [
            (31 + k * (math.cos(a) * dy + math.sin(a) * dx)) / 64,
            (40 + k * (-math.sin(a) * dy + math.cos(a) * dx)) / 80,
            0.5,
        ]
        # torch's cubic convolution (a = -0.75) keeps a ramp straight to a hundredth of a pixel only.
        assert frame[:, y, x].tolist() == pytest.approx(expected, abs=0.02 / 64)


def test_whole_pixels_of_motion_shift_the_frame():
    layer = Layer(noise(0), (31.5, 31.5), CENTRE, Motion((4.0, -6.0)))
    first, last = render([layer], SIZE, 0.0), render([layer], SIZE, 1.0)
    middle = render([layer], SIZE, 0.5)
    assert torch.allclose(last[:, 4:, :-6], first[:, :-4, 6:], atol=1e-5)
    assert torch.allclose(middle[:, 2:, :-3], first[:, :-2, 3:], atol=1e-5)


def test_a_pixel_integrates_so_that_nothing_aliases():
    """Stripes of one pixel seen from twice as far are grey."""
    stripes = (torch.arange(256) % 2).float().expand(3, 256, 256).contiguous()
    layer = Layer(stripes, (127.5, 127.5), (15.5, 15.5), Motion((0.0, 0.0), growth=-2 * math.log(2)))
    far = render([layer], (32, 32), 1.0)
    assert (far - 0.5).abs().max() < 0.02
    assert (render([layer], (32, 32), 0.5) - 0.5).abs().min() > 0.2


def test_an_object_hides_the_background_and_uncovers_it_elsewhere():
    black, white = torch.zeros(3, 64, 64), torch.ones(3, 64, 64)
    still = Layer(black, (31.5, 31.5), (15.5, 31.5), Motion((0.0, 0.0)))
    disc = Layer(white, (31.5, 31.5), (15.5, 31.5), Motion((0.0, 20.0)), (6.0, ()))
    frames = [render([still, disc], (32, 64), t) for t in (0.0, 0.5, 1.0)]
    for frame, x in zip(frames, (21.5, 31.5, 41.5), strict=True):
        mass = frame[0].sum()
        assert mass == pytest.approx(math.pi * 6**2, rel=0.01)  # the edges are smooth: the area is right to sub-pixels
        assert (frame[0].sum(0) * torch.arange(64)).sum() / mass == pytest.approx(x, abs=0.01)
    assert frames[0][0, 15, 22] == 1 and frames[1][0, 15, 22] == 0


def test_objects_out_of_sight_change_nothing():
    layers = [
        Layer(noise(0), (31.5, 31.5), CENTRE, Motion((2.0, 1.0))),
        Layer(noise(1), (31.5, 31.5), (-40.0, 5.0), Motion((0.0, 3.0)), (6.0, ((0.2, 1.0),))),
    ]
    assert torch.equal(render(layers, SIZE, 0.2), render(layers[:1], SIZE, 0.2))


def test_the_box_of_an_object_is_large_enough():
    object_ = Layer(noise(1), (31.5, 31.5), (8.0, 9.0), Motion((5.0, 3.0), 0.5, 0.4), (5.0, ((0.2, 1.0), (0.1, 2.0))))
    still = Layer(torch.zeros(3, 64, 64), (31.5, 31.5), CENTRE, Motion((0.0, 0.0)))
    for time in (0.0, 0.4, 1.0):
        cut = render([still, object_], SIZE, time)
        whole = Layer(object_.texture, object_.anchor, object_.centre, object_.motion, object_.outline)
        object.__setattr__(whole, "box", lambda size, time: (slice(0, size[0]), slice(0, size[1])))
        assert torch.equal(cut, render([still, whole], SIZE, time))
        assert cut.max() > 0


def test_random_scenes_move_as_far_as_asked():
    for seed in range(20):
        rng = np.random.RandomState(seed)
        background, *objects = random_scene(rng, [noise(0), noise(1), noise(2)], SIZE, (3.0, 7.0), 0.5)
        heading = math.atan2(*background.motion.shift)
        for layer in (background, *objects):
            assert 3 <= math.hypot(*layer.motion.shift) <= 7
        for layer in objects:
            off = (math.atan2(*layer.motion.shift) - heading + math.pi) % (2 * math.pi) - math.pi
            assert abs(off) >= math.pi / 4 - 1e-9
        assert abs(background.motion.turn) <= 0.5 * 7 / (min(SIZE) / 2)


def test_swapping_the_ends_is_running_backwards():
    rng = np.random.RandomState(3)
    layers = random_scene(rng, [noise(0), noise(1)], SIZE, (2.0, 6.0), 0.5)
    back = [
        Layer(
            a.texture,
            a.anchor,
            a.centre,
            Motion((-a.motion.shift[0], -a.motion.shift[1]), -a.motion.turn, -a.motion.growth),
            a.outline,
        )
        for a in layers
    ]
    for time in (0.0, 0.25, 0.5):
        assert torch.allclose(render(layers, SIZE, time), render(back, SIZE, 1 - time), atol=1e-6)


@pytest.mark.parametrize("motion", [Motion((3.25, -1.5)), Motion((0.0, 0.0), turn=0.4), Motion((1.0, 2.0), -0.3, 0.2)])
def test_where_a_point_of_the_texture_is_seen_inverts_what_a_pixel_shows(motion):
    layer = Layer(ramp(), (31.0, 40.0), CENTRE, motion)
    points = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 20
    for time in (0.0, 0.3, 1.0):
        torch.testing.assert_close(layer.seen_at(layer.sources(points, time), time), points)


def test_the_motion_field_of_a_gliding_camera_and_object():
    """Background and object (a disc in the middle of the frame) move by known distances; three quarters of the way back."""
    camera = Layer(noise(0), (31.5, 31.5), CENTRE, Motion((4.0, -8.0)))
    disc = Layer(noise(1), (31.5, 31.5), CENTRE, Motion((0.0, 12.0)), (4.0, ()))
    field = motion_field([camera, disc], SIZE, 0.75, (0.0, 1.0))
    assert field.shape == (4, *SIZE) and field.dtype == torch.float32
    assert field[:, 0, 0].tolist() == [6.0, -3.0, -2.0, 1.0]
    assert field[:, 9, 14].tolist() == [-9.0, 0.0, 3.0, 0.0]  # the disc is 3 pixels right of the middle by then


def test_frames_fetched_along_the_motion_field_are_the_frame_in_between():
    rng = np.random.RandomState(0)
    smooth = [torch.nn.functional.avg_pool2d(noise(seed, 132)[None], 5, 1)[0] for seed in (0, 1)]
    layers = random_scene(rng, smooth[:1], (48, 48), (6.0, 8.0), 0.5)
    frames = [render(layers, (48, 48), t) for t in (0.0, 1.0, 0.5)]
    field = motion_field(layers, (48, 48), 0.5, (0.0, 1.0))[None]
    for frame, flow in ((frames[0], field[:, :2]), (frames[1], field[:, 2:])):
        inside = (slice(None), slice(8, -8), slice(8, -8))
        warped, truth = backwarp(frame[None], flow)[0][inside], frames[2][inside]
        assert ((warped - truth) ** 2).mean() < 0.02 * ((frame[inside] - truth) ** 2).mean()
