"""Which form is faster is measured once, by a clock that is no clock here, and kept in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor

from relume.core.ops import crossover, dispatch, self_test
from relume.core.ops.modes import FORCED

X = torch.zeros(2, 50, 48)
PLAIN, FUSED = 2.0, 1.0


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was timed, mode by mode: the plain form takes `PLAIN`, kernels take `FUSED` milliseconds."""
    modes: list[str] = []
    ran: list[str] = []

    def call(x: Tensor) -> Tensor:
        ran.append(FORCED["layer_norm"])
        return x * 2

    def clock(job: Callable[[], object], device: torch.device) -> float:
        job()
        modes.append(ran[-1])
        return PLAIN if ran[-1] == "off" else FUSED

    monkeypatch.setenv("RELUME_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(self_test, "CASES", {"layer_norm": (call, ((1,),))})
    monkeypatch.setattr(self_test, "SIZED", {"layer_norm": lambda side, width: ((side**2, width),)})
    monkeypatch.setattr(crossover, "milliseconds", clock)
    monkeypatch.setattr(crossover, "_device", lambda: "a GPU")
    monkeypatch.setattr(crossover, "KNOWN", {})
    return modes


def asked(shape: tuple[int, ...] = (2, 50, 48), x: Tensor = X) -> str | None:
    return crossover.slower("layer_norm", shape, x)


def another_process() -> str | None:
    crossover.KNOWN.clear()
    return asked()


def kept(tmp_path: Path) -> Path:
    return tmp_path / "home" / crossover.FILE


def test_it_is_measured_once_and_kept(measured: list[str], tmp_path: Path) -> None:
    assert asked() is None and asked((100, 48)) is None  # of one size class
    assert measured == ["off", "on"]
    assert json.loads(kept(tmp_path).read_text())["a GPU"]["ms"] == {"layer_norm, step, float32, 256 x 48": [2.0, 1.0]}
    assert another_process() is None and measured == ["off", "on"]


def test_other_sizes_dtypes_and_passes_are_measured_for_themselves(measured: list[str], tmp_path: Path) -> None:
    asked()
    asked((2, 50, 64))
    asked((300, 48))
    asked(x=X.bfloat16())
    with torch.no_grad():
        asked()
    assert len(measured) == 10 and len(json.loads(kept(tmp_path).read_text())["a GPU"]["ms"]) == 5


def test_slower_kernels_are_not_used_and_the_reason_has_both_times(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([1.25, 5.0])
    monkeypatch.setattr(crossover, "milliseconds", lambda job, device: next(times))
    assert asked() == another_process() == "slower here: 5 ms, plain 1.25 ms for 256 x 48"


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"a GPU": 3}',
        '{"a GPU": {"of": "torch 1.0", "ms": {"layer_norm, step, float32, 256 x 48": [1, 9]}}}',
    ],
)
def test_a_damaged_or_old_file_is_measured_again(damage: str, measured: list[str], tmp_path: Path) -> None:
    kept(tmp_path).parent.mkdir()
    kept(tmp_path).write_text(damage)
    assert asked() is None and len(measured) == 2
    assert another_process() is None and len(measured) == 2


@pytest.mark.parametrize("pair", ["[1]", '"ab"', '[1, "x"]', "[0, 9]", "[NaN, 9]", "[true, 9]"])
def test_figures_that_are_none_are_measured_again(pair: str, measured: list[str], tmp_path: Path) -> None:
    asked()
    text = kept(tmp_path).read_text()
    content = json.loads(text)
    content["a GPU"]["ms"] = {"layer_norm, step, float32, 256 x 48": json.loads(pair)}
    kept(tmp_path).write_text(json.dumps({**content, "another": {"of": "x", "ms": {}}}))
    assert another_process() is None and len(measured) == 4
    assert "another" in json.loads(kept(tmp_path).read_text())  # other devices' figures stay


def test_other_sources_count_as_other_kernels(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked()
    monkeypatch.setattr(crossover, "source", lambda: "changed")
    another_process()
    assert len(measured) == 4


def test_a_folder_that_cannot_be_written_costs_only_the_memory(
    measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RELUME_HOME", str(tmp_path / "file"))
    assert asked() is None and asked() is None and len(measured) == 2


def test_wrong_results_at_that_size_are_no_choice(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def call(x: Tensor) -> Tensor:
        return x * (3 if FORCED["layer_norm"] == "on" else 2)

    monkeypatch.setattr(self_test, "CASES", {"layer_norm": (call, ((1,),))})
    assert asked() == "its trial on 256 x 48 found a value that is wrong by 50.0%"
    assert asked((9, 9, 48)) and measured == []


def test_kernels_that_do_not_start_at_that_size(
    measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def call(x: Tensor) -> Tensor:
        raise RuntimeError("out of resource: shared memory\nmore")

    monkeypatch.setattr(self_test, "CASES", {"layer_norm": (call, ((1,),))})
    assert asked() == "its trial on 256 x 48 failed, RuntimeError: out of resource: shared memory"
    assert not kept(tmp_path).exists()


def test_no_memory_for_the_trial_is_no_verdict(
    measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def call(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(self_test, "CASES", {"layer_norm": (call, ((1,),))})
    assert asked() is None and not kept(tmp_path).exists()


def test_nothing_is_measured_where_bits_must_not_depend_on_a_clock(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossover, "_several_machines", lambda: True)
    assert asked() is None
    monkeypatch.setattr(crossover, "_several_machines", lambda: False)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert asked() is None and measured == []


def test_the_trial_draws_from_no_generator_of_the_run(measured: list[str]) -> None:
    before = torch.get_rng_state()
    asked()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_around_it_does_not_count_the_trials_tensors(measured: list[str]) -> None:
    def block(x: Tensor) -> Tensor:
        asked()
        return x.sin()

    x = torch.ones(3, requires_grad=True)
    torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False).sum().backward()
    assert torch.allclose(x.grad, x.cos()) and measured == ["off", "on"]


@pytest.mark.parametrize("mode", ["on", "off", "auto"])
def test_the_dispatch_asks_under_auto_alone(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, ...]] = []
    monkeypatch.setenv("RELUME_KERNELS", mode)
    monkeypatch.setattr(dispatch, "_fault", lambda *_: None)
    monkeypatch.setattr(crossover, "slower", lambda op, shape, x: said.append(shape) or "slower")
    monkeypatch.setattr(Tensor, "is_cuda", True)
    assert dispatch.use_kernel("ssd", lambda: None, X, (7, 7)) is (mode == "on")
    assert said == ([(7, 7)] if mode == "auto" else [])


def test_size_classes() -> None:
    assert crossover.size_class((3, 48)) == (8, 48)
    assert crossover.size_class((6, 256, 256, 16)) == (1024, 16)
    assert crossover.size_class((1, 2, 600)) == (8, 1024)
    for shape in ((64, 512, 512, 96), (1, 10**7, 500)):
        side, width = crossover.size_class(shape)
        assert math.log2(side) % 1 == 0 and side**2 * width <= crossover.LARGEST < 4 * side**2 * width
