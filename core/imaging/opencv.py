"""OpenCV, made quiet: imported from here where it is used, and not before.

What it would print about damaged files, besides failing, is said in one line by whoever reads them.
"""

from __future__ import annotations

import cv2

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

__all__ = ["cv2"]
