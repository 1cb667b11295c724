"""Every architecture as ONNX, our own and spandrel's: the file gives what torch gives, or a line says why there is none.

The slow test writes a row for each into the table of docs/onnx.md, where the others stay: it can be run in portions (``-k``).
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import test_every_arch as own
import test_zoo as zoo
import torch
from runs import REPO

from relume.archs import ARCHS, build_network
from relume.archs.blocks import pad_symmetric
from relume.archs.zoo.traceable import INSTEAD, METHODS, traceable
from relume.core import options
from relume.core.errors import UserError
from relume.core.use.export import Report, to_onnx, to_program
from relume.core.use.functions import FRAMES, NOISE, Function, Generator, Subject, called
from relume.core.use.tracing import traced

PAGE = REPO / "docs/onnx.md"
HEAD = "| architecture | from | exported | difference | opset | any size of |\n|---|---|---|---|---|---|\n"
ROW = re.compile(
    r"^\| (\w+) \| (?:Relume|spandrel) \| (?:yes \| [\d.e-]+ \| \d+ \| [\w, ]+|no: [^|\n]+ \| \| \|) \|$", re.M
)
ANY_SIZE = ("NAFNet", "Restormer", "SwinIR")
"""Of which a file takes any batch, height and width."""
PLAIN = {"mean": None, "std": None}
SLOW = pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="slow; set RELUME_SLOW_TESTS=1")
OPTIONS = {"NAFNetLocal": {"fast_imp": False}}  # whose fast form is of one size
OTHERS = {"HybridVFI": FRAMES, "OneStepGenerator": NOISE}


def of_one_image(name: str) -> bool:
    return len((own.tiny(name).inputs or own.tiny(name).training_inputs)(32, 32)) == 1 and own.tiny(name).any_size


OURS = [n for n in own.NAMES if n in OTHERS or of_one_image(n)]
SPANDRELS = [n for n in zoo.TINY if n in ARCHS and n != "LaMa"]  # which takes a mask beside the picture


def subject(name: str) -> Subject:
    """A tiny network with all that belongs to it."""
    if name not in OURS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = zoo.built(name).eval()
        return Subject(network, PLAIN, zoo.images(name, 1)[0].shape[1], called(Function(network, PLAIN)))
    network = own.build(name, **OPTIONS.get(name, {})).eval()
    given = OTHERS.get(name, "")
    if given == NOISE:
        return Subject(network, PLAIN, 3, called(Generator(network, 1)), NOISE, 1, (16, 16))
    channels = 6 if given == FRAMES else own.one_image(32, 32)[0].shape[1]
    if name == "NAFSSR":
        channels = 6
    drawn = {"noise": torch.randn(1, 256)} if name == "DiffIRS2" else {}
    return Subject(network, PLAIN, channels, called(Function(network, PLAIN, drawn=drawn)), given, drawn=drawn)


def row(name: str, said: str) -> None:
    """Put one into the page, in the place of the one that was there."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(HEAD)
    rows = {r.split(" | ")[0].removeprefix("| "): r for r in rest.splitlines() if r.startswith("|")}
    tail = "\n".join(r for r in rest.splitlines() if not r.startswith("|"))
    rows[name] = f"| {name} | {'Relume' if name in OURS else 'spandrel'} | {said} |"
    order = [n for n in (*OURS, *SPANDRELS) if n in rows]
    PAGE.write_text(
        head + HEAD + "".join(f"{rows[n]}\n" for n in order) + tail + ("\n" if tail else ""), encoding="utf-8"
    )


def exported(name: str, target: Path) -> Report:
    """In the freest form; of networks that take one size only, in a size that they take."""
    try:
        return to_onnx(subject(name), target, half=False, tolerance=1e-3)
    except UserError:
        if name in OURS:
            raise
        side = zoo.TINY[name][1]
        return to_onnx(subject(name), target, half=False, tolerance=1e-3, size=(side, side))


@SLOW
@pytest.mark.parametrize("name", [*OURS, *SPANDRELS])
def test_a_file_gives_what_torch_gives(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    target = tmp_path / "x.onnx"
    try:
        report = exported(name, target)
    except UserError as e:
        assert name not in ANY_SIZE and not target.exists() and len(str(e).splitlines()) == 1
        row(name, f"no: {str(e).replace('|', '/')[:200]} | | |")
        return
    assert target.exists() and report.difference < 1e-3
    assert name not in ANY_SIZE or report.dynamic == ("batch", "height", "width")
    row(name, f"yes | {report.difference:.1g} | {report.opset} | {', '.join(report.dynamic) or 'none'}")


WHOLE = {
    "Phaseformer": "underwater/phaseformer.yml",
    "Spectroformer": "underwater/spectroformer.yml",
    "OneStepGenerator": "generation/cifar10.yml",
}


@SLOW
@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks_are_exported_too(name: str, tmp_path: Path) -> None:
    """Those of the shipped files; docs/onnx.md has what is printed."""
    network = build_network(options.load(f"relume:{WHOLE[name]}").networks["g"]).eval()
    made = Subject(network, PLAIN, 3, called(Function(network, PLAIN)))
    if name in OTHERS:
        made = Subject(network, PLAIN, 3, called(Generator(network, 1)), NOISE, 1, (32, 32))
    report = to_onnx(made, tmp_path / "x.onnx", half=False, tolerance=1e-3)
    print(name, report, f"{(tmp_path / 'x.onnx').stat().st_size / 2**20:.1f} MiB")
    assert report.difference < 1e-3 and (name in OTHERS or report.dynamic == ("batch", "height", "width"))


@SLOW
@pytest.mark.parametrize("name", ["NAFNet", "Phaseformer", "Spectroformer", "OneStepGenerator", "HybridVFI"])
def test_a_program_of_torch_gives_what_the_network_gives(name: str, tmp_path: Path) -> None:
    """And has no operator of Relume's in it."""
    report = to_program(subject(name), tmp_path / "x.pt2", 1e-3, compiled=False)
    assert report.difference < 1e-3
    program = torch.export.load(str(tmp_path / "x.pt2"))
    assert not [n for n in program.graph.nodes if "relume" in str(n.target)]


@pytest.mark.parametrize("name", ["SwinIR", "DAT", "GRL"])
def test_functions_that_put_windows_together_are_replaced_while_traced(name: str) -> None:
    """Without a change of the result, or of what is there afterwards."""
    network = zoo.built(name).eval()
    modules = {sys.modules[type(part).__module__] for part in network.modules()}
    same_while_traced(network, zoo.images(name, 1)[0], [(m, n) for m in modules for n in INSTEAD if hasattr(m, n)])


@pytest.mark.parametrize("name", ["SeemoRe", "SPAN", "FBCNN"])
def test_methods_that_cannot_be_followed_are_replaced_while_traced(name: str) -> None:
    network, picture = zoo.built(name).eval(), zoo.images(name, 1)[0]
    kinds = {type(part).__name__: type(part) for part in network.modules()}
    picture = picture[..., :-3] if name == "FBCNN" else picture
    same_while_traced(network, picture, [(kinds[k], n) for k, n in METHODS if k in kinds])


def same_while_traced(network: torch.nn.Module, picture: torch.Tensor, places: list[tuple[Any, str]]) -> None:
    before = [getattr(*place) for place in places]
    with torch.no_grad():
        expected = network(picture)
        with traceable(network):
            inside = [getattr(*place) for place in places]
            torch.testing.assert_close(network(picture), expected)
        torch.testing.assert_close(network(picture), expected, rtol=0, atol=0)
    assert before and not any(a is b for a, b in zip(before, inside, strict=True))
    assert before == [getattr(*place) for place in places]


def test_a_generator_with_classes_inside_takes_any_batch() -> None:
    """One whose first layers have a place for a class, which none is named for."""
    network = build_network({"type": "OneStepGenerator", **own.tiny("OneStepGenerator").options, "label_dim": 3}).eval()
    program, free = traced(Generator(network, 1).eval(), torch.randn(2, 3, 16, 16), ("DYNAMIC", None))
    noise = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(noise), Generator(network, 1)(noise))
    assert free == ("batch",)


def test_mambairv2_extends_images_of_any_size_where_it_is_exported() -> None:
    """Also where the example needs none of it."""

    class Padded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return pad_symmetric(x, 4)

    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Padded(), (torch.rand(1, 2, 8, 12),), dynamic_shapes={"x": sides}).module()
    for height, width in ((7, 9), (8, 4), (5, 10)):
        x = torch.rand(1, 2, height, width)
        assert torch.equal(program(x), Padded()(x))


def test_the_page_has_a_row_for_each_architecture() -> None:
    lines = [r for r in PAGE.read_text(encoding="utf-8").split(HEAD)[1].splitlines() if r.startswith("|")]
    names = [found[1] for r in lines if (found := ROW.match(r))]
    assert len(names) == len(lines), "rows of a known form"
    assert sorted(names) == sorted([*OURS, *SPANDRELS])
