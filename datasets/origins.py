"""Where published data sets come from, under which licence, what is in them, and how option files find them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple


class Origin(NamedTuple):
    """One published data set.

    Args:
        name: what `relume prepare data` calls it.
        title: usual name of the data set.
        source: address at which its authors give it away.
        licence: what its page says of the use; check it there.
        folder: folder in which the shipped option files look for it.
        layout: what is in this folder.
        counts: how many samples it has.
        prepare: the command that brings the download into this form, or checks it; or `UNPACKED`.
        split: how its parts for training and test come about.
    """

    name: str
    title: str
    source: str
    licence: str
    folder: str
    layout: str
    counts: str
    prepare: str
    split: str


UNPACKED = "put it there"
"""What is done about a download that is in the right form already."""

ORIGINS = (
    Origin(
        "lsui",
        "LSUI",
        "https://lintaopeng.github.io/_pages/UIE%20Project%20Page.html",
        "none is stated; the authors give it to researchers",
        "data/LSUI",
        "{train,test}/{input,gt}",
        "3879 pairs to train on, 400 to test",
        "relume prepare data lsui DOWNLOAD data/LSUI",
        "400 test pairs drawn by --seed; a list of test names that you have: --list FILE",
    ),
    Origin(
        "uieb",
        "UIEB",
        "https://li-chongyi.github.io/proj_benchmark.html",
        "for research, not for commercial use",
        "data/UIEB",
        "raw-890, reference-890, train.txt, test.txt",
        "800 pairs to train on, 90 to test",
        "relume prepare data uieb data/UIEB",
        "no list is published: 90 names drawn by --seed; a list of test names that you have: --list FILE",
    ),
    Origin(
        "u45",
        "U45",
        "https://github.com/IPNUISTlegal/underwater-test-dataset-U45- (upload/U45/U45)",
        "none is stated; for research",
        "data/U45",
        "the photographs",
        "45 photographs without ground truth",
        UNPACKED,
        "all of it is to test",
    ),
    Origin(
        "uccs",
        "UCCS (of RUIE)",
        "https://github.com/dlut-dimt/Realworld-Underwater-Image-Enhancement-RUIE-Benchmark",
        "none is stated; for research",
        "data/UCCS",
        "{blue,blue-green,green}",
        "300 photographs without ground truth",
        UNPACKED,
        "all of it is to test",
    ),
    Origin(
        "squid",
        "SQUID",
        "https://csms.haifa.ac.il/profiles/tTreibitz/datasets/ambient_forwardlooking/index.html",
        "none is stated; for research",
        "data/SQUID",
        "{Katzaa,Michmoret,Nachsholim,Satil}",
        "57 pairs of a stereo camera without ground truth",
        UNPACKED,
        "all of it is to test",
    ),
    Origin(
        "aim",
        "AIM 2025 inverse tone mapping",
        "https://arxiv.org/abs/2508.13479 (the challenge's page is named there)",
        "the terms of the challenge",
        "data/AIM_ITM",
        "{train,val}_hdr/{jpg,hdr,dgain_info}",
        "about 19,000 pairs of 256 x 256 pixels to train on",
        "relume prepare data aim DOWNLOAD data/AIM_ITM",
        "100 pairs drawn by --seed are held out; a list of names that you have: --list FILE",
    ),
    Origin(
        "gopro",
        "GoPro",
        "https://seungjunnah.github.io/Datasets/gopro",
        "CC BY 4.0",
        "data/GoPro",
        "{train,test}/{input,target}",
        "2103 pairs to train on (16,824 crops of 512 x 512), 1111 to test",
        "relume prepare data gopro GOPRO_Large data/GoPro",
        "that of the download's folders train and test",
    ),
    Origin(
        "hide",
        "HIDE",
        "https://github.com/joanshen0508/HA_deblur",
        "none is stated; for research",
        "data/HIDE",
        "test/{input,target}",
        "2025 pairs to test",
        "relume prepare data hide HIDE_dataset data/HIDE",
        "that of the download's folder test",
    ),
    Origin(
        "snu-film",
        "SNU-FILM",
        "https://myungsub.github.io/CAIN",
        "for research; frames of GoPro (CC BY 4.0) and of YouTube",
        "datasets/SNU-FILM",
        "test-{easy,medium,hard,extreme}.txt, test/{GOPRO_test,YouTube_test}",
        "310 triplets at each of four levels",
        "relume prepare data snu-film datasets/SNU-FILM",
        "the lists come with it",
    ),
    Origin(
        "xiph",
        "Xiph",
        "https://media.xiph.org/video/derf (Netflix's clips of 4096x2160, .y4m)",
        "CC BY-NC-ND 4.0",
        "datasets/xiph",
        "<clip>-001.png to <clip>-100.png of eight clips",
        "392 triplets",
        "relume prepare data xiph FOLDER_OF_Y4M datasets/xiph",
        "the eight clips of Softmax Splatting (CVPR 2020)",
    ),
    Origin(
        "x-test",
        "X4K1000FPS",
        "https://github.com/JihyongOh/XVFI",
        "for research and education",
        "datasets/X4K1000FPS",
        "test/Type{1,2,3}/TEST*/0000.png to 0032.png; train/<scene>/<clip>/0000.png to 0064.png",
        "15 clips to test (105 samples for x8), 4408 to train on",
        "relume prepare data x-test datasets/X4K1000FPS",
        "that of the download",
    ),
    Origin(
        "vimeo90k",
        "Vimeo90K",
        "http://toflow.csail.mit.edu",
        "none is stated; for research",
        "datasets/vimeo_triplet",
        "sequences/00001/0001/im1.png ..., tri_trainlist.txt, tri_testlist.txt",
        "51,313 triplets to train on, 3782 to test",
        UNPACKED,
        "the lists come with it",
    ),
    Origin(
        "vimeo90k-septuplet",
        "Vimeo90K septuplets",
        "http://toflow.csail.mit.edu",
        "none is stated; for research",
        "datasets/vimeo_septuplet",
        "sequences/00001/0001/im1.png ... im7.png, sep_{train,test}list.txt, meta_info_Vimeo90K_{train,test}_GT.txt",
        "64,612 septuplets to train on, 7824 to test",
        "relume prepare data vimeo90k-septuplet datasets/vimeo_septuplet",
        "the lists come with it",
    ),
    Origin(
        "df2k",
        "DF2K (DIV2K and Flickr2K)",
        "https://data.vision.ee.ethz.ch/cvl/DIV2K (Flickr2K: https://github.com/LimBee/NTIRE2017)",
        "for research",
        "data/DF2K",
        "DF2K_train_HR_sub, DF2K_train_LR_bicubic_X{2,3,4}_sub",
        "800 and 2650 images to train on",
        "relume prepare data df2k DOWNLOAD data/DF2K",
        "all of it is to train on",
    ),
    Origin(
        "sidd",
        "SIDD (Medium, sRGB)",
        "https://abdokamel.github.io/sidd",
        "MIT",
        "data/SIDD",
        "{train,val}/{input,target}",
        "320 pairs to train on (30,608 crops of 512 x 512), 1280 blocks of 256 x 256 to validate",
        "relume prepare data sidd DOWNLOAD data/SIDD",
        "that of the download; the blocks are ValidationNoisyBlocksSrgb.mat and ValidationGtBlocksSrgb.mat",
    ),
    Origin(
        "reds",
        "REDS",
        "https://seungjunnah.github.io/Datasets/reds",
        "CC BY 4.0",
        "data/REDS",
        "train_{sharp,sharp_bicubic/X4,blur,blur_bicubic/X4}/<clip>/00000000.png, ..., meta_info_REDS_GT.txt",
        "240 clips to train on and 30 to validate (numbered 240 to 269), of 100 frames",
        "relume prepare data reds DOWNLOAD data/REDS",
        "REDSDataset's val_partition: REDS4 (000, 011, 015, 020) or official (240 to 269)",
    ),
    Origin(
        "ucf101",
        "UCF101",
        "https://liuziwei7.github.io/projects/VoxelFlow (ucf101_interp_ours)",
        "none is stated; for research",
        "datasets/ucf101_interp_ours",
        "<number>/frame_00.png, frame_01_gt.png, frame_02.png",
        "379 triplets",
        UNPACKED,
        "all of it is to test",
    ),
    Origin(
        "middlebury",
        "Middlebury",
        "https://vision.middlebury.edu/flow/data (other-color-allframes, other-gt-interp)",
        "for research",
        "datasets/middlebury",
        "other-data/<scene>/frame10.png, frame11.png; other-gt-interp/<scene>/frame10i11.png",
        "12 scenes",
        UNPACKED,
        "all of it is to test",
    ),
    Origin(
        "cifar10",
        "CIFAR-10",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "none is stated",
        "data/cifar10",
        "cifar-10-binary.tar.gz",
        "50,000 images to train on, 10,000 to test",
        UNPACKED,
        "that of its files",
    ),
)
KNOWN = {origin.name: origin for origin in ORIGINS}


def origin_of(path: str) -> Origin | None:
    """The published data set in whose usual folder a path lies, by the folder's name; None for any other.

    >>> origin_of("data/GoPro/train/input").title, origin_of("/big/data/LSUI/").name, origin_of("data/mine")
    ('GoPro', 'lsui', None)
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return next((o for o in ORIGINS if PurePosixPath(o.folder).name in parts), None)


def advice(path: str) -> str:
    """What to do about a missing path of a published data set, beginning with a space; empty for any other path."""
    found = origin_of(path)
    if found is None:
        return ""
    return (
        f" {found.title} ({found.counts}; licence: {found.licence}) comes from {found.source}; then: {found.prepare}. "
        f"{found.folder} holds {found.layout}"
    )


def in_code(command: str) -> str:
    """A command as Markdown shows it."""
    return command if command == UNPACKED else f"`{command}`"


def origins_table() -> str:
    """All of them as a table in Markdown."""
    rows = [
        f"| {o.title} | {o.source} | {o.licence} | `{o.folder}`: {o.layout} | {o.counts} | {in_code(o.prepare)} | {o.split} |"
        for o in ORIGINS
    ]
    head = [
        "| data | from | licence | folder and layout | how many | command | split |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])
