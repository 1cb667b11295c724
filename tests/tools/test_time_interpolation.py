"""tools/time_interpolation.py at tiny sizes."""

from __future__ import annotations

import re

import pytest
import yaml

NETWORK = {
    "type": "HybridVFI",
    "F": 8,
    "depths": [1, 1, 1],
    "num_heads": [1, 2, 4],
    "mlp_ratios": [1, 1, 1],
    "backbone_mode": "gated_attn_only",
}


@pytest.fixture
def run(run_tool, tmp_path, capsys):
    def call(*arguments: str, **changes) -> tuple[int, str]:
        opt = {"name": "t", "model_type": "InterpolationModel", "network_g": NETWORK, **changes}
        opt.setdefault("path", {"pretrain_network_g": "weights/that/are/not/there.pth"})
        (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
        code = run_tool("time_interpolation", ["-opt", str(tmp_path / "o.yml"), "--device", "cpu", *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def test_a_row_for_every_size(run):
    code, said = run("--sizes", "32x48", "33x64", "--warmup", "1", "--runs", "3")
    assert code == 0 and "parameters, cpu (" in said and "1 calls to warm up, 3 timed" in said
    header, *rows = said.splitlines()[2:]
    assert header.split() == ["height", "x", "width", "mean", "ms", "median", "p90", "fps", "peak", "MiB"]
    assert [row.split()[0] for row in rows] == ["32x48", "33x64"]
    for row in rows:
        mean, median, p90, fps, memory = map(float, row.split()[1:])
        assert 0 < median <= p90 + 0.01 and fps == pytest.approx(1000 / mean, rel=0.02) and memory > 10


def test_the_presets(tool):
    module = tool("time_interpolation")
    assert [module.size_of(s) for s in ("480p", "2k", "4k", "7x9")] == [(480, 854), (1080, 2048), (2160, 3840), (7, 9)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sizes", "8k"), "--sizes: '8k' is neither 480p"),
        (("--sizes", "0x9"), "--sizes: '0x9'"),
        (("--flow_scale", "0"), "--flow_scale: must be above 0"),
        (("--device", "gpu"), "--device: there is no 'gpu'"),
        (("--runs", "0"), "--runs must be at least 1"),
    ],
)
def test_one_line_for_a_mistake(run, arguments, message):
    code, said = run(*arguments)
    assert code != 0 and re.search(re.escape(message), said) and said.count("\n") == 1
