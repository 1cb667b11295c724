"""What `tools/audit.py` concludes from what the package index says, and that floors keep known holes out."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "tools/audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_vulnerabilities_are_told_and_accepted_by_name(audit: ModuleType) -> None:
    hole = {"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": ["2.10"]}
    found = {"dependencies": [{"name": "torch", "version": "2.8", "vulns": [hole]}, {"name": "x", "skip_reason": "?"}]}
    bad, unknown = audit.judged(found, {})
    assert bad == ["torch 2.8: PYSEC-1, fixed by 2.10"] and "1 of 2 versions: x" in unknown[0]
    for name in ("PYSEC-1", "CVE-2"):
        assert audit.judged(found, {name: "unused here"})[0] == []
    assert audit.judged("no network")[1] == ["NOT AUDITED: no network"]


def test_every_version_is_asked_about(audit: ModuleType) -> None:
    text = (ROOT / "constraints.txt").read_text()
    pins = audit.pins(text)
    assert len(pins) == text.count("==") and all("==" in p for p in pins)


def test_torch_is_new_enough_to_read_strangers_weights() -> None:
    """2.10 fixes CVE-2026-24747, by which a file read with ``weights_only`` overwrites memory."""
    (floor,) = re.findall(r'"torch>=(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text())
    (pinned,) = re.findall(r"^torch==(\d+)\.(\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert min(tuple(map(int, floor)), tuple(map(int, pinned))) >= (2, 10)
