"""The benchmark's machinery: sections are found, strangers refused, memory of a fresh process measured. Never a clock."""

import pytest

from relume.tools.benchmarks import common


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


def test_rows():
    assert common.time_row("x", 0.5, 1.25, "plain") == ("x", "500 ms", "1.25 s plain", "2.50 x")
    assert common.memory_row("x", 30.2, 60.4, "plain") == ("x", "30 MiB", "60 MiB plain", "50 %")
