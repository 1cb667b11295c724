"""CIFAR-10: 60,000 images of 32x32 pixels in ten classes (Krizhevsky, "Learning multiple layers of features", 2009)."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..core.errors import UserError, expanded, require
from ..core.files.ceilings import refuse_total
from ..core.imaging import ceilings
from . import DATASETS
from .base import Phase
from .generation import StoredImages

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE = "cifar-10-binary.tar.gz"
BINARY = "cifar-10-batches-bin"
PYTHON = "cifar-10-batches-py"
BATCHES = {True: [f"data_batch_{i}.bin" for i in range(1, 6)], False: ["test_batch.bin"]}
"""Files of the binary version, of the training and of the test images."""
RECORD = 1 + 3 * 32 * 32
"""Bytes of an image in them: its class, then planes of red, green and blue."""


@DATASETS.register()
class CIFAR10Dataset(StoredImages):
    """CIFAR-10, kept in memory as bytes: ``gt`` (3, R, R) in [-1, 1], ``label`` from 0 to 9, ``index``.

    It is never downloaded unasked. `dataroot` may hold the binary version (``cifar-10-binary.tar.gz``, unpacked or not) or the
    Python one, unpacked (``cifar-10-batches-py``), which torchvision reads after it has checked the files' sums.

    Args:
        dataroot: folder that holds one of these.
        resolution: R; 32, as they are, when omitted.
        use_hflip: flip every other image, left to right, at random; in training only.
        use_labels: give labels.
        test_images: the 10,000 test images instead of the 50,000 training ones, whatever the phase.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
    """

    def __init__(
        self,
        dataroot: str,
        resolution: int | None = None,
        use_hflip: bool = False,
        use_labels: bool = True,
        test_images: bool = False,
        phase: Phase = "train",
    ) -> None:
        images, labels = read_cifar(expanded(dataroot), training=not test_images)
        name = "cifar10_test" if test_images else "cifar10"
        super().__init__(name, images, labels.tolist() if use_labels else None, 10, resolution, use_hflip, phase)


def read_cifar(root: Path, training: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) of whichever version is under `root`, or is `root`.

    Raises:
        UserError: neither is there, or it is damaged.
    """
    folder = root if root.name in (BINARY, PYTHON) else None
    if (root / BINARY).is_dir() or (folder and folder.name == BINARY):
        unpacked = folder or root / BINARY
        return read_binary(BATCHES[training], lambda name: read_file(unpacked / name), str(unpacked))
    archive = root if root.name == ARCHIVE else root / ARCHIVE
    if archive.is_file():
        return read_archive(archive, training)
    if (root / PYTHON).is_dir() or folder:
        return read_python(root.parent if folder else root, training)
    raise UserError(
        f"{root}: CIFAR-10 is not here. Fetch {URL} and put it into this folder as {ARCHIVE} (unpacking is not needed)"
    )


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        UserError: the file is missing.
    """
    if not path.is_file():
        raise UserError(f"{path}: is missing; fetch {URL} again and unpack all of it")
    return path.read_bytes()


def read_archive(archive: Path, training: bool) -> tuple[np.ndarray, np.ndarray]:
    """The images inside the tar file, which is not unpacked.

    Raises:
        UserError: the tar file is damaged, or does not hold CIFAR-10's binary version.
    """
    try:
        with tarfile.open(archive) as tar:
            refuse_total((tar.getmember(f"{BINARY}/{name}").size for name in BATCHES[training]), str(archive))

            def read(name: str) -> bytes:
                member = tar.extractfile(f"{BINARY}/{name}")
                assert member is not None, name
                return ceilings.unpacked(lambda: member, tar.getmember(f"{BINARY}/{name}").size, f"{archive}/{name}")

            return read_binary(BATCHES[training], read, str(archive))
    except (tarfile.TarError, KeyError, EOFError, OSError, AssertionError) as e:
        raise UserError(f"{archive}: is torn or not CIFAR-10's binary version ({e}); fetch {URL} again") from e


def read_binary(names: list[str], read: Callable[[str], bytes], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of files in the binary format; `read` gives their bytes by name.

    Raises:
        UserError: a file is damaged, or no batch of CIFAR-10's binary version.
    """
    records = []
    for name in names:
        data = np.frombuffer(read(name), np.uint8)
        if not data.size or data.size % RECORD or int(data[::RECORD].max()) > 9:
            raise UserError(f"{where}: {name} is torn or not a batch of CIFAR-10's binary version; fetch {URL} again")
        records.append(data.reshape(-1, RECORD))
    every = np.concatenate(records)
    images = every[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), every[:, 0].astype(np.int64)


def read_python(root: Path, training: bool) -> tuple[np.ndarray, np.ndarray]:
    """The Python version by torchvision, which compares every file with its published sum before it is unpickled.

    Raises:
        UserError: files are missing, or are not the published ones.
    """
    datasets = require("torchvision.datasets", "CIFAR10Dataset")
    try:
        found = datasets.CIFAR10(str(root), train=training, download=False)
    except RuntimeError:
        raise UserError(
            f"{root / PYTHON}: files are missing, or are not the published ones, so they are not opened. Fetch {URL} "
            f"and put it into {root} instead"
        ) from None
    return np.ascontiguousarray(found.data), np.asarray(found.targets, np.int64)
