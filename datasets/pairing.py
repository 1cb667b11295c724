"""Matching inputs with ground truths by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..core.errors import UserError, printable
from ..core.imaging.image_io import READERS, Readers
from ..core.imaging.storage import join, read_lines
from .base import OnError
from .sources import IOBackend, Source, first_names, open_source, parse_meta_line, pass_over_missing


class Sample(NamedTuple):
    """Where one sample's files are: source and name of the input, of the ground truth (None without one)."""

    lq: Source
    lq_name: str
    gt: Source | None
    gt_name: str | None

    @property
    def lq_path(self) -> str:
        """The input's path or URL."""
        return self.lq.path(self.lq_name)


def as_roots(roots: str | Sequence[str] | None, option: str) -> list[str]:
    """One or several folders as a list; none for None.

    Raises:
        UserError: `roots` is neither a folder nor a list of folders.
    """
    if roots is None:
        return []
    found = [roots] if isinstance(roots, str) else list(roots)
    if not found or not all(isinstance(r, str) and r for r in found):
        raise UserError(f"{option}: give a folder or a list of folders, not {roots!r}")
    return found


def find_roots(
    dataroot: str | Sequence[str] | None, gt: str | Sequence[str] | None, lq: str | Sequence[str] | None
) -> list[tuple[str, str | None]]:
    """(input folder, ground-truth folder or None) of each root, from the three options.

    Raises:
        UserError: they do not fit together.
    """
    if dataroot is not None:
        if gt is not None or lq is not None:
            raise UserError("give either dataroot (with sub-folders input/ and gt/), or dataroot_lq and dataroot_gt")
        return [(join(r, "input"), join(r, "gt")) for r in as_roots(dataroot, "dataroot")]
    inputs, targets = as_roots(lq, "dataroot_lq"), as_roots(gt, "dataroot_gt")
    if not inputs:
        raise UserError(
            "dataroot_lq is missing: the folder of input images (or dataroot, with sub-folders input/, gt/)"
        )
    if not targets:
        return [(r, None) for r in inputs]
    if len(inputs) != len(targets):
        raise UserError(f"dataroot_lq has {len(inputs)} folders and dataroot_gt {len(targets)}; they go in pairs")
    return list(zip(inputs, targets, strict=True))


def find_samples(
    lq_root: str,
    gt_root: str | Source | None,
    backend: IOBackend,
    template: str = "{}",
    meta_file: str | None = None,
    gt_readers: Readers = READERS,
    surplus: bool = False,
    recursive: bool = True,
    on_error: OnError = "raise",
    part: str = "lq",
) -> list[Sample]:
    """The samples of one root, sorted by name, in linear time. Suffixes need not agree; sub-folders must.

    Args:
        lq_root: inputs.
        gt_root: ground truths, or where they are read from; None for inputs alone.
        backend: how both are kept.
        template: an input's stem from its ground truth's, ``{}x4``. Unused with LMDB, where both have the same keys.
        meta_file: BasicSR's list of the ground truths (or inputs, when alone) to use; all when None.
        gt_readers: decoders of the ground truths.
        surplus: leave out inputs without a ground truth.
        recursive: see `sources.Folder`; a list says itself where its files are.
        on_error: ``skip`` passes over files that the list has and the folder has not.
        part: what the inputs are called in tar files, where ground truths are ``gt``.

    Raises:
        UserError: a folder is missing or empty, or files lack a partner; up to ten are named.
    """
    recursive = recursive or meta_file is not None
    lq = open_source(lq_root, backend, recursive=recursive, part=part)
    gt = open_source(gt_root, backend, gt_readers, recursive, "gt") if isinstance(gt_root, str) else gt_root
    main = gt or lq
    keys = list(main.files)
    if meta_file is not None:
        wanted = [parse_meta_line(line)[0] for _, line in read_lines(meta_file)]
        keys = [n if n in main.files else n.rpartition(".")[0] for n in wanted]
        absent = [n for n, k in zip(wanted, keys, strict=True) if k not in main.files]
        if not keys:
            raise UserError(f"{meta_file}: is empty")
        pass_over_missing(main.root, meta_file, wanted, absent, on_error)
        keys = [k for k in keys if k in main.files]
    if gt is None:
        return [Sample(lq, lq.files[k], None, None) for k in keys]
    refuse_template(template)
    partners = keys if backend.type == "lmdb" else [_partner(k, template) for k in keys]
    _refuse_unpaired(lq, gt, keys, partners, template, subset=surplus or meta_file is not None)
    return [Sample(lq, lq.files[p], gt, gt.files[k]) for k, p in zip(keys, partners, strict=True)]


def refuse_template(template: str, what: str = "ground truth") -> None:
    """Refuse a ``filename_tmpl`` that is no name with ``{}`` in place of the stem of the `what`.

    Raises:
        UserError: `template` has no ``{}``, or is no name of a file.
    """
    rest = template.replace("{}", "")
    if "{}" not in template:
        raise UserError(f"filename_tmpl: '{printable(template)}' needs a {{}} where the {what}'s stem goes")
    if any(c in rest for c in "{}/\\") or rest in (".", "..") or not template.isprintable():
        raise UserError(
            f"filename_tmpl: '{printable(template)}' is no name of a file: only {{}} stands in braces, and no folders, as in "
            "'{}x4'"
        )


def _partner(key: str, template: str) -> str:
    folder, slash, stem = key.rpartition("/")
    return f"{folder}{slash}{template.format(stem)}"


def _refuse_unpaired(
    lq: Source, gt: Source, keys: list[str], partners: list[str], template: str, *, subset: bool
) -> None:
    alone = [gt.files[k] for k, p in zip(keys, partners, strict=True) if p not in lq.files]
    hint = f" (filename_tmpl is '{template}'; '{{}}x4' would pair 01.png with 01x4.png)"
    if alone:
        raise UserError(
            f"{len(alone)} of {len(keys)} ground truths in {gt.root} have no input in {lq.root}: {first_names(alone)}{hint}"
        )
    used = set(partners)
    alone = [] if subset else [n for k, n in lq.files.items() if k not in used]
    if alone:
        raise UserError(
            f"{len(alone)} of {len(lq.files)} inputs in {lq.root} have no ground truth in {gt.root}: {first_names(alone)}{hint}"
        )
