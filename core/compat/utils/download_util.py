"""``basicsr.utils.download_util``."""

from __future__ import annotations

from pathlib import Path


def load_file_from_url(
    url: str, model_dir: str | None = None, progress: bool = True, file_name: str | None = None
) -> str:
    """The path of a file, downloaded into `model_dir` (torch's cache when omitted) unless it is there."""
    import torch

    folder = Path(model_dir) if model_dir else Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / (file_name or url.rsplit("/", 1)[-1])
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=progress)
    return str(path.absolute())
