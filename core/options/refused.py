"""What option files of BasicSR's family ask for that is not done here, told in words instead of a list of what there is."""

from __future__ import annotations

import re
from pathlib import PurePath

from .nodes import Block

TOPICS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), topic)
    for pattern, topic in (
        (
            r"(?i)(?<!r)face|ffhq|celeba|stylegan2|gfpgan|codeformer|dfdnet|restoreformer|vqfr|arcface",
            "faces, which are not restored or made here",
        ),
        (r"(?i)event|voxel|^efnet", "event cameras, whose data are not read here"),
        (
            r"(?i)^videogan|^video.*gan(model|dataset)|^(psrt)\w*$|^real(basic)?vsr",
            "video by these networks or wrappers, which are not here: BasicVSR, IconVSR, BasicVSR++, EDVR, DUF and TOFlow are",
        ),
        (
            r"^(Multi)?Ref[A-Z]|^(Multi)?(Contras|Correspondence)[A-Z]|^MRAPA",
            "super-resolution from reference images, which is not done here",
        ),
    )
)
"""What components are of, by their names. A plug-in's names are found before anyone asks."""

COMMENT = re.compile(r'(?m)^(?:[^"#\n]|"(?:[^"\\\n]|\\.)*")*?(?:^|(?<=[\s,{}\[\]]))//')
"""A line on which ``//`` begins a comment: outside quotes, and not inside a URL."""


def topic_of(name: str) -> str | None:
    """What a name is of, if that is something that is not done here."""
    return next((topic for pattern, topic in TOPICS if pattern.search(name)), None)


def other_dialect(root: Block) -> str | None:
    """In which words, not BasicSR's of today, a whole option file is written; None if it is not."""
    if "model_type" in root.entries:
        return None
    has = set(root.entries)
    if {"netG", "model"} <= has:
        return (
            "this file is in KAIR's words: model, netG.net_type, datasets.*.dataset_type, train.G_*. Those of here are "
            "model_type, network_g.type, datasets.*.type and train's optim_g, scheduler and *_opt; 'relume template' "
            "prints a file to start from"
        )
    if "model" in has and has & {"network_G", "networks", "distortion", "datasets"}:
        return (
            "this file is in the words of BasicSR before version 1 (mmsr): model, network_G, datasets.*.mode, "
            "train.niter. Those of today are model_type, network_g, datasets.*.type, train.total_iter; 'relume template' "
            "prints a file to start from"
        )
    sections = {k: e.node.entries for k, e in root.entries.items() if isinstance(e.node, Block)}
    theirs = {"use_amp", "amp_bf16", "fast_matmul", "onnx"} & has or "losses" in sections.get("train", {})
    if theirs or {"val_enabled", "metrics_enabled"} & set(sections.get("val", {})):
        return (
            "this file is in the words of traiNNer-redux or neosr: no model_type, train.losses as a list. Here it takes "
            "model_type (SRModel, or ESRGANModel against a discriminator) and a block for each loss, such as pixel_opt"
        )
    return None


def other_format(name: str, text: str) -> str | None:
    """In which format other than YAML the text of the option file `name` is, going by other frameworks'; None if in none."""
    start = "an option file is YAML, and 'relume template' prints one to start from"
    if PurePath(name).suffix == ".py":
        return f"this is Python, as MMagic's configs are; {start}"
    if text.lstrip().startswith("{") and COMMENT.search(text):
        return f"this is JSON with // comments, as KAIR's option files are; {start}"
    return None
