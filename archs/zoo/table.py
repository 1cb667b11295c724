"""The table of spandrel's architectures: names, licences, and what differs from the forks that they were copied from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from . import hvi, mends, swin


@dataclass(frozen=True)
class ZooRow:
    """One architecture.

    Attributes:
        place: ``<Id>.__arch.<module>:<class>`` inside the library's ``architectures``.
        licence: licence of the code.
        aliases: other names that forks register it under; case never matters.
        renamed: the fork's name of an option, and ours.
        ignored: options that the fork takes and does not use.
        taken: options of the fork that `translate` understands.
        fixed: options of the fork that have one possible value here.
        defaults: the fork's own, where they differ from spandrel's.
        scale: the option that is the factor of enlargement, if there is one.
        multiple: what height and width must be a multiple of: a number, or the option that says it.
        unused: regular expressions on the names of parameters that never get a gradient.
        first_output: whether only the first of its outputs is the image, and the others are no images to be trained on.
        translate: what the fork's options mean here, where that is more than another name.
        finish: what is done to a network that has been built.
        untrainable: reason why it cannot be trained.
        library: the package that has it.
    """

    place: str
    licence: str
    aliases: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    scale: str = ""
    multiple: int | str = 1
    unused: tuple[str, ...] = ()
    first_output: bool = False
    translate: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    finish: tuple[Callable[[nn.Module], None], ...] = ()
    untrainable: str = ""
    library: str = "spandrel"


MIT, APACHE, BSD = "MIT", "Apache-2.0", "BSD-3-Clause"
UPSCALE: dict[str, Any] = {"scale": "upscale", "defaults": {"upscale": 2}}
"""Forks of BasicSR have 2 where a block does not say it, spandrel has 1."""
FACTOR: dict[str, Any] = {"scale": "upscaling_factor"}

OVERFLOWING = (
    *(
        "ATD",
        "AuraSR",
        "DAT",
        "DCTLSA",
        "DRCT",
        "DRUNet",
        "DnCNN",
        "FFTformer",
        "GFPGAN",
        "GRL",
        "HAT",
        "HVICIDNet",
        "IPT",
    ),
    *(
        "KBNet",
        "LaMa",
        "MixDehazeNet",
        "RCAN",
        "RGT",
        "RestoreFormer",
        "RetinexFormer",
        "SAFMN",
        "SAFMNBCIE",
        "SeemoRe",
    ),
    *("Swin2SR", "SwinIR", "Uformer"),
)
"""Folders of spandrel whose networks it does not run in fp16 (``supports_half`` of its descriptors)."""

ROWS: dict[str, ZooRow] = {
    "ATD": ZooRow(
        "ATD.__arch.atd_arch:ATD",
        APACHE,
        ("ATD_light",),
        ignored=("use_checkpoint",),
        scale="upscale",
        defaults={"upscale": 2, "category_size": 128},
    ),
    "AuraSR": ZooRow(
        "AuraSR.__arch.aura_sr:UnetUpsampler",
        "CC-BY-SA-4.0",
        ("UnetUpsampler",),
        multiple=8,
        untrainable="a generative network that takes noise, and a discriminator and a loss of its own to train",
    ),
    "CIDNet": ZooRow(
        "HVICIDNet.__arch.cidnet:CIDNet",
        MIT,
        ("HVICIDNet",),
        multiple=8,
        unused=(r"^I_LCA5\.",),
        finish=(hvi.choose_without_masks,),
    ),
    "CRAFT": ZooRow(
        "CRAFT.__arch.CRAFT:CRAFT",
        APACHE,
        ignored=("img_size", "upsampler"),
        scale="upscale",
        defaults={"upscale": 2, "embed_dim": 96, "depths": [4, 4, 4, 4]},
        finish=(mends.pad_to_windows,),
    ),
    "DAT": ZooRow("DAT.__arch.DAT:DAT", APACHE, scale="upscale"),
    "DCTLSA": ZooRow("DCTLSA.__arch.dctlsa:DCTLSA", APACHE, scale="upscale", fixed={"num_modules": 6}),
    "DITN_Real": ZooRow("DITN.__arch.DITN_Real:DITN_Real", APACHE, ("DITN",), scale="upscale", multiple="patch_size"),
    "DnCNN": ZooRow("DnCNN.__arch.network_dncnn:DnCNN", MIT),
    "DRCT": ZooRow(
        "DRCT.__arch.drct_arch:DRCT",
        MIT,
        ignored=("compress_ratio", "squeeze_factor", "conv_scale", "overlap_ratio", "use_checkpoint"),
        scale="upscale",
        defaults={
            "upscale": 2,
            "embed_dim": 96,
            "depths": [6, 6, 6, 6],
            "num_heads": [6, 6, 6, 6],
            "window_size": 7,
            "mlp_ratio": 4.0,
        },
        multiple="window_size",
    ),
    "DRUNet": ZooRow("DRUNet.__arch.network_unet:DRUNet", MIT, ("UNetRes",), multiple=8),
    "FBCNN": ZooRow("FBCNN.__arch.FBCNN:FBCNN", APACHE, first_output=True),
    "FDAT": ZooRow(
        "FDAT.__arch.fdat:FDAT",
        MIT,
        scale="scale",
        defaults={"upsampler_type": "pixelshuffle"},
        finish=(mends.freeze_other_gates,),
    ),
    "fftformer": ZooRow(
        "FFTformer.__arch.fftformer_arch:FFTformer",
        MIT,
        defaults={"num_blocks": [6, 6, 12, 8]},
        multiple=32,
        unused=(r"^reduce_chan_level2\.",),
        translate=mends.without_latent_level,
    ),
    "GFPGANv1Clean": ZooRow(
        "GFPGAN.__arch.gfpganv1_clean_arch:GFPGANv1Clean",
        "Apache-2.0, with parts under NVIDIA's non-commercial licence",
        ("GFPGAN",),
        multiple="out_size",
        unused=(r"^toRGB\.", r"^stylegan_decoder\.style_mlp\."),
        first_output=True,
    ),
    "GRL": ZooRow(
        "GRL.__arch.grl:GRL",
        MIT,
        fixed={"fairscale_checkpoint": False, "offload_to_cpu": False},
        **UPSCALE,
    ),
    "HAT": ZooRow("HAT.__arch.HAT:HAT", MIT, ignored=("use_checkpoint",), **UPSCALE, multiple="window_size"),
    "IPT": ZooRow("IPT.__arch.ipt:IPT", APACHE, multiple=1),
    "KBNet_l": ZooRow("KBNet.__arch.kbnet_l:KBNet_l", MIT, ignored=("blockname",), multiple=16),
    "KBNet_s": ZooRow("KBNet.__arch.kbnet_s:KBNet_s", MIT, ignored=("basicblock",), multiple=16),
    "LaMa": ZooRow("LaMa.__arch.LaMa:LaMa", APACHE, ("big-lama",), multiple=8, defaults={"in_nc": 4}),
    "MixDehazeNet": ZooRow("MixDehazeNet.__arch.MixDehazeNet:MixDehazeNet", MIT),
    "MMRRDBNet_test": ZooRow(
        "MMRealSR.__arch.mmrealsr_arch:MMRRDBNet_test", BSD, ("MMRealSR",), scale="scale", first_output=True
    ),
    "MoESR": ZooRow("MoESR.__arch.MoESR:MoESR", MIT, scale="scale"),
    "MoSR": ZooRow("MoSR.__arch.mosr_arch:MoSR", MIT, scale="upscale"),
    "OmniSR": ZooRow(
        "OmniSR.__arch.OmniSR:OmniSR",
        APACHE,
        scale="up_scale",
        ignored=("block_script_name", "block_class_name", "ffn_bias", "pe_bias"),
        multiple="window_size",
    ),
    "PLKSR": ZooRow("PLKSR.__arch.PLKSR:PLKSR", MIT, ignored=("is_coreml", "use_pa"), **FACTOR),
    "RealPLKSR": ZooRow(
        "PLKSR.__arch.RealPLKSR:RealPLKSR",
        MIT,
        fixed={"in_ch": 3, "out_ch": 3},
        taken=("upsampler",),
        translate=mends.dysample_of_upsampler,
        **FACTOR,
    ),
    "SpandrelRCAN": ZooRow(
        "RCAN.__arch.rcan_arch:RCAN", MIT, ("RCAN_n_feats",), scale="scale", finish=(mends.clone_input,)
    ),
    "RestoreFormer": ZooRow(
        "RestoreFormer.__arch.restoreformer_arch:RestoreFormer",
        "Apache-2.0, with parts under NVIDIA's non-commercial licence",
        ("VQVAEGANMultiHeadTransformer",),
        multiple=32,
        unused=(r"^encoder\..*attn.*\.norm2\.",),
        first_output=True,
    ),
    "RetinexFormer": ZooRow(
        "RetinexFormer.__arch.retinexformer_arch:RetinexFormer", MIT, defaults={"n_feat": 31}, multiple=8
    ),
    "RGT": ZooRow("RGT.__arch.rgt:RGT", APACHE, scale="upscale", finish=(mends.initialise_transformer,)),
    "SAFMN": ZooRow("SAFMN.__arch.safmn:SAFMN", APACHE, multiple=8, **FACTOR),
    "SAFMN_BCIE": ZooRow("SAFMNBCIE.__arch.safmn_bcie:SAFMN_BCIE", APACHE, ("SAFMNBCIE",), multiple=16, **FACTOR),
    "SCUNet": ZooRow("SCUNet.__arch.SCUNet:SCUNet", APACHE, defaults={"config": [2, 2, 2, 2, 2, 2, 2]}),
    "SeemoRe": ZooRow(
        "SeemoRe.__arch.seemore_arch:SeemoRe",
        APACHE,
        scale="scale",
        defaults={"use_shuffle": False, "lr_space": "linear", "topk": 2},
        finish=(mends.one_image_at_a_time,),
    ),
    "SPAN": ZooRow("SPAN.__arch.span:SPAN", APACHE, scale="upscale", unused=(r"\.eval_conv\.",)),
    "SwiftSRGAN": ZooRow(
        "SwiftSRGAN.__arch.SwiftSRGAN:Generator",
        "CC0-1.0",
        scale="upscale_factor",
        unused=(r"block2\.act\.", r"convblock\.act\."),
    ),
    "Swin2SR": ZooRow("Swin2SR.__arch.Swin2SR:Swin2SR", APACHE, scale="upscale", multiple="window_size"),
    "SwinIR": ZooRow(
        "SwinIR.__arch.SwinIR:SwinIR",
        APACHE,
        **UPSCALE,
        multiple="window_size",
        finish=(swin.treat_border_apart,),
    ),
    "Uformer": ZooRow("Uformer.__arch.Uformer:Uformer", MIT, multiple=128),
    "UpCunet2x": ZooRow("RealCUGAN.__arch.upcunet_v3:UpCunet2x", MIT, ("RealCUGAN",)),
    "UpCunet2x_fast": ZooRow("RealCUGAN.__arch.upcunet_v3:UpCunet2x_fast", MIT, multiple=4),
    "UpCunet3x": ZooRow("RealCUGAN.__arch.upcunet_v3:UpCunet3x", MIT),
    "UpCunet4x": ZooRow("RealCUGAN.__arch.upcunet_v3:UpCunet4x", MIT),
}
"""spandrel's own, under permissive licences but for what the column says."""


def _extra(place: str, licence: str, **more: Any) -> ZooRow:
    return ZooRow(place, licence, library="spandrel_extra_arches", **more)


ACADEMIC = "academic use only"
EXTRA: dict[str, ZooRow] = {
    "AdaCodeSRNet_Contrast": _extra(
        "AdaCode.__arch.adacode_contrast_arch:AdaCodeSRNet_Contrast",
        "CC-BY-NC-SA-4.0",
        aliases=("AdaCode",),
        unused=(r"^quantize_group\.",),
    ),
    "CodeFormer": _extra(
        "CodeFormer.__arch.codeformer:CodeFormer", "S-Lab License 1.0 (non-commercial)", first_output=True, multiple=512
    ),
    "DDColor": _extra("DDColor.__arch.ddcolor:DDColor", ACADEMIC),
    "FeMaSRNet": _extra(
        "FeMaSR.__arch.femasr:FeMaSRNet",
        "CC-BY-NC-SA-4.0",
        aliases=("FeMaSR",),
        unused=(r"^quantize_group\.",),
        defaults={"scale_factor": 4},
        ignored=("use_semantic_loss", "frozen_module_keywords"),
        scale="scale_factor",
    ),
    "M3SNet": _extra("M3SNet.__arch.M3SNet:M3SNet", ACADEMIC, multiple=16),
    "MAT": _extra(
        "MAT.__arch.MAT:MAT",
        "CC-BY-NC-4.0",
        multiple=512,
        untrainable="its shapes are fixed to single images of 512 x 512",
    ),
    "MIRNet_v2": _extra(
        "MIRNet2.__arch.mirnet_v2_arch:MIRNet_v2",
        ACADEMIC,
        aliases=("MIRNet2",),
        fixed={"n_RRG": 4, "height": 3, "width": 2, "scale": 1},
        multiple=4,
    ),
    "MPRNet": _extra("MPRNet.__arch.MPRNet:MPRNet", ACADEMIC, multiple=8),
}
"""Architectures of spandrel_extra_arches, none of which may be used commercially."""
