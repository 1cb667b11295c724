"""A plugin with one component of each kind, and option files that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relume.core.options import OptionError, load
from relume.core.registry import plugged

PLUGIN = '''
"""Components that exist only to be selected by option files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from torch import nn

from relume.archs import ARCHS
from relume.core.annotations import Range
from relume.core.metrics import metric
from relume.core.models import MODELS
from relume.core.models.base import Model
from relume.datasets import DATASETS
from relume.losses import LOSSES


@dataclass
class Backend:
    type: Literal["disk", "lmdb"] = "disk"


@ARCHS.register(aliases=("OldOptionsNet",))
class OptionsNet(nn.Module):
    """A network with an option of every type.

    Args:
        dim: channels of the first level,
            doubled at each further one.
    """

    def __init__(
        self,
        dim: int,
        depths: list[int] | None = None,
        upsampler: Literal["pixelshuffle", "nearest+conv", ""] = "pixelshuffle",
        ratio: float = 2.0,
        bias: bool = False,
        norm: str | None = None,
        size: tuple[int, int] = (8, 8),
        folder: Path | None = None,
        dropout: Annotated[float, Range(least=0, below=1)] = 0.0,
        inner: Annotated[nn.Module, ARCHS] | None = None,
        either: int | str = 1,
    ) -> None:
        super().__init__()


@LOSSES.register()
class OptionsLoss(nn.Module):
    def __init__(
        self, loss_weight: float = 1.0, terms: dict[str, Annotated[nn.Module, LOSSES]] | None = None
    ) -> None:
        super().__init__()


@DATASETS.register()
class OptionsData:
    def __init__(
        self, dataroot: str, scale: int, phase: Literal["train", "val", "test"], io_backend: Backend | None = None
    ) -> None:
        pass


@metric("higher")
def options_score(img: object, img2: object, crop_border: int = 0) -> float:
    return 0.0


@MODELS.register()
class OptionsTaught(Model):
    """A student whose teacher is needed in training only, and who has an optimizer for a part of its network."""

    frozen = ("teacher",)
    optimizers = ("head",)

    def named_parameters(self, optimizer: str) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.networks["g"].named_parameters()


@MODELS.register()
class OptionsDistilled(Model):
    """A student and its frozen teacher."""

    optional_networks = ("critic",)
    required_networks = ("g", "teacher")
    frozen = ("teacher",)
    needs_losses = False

    def __init__(self, networks: dict, losses: dict, *, temperature: float = 1.0) -> None:
        super().__init__(networks, losses)
'''

GOOD = """\
name: good
model_type: RestorationModel
scale: 2
plugins: [{plugin}]
datasets:
  train: {{type: OptionsData, dataroot: here, io_backend: {{type: disk}}, batch_size_per_gpu: 4}}
  val: {{type: OptionsData, dataroot: there}}
network_g:
  type: OptionsNet
  dim: 16
train:
  total_iter: 100
  optim_g: {{type: Adam, lr: 2e-4}}
  pixel_opt: {{type: OptionsLoss}}
"""


@pytest.fixture(autouse=True)
def no_plugin_stays_active() -> Iterator[None]:
    """After a test, the plug-ins of its options are no longer in force: names mean Relume's own again."""
    before = [plugin.key for plugin in plugged.active()]
    yield
    plugged.activate(before)


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin file; one for all tests, since what it registers stays registered."""
    path = tmp_path_factory.mktemp("plugins") / "option_components.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture()
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``write(text, "x.yml")``: write a file into the current folder, and give its name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "x.yml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    return write


@pytest.fixture()
def good(plugin: Path) -> str:
    """The text of a small option file without mistakes."""
    return GOOD.format(plugin=plugin)


@pytest.fixture()
def mistakes(write: Callable[..., str], good: str) -> Callable[..., list[str]]:
    """``mistakes(old, new)``: the lines of the message about the good file after one replacement."""

    def mistakes(old: str = "", new: str = "", *force_yml: str, more: str = "") -> list[str]:
        assert old in good
        with pytest.raises(OptionError) as caught:
            load(write(good.replace(old, new, 1) + more), force_yml)
        return str(caught.value).splitlines()

    return mistakes


@pytest.fixture()
def loaded(write: Callable[..., str], good: str) -> Callable[..., Any]:
    """``loaded(old, new)``: the options of the good file after one replacement."""

    def loaded(old: str = "", new: str = "", *force_yml: str, more: str = "") -> Any:
        assert old in good
        return load(write(good.replace(old, new, 1) + more), force_yml)

    return loaded
