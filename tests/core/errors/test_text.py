"""Text from outside in messages, hints at names, and lists of them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relume.archs import ARCHS
from relume.core.errors import LINE, MESSAGE, SHOWN, did_you_mean, edits, listing, message, printable
from relume.core.metrics import METRICS
from relume.datasets import DATASETS
from relume.losses import LOSSES

anything = st.text(st.characters(exclude_categories=()))


@given(anything)
def test_printable_text_is_one_line_that_a_terminal_shows(text: str) -> None:
    shown = printable(text, most=60)
    assert not any(unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp") for c in shown)
    shown.encode()  # no surrogate is left
    assert len(shown) < 60 * 10 + 50
    if text.isprintable() and len(text) <= 60:
        assert shown == text


@given(st.lists(anything, max_size=20))
def test_a_message_keeps_its_lines_within_limits(lines: list[str]) -> None:
    plain = [line.replace("\n", "") for line in lines]
    shown = message("\n".join(plain)).split("\n")
    assert len(shown) == max(1, len(plain))
    assert all(len(line) <= LINE * 10 for line in shown)


def test_endless_messages_end() -> None:
    assert len(message("x" * 10**6)) <= LINE
    many = message("\n".join(f"{i} {'x' * 300}" for i in range(10_000)))
    assert len(many) <= MESSAGE
    assert many.endswith("more lines")


@given(st.text("abcd", max_size=6), st.text("abcd", max_size=6), st.text("abcd", max_size=6))
def test_edits_are_a_distance(a: str, b: str, c: str) -> None:
    assert edits(a, b) == edits(b, a)
    assert (edits(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= edits(a, b) <= max(len(a), len(b))
    assert edits(a + c, b + c) <= edits(a, b)


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("CharbonierLoss", LOSSES, "CharbonnierLoss"),
        ("charbonnierloss", LOSSES, "CharbonnierLoss"),
        ("Restromer", ARCHS, "Restormer"),
        ("PairedImageDatset", DATASETS, "PairedImageDataset"),
        ("calculate_pnsr", METRICS, "calculate_psnr"),
        ("calculate_pssnr", METRICS, "calculate_psnr"),
        ("calculate_maniqa", METRICS, None),
        *((f"calculate_{name}", METRICS, None) for name in ("psnr_y", "wpsnr", "psnrb", "tlpips", "vif", "nrqm")),
        ("CAT", ["DAT", "HAT"], None),
        ("DehazeFormer", ARCHS, None),
        ("val_frq", ["val_freq"], "val_freq"),
        ("calculate_fsim", METRICS, None),
        ("PairedImageSRLRDataset", DATASETS, None),
        ("NTIREFoldersDataset", DATASETS, None),
        ("L3Loss", LOSSES, None),
        ("", LOSSES, None),
        ("x" * 10_000, LOSSES, None),
    ],
)
def test_hints_are_slips_and_not_other_things(word: str, known: object, hint: str | None) -> None:
    assert did_you_mean(word, known) == (f" Did you mean '{hint}'?" if hint else "")  # type: ignore[arg-type]


def test_a_hint_is_near_in_the_whole_name() -> None:
    assert did_you_mean("grad_clip", ["use_grad_clip"]) == ""
    assert did_you_mean("vgg16_bn", ["vgg16", "vgg19"]) == ""
    assert did_you_mean("bf61", ["off", "bf16"]) == " Did you mean 'bf16'?"


def test_lists_of_names_are_short_and_begin_with_the_nearest() -> None:
    text = LOSSES.unknown("PixelCharbonnierLoss")
    known = text.partition("Known: ")[2]
    assert known.startswith("CharbonnierLoss, ")
    assert known.count(",") <= SHOWN
    assert known.endswith("in all: relume list losses).")


def test_aliases_are_known_names() -> None:
    from relume.core.models import MODELS

    assert "SRModel" in MODELS.unknown("SRModle")
    assert listing(["b", "a"]) == "b, a"
