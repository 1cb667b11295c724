"""What the headers of recipes say of the originals and of us is what `relume describe --set-only` shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import relume
from relume.core import options
from relume.core.building.weights import find_weights
from relume.core.errors import expanded
from relume.core.options.reading.loader import YAMLLoader, spelled

FOLDER = Path(relume.__file__).resolve().parent / "options"
BLOCK = re.compile(r"^# (faithful|ours): (.*(?:\n#   .*)*)", re.MULTILINE)
FILES = [p for p in sorted(FOLDER.rglob("*.yml")) if BLOCK.search(p.read_text())]
EXPECTED = [
    *(f"underwater/{n}.yml" for n in ("spectroformer", "agssf1", "phaseformer", "lsui/spectroformer")),
    *(f"vfi/phase{i}.yml" for i in (1, 2, 3)),
    *(f"generation/{n}.yml" for n in ("cifar10", "cifar10_legacy", "cifar10_edm", "test/cifar10")),
]
"""Recipes of which the originals' guides say what to expect."""
OURS_ALONE = {"vfi/ablation", "vfi/phase2_flow_first.yml"}
"""Of which the originals have no such thing, or only some."""
NEEDED = [
    p.relative_to(FOLDER).as_posix()
    for system in ("underwater", "hdr", "vfi", "generation")
    for p in sorted((FOLDER / system).rglob("*.yml"))
    if not {"test", "laptop", "small"} & set(p.parts)
    and p.name != "faces.yml"
    and (p.parent.name != "ablation" or system == "vfi")
]
"""Trainings of the originals, all of them."""


TESTS = {
    **{f"underwater/test/{n}": f"underwater/{n}" for n in ("spectroformer", "agssf1", "phaseformer")},
    **{f"underwater/test/{n}": f"underwater/{n}" for n in ("phaseformer_learned", "phaseformer_learned_b8")},
    **{f"underwater/test/paper/{p.stem}": f"underwater/paper/{p.stem}" for p in FOLDER.glob("underwater/paper/*.yml")},
    "underwater/test/spectroformer_lsui": "underwater/lsui/spectroformer",
    "underwater/test/spectroformer_lsui_ddp": "underwater/lsui/spectroformer_ddp",
    **{f"hdr/test/{n}": f"hdr/{n}" for n in ("s1", "s1_recover", "s2", "deblur_s1", "deblur_s2")},
    "hdr/test/deblur_s2_hide": "hdr/deblur_s2",
    **{f"vfi/test/{n}": "vfi/phase2" for n in ("vimeo90k", "snu_film", "xtest_2k", "xtest_4k", "xiph", "ucf101")},
    **{f"vfi/test/phase3_{n}": "vfi/phase3" for n in ("vimeo90k", "snu_film", "xtest_2k", "xtest_4k")},
    "vfi/test/phase1_vimeo90k": "vfi/phase1",
    **{f"generation/test/{n}": f"generation/{n}" for n in ("cifar10", "cifar10_ddp", "cifar10_legacy", "cifar10_edm")},
    "generation/test/faces": "generation/faces",
}
"""Test files, and the trainings whose weights they test."""


def read(text: str) -> Any:
    """A value as YAML."""
    return yaml.load(text, Loader=YAMLLoader)


def claims(path: Path) -> list[tuple[str, str]]:
    """Dotted keys and values that a header names."""
    text = ", ".join(re.sub(r"\n#\s+", " ", body) for _, body in BLOCK.findall(path.read_text()))
    parts = [p.strip() for p in re.split(r",\s+(?=[a-z]\w*(?:\.\w+)*\s)(?![^\[]*\])", text) if p.strip()]
    return [(key, value) for key, _, value in (p.partition(" ") for p in parts)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(FOLDER)))
def test_headers_say_what_is_set(path: Path) -> None:
    rows = options.resolve(path).rows()
    shown = {key: read(spelled(value)) for key, value, origin in rows if origin != "default"}
    found = claims(path)
    assert found
    for key, value in found:
        said = read(value.rstrip(","))
        assert said in (shown.get(key), str(shown.get(key))), (key, said, shown.get(key))


def test_the_recipes_of_the_originals_have_such_a_header() -> None:
    assert len(NEEDED) > 25
    for name in NEEDED:
        kinds = {kind for kind, _ in BLOCK.findall((FOLDER / name).read_text())}
        assert "ours" in kinds and ("faithful" in kinds or name.startswith(tuple(OURS_ALONE))), name


def test_what_the_originals_guides_expect_is_said_to_be_not_measured() -> None:
    for name in EXPECTED:
        text = (FOLDER / name).read_text()
        assert re.search(
            r"^# Expected by the original's (guide|report|plan|comparison), not measured here: .*\d", text, re.MULTILINE
        ), name


@pytest.mark.parametrize("name", TESTS)
def test_a_test_file_takes_what_its_training_has_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    training, opt = (options.load(FOLDER / f"{n}.yml") for n in (TESTS[name], name))
    blocks = [{k: v for k, v in o.network_g.items() if v not in (None, False)} for o in (opt, training)]
    assert blocks[0] == blocks[1] and opt.sets("val", "test")
    models = Path("experiments", training.name, "models")
    models.mkdir(parents=True)
    for which in ("latest", "best"):
        (models / f"net_g_{which}.pth").touch()
        found = find_weights(opt).path.pretrain_network_g
        assert expanded(found).resolve().parent == models.resolve()
        assert which in found or opt.path.get("pretrain_network_g"), "the best, or the latest where nothing was scored"
