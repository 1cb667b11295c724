"""The rule that chooses kernels."""

from __future__ import annotations

import pytest

from relume.core.errors import UserError
from relume.core.ops.dispatch import use_kernel
from relume.core.ops.modes import mode_of


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


def test_a_word_for_one_op(monkeypatch):
    monkeypatch.setenv("RELUME_KERNELS", "on, layer_norm=off")
    assert not use_kernel("layer_norm", lambda: pytest.fail("asked"))
    assert use_kernel("ssd", lambda: None)
    monkeypatch.setenv("RELUME_KERNELS", "ssd=on")
    assert not use_kernel("layer_norm", lambda: "no GPU")
    with pytest.raises(UserError, match="fused state-space scan"):
        use_kernel("ssd", lambda: "no GPU")


@pytest.mark.parametrize("text", ["layer_nrm=off", "=off", "layer_norm=", "layer_norm=yes"])
def test_other_words_for_one_op_are_refused(text, monkeypatch):
    monkeypatch.setenv("RELUME_KERNELS", text)
    with pytest.raises(UserError, match=r"RELUME_KERNELS.*(Known|Accepted)"):
        use_kernel("scan", lambda: None)


def test_a_word_that_changes_while_the_process_runs_counts_at_once(monkeypatch):
    monkeypatch.setenv("RELUME_KERNELS", "off")
    assert mode_of("ssd") == "off"
    monkeypatch.setenv("RELUME_KERNELS", "off,ssd=on")
    assert (mode_of("ssd"), mode_of("mdta")) == ("on", "off")
    monkeypatch.setenv("RELUME_KERNELS", "sdd=on")
    for _ in range(2):  # what is wrong is not kept
        with pytest.raises(UserError, match="no op is called 'sdd'"):
            mode_of("ssd")
