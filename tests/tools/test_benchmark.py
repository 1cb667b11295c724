"""The benchmark's machinery: sections are found, strangers refused, memory of a fresh process measured. Never a clock."""

import os

import pytest
import torch
import torch.nn.functional as F
from minimal_loop import Network

from relume.archs import build_network
from relume.tools.benchmarks import common
from relume.tools.benchmarks.loop import NETWORK


def test_finds_the_sections_of_every_file(run_tool, capsys):
    assert run_tool("benchmark", ["--list"]) == 0
    assert {"trainer", "loading", "spectroformer", "phaseformer"} <= set(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match="two sections of the benchmark are called 'trainer'"):
        common.section("trainer")(list)


def test_unknown_section(run_tool, capsys):
    assert run_tool("benchmark", ["trainr"]) == 2
    assert "no section is called 'trainr'; there are:" in capsys.readouterr().err


def test_turns():
    calls = []
    times = common.best_of(2, lambda: calls.append("a"), lambda: calls.append("b"))
    assert calls == ["a", "b"] * 3 and len(times) == 2


def test_peak_memory_of_a_fresh_process_counts_the_job_alone():
    from relume.tools.benchmarks import underwater

    assert 10 < common.peak_mib(underwater.prepare, "spectroformer", "ours", "64") < 200
    with pytest.raises(RuntimeError, match="process of its own failed"):
        common.peak_mib(underwater.prepare, "spectroformer", "nobody", "8")


def test_pairs_take_turns_forwards_and_backwards():
    calls = []
    times = common.paired(2, lambda: calls.append("a"), lambda: calls.append("b"))
    assert calls == ["a", "b", "a", "b", "b", "a"] and len(times) == 2


def test_products_are_called_again_alone():
    x, w = (
        torch.rand(2, 3, 6, 6).contiguous(memory_format=torch.channels_last),
        torch.rand(4, 3, 3, 3, requires_grad=True),
    )
    again = common.products_of(lambda: (F.conv2d(x, w).relu().flatten(1) @ torch.rand(64, 5)).sum().backward())
    with common.Products() as counted:
        again()
    names = [func.overloadpacket.__name__ for func, _, _ in counted.calls]
    assert names == ["convolution", "mm", "mm", "convolution_backward"]
    assert counted.calls[0][1][0].stride() == x.stride()


def test_rows():
    assert common.time_row("x", 0.5, 1.25, "plain") == ("x", "500 ms", "1.25 s plain", "2.50 x", 2.5)
    assert common.memory_row("x", 30.2, 60.4, "plain") == ("x", "30 MiB", "60 MiB plain", "50 %", 2.0)


def test_a_row_that_has_become_worse_fails_after_a_second_look(run_tool, capsys, tmp_path, monkeypatch):
    times = iter([1.0, 1.0, 1.05, 1.2, 1.2, 1.2, 1.05])
    monkeypatch.setitem(common.SECTIONS, "made", lambda: [common.time_row("row", next(times), 2.0, "peer")])
    file = str(tmp_path / "last.json")
    assert run_tool("benchmark", ["made", "--save", file]) == 0
    assert run_tool("benchmark", ["made", "--compare", file]) == 0
    assert run_tool("benchmark", ["made", "--compare", file]) == 0  # 5 % are no loss
    assert "none of 1 rows is worse" in capsys.readouterr().out
    assert run_tool("benchmark", ["made", "--compare", file]) == 2
    assert (
        "1 of 1 rows are worse than in" in (said := capsys.readouterr()).err and "row: 2.00 x, now 1.67 x" in said.err
    )
    assert run_tool("benchmark", ["made", "--compare", file]) == 0  # the second look was better
    assert "once more" in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "[]", "{", '{"gains": {"x": "y"}}'])
def test_a_file_that_is_no_measurement(run_tool, capsys, tmp_path, text):
    file = tmp_path / "last.json"
    if text is not None:
        file.write_text(text)
    assert run_tool("benchmark", ["trainer", "--compare", str(file)]) == 2
    assert str(file) in (said := capsys.readouterr().err) and "--save" in said


def test_the_network_of_the_minimal_loop_is_ours_written_down_plainly():
    plain = Network()
    network = build_network(dict(NETWORK))
    network.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    found = []
    for one in (network, plain):
        y = one(x)
        y.square().mean().backward()
        found.append([y, *(p.grad for p in one.parameters())])
    torch.testing.assert_close(*found)


def test_draws_a_kept_measurement(run_tool, tmp_path, capsys):
    kept, picture = tmp_path / "last.json", tmp_path / "chart.png"
    kept.write_text('{"gains": {"a forward": 1.5, "b forward": 0.5, "a peak memory": 2.0}}')
    assert run_tool("benchmark", ["--draw", str(kept), str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    kept.write_text('{"gains": {"a peak memory": 2.0}}')
    assert run_tool("benchmark", ["--draw", str(kept), str(picture)]) == 2
    assert "nothing to draw" in capsys.readouterr().err


def test_the_largest_memory_of_another_process():
    assert common.resident_mib(os.getpid()) > 10
    assert common.resident_mib("99999999") == 0
