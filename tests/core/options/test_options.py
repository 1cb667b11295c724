"""What `load`, `check`, `dump`, `as_debug` and `resolve` return."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import addict
import numpy as np
import pytest
import yaml

from relume.core.errors import EXIT_USER_ERROR, UserError
from relume.core.options import OptionError, Options, as_debug, check, dump, load, resolve
from relume.core.options.schema import Train

Loaded = Callable[..., Any]
Write = Callable[..., str]


def test_sections_are_complete(loaded: Loaded) -> None:
    opt = loaded()
    assert isinstance(opt, Options) and isinstance(opt.network_g, addict.Dict)
    assert (opt.train.ema_decay, opt.train.amp, opt.val.tile, opt.logger.print_freq) == (0.0, "off", None, 100)
    assert (opt.path.resume_state, opt.path.ignore_resume_networks, opt.dist_params.port) == (None, [], None)
    assert (opt.num_gpu, opt.manual_seed, opt.val.metrics) == ("auto", 0, {})


def test_what_may_be_left_out(loaded: Loaded) -> None:
    opt = loaded("scale: 2\n", "")
    assert opt.scale == 1 and opt.logger.use_tb_logger is False and opt.datasets.train.dataroot == "here"


def test_component_blocks_hold_what_was_given(loaded: Loaded) -> None:
    opt = loaded()
    assert opt.network_g == {"type": "OptionsNet", "dim": 16}
    assert opt.train.optim_g == {"type": "Adam", "lr": 2e-4}
    assert opt.train.pixel_opt == {"type": "OptionsLoss"}


def test_a_misspelt_attribute_raises(loaded: Loaded) -> None:
    opt = loaded("dim: 16", "dim: 16\n  inner: {type: OptionsNet, dim: 3}")
    for block in (opt, opt.train, opt.datasets.train):
        with pytest.raises(AttributeError):
            _ = block.misspelt
        with pytest.raises(AttributeError):
            block.misspelt = 1
        with pytest.raises(KeyError):
            _ = block["misspelt"]
    for block in (opt.network_g, opt.network_g.inner):
        with pytest.raises(KeyError):
            _ = block.misspelt
        with pytest.raises(KeyError):
            block.misspelt = 1


def test_sections_read_as_mappings_too(loaded: Loaded) -> None:
    opt = loaded()
    assert opt["train"]["ema_decay"] == opt.train.ema_decay and opt["network_g"] is opt.network_g
    assert opt.get("nothing", 3) == 3 and "pixel_opt" in opt.train and "ema_decay" in opt.train
    assert opt.networks == {"g": opt.network_g} and list(opt.sets("val")) == ["val"]
    plain = opt.to_dict()
    assert type(plain) is type(plain["train"]) is type(plain["datasets"]["train"]) is dict and plain == opt
    assert next(iter(plain["datasets"]["train"])) == "type"
    assert len(opt.train) == len(list(opt.train)) == len(plain["train"])
    assert copy.deepcopy(opt) == pickle.loads(pickle.dumps(opt)) == opt


def test_a_section_of_unchecked_values_keeps_the_unknown_ones() -> None:
    train = Train.of({"total_iter": 3, "optim_g": {"type": "Adam"}})
    assert (train.total_iter, train.amp, train.extra) == (3, "off", {"optim_g": {"type": "Adam"}})
    assert Train.of(train) is train


def test_values_become_what_constructors_want(loaded: Loaded) -> None:
    opt = loaded("dim: 16", "dim: 16\n  size: [4, 5]\n  folder: a/b\n  ratio: 3\n  norm: 12\n  either: 7")
    g = opt.network_g
    assert (g.size, g.folder, g.ratio, g.norm, g.either) == ((4, 5), Path("a/b"), 3, "12", 7)


def test_a_message_is_a_user_error(write: Write) -> None:
    with pytest.raises(UserError) as caught:
        load("nowhere.yml")
    assert caught.value.code == EXIT_USER_ERROR
    assert str(caught.value) == "nowhere.yml: no such file."


# ------------------------------------------------------------------ dicts
def test_check_takes_plain_dicts_and_leaves_them_alone(write: Write, good: str) -> None:
    opt = yaml.safe_load(good)  # lr is the string '2e-4' here: YAML 1.1
    before = copy.deepcopy(opt)
    checked = check(opt)
    assert opt == before
    assert checked.train.optim_g.lr == 2e-4
    assert checked == load(write(good))


def test_numbers_of_numpy_are_numbers(good: str) -> None:
    opt = yaml.safe_load(good)
    opt["network_g"]["dim"] = np.int64(8)
    opt["train"]["optim_g"]["lr"] = np.float32(0.5)
    checked = check(opt)
    assert type(checked.network_g.dim) is int and checked.train.optim_g.lr == 0.5


def test_check_twice_is_check_once(loaded: Loaded) -> None:
    opt = loaded("dim: 16", "dim: 16\n  size: [4, 5]\n  folder: a/b")
    assert check(opt) is opt
    assert check(opt.to_dict()) == opt


def test_messages_about_dicts_start_with_the_key(good: str) -> None:
    opt = yaml.safe_load(good)
    opt["train"]["ema_decey"] = 0.9
    opt["network_g"]["dim"] = "wide"
    opt["train"]["pixel_opt"]["type"] = "L1Los"
    del opt["model_type"]
    opt["datasets"]["train"]["gt_sizes"] = [1]
    with pytest.raises(OptionError) as caught:
        check(opt)
    starts = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    assert sorted(starts) == [
        "datasets.train",
        "network_g.dim",
        "the top level lacks 'model_type'.",
        "train.ema_decey",
        "train.pixel_opt.type",
    ]


# ------------------------------------------------------------------ dump
def test_dump_is_read_back_to_the_same(loaded: Loaded, write: Write) -> None:
    opt = loaded(
        "dim: 16",
        "dim: 16\n  size: [4, 5]\n  folder: a/b\n  norm: '5e-4'\n  upsampler: ''\n  depths: []",
        "val:metrics={p: {type: options_score}}",
        "path:results_root='12:30'",
    )
    assert load(write(dump(opt), "elsewhere/resolved.yml")) == opt


def test_dump_is_for_people(loaded: Loaded) -> None:
    text = dump(loaded("dim: 16", "dim: 16\n  depths: [1, 2, 3]"))
    assert text.startswith("name: good\nmodel_type: RestorationModel\nscale: 2\n")
    assert "network_g:\n  type: OptionsNet\n  dim: 16\n  depths: [1, 2, 3]\n" in text
    assert "    lr: 0.0002\n" in text


# ------------------------------------------------------------------ debugging runs
def test_debugging_runs(loaded: Loaded) -> None:
    opt = loaded(more="logger: {use_tb_logger: true, wandb: {project: x}}\n")
    debug = as_debug(opt)
    assert debug.name == "debug_good" and opt.name == "good"
    assert (debug.logger.print_freq, debug.logger.save_checkpoint_freq, debug.val.val_freq) == (1, 8, 8)
    assert debug.logger.use_tb_logger is False and debug.logger.wandb is None
    assert as_debug(debug).name == "debug_good"
    assert debug.train.total_iter == 16 and {**debug.train, "total_iter": 100} == opt.train


# ------------------------------------------------------------------ where values come from
def test_every_value_has_an_origin(write: Write, good: str) -> None:
    write(good, "options/base.yml")
    path = write("_base_: base.yml\nname: child\nval: {tile: 64}\n", "options/child.yml")
    rows = {key: (value, origin) for key, value, origin in resolve(path, ["train:optim_g:lr=1e-3"]).rows()}
    assert rows["name"] == ("child", "options/child.yml:2")
    assert rows["val.tile"] == (64, "options/child.yml:3")
    assert rows["scale"] == (2, "options/base.yml:3")
    assert rows["datasets.train.io_backend.type"] == ("disk", "options/base.yml:6")
    assert rows["train.optim_g.lr"] == (1e-3, "--force_yml train:optim_g:lr=1e-3")
    assert rows["train.optim_g.type"] == ("Adam", "options/base.yml:13")
    assert rows["train.optim_g.eps"] == (1e-8, "default")
    assert rows["train.ema_decay"] == (0.0, "default")
    assert rows["train.mixing_augs"] == (None, "default")
    assert rows["network_g.upsampler"] == ("pixelshuffle", "default")
    assert rows["datasets.val.phase"] == ("val", "default")
    assert rows["datasets.val.scale"] == (2, "default")
    assert "network_g" not in rows and "datasets.train.io_backend" not in rows
