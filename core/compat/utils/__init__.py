"""``basicsr.utils``."""

from .color_util import bgr2ycbcr, rgb2ycbcr, rgb2ycbcr_pt, ycbcr2bgr, ycbcr2rgb
from .diffjpeg import DiffJPEG
from .dist_util import get_dist_info, master_only
from .download_util import load_file_from_url
from .file_client import FileClient
from .img_process_util import USMSharp, filter2D, usm_sharp
from .img_util import crop_border, imfrombytes, imfrombytesDP, img2tensor, imwrite, padding, padding_DP, tensor2img
from .logger import get_env_info, get_root_logger
from .matlab_functions import imresize
from .misc import get_time_str, scandir, set_random_seed, sizeof_fmt

__all__ = [
    "DiffJPEG",
    "FileClient",
    "USMSharp",
    "bgr2ycbcr",
    "crop_border",
    "filter2D",
    "get_dist_info",
    "get_env_info",
    "get_root_logger",
    "get_time_str",
    "imfrombytes",
    "imfrombytesDP",
    "img2tensor",
    "imresize",
    "imwrite",
    "load_file_from_url",
    "master_only",
    "padding",
    "padding_DP",
    "rgb2ycbcr",
    "rgb2ycbcr_pt",
    "scandir",
    "set_random_seed",
    "sizeof_fmt",
    "tensor2img",
    "usm_sharp",
    "ycbcr2bgr",
    "ycbcr2rgb",
]
