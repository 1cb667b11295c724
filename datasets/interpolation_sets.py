"""The published sets of frame interpolation, in the layouts in which they are downloaded. Folders are local.

- `Vimeo90KDataset`: ``sequences/00001/0001/im1.png`` ..., and ``tri_trainlist.txt``, ``tri_testlist.txt`` for triplets,
  ``sep_trainlist.txt``, ``sep_testlist.txt`` for septuplets.
- `UCF101InterpolationDataset`: ``<folder>/frame_00.png``, ``frame_01_gt.png``, ``frame_02.png`` (``ucf101_interp_ours``).
- `MiddleburyDataset`: ``other-data/<scene>/frame10.png``, ``frame11.png``; ``other-gt-interp/<scene>/frame10i11.png``.
- `SNUFILMDataset`: ``test-easy.txt`` ..., with paths that begin somewhere above ``test/`` (``data/SNU-FILM/test/...``).
- `XTestDataset`: ``Type1/TEST01_.../0000.png`` ... ``0032.png``, or the same below ``test/``.
- `XiphDataset`: ``BoxingPractice-001.png`` ... ``Tango-100.png``, or the same below ``netflix/``.

``X4K1000FPSDataset``, the training set beside X-TEST, is in `relume.datasets.clips`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from ..core.annotations import Count
from ..core.errors import UserError, did_you_mean, expanded
from ..core.imaging.image_io import to_float
from ..core.imaging.naming import natural_order
from ..core.imaging.storage import is_hidden
from . import DATASETS
from .base import OnError, Phase
from .sources import first_names
from .transforms import Image
from .triplets import Switches, Triplet, TripletDataset, existing, read_list, refuse_outside, shrink_by_area

Level = Literal["easy", "medium", "hard", "extreme"]
Resolution = Literal["2k", "4k"]

OTHER_SCENES = (
    "Beanbags",
    "Dimetrodon",
    "DogDance",
    "Grove2",
    "Grove3",
    "Hydrangea",
    "MiniCooper",
    "RubberWhale",
    "Urban2",
    "Urban3",
    "Venus",
    "Walking",
)
"""Middlebury's OTHER scenes that have a frame in between."""

XIPH_CLIPS = (
    "BoxingPractice",
    "Crosswalk",
    "DrivingPOV",
    "FoodMarket",
    "FoodMarket2",
    "RitualDance",
    "SquareAndTimelapse",
    "Tango",
)


@DATASETS.register()
class Vimeo90KDataset(TripletDataset):
    """Vimeo90K (Xue et al., IJCV 2019), triplets, or triplets from its septuplets. 448x256.

    Published figures: triplet test list, 3782 samples, results not rounded to 8 bits.

    Args:
        dataroot: folder with ``sequences`` and the lists.
        layout: ``triplet``; or ``septuplet``, of which frames 1, 4 and 7 are taken.
        meta_info_file: list of sequences instead of the official one for the phase.
        random_frames: draw, in training with septuplets, three frames in order, with the timestep that they give (RIFE-m).
        gt_size: side of the training patch, at most 256; whole frames when omitted.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        use_reverse_channels: exchange red and blue at random.
        use_reverse_time: exchange the outer frames at random.
        use_flip: flip at random, both ways.
        use_rot: rotate at random by multiples of 90 degrees; needs patches.
        enlarge: cut patches larger than 256 as large as they can be, and enlarge them.
        allow_outside: let the list name folders that are not inside `dataroot`.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
    """

    score_rounding = "none"
    published_as: str | None = "Vimeo90K"
    convention = "triplet test list, results not rounded"

    def __init__(
        self,
        dataroot: str,
        layout: Literal["triplet", "septuplet"] = "triplet",
        meta_info_file: str | None = None,
        random_frames: bool = False,
        gt_size: Count | None = None,
        phase: Phase = "train",
        use_reverse_channels: bool = True,
        use_reverse_time: bool = True,
        use_flip: bool = True,
        use_rot: bool = True,
        enlarge: bool = False,
        allow_outside: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        if use_rot and gt_size is None and phase == "train":
            raise UserError(
                "use_rot turns 448x256 frames to 256x448, which cannot be stacked; give gt_size, or use_rot: false"
            )
        # Find the frames and the list of the published split.
        root = expanded(dataroot)
        short = "tri" if layout == "triplet" else "sep"
        list_file = Path(meta_info_file or root / f"{short}_{'train' if phase == 'train' else 'test'}list.txt")
        wanted = (
            f"Vimeo90K has sequences/00001/0001/im1.png ... and {short}_trainlist.txt (http://toflow.csail.mit.edu)"
        )
        sequences = existing([root / "sequences"], wanted)
        folders = [text for _, text in read_list(list_file, "00001/0001", allow_outside)]
        # One triplet for each folder, with the frame half-way as its target.
        last = 3 if layout == "triplet" else 7
        middle = (last + 1) // 2
        triplets = [
            Triplet(tuple(f"{f}/im{k}.png" for k in (1, middle, last)), 0.5, f"{f.replace('/', '_')}_im{middle}")
            for f in folders
        ]
        switches = Switches(use_reverse_channels, use_reverse_time, use_flip, use_rot)
        expected = 3782 if (layout, phase) == ("triplet", "test") else None
        super().__init__(
            sequences,
            triplets,
            str(list_file),
            expected,
            phase=phase,
            gt_size=gt_size,
            switches=switches,
            enlarge=enlarge,
            on_error=on_error,
        )
        # Training may take any frame in between; septuplets have no published scores.
        if random_frames and layout != "septuplet":
            raise UserError("random_frames: triplets have only one frame in between; it needs layout: septuplet")
        self.random_frames = random_frames and self.training
        if layout == "septuplet":
            self.published_as, self.convention = None, ""

    def triplet(self, index: int) -> tuple[Any, Triplet]:
        source, triplet = super().triplet(index)
        if not self.random_frames:
            return source, triplet
        a, b, c = sorted(np.random.permutation(7)[:3] + 1)
        folder = os.path.dirname(triplet.files[1])
        return source, Triplet(tuple(f"{folder}/im{k}.png" for k in (a, b, c)), (b - a) / (c - a), triplet.name)


def refuse_unknown(option: str, names: Sequence[str] | None, known: Sequence[str]) -> None:
    """Check that a set has what `option` names.

    Raises:
        UserError: it has not.
    """
    unknown = [name for name in names or () if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise UserError(f"{option}: there is no {first_names(unknown)}.{hint} There are {', '.join(known)}")


class Benchmark(TripletDataset):
    """A test set: nothing is random."""

    def __init__(
        self, root: Path, triplets: list[Triplet], origin: str, expected: int | None, on_error: OnError = "raise"
    ) -> None:
        super().__init__(root, triplets, origin, expected, phase="test", on_error=on_error)


@DATASETS.register()
class UCF101InterpolationDataset(Benchmark):
    """UCF101 as Liu et al. (Deep Voxel Flow, ICCV 2017) cut it: 379 triplets of 256x256, ``ucf101_interp_ours``.

    Published figures: results rounded to 8 bits, for PSNR and SSIM.

    Args:
        dataroot: folder of numbered folders.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
    """

    score_rounding = "output"
    published_as = "UCF101"
    convention = "results rounded to 8 bits"

    def __init__(self, dataroot: str, on_error: OnError = "raise") -> None:
        wanted = "ucf101_interp_ours has a folder per sample, with frame_00.png, frame_01_gt.png and frame_02.png"
        root = existing([expanded(dataroot)], wanted)
        folders = sorted(
            (p.name for p in root.iterdir() if p.is_dir() and not is_hidden(p.name)), key=lambda n: (len(n), n)
        )
        if not folders:
            raise UserError(f"{root}: has no folders. {wanted}")
        triplets = [
            Triplet(tuple(f"{f}/{n}.png" for n in ("frame_00", "frame_01_gt", "frame_02")), 0.5, f) for f in folders
        ]
        super().__init__(root, triplets, wanted, 379, on_error)


@DATASETS.register()
class MiddleburyDataset(Benchmark):
    """Middlebury's OTHER set (Baker et al., IJCV 2011): 12 scenes of up to 640x480 with a frame in between.

    Published figures: mean over scenes of the mean absolute error in grey levels, results rounded. (The benchmark itself
    defines its interpolation error as a root mean square: metric ``ie_rms``.)

    Args:
        dataroot: folder that holds ``other-data`` and ``other-gt-interp``.
        scenes: some of the scenes, by name; all 12 when omitted.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
    """

    score_rounding = "output"
    published_as = "Middlebury"
    convention = "mean absolute error (not the benchmark's root mean square), results rounded to 8 bits"

    def __init__(self, dataroot: str, scenes: list[str] | None = None, on_error: OnError = "raise") -> None:
        wanted = "Middlebury has other-data/<scene>/frame10.png, frame11.png and other-gt-interp/<scene>/frame10i11.png"
        root = expanded(dataroot)
        for folder in ("other-data", "other-gt-interp"):
            existing([root / folder], f"{wanted} (https://vision.middlebury.edu/flow/data)")
        refuse_unknown("scenes", scenes, OTHER_SCENES)
        triplets = [
            Triplet(
                (f"other-data/{s}/frame10.png", f"other-gt-interp/{s}/frame10i11.png", f"other-data/{s}/frame11.png"),
                0.5,
                s,
            )
            for s in scenes or OTHER_SCENES
        ]
        super().__init__(root, triplets, wanted, len(OTHER_SCENES), on_error)


@DATASETS.register()
class SNUFILMDataset(Benchmark):
    """SNU-FILM (Choi et al., CAIN, AAAI 2020): 310 triplets of mostly 1280x720 at each of four levels of motion.

    Published figures: results not rounded; large networks estimate flow at half size (``val.flow_scale: 0.5``).

    Args:
        dataroot: folder that holds the lists ``test-<level>.txt`` (or ``eval_modes/test-<level>.txt``) and the frames.
        level: distance of the outer frames.
        meta_info_file: another list: three paths per line, the middle frame second. Leading folders of the paths that are
            not there are left out.
        allow_outside: let the list name frames that are not inside `dataroot`.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
    """

    score_rounding = "none"
    convention = "results not rounded; published with flow at half size where networks can"

    def __init__(
        self,
        dataroot: str,
        level: Level,
        meta_info_file: str | None = None,
        allow_outside: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        # Find the list of the level.
        if level not in get_args(Level):
            raise UserError(f"level: there is no '{level}'; {', '.join(get_args(Level))} are there")
        wanted = (
            "SNU-FILM has test-<level>.txt and test/GOPRO_test, test/YouTube_test (https://myungsub.github.io/CAIN)"
        )
        root = existing([expanded(dataroot)], wanted)
        names = [root / "eval_modes" / f"test-{level}.txt", root / f"test-{level}.txt"]
        list_file = Path(meta_info_file) if meta_info_file else names[0] if names[0].exists() else names[1]
        example = " ".join(f"data/SNU-FILM/test/GOPRO_test/GOPR0384_11_00/00000{k}.png" for k in (1, 2, 3))
        # Each line has the paths of three frames, whose first folders the local copy may lack.
        triplets: list[Triplet] = []
        cut: int | None = None
        for number, line in read_list(list_file, example, allow_outside=True):  # refused below, of what is left
            paths = line.split()
            if len(paths) != 3:
                raise UserError(
                    f"{list_file}:{number}: has {len(paths)} paths, not 3; expected lines such as '{example}'"
                )
            cut = leading(root, paths[0]) if cut is None else cut
            img0, gt, img1 = ("/".join(path.split("/")[cut:]) for path in paths)
            if not allow_outside:
                refuse_outside((img0, gt, img1), f"{list_file}:{number}", option=True)
            triplets.append(
                Triplet((img0, gt, img1), 0.5, f"{len(triplets):03d}_{os.path.splitext(gt)[0].replace('/', '_')}")
            )
        super().__init__(root, triplets, str(list_file), 310, on_error)
        self.published_as = f"SNU-FILM {level}"


def leading(root: Path, path: str) -> int:
    """How many leading folders of `path` to leave out for it to be found inside `root`; 0 if that does not help."""
    parts = path.split("/")
    return next((i for i in range(len(parts)) if (root / Path(*parts[i:])).is_file()), 0)


@DATASETS.register()
class XTestDataset(Benchmark):
    """X-TEST (Sim et al., XVFI, ICCV 2021): 15 clips of 33 frames of 4096x2160; the frames between the first and the last.

    Published figures: x8, that is frames 4, 8, ..., 28 at t = 1/8, 2/8, ..., 7/8, 105 samples; results rounded to 8 bits,
    ground truths not (at 2K they are averages). Flow is estimated at half size at 2K and a quarter at 4K (``val.flow_scale``).
    ``val.recursive: true`` reaches the times by halving, as VFIMamba does; otherwise the network is asked for each (EMA-VFI).

    Args:
        dataroot: folder that holds ``Type1``, ``Type2``, ``Type3``, or ``test`` with these.
        resolution: ``4k`` as the frames are, ``2k`` shrunk to 2048x1080 by averaging over areas.
        multiple: how many times as many frames: a divisor of 32.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
    """

    score_rounding = "output"
    convention = "x8; results rounded to 8 bits; published with flow at 1/2 (2K) or 1/4 (4K) where networks can"
    LAST: ClassVar[int] = 32

    def __init__(
        self, dataroot: str, resolution: Resolution = "4k", multiple: int = 8, on_error: OnError = "raise"
    ) -> None:
        if multiple < 2 or self.LAST % multiple:
            raise UserError(f"multiple: must be 2, 4, 8, 16 or 32, not {multiple}")
        wanted = "X-TEST has Type1/TEST01_.../0000.png to 0032.png (https://github.com/JihyongOh/XVFI)"
        root = expanded(dataroot)
        root = root / "test" if (root / "test").is_dir() else existing([root], wanted)
        scenes = (c for kind in root.glob("Type*") for c in kind.iterdir() if c.is_dir() and not is_hidden(c.name))
        clips = sorted(f"{c.parent.name}/{c.name}" for c in scenes)
        if not clips:
            raise UserError(f"{root}: has no clips. {wanted}")
        triplets = []
        for clip in clips:
            frames = sorted(
                (n for n in os.listdir(root / clip) if n.endswith(".png") and not is_hidden(n)), key=natural_order
            )
            if len(frames) <= self.LAST:
                raise UserError(f"{root / clip}: has {len(frames)} frames, and needs {self.LAST + 1}. {wanted}")
            for k in range(1, multiple):
                gt = frames[k * self.LAST // multiple]
                name = f"{clip.replace('/', '_')}_{os.path.splitext(gt)[0]}"
                ends = [f"{clip}/{frames[i]}" for i in (0, self.LAST)]
                triplets.append(Triplet((ends[0], f"{clip}/{gt}", ends[1]), k / multiple, name))
        super().__init__(root, triplets, wanted, 15 * (multiple - 1), on_error)
        self.resolution = resolution
        self.published_as = f"X-TEST {resolution.upper()}" if multiple == 8 else None

    def frames(self, where: Any, triplet: Triplet) -> list[Image]:
        images = super().frames(where, triplet)
        if self.resolution == "2k":
            return [shrink_by_area(to_float(image), 1080, 2048) for image in images]
        return images


@DATASETS.register()
class XiphDataset(Benchmark):
    """Xiph's eight 4K clips as Niklaus and Liu use them (Softmax Splatting, CVPR 2020): even frames 2 to 98 from odd ones.

    Published figures: 8-bit results and ground truths, PSNR, and SSIM of scikit-image with its flat window of 7.

    Args:
        dataroot: folder of the frames ``<clip>-001.png`` ... ``<clip>-100.png``, or of ``netflix`` with these.
        resolution: ``2k`` shrinks frames to 2048x1080, ``4k`` cuts 2048x1080 out of their middle.
        clips: some of the clips, by name; all 8 when omitted.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
    """

    score_rounding = "output"
    convention = "results rounded to 8 bits; SSIM of scikit-image with a flat window of 7"
    BORDER: ClassVar[tuple[int, int]] = (540, 1024)

    def __init__(
        self,
        dataroot: str,
        resolution: Resolution = "2k",
        clips: list[str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        wanted = (
            "Xiph's frames are BoxingPractice-001.png to Tango-100.png, from https://media.xiph.org/video/derf by "
            "ffmpeg -i <url> -pix_fmt rgb24 -vframes 100 <clip>-%03d.png"
        )
        root = expanded(dataroot)
        root = root / "netflix" if (root / "netflix").is_dir() else existing([root], wanted)
        refuse_unknown("clips", clips, XIPH_CLIPS)
        triplets = [
            Triplet(tuple(f"{clip}-{n + d:03d}.png" for d in (-1, 0, 1)))
            for clip in clips or XIPH_CLIPS
            for n in range(2, 99, 2)
        ]
        super().__init__(root, triplets, wanted, 392, on_error)
        self.resolution = resolution
        self.published_as = f"Xiph {resolution.upper()}"

    def frames(self, where: Any, triplet: Triplet) -> list[Image]:
        """The frames of a triplet, reduced to 2K, or without their border, as the benchmark has them.

        Raises:
            UserError: a frame is smaller than the border.
        """
        images = super().frames(where, triplet)
        if self.resolution == "2k":
            return [shrink_by_area(image, 1080, 2048) for image in images]
        down, right = self.BORDER
        for image, name in zip(images, triplet.files, strict=True):
            if image.shape[0] <= 2 * down or image.shape[1] <= 2 * right:
                raise UserError(f"{where.path(name)}: is {image.shape[0]}x{image.shape[1]}; expected 2160x4096")
        return [image[down:-down, right:-right] for image in images]
