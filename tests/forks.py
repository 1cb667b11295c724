"""Trees of files as forks of BasicSR have them, in four layouts; the code is ours, the ways of importing are theirs."""

from __future__ import annotations

import textwrap
from pathlib import Path

VENDORED = {
    # BasicSR >= 1.3: registries, relative imports, an __init__ that imports the world
    "basicsr/__init__.py": "raise RuntimeError('nobody runs this')\n",
    "basicsr/archs/__init__.py": "import importlib\nraise RuntimeError('nobody runs this either')\n",
    "basicsr/archs/arch_util.py": """
        import collections.abc
        from torch import nn as nn
        from basicsr.ops.dcn import ModulatedDeformConvPack, modulated_deform_conv
        from basicsr.utils import get_root_logger

        def make_layer(basic_block, num_basic_block, **kwarg):
            return nn.Sequential(*[basic_block(**kwarg) for _ in range(num_basic_block)])

        OF_THE_FORK = True
    """,
    "basicsr/utils/__init__.py": """
        from .img_util import img2tensor, tensor2img
        from .misc import *
        from .options import yaml_load
        from .not_here import nothing
    """,
    "basicsr/utils/misc.py": "MARK = 'of the fork'\ndef scandir(*args, **kwargs):\n    return ['of the fork']\n",
    "basicsr/utils/img_util.py": "import a_package_nobody_has\n",
    "basicsr/utils/registry.py": "raise RuntimeError('registers must register in Relume')\n",
    "basicsr/archs/wide_arch.py": """
        import torch
        from torch import nn as nn
        from torch.nn import functional as F

        from basicsr.utils.registry import ARCH_REGISTRY
        from basicsr.utils import scandir, img2tensor, get_root_logger
        from .arch_util import make_layer, OF_THE_FORK


        class Block(nn.Module):
            def __init__(self, num_feat):
                super().__init__()
                self.conv = nn.Conv2d(num_feat, num_feat, 3, padding=1)

            def forward(self, x):
                from basicsr.utils.misc import MARK
                assert MARK == 'of the fork'
                return x + F.relu(self.conv(x))


        @ARCH_REGISTRY.register()
        class WideNet(nn.Module):
            def __init__(self, num_in_ch=3, num_feat=8, num_block=1, upscale=2, res_scale=1, mean=(0.4, 0.4, 0.4), **kwargs):
                super(WideNet, self).__init__()
                logger = get_root_logger()
                self.extra = kwargs
                self.mean = torch.tensor(mean).view(1, 3, 1, 1)
                self.first = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
                self.body = make_layer(Block, num_block, num_feat=num_feat)
                self.last = nn.Conv2d(num_feat, 3 * upscale ** 2, 3, padding=1)
                self.up = nn.PixelShuffle(upscale)

            def forward(self, x):
                return self.up(self.last(self.body(self.first(x - self.mean)))) + self.mean


        @ARCH_REGISTRY.register()
        class SwinIR(nn.Module):
            def __init__(self, anything=1):
                super().__init__()
                self.conv = nn.Conv2d(3, 3, 3, padding=1)
    """,
    "basicsr/data/noisy_dataset.py": """
        import random
        import numpy as np
        import torch
        from torch.utils import data as data
        from torchvision.transforms.functional import normalize

        from basicsr.data.data_util import paired_paths_from_folder
        from basicsr.data.transforms import augment, paired_random_crop
        from basicsr.utils import FileClient, imfrombytes, img2tensor
        from basicsr.utils.matlab_functions import rgb2ycbcr, imresize
        from basicsr.utils.registry import DATASET_REGISTRY


        @DATASET_REGISTRY.register()
        class NoisyPairDataset(data.Dataset):
            def __init__(self, opt):
                super(NoisyPairDataset, self).__init__()
                self.opt = opt
                self.file_client = None
                self.io_backend_opt = opt['io_backend']
                self.gt_folder, self.lq_folder = opt['dataroot_gt'], opt['dataroot_lq']
                self.filename_tmpl = opt['filename_tmpl'] if 'filename_tmpl' in opt else '{}'
                self.paths = paired_paths_from_folder([self.lq_folder, self.gt_folder], ['lq', 'gt'], self.filename_tmpl)

            def __getitem__(self, index):
                if self.file_client is None:
                    self.file_client = FileClient(self.io_backend_opt.pop('type'), **self.io_backend_opt)
                scale = self.opt['scale']
                gt_path, lq_path = self.paths[index]['gt_path'], self.paths[index]['lq_path']
                img_gt = imfrombytes(self.file_client.get(gt_path, 'gt'), float32=True)
                img_lq = imfrombytes(self.file_client.get(lq_path, 'lq'), float32=True)
                if self.opt['phase'] == 'train':
                    img_gt, img_lq = paired_random_crop(img_gt, img_lq, self.opt['gt_size'], scale, gt_path)
                    img_gt, img_lq = augment([img_gt, img_lq], self.opt['use_hflip'], self.opt['use_rot'])
                    img_lq = img_lq + np.random.normal(0, random.random() * 0.1, img_lq.shape)
                img_gt, img_lq = img2tensor([img_gt, img_lq], bgr2rgb=True, float32=True)
                return {'lq': img_lq, 'gt': img_gt, 'lq_path': lq_path, 'gt_path': gt_path, 'mask': None}

            def __len__(self):
                return len(self.paths)
    """,
    "basicsr/losses/losses.py": """
        import torch
        from torch import nn as nn
        from torch.nn import functional as F
        from basicsr.archs.vgg_arch import VGGFeatureExtractor
        from basicsr.utils.registry import LOSS_REGISTRY
        from .loss_util import weighted_loss

        _reduction_modes = ['none', 'mean', 'sum']

        @weighted_loss
        def log_loss(pred, target, eps=1e-3):
            return torch.log((pred - target) ** 2 + eps)

        @LOSS_REGISTRY.register()
        class LogLoss(nn.Module):
            def __init__(self, loss_weight=1.0, reduction='mean', eps=1e-3):
                super(LogLoss, self).__init__()
                if reduction not in ['none', 'mean', 'sum']:
                    raise ValueError(f'Unsupported reduction mode: {reduction}.')
                self.loss_weight, self.reduction, self.eps = loss_weight, reduction, eps

            def forward(self, pred, target, weight=None, **kwargs):
                return self.loss_weight * log_loss(pred, target, weight, eps=self.eps, reduction=self.reduction), None

        @LOSS_REGISTRY.register()
        class L1Loss(nn.Module):
            def __init__(self, loss_weight=1.0):
                super().__init__()
    """,
    "basicsr/metrics/blur_metric.py": """
        import cv2
        import numpy as np
        from basicsr.metrics.metric_util import reorder_image, to_y_channel
        from basicsr.utils.registry import METRIC_REGISTRY

        @METRIC_REGISTRY.register()
        def calculate_blur(img, img2, crop_border, input_order='HWC', test_y_channel=False, **kwargs):
            assert img.shape == img2.shape, (f'Image shapes are different: {img.shape}, {img2.shape}.')
            img, img2 = reorder_image(img, input_order), reorder_image(img2, input_order)
            img, img2 = to_y_channel(img), to_y_channel(img2)
            return float(np.abs(img - img2).mean())
    """,
    "basicsr/models/wide_model.py": """
        from basicsr.models.sr_model import SRModel
        from basicsr.utils.registry import MODEL_REGISTRY

        @MODEL_REGISTRY.register()
        class WideModel(SRModel):
            def optimize_parameters(self, current_iter):
                pass
    """,
}
"""A fork with a ``basicsr`` of its own."""

PLAIN = {
    # Restormer, NAFNet: no registry, the class is found by its name
    "basicsr/models/__init__.py": "raise RuntimeError('nobody runs this')\n",
    "basicsr/models/archs/__init__.py": "raise RuntimeError('nobody runs this')\n",
    "basicsr/models/archs/arch_util.py": "import torch\nclass LayerNorm2d(torch.nn.Identity):\n    pass\n",
    "basicsr/models/archs/plain_arch.py": """
        import torch
        import torch.nn as nn
        import torch.nn.functional as F
        from einops import rearrange
        from basicsr.models.archs.arch_util import LayerNorm2d
        from basicsr.models.archs.local_arch import Local_Base
        from basicsr.utils.img_util import tensor2img


        class PlainNet(nn.Module):
            def __init__(self, img_channel=3, width=4, enc_blk_nums=[], bias=False):
                super().__init__()
                self.norm = LayerNorm2d(3)
                self.conv = nn.Conv2d(img_channel, 3, 3, padding=1, bias=bias)

            def forward(self, inp):
                return inp + self.conv(self.norm(inp))


        class PlainNetLocal(Local_Base, PlainNet):
            pass
    """,
    "basicsr/models/archs/local_arch.py": "class Local_Base:\n    pass\n",
    "basicsr/models/losses/losses.py": """
        import torch
        from torch import nn as nn
        from basicsr.models.losses.loss_util import weighted_loss

        class PlainLoss(nn.Module):
            def __init__(self, loss_weight=1.0, reduction='mean'):
                super().__init__()
                self.loss_weight = loss_weight

            def forward(self, pred, target, weight=None, **kwargs):
                return self.loss_weight * (pred - target).abs().mean()
    """,
    "basicsr/metrics/plain_metrics.py": """
        import numpy as np
        from basicsr.metrics.metric_util import reorder_image, to_y_channel
        import skimage.metrics

        def calculate_plain(img1, img2, crop_border, input_order='HWC', test_y_channel=False):
            return float(np.mean(img1 == img2))
    """,
}
"""A fork without registries."""

OVER = {
    # HAT: a package of its own over an installed BasicSR
    "hat/__init__.py": "raise RuntimeError('nobody runs this')\n",
    "hat/archs/__init__.py": "raise RuntimeError('nobody runs this')\n",
    "hat/archs/hat_arch.py": """
        import math
        import torch
        import torch.nn as nn
        from basicsr.utils.registry import ARCH_REGISTRY
        from basicsr.archs.arch_util import to_2tuple, trunc_normal_
        from hat.utils.windows import window_partition
        import hat.utils.windows as windows
        from einops import rearrange

        @ARCH_REGISTRY.register()
        class OverNet(nn.Module):
            def __init__(self, img_size=64, window_size=8, upscale=2, drop_path_rate=0, norm_layer=nn.LayerNorm):
                super().__init__()
                self.size = to_2tuple(window_size)
                self.up = nn.Sequential(nn.Conv2d(3, 3 * upscale ** 2, 3, padding=1), nn.PixelShuffle(upscale))
                trunc_normal_(self.up[0].weight, std=.02)

            def forward(self, x):
                assert windows.window_partition is window_partition
                return self.up(x)
    """,
    "hat/utils/windows.py": "def window_partition(x, window_size):\n    return x\n",
    "hat/models/hat_model.py": """
        import torch
        from torch.nn import functional as F
        from basicsr.utils.registry import MODEL_REGISTRY
        from basicsr.models.sr_model import SRModel

        @MODEL_REGISTRY.register()
        class OverModel(SRModel):
            def pre_process(self):
                pass
    """,
}
"""A package over an installed BasicSR, which is not installed here."""

TORCH = {
    # files of a student's own: no package at all
    "net.py": """
        import torch.nn as nn
        from blocks import Block
        from parts.norms import Norm
        import parts.norms


        class StudentNet(nn.Module):
            def __init__(self, dim=8, depth=1, **kwargs):
                super().__init__()
                self.head, self.tail = nn.Conv2d(3, dim, 3, padding=1), nn.Conv2d(dim, 3, 3, padding=1)
                self.body = nn.Sequential(*(Block(dim) for _ in range(depth)), Norm())

            def forward(self, x):
                return x + self.tail(self.body(self.head(x)))
    """,
    "blocks.py": """
        from torch import nn

        class Block(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.conv = nn.Conv2d(dim, dim, 1)

            def forward(self, x):
                return x + self.conv(x)
    """,
    "parts/norms.py": "from torch import nn\nfrom .names import NAME\nclass Norm(nn.Identity):\n    pass\n",
    "parts/names.py": "NAME = 'norm'\n",
}
"""Plain torch files."""


def write(folder: Path, files: dict[str, str]) -> Path:
    """The files of a tree below `folder`, which is returned."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder
