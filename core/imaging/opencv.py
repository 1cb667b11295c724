"""OpenCV, made quiet: imported from here where it is used, and not before.

What it would print about damaged files, besides failing, is said in one line where they are read.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

if "OPENCV_TEMP_PATH" not in os.environ:
    # Its reader of .hdr keeps what it decodes from memory in files of foreseeable names, which must be in no common folder.
    os.environ["OPENCV_TEMP_PATH"] = tempfile.mkdtemp(prefix="relume_opencv_")
    _owner = os.getpid()

    def _remove(folder: str) -> None:
        if os.getpid() == _owner:  # and not a process forked from it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(_remove, os.environ["OPENCV_TEMP_PATH"])

import cv2

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

__all__ = ["cv2"]
