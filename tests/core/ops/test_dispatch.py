"""The rule that chooses kernels."""

from __future__ import annotations

import pytest

from relume.core.errors import UserError
from relume.core.ops.dispatch import use_kernel


@pytest.mark.parametrize(
    ("mode", "obstacle", "expected"),
    [
        (None, None, True),
        ("", "no GPU", False),
        ("auto", None, True),
        ("AUTO", "no GPU", False),
        ("off", None, False),
        ("off", "no GPU", False),
        ("on", None, True),
    ],
)
def test_choice(mode, obstacle, expected, monkeypatch):
    monkeypatch.delenv("RELUME_KERNELS", raising=False)
    if mode is not None:
        monkeypatch.setenv("RELUME_KERNELS", mode)
    assert use_kernel("scan", lambda: obstacle) is expected


def test_off_does_not_look_for_kernels(monkeypatch):
    monkeypatch.setenv("RELUME_KERNELS", "off")
    assert not use_kernel("scan", lambda: pytest.fail("asked"))


def test_forced_but_impossible(monkeypatch):
    monkeypatch.setenv("RELUME_KERNELS", "on")
    with pytest.raises(UserError, match=r"^RELUME_KERNELS=on, but the fused scan cannot run: no GPU$"):
        use_kernel("scan", lambda: "no GPU")


def test_other_words_are_refused(monkeypatch):
    monkeypatch.setenv("RELUME_KERNELS", "offf")
    with pytest.raises(UserError, match="Did you mean 'off'"):
        use_kernel("scan", lambda: None)
