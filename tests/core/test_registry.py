"""Registries: what may register, how it is found, how it is built."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch

from relume.archs import ARCHS
from relume.core.errors import UserError
from relume.core.features import FEATURES
from relume.core.imaging.transfer import TRANSFERS
from relume.core.metrics import METRICS
from relume.core.models import MODELS
from relume.core.registry import Registry, build_nested, names_of, signature
from relume.core.runtime.optimizers import OPTIMIZERS
from relume.datasets import DATASETS
from relume.losses import LOSSES
from relume.schedulers import SCHEDULERS

EVERY = [ARCHS, MODELS, LOSSES, DATASETS, SCHEDULERS, METRICS, OPTIMIZERS, FEATURES, TRANSFERS]


class Recorder:
    """Remembers how it was called."""

    def __init__(self, **given: Any) -> None:
        self.given = given


THINGS = Registry("thing", "relume.core.ops", runtime=("engine",))


@THINGS.register(aliases=("OldSimple",))
class Simple(Recorder):
    def __init__(self, size: int, colour: str = "red") -> None:
        super().__init__(size=size, colour=colour)


@THINGS.register(name="Nested")
class _Nested(Recorder):
    def __init__(
        self,
        engine,
        one: Annotated[Any, THINGS] | None = None,
        many: list[Annotated[Any, THINGS]] | None = None,
        named: dict[str, Annotated[Any, THINGS]] | None = None,
        pair: tuple[int, Annotated[Any, THINGS]] | None = None,
        plain: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(engine=engine, one=one, many=many, named=named, pair=pair, plain=plain)


@pytest.fixture()
def things() -> Registry:
    """A registry with two things in it."""
    return THINGS


# ------------------------------------------------------------------ registering
def test_unclear_signatures_are_refused(things: Registry) -> None:
    def stars(*sizes: int) -> None: ...
    def keywords(**options: int) -> None: ...
    def reserved(type: int) -> None: ...
    def bare(size) -> None: ...

    for member, message in {
        stars: r"thing 'stars' \(.*\): \*sizes hides the options it accepts",
        keywords: r"thing 'keywords' \(.*\): \*options hides",
        reserved: r"thing 'reserved' \(.*\): no parameter may be called 'type'",
        bare: r"thing 'bare' \(.*\): parameter 'size' has no type annotation",
    }.items():
        with pytest.raises(TypeError, match=message):
            things.register()(member)
        assert member.__name__ not in things


def test_a_name_is_given_once(things: Registry) -> None:
    class Other:
        pass

    assert things.register(aliases=("OldSimple",))(Simple) is Simple  # a module that is imported again
    with pytest.raises(TypeError, match=r"thing 'Simple' is registered twice: in .*test_registry and .*test_registry"):
        things.register(name="Simple")(Other)
    with pytest.raises(TypeError, match="thing 'OldSimple' is registered twice"):
        things.register(name="Other", aliases=("OldSimple",))(Other)
    assert "Other" not in things


# ------------------------------------------------------------------ looking up
def test_names_and_aliases(things: Registry) -> None:
    assert list(things) == things.names() == ["Nested", "Simple"]
    assert things.aliases("Simple") == ["OldSimple"] and things.aliases("Nested") == []
    assert "OldSimple" in things and "simple" not in things and 3 not in things
    assert things.get("OldSimple") is things.get("Simple")


def test_a_miss_suggests_and_lists(things: Registry) -> None:
    with pytest.raises(UserError) as caught:
        things.get("Simpel")
    assert str(caught.value) == "no thing is called 'Simpel'. Did you mean 'Simple'? Known: Nested, Simple, OldSimple."
    assert Registry("thing", "relume.core.ops").unknown("x") == "no thing is called 'x'. Known: none."


def test_parameters_leave_out_what_code_supplies(things: Registry) -> None:
    assert list(things.parameters("Nested")) == ["one", "many", "named", "pair", "plain"]
    size, colour = things.parameters("OldSimple").values()
    assert size.required and not colour.required
    assert (size.annotation, colour.annotation, colour.default) == (int, str, "red")


def test_libraries() -> None:
    assert "AdamW" in OPTIMIZERS and "Optimizer" not in OPTIMIZERS and "lr_scheduler" not in OPTIMIZERS
    assert OPTIMIZERS.get("AdamW") is torch.optim.AdamW
    assert {"Adam", "SGD"} <= set(OPTIMIZERS.library_names())
    assert "params" not in OPTIMIZERS.parameters("Adam")
    assert OPTIMIZERS.unknown("AdmaW").startswith("no optimizer is called 'AdmaW'. Did you mean 'AdamW'?")
    assert "StepLR" in SCHEDULERS.library_names() and "MultiStepLR" not in SCHEDULERS.library_names()
    assert not any(n.startswith("_") for n in SCHEDULERS.library_names())


def test_annotations_of_a_library_may_exist_for_type_checkers_only() -> None:
    scope: dict[str, Any] = {}
    exec("from __future__ import annotations\ndef f(a: int, b: Nowhere, c: Iterable[int] = ()): pass", scope)
    found = {k: p.annotation for k, p in signature(scope["f"], lenient=True).items()}
    assert found["a"] is int and found["b"] is Any and found["c"].__args__ == (int,)
    assert SCHEDULERS.parameters("StepLR")["step_size"].annotation is int


def test_annotations_of_a_component_may_not() -> None:
    registry = Registry("thing", "relume.core.ops")

    @registry.register()
    class Vague:
        def __init__(self, size: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
            pass

    with pytest.raises(
        UserError, match=r"Vague: an annotation of its parameters cannot be resolved \(name 'Nowhere' is not"
    ):
        registry.parameters("Vague")


@pytest.fixture()
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package called gallery, whose modules register things."""
    folder = tmp_path / "gallery"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from relume.core.registry import Registry\nTHINGS = Registry('thing', 'gallery')\n"
    )
    (folder / "good.py").write_text("from . import THINGS\n@THINGS.register()\nclass Good: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == "gallery"]:
        del sys.modules[name]


def things_of_gallery() -> Registry:
    """Its registry; the package exists only while a test runs."""
    registry: Registry = importlib.import_module("gallery").THINGS
    return registry


def test_modules_are_imported_on_the_first_look(package: Path) -> None:
    (package / "deep").mkdir()
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "more.py").write_text("from .. import THINGS\n@THINGS.register()\nclass Deep: pass\n")
    registry = things_of_gallery()
    assert "gallery.good" not in sys.modules
    assert registry.names() == ["Deep", "Good"]


MEMBERS = """
import functools
from . import THINGS
def aliased(*others):
    return THINGS.register(aliases=others)
@THINGS.register(
    name="named",
    aliases=(
        "other name",
    ),
)
class Named: pass
@functools.lru_cache
@THINGS.register(aliases=('Old',))
# a comment
def function(size: int = 1): pass
@aliased("short", 'shorter')

class Aliased: pass
"""


@pytest.mark.parametrize("name", ["named", "other name", "Old", "function", "short", "shorter", "Aliased"])
def test_a_look_up_imports_the_one_module_it_needs(package: Path, name: str) -> None:
    (package / "members.py").write_text(MEMBERS)
    (package / "more").mkdir()
    (package / "more" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    registry = things_of_gallery()
    assert name in registry and registry.get(name).__module__ == "gallery.members"
    assert list(registry.parameters("Old")) == ["size"]
    assert "gallery.good" not in sys.modules


def test_a_name_of_a_library_imports_nothing_of_the_family(package: Path) -> None:
    things_of_gallery()
    registry = Registry("thing", "gallery", library={"Theirs": dict}.get, library_names=lambda: ["Theirs"])
    assert registry.get("Theirs") is dict
    assert "gallery.good" not in sys.modules


def test_a_registration_that_the_text_does_not_show_is_found_too(package: Path) -> None:
    (package / "loop.py").write_text(
        "from . import THINGS\nfor n in (1, 2):\n    THINGS.register(name=f'made_{n}')(type('Made', (), {}))\n"
    )
    assert things_of_gallery().get("made_2").__name__ == "Made"


def test_modules_may_look_names_up_while_they_are_imported(package: Path) -> None:
    (package / "above.py").write_text("from . import THINGS\nBELOW = THINGS.get('Below')\nALL = THINGS.names()\n")
    (package / "below.py").write_text(
        "from . import THINGS\n@THINGS.register()\nclass Below: pass\nassert 'Above' not in THINGS\n"
    )
    assert things_of_gallery().names() == ["Below", "Good"]
    above = sys.modules["gallery.above"]
    assert above.BELOW.__name__ == "Below" and "Below" in above.ALL  # type: ignore[attr-defined]


def test_threads_that_look_at_once_all_find(package: Path) -> None:
    for i in range(8):
        (package / f"slow{i}.py").write_text(
            f"import time\nfrom . import THINGS\ntime.sleep(0.02)\n@THINGS.register()\nclass Slow{i}: pass\n"
        )
    registry = things_of_gallery()
    looks: list[Callable[[], object]] = [registry.names, lambda: registry.get("Slow7"), registry.names]
    with ThreadPoolExecutor(len(looks)) as threads:
        one, slow, two = [look.result() for look in [threads.submit(look) for look in looks]]
    assert one == two == ["Good", *(f"Slow{i}" for i in range(8))]
    assert slow.__name__ == "Slow7"  # type: ignore[attr-defined]


def test_a_missing_dependency_is_quoted_only_for_what_needs_it(package: Path) -> None:
    (package / "needy.py").write_text(
        "import no_such_dependency\nfrom . import THINGS\n@THINGS.register()\nclass Needy: pass\n"
    )
    registry = things_of_gallery()
    with pytest.raises(UserError, match=r"gallery\.needy defines it, but cannot be imported: No module named"):
        registry.get("Needy")
    assert registry.names() == ["Good"]
    assert registry.unimportable() == {"gallery.needy": "No module named 'no_such_dependency'"}
    assert registry.unknown("Godo") == "no thing is called 'Godo'. Did you mean 'Good'? Known: Good."
    assert registry.unknown("Needy") == (
        "no thing is called 'Needy'. Known: Good. "
        "(gallery.needy defines it, but cannot be imported: No module named 'no_such_dependency'.)"
    )


def test_a_broken_dependency_is_like_a_missing_one(package: Path) -> None:
    (package / "needy.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    registry = things_of_gallery()
    assert registry.names() == ["Good"]
    assert registry.unimportable() == {"gallery.needy": "libGL.so.1: cannot open shared object file"}


@pytest.mark.parametrize(
    "code", ["import gallery.nothing\n", "from gallery.good import Nothing\n", "raise RuntimeError('bug')\n"]
)
def test_our_own_mistakes_are_not_hidden(package: Path, code: str) -> None:
    (package / "broken.py").write_text(code)
    for _ in range(2):  # nor forgotten
        with pytest.raises((ImportError, RuntimeError)):
            things_of_gallery().names()


def test_a_stranger_learns_at_once_that_a_name_is_taken(package: Path) -> None:
    registry = things_of_gallery()

    class Good:
        pass

    with pytest.raises(TypeError, match=r"thing 'Good' is registered twice: in gallery\.good and "):
        registry.register()(Good)


# ------------------------------------------------------------------ building
def test_build(things: Registry) -> None:
    block = {"type": "OldSimple", "size": 3}
    assert things.build(block).given == {"size": 3, "colour": "red"}
    assert block == {"type": "OldSimple", "size": 3}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"size": 3}, "a block that selects a thing needs a 'type'; got {'size': 3}"),
        ("Simple", "a block that selects a thing needs a 'type'; got 'Simple'"),
        ({"type": ["Simple"]}, "a block that selects a thing needs a 'type'; got {'type': ['Simple']}"),
        ({"type": "Simple"}, "thing Simple lacks 'size'."),
        (
            {"type": "Simple", "size": 3, "color": "x"},
            "unknown key 'color' in Simple. Did you mean 'colour'? Accepted: size, colour.",
        ),
        ({"type": "Nested", "engine": 3}, "unknown key 'engine' in Nested. Accepted: one, many, named, pair, plain."),
    ],
)
def test_blocks_that_cannot_be_built(things: Registry, block: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        things.build(block)
    assert str(caught.value) == message


def test_nested_blocks_are_built_first(things: Registry) -> None:
    simple = {"type": "Simple", "size": 1}
    block = {"type": "Nested", "one": simple, "many": [simple, simple], "named": {"a": simple}, "pair": (7, simple)}
    block["plain"] = {"type": "Simple", "size": [1]}
    given = things.build(block, engine="e").given
    assert given["engine"] == "e"
    for built in (given["one"], *given["many"], given["named"]["a"], given["pair"][1]):
        assert isinstance(built, things.get("Simple")) and built.given["size"] == 1
    assert given["pair"][0] == 7
    assert given["plain"] == {"type": "Simple", "size": [1]}


def test_constructors_get_copies(things: Registry) -> None:
    block = {"type": "Nested", "plain": {"list": [1, {"a": 2}]}}
    given = things.build(block, engine=None).given["plain"]
    given["list"][1]["a"] = 3
    assert block["plain"] == {"list": [1, {"a": 2}]}


def test_what_is_built_already_stays(things: Registry) -> None:
    ready = things.build({"type": "Simple", "size": 1})
    assert build_nested(Annotated[Any, things], ready) is ready
    assert things.build({"type": "Nested", "many": [ready]}, engine=None).given["many"] == [ready]


# ------------------------------------------------------------------ everything that is registered
@pytest.mark.parametrize("registry", EVERY, ids=lambda r: r.noun)
def test_options_of_every_component_can_be_told(registry: Registry) -> None:
    for name in registry:
        registry.parameters(name)


def test_a_class_without_constructor_of_its_own_has_the_options_of_its_base_in_torch() -> None:
    bare = Registry("thing", "relume.core.ops")

    @bare.register()
    class Plain(torch.nn.Module):
        pass

    @bare.register()
    class Mean(torch.nn.L1Loss):
        pass

    assert bare.parameters("Plain") == {} and isinstance(bare.build({"type": "Plain"}), Plain)
    assert bare.build({"type": "Mean", "reduction": "sum"}).reduction == "sum"
    with pytest.raises(UserError, match="unknown key 'width' in Plain"):
        bare.build({"type": "Plain", "width": 3})


COMPUTED = re.compile(r"(calculate_)?pu21_\w+_fork")
"""Names that a loop makes: no text shows them, and looking one up imports the family."""


@pytest.mark.parametrize("registry", EVERY, ids=lambda r: r.noun)
def test_the_text_shows_where_every_component_is(registry: Registry) -> None:
    found = names_of(registry.package)
    if not found:
        assert not hasattr(importlib.import_module(registry.package), "__path__")  # one module, which defines them all
        return
    own = [
        name for name in registry if registry.get(name).__module__.startswith(f"{registry.package}.")
    ]  # no plug-in's
    known = [(k, name) for name in own for k in (name, *registry.aliases(name))]
    hidden = [k for k, name in known if registry.get(name).__module__ not in found.get(k, ())]
    assert [k for k in hidden if not COMPUTED.fullmatch(k)] == []
