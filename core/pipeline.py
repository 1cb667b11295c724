"""From an option file to a finished run: build everything, hand over to the `Trainer` or the `Evaluator`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..archs import build_network
from ..datasets import build_dataset
from ..datasets.base import DatasetTraits, Rounding
from ..datasets.loading.loader import EvalLoader, TrainLoader, build_eval_loader, build_train_loader
from ..datasets.loading.options import Loader
from ..losses import build_loss
from ..schedulers import build_scheduler
from . import changes, options
from .annotations import declared
from .ema import EMA
from .errors import UserError
from .evaluation import Evaluator
from .experiment import Experiment, Resume, find_resume
from .guard import Guard
from .imaging.transfer import Transfer
from .inference.network import explaining_channels
from .inference.tiling import Inference, size_multiple
from .metrics import report
from .models import MODELS
from .models.base import Model, model_class
from .options.checker import parameters
from .options.description import describe
from .options.places import missing
from .options.schema import Options, Train
from .runtime import checkpoint, distributed, logger, training_state
from .runtime.batch_norm import synchronised
from .runtime.checkpoint import Checkpoints
from .runtime.optimizers import build_optimizer
from .runtime.state import seed_everything
from .trainer import Parts, Trainer

log = logging.getLogger("relume")
LAGGING = 0.02
"""Share of the initial weights in the final average beyond which that is remarked upon."""


# ------------------------------------------------------------------ the two pipelines
def train_pipeline(
    opt: Mapping[str, Any], *, launcher: str = "none", auto_resume: bool = False
) -> dict[str, dict[str, float]]:
    """Train what the options describe.

    Args:
        opt: options from `options.load`, or a plain dict of the same shape; not modified.
        launcher: ``none``, ``pytorch`` (torchrun) or ``slurm``.
        auto_resume: continue from the newest good checkpoint of this experiment, if there is one.

    Returns:
        The last validation's means, ``results[dataset][metric]``.

    Raises:
        UserError: anything the user can mend. Its ``code`` is the exit code: 2; 3 after too many non-finite steps; 75 or 130
            when a signal ended the run after a checkpoint.
    """
    checked = options.check(opt)
    train = checked.train
    if train is None:
        raise UserError("there is no `train` section in these options; test.py runs files without one")
    if "train" not in checked.datasets:
        raise UserError("datasets: there is no `train` block")
    device = distributed.initialise(launcher, checked.dist_params, checked.num_gpu == 0)
    claim = contextlib.ExitStack()
    try:
        logger.start_console()
        say_what_is_ignored(checked, device)
        logger.trackers(checked.logger)  # before anything is created
        experiment = Experiment(checked)
        experiment.own(claim)
        resume = find_resume(checked, experiment, auto_resume or distributed.restarted())
        refuse_missing(checked, ("train", "val"), weights=resume is None)
        if resume and resume.iteration >= train.total_iter and not resume.state["pending_validation"]:
            log.info("%s", experiment.complete(resume))
            return dict(resume.state["results"])
        if resume:
            training_state.checked(resume.state, resume.path)
        checked = with_seed(checked, resume.state if resume else None)
        if resume:
            changes.check(resume.state.get("options"), checked, resume.path, tell=distributed.is_main())
        with contextlib.ExitStack() as cleanup:
            trainer = build_trainer(checked, train, experiment, resume, device, cleanup)
            began = time.monotonic()
            with explaining_channels():
                trainer.fit()
            log.info("%s", experiment.farewell(trainer.last_results, trainer.parts.best, time.monotonic() - began))
        return trainer.last_results
    finally:
        claim.close()
        distributed.shut_down()


def test_pipeline(
    opt: Mapping[str, Any], *, launcher: str = "none", random_weights: bool = False
) -> dict[str, dict[str, float]]:
    """Run a trained model over the ``test*`` and ``val*`` datasets of the options: images, scores, a table.

    Args:
        opt: options from `options.load`, or a plain dict of the same shape; not modified.
        launcher: as for `train_pipeline`; the images are shared out over ranks.
        random_weights: whether networks may keep the weights that they are initialised with.

    Returns:
        Mean scores, ``results[dataset][metric]``.

    Raises:
        UserError: anything the user can mend.
    """
    checked = options.check(opt)
    device = distributed.initialise(launcher, checked.dist_params, checked.num_gpu == 0)
    try:
        logger.start_console()
        say_what_is_ignored(checked, device)
        sets = checked.sets("val", "test")
        if not sets:
            raise UserError("datasets: there is no `test` (or test_1, val, ...) block")
        checked = find_weights(checked)
        refuse_missing(checked, ("val", "test"))
        checked = with_seed(checked, None)
        seed_everything(seed_of(checked), 0, 0)
        model, networks = build_model(checked, device, for_training=False)
        refuse_random_weights(checked, networks, random_weights)
        for network in networks.values():
            network.eval()
        results_root = Path(checked.path.results_root or "results") / checked.name
        evaluator = build_evaluator(checked, sets, results_root / "visualization", device, for_training=False)
        with test_log(results_root, checked.name):
            log.info("%s", logger.header(checked, networks, device))
            with torch.no_grad():
                results = evaluator.run(model, 0)
            parameters = sum(p.numel() for network in networks.values() for p in network.parameters())
            few = {d: said for d in results if (said := evaluator.counted(d))}
            sets_said = report.about(evaluator.loaders, evaluator.seconds, few)
            log.info("%s", report.report(results, sets_said, parameters, conditions(model, device)))
            log.info("Scores of every image and the saved pictures are in %s", results_root)
        if distributed.is_main():
            logger.write_json(results_root / "metrics.json", results)
        return results
    finally:
        distributed.shut_down()


def test_log(results_root: Path, name: str) -> contextlib.AbstractContextManager[None]:
    """`logger.text_log` of a test.

    Raises:
        UserError: it cannot be written.
    """
    path = results_root / f"test_{name}_{logger.timestamp()}.log"
    try:
        results_root.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"path.results_root: {checkpoint.cannot_write(results_root, e)}") from e
    return logger.text_log(path)


# ------------------------------------------------------------------ building
def build_trainer(
    opt: Options,
    train: Train,
    experiment: Experiment,
    resume: Resume | None,
    device: torch.device,
    cleanup: contextlib.ExitStack,
) -> Trainer:
    """Everything that a training run needs, resumed where `resume` says so; `cleanup` gets what must be closed.

    The order matters: weights and averages come before anything wraps or shards the networks, optimizers after sharding and
    before DistributedDataParallel.
    """
    seed = seed_of(opt)
    seed_everything(seed, 0, 0)  # the same initial weights on every rank
    torch.use_deterministic_algorithms(opt.deterministic)
    start = resume.iteration if resume else 0

    # Data
    dataset, loader = build_training_data(opt, train, resume, device)
    cleanup.callback(loader.close)
    evaluator = build_evaluator(opt, opt.sets("val"), experiment.visualization, device, for_training=True)

    # Networks, their weights and their averages
    model, networks = build_model(opt, device, for_training=True, resume=resume)
    trained = {k: n for k, n in networks.items() if k not in model.frozen}
    seed_everything(seed, 0, distributed.rank())
    model.prepare(dataset, device)
    ema = build_ema(train, model, trained, resume)
    if ema is not None and distributed.is_main():
        say_how_far_it_lags(train, ema, loader.position_after(train.total_iter))
    model.averages = ema.networks if ema else {}

    # How they are laid out, compiled and split over ranks
    if train.sync_bn:
        for key, network in trained.items():
            trained[key] = model.networks[key] = synchronised(network, device)
    lay_out(train, trained, ema)

    # Optimizers and their schedules
    blocks = model.training_blocks(train)
    optimizers = build_optimizers(model, blocks)
    model.begin(start + 1)
    if train.strategy == "ddp":
        find_unused = opt.find_unused_parameters or model.find_unused_parameters
        for key, network in trained.items():
            model.networks[key] = distributed.wrap(network, device, find_unused, key not in model.discriminators)
    better = evaluator.better.get(evaluator.best or "") if evaluator.loaders else None
    schedulers = {
        key: build_scheduler(
            optimizer,
            blocks.get(f"scheduler_{key}", blocks.get("scheduler")),
            train.warmup_iter,
            loader.position_after,
            better,
        )
        for key, optimizer in optimizers.items()
    }
    if better is None and any(s.waits_for_metric for s in schedulers.values()):
        raise UserError(
            "train.scheduler: ReduceLROnPlateau follows a score, and there is none: give datasets.val and val.metrics"
        )

    # Records
    experiment.prepare(opt, fresh=resume is None)
    validated = resume is None or not resume.state["pending_validation"]
    run_logger = cleanup.enter_context(logger.RunLogger(experiment.root, experiment.tensorboard, opt, start, validated))
    evaluator.picture = lambda dataset, name, picture, it: run_logger.image(f"{dataset}/{name}", picture, it)
    header = logger.header(opt, networks, device)
    if distributed.is_main():
        log.info("%s", header)
        log.info("%s", loader.describe(train.total_iter))

    # The trainer
    parts = Parts(
        model=model,
        networks=trained,
        ema=ema,
        optimizers=optimizers,
        schedulers=schedulers,
        loader=loader,
        evaluator=evaluator,
        checkpoints=Checkpoints(experiment.root, opt.logger.keep_checkpoints),
        logger=run_logger,
        guard=Guard(train.max_nonfinite, experiment.root, device),
        device=device,
        descriptions={k: describe(opt, k, average=ema is not None and k in ema.networks) for k in trained},
    )
    trainer = Trainer(parts, opt, start)
    if resume:
        resume_trainer(trainer, resume)
    return trainer


def build_training_data(
    opt: Options, train: Train, resume: Resume | None, device: torch.device
) -> tuple[Any, TrainLoader]:
    """The training set, and this rank's loader of it, which goes on where `resume` stopped."""
    block = opt.datasets["train"]
    dataset = build_dataset(block, phase="train", scale=opt.scale)
    loader = build_train_loader(
        dataset,
        block,
        seed=seed_of(opt),
        rank=distributed.rank(),
        world=distributed.world_size(),
        accumulate=train.accumulate,
        iteration=resume.iteration if resume else 0,
        position=resume.state["position"] if resume else 0,
        device=device,
        channels_last=train.channels_last,
    )
    return dataset, loader


def lay_out(train: Train, trained: Mapping[str, nn.Module], ema: EMA | None) -> None:
    """Put networks into training mode, and into the memory layout, compiled form and shards that the options ask for."""
    for network in trained.values():
        network.train()
        if train.channels_last:
            network.to(memory_format=torch.channels_last)
        if train.compile:
            network.compile(mode=None if train.compile is True else train.compile)
    if train.strategy == "fsdp" and distributed.active():
        for network in (*trained.values(), *(ema.networks.values() if ema else ())):
            distributed.shard(network)


def build_optimizers(model: Model, blocks: Mapping[str, Any]) -> dict[str, torch.optim.Optimizer]:
    """The optimizer of each ``optim_<key>`` block, over the parameters that the model gives it."""
    keys = [k.removeprefix("optim_") for k in blocks if k.startswith("optim_")]
    return {k: build_optimizer(model.named_parameters(k), blocks[f"optim_{k}"]) for k in keys}


def resume_trainer(trainer: Trainer, resume: Resume) -> None:
    """Continue where a state left off; checkpoints of later iterations are forgotten.

    Raises:
        UserError: the state has not the optimizers, losses, ... that these options ask for.
    """
    try:
        trainer.load_state(resume.state)
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, IndexError) as e:
        raise UserError(
            f"{resume.path}: does not fit these options, which ask for other optimizers, parameters or losses "
            f"({type(e).__name__}: {checkpoint.first_line(e)}). Resume with the options of that run, or start anew from its "
            "weights with path.pretrain_network_g"
        ) from e
    if distributed.is_main():
        log.info("Resumed at iteration %d from %s", resume.iteration, resume.path)
        trainer.parts.checkpoints.forget_after(resume.iteration)


def build_model(
    opt: Options, device: torch.device, *, for_training: bool, resume: Resume | None = None
) -> tuple[Model, dict[str, nn.Module]]:
    """The model wrapper and its networks on `device`, with the weights that the options or `resume` name."""
    kind = model_class(opt.model_type)
    of_training = (*kind.frozen, *kind.discriminators)
    teachers = [] if for_training else [k for k in of_training if k not in kind.required_networks]
    networks = {}
    for key, block in opt.networks.items():
        if key in teachers:
            continue
        try:
            networks[key] = build_network(block)
        except UserError as e:
            raise UserError(f"network_{key}: {e}") from e
    blocks: Mapping[str, Any] = opt.train or {}
    losses = {}
    if for_training:
        losses = {k.removesuffix("_opt"): build_loss(b) for k, b in blocks.items() if k.endswith("_opt")}
    own = MODELS.parameters(opt.model_type)
    settings = {k: v for k, v in blocks.items() if k in own and k not in kind.inference_options}
    settings.update({k: opt.val[k] for k in kind.inference_options if k in opt.val})
    model: Model = kind(networks, losses, **settings)
    if kind.top_level is not None:
        model.configure(kind.top_level(**{k: opt[k] for k in parameters(kind.top_level) if k in opt}))
    for key, network in networks.items():
        load_pretrained(opt, key, network, model, resume, for_training)
        network.to(device)
    model.losses.to(device)
    val = opt.val
    model.inference = Inference(val.tile, val.tile_overlap, val.window_size, val.padding, val.cut(opt.scale))
    return model, networks


def load_pretrained(
    opt: Options, key: str, network: nn.Module, model: Model, resume: Resume | None, for_training: bool
) -> None:
    """Weights of one network: the resumed ones, else ``path.pretrain_network_<key>``.

    Training starts from ``params``, as in BasicSR; what is tested and used is the average, where the file has one.
    """
    if resume and key not in model.frozen and key not in changes.left_out(opt):
        checkpoint.load_weights(network, resume.network_path(key), "params", strict=True)
        return
    path = opt.path.get(f"pretrain_network_{key}")
    if not path:
        return
    strict = opt.path.get(f"strict_load_{key}")
    usual = opt.path.get("param_key_g", "params") if key in model.frozen else "params"
    grow = bool(opt.path.get(f"grow_network_{key}"))
    try:
        content = checkpoint.load(path)
        if not for_training:
            usual = checkpoint.usual_key(content)
        param_key = opt.path.get(f"param_key_{key}", usual)
        differences = checkpoint.load_weights(network, path, param_key, strict is None or strict, grow, content)
    except checkpoint.DoesNotFit as e:
        advice = f"(path.strict_load_{key}: false loads what fits)"
        raise UserError(f"{e}. {advice} (path.pretrain_network_{key})") from e
    except UserError as e:
        raise UserError(f"{e} (path.pretrain_network_{key})") from e
    if distributed.is_main():
        log.info("network_%s: loaded %s%s", key, path, taken(content, param_key, key))
        if grow:
            log.info("network_%s: %d of its tensors are new and start as initialised", key, len(differences))
            return
        for line in differences[:20]:
            log.warning("network_%s: not loaded: %s", key, line)
        if len(differences) > 20:
            log.warning("network_%s: not loaded: %d more", key, len(differences) - 20)


def taken(content: Mapping[str, Any], param_key: str | None, key: str) -> str:
    """Which entry of a weights file was taken, and what else there was to take."""
    entries = [k for k, v in content.items() if isinstance(v, Mapping) and k != checkpoint.ENTRY]
    if param_key not in entries:
        return ""
    what = "the moving average" if param_key == "params_ema" else "the weights themselves"
    others = [k for k in entries if k != param_key]
    more = f"; the file also has {', '.join(others)}: path.param_key_{key} chooses" if others else ""
    return f" [{param_key}]: {what}{more}"


def find_weights(opt: Options) -> Options:
    """Options that name, for networks without weights, what this experiment's training has written: the best, or latest."""
    root = Experiment(opt).root
    kind = model_class(opt.model_type)
    found: dict[str, Any] = {}
    for key in [k for k in opt.networks if k not in kind.frozen]:
        own = [Checkpoints(root).network_path(key, which) for which in ("best", "latest", checkpoint.INTERRUPTED)]
        newest = next((p for p in own if p.is_file()), None)
        named = opt.path.get(f"pretrain_network_{key}")
        if newest is None:
            continue
        if not named:
            found[f"pretrain_network_{key}"] = str(newest)
            log.info("network_%s: path.pretrain_network_%s names no weights; taking those trained here", key, key)
        elif opt.train is not None and Path(named).expanduser().resolve().parent != newest.resolve().parent:
            log.warning(
                "network_%s: testing %s, where the training of this file starts from; what it ended with is %s "
                "(path.pretrain_network_%s)",
                key,
                named,
                newest,
                key,
            )
    if not found:
        return opt
    values = opt.to_dict()
    values["path"] = {**values["path"], **found}
    return options.check(values)


def refuse_random_weights(opt: Options, networks: Mapping[str, nn.Module], allowed: bool) -> None:
    """Say which networks have weights from nowhere, and go no further with them unless that is wanted.

    Raises:
        UserError: it is not.
    """
    frozen = model_class(opt.model_type).frozen
    for key, network in networks.items():
        if opt.path.get(f"pretrain_network_{key}") or not any(True for _ in network.parameters()):
            continue
        if not allowed and key not in frozen:
            models = Checkpoints(Experiment(opt).root).models
            raise UserError(
                f"network_{key} has no weights: path.pretrain_network_{key} names none, and there are none in {models}. "
                "Train first, name a file, or say --random_weights"
            )
        log.warning("network_%s has random weights: path.pretrain_network_%s names none", key, key)


def refuse_missing(opt: Options, phases: Sequence[str], weights: bool = True) -> None:
    """Raise `UserError` on all ranks with every file and folder that a run needs and some rank does not have."""
    lines = missing(opt, phases, weights)
    if opt.train is None or "train" not in phases:  # teachers are not built, and their weights not read
        kind = model_class(opt.model_type)
        unread = [f"(path.pretrain_network_{k})" for k in kind.frozen if k not in kind.required_networks]
        lines = [line for line in lines if not line.endswith(tuple(unread))]
    distributed.agree(UserError("\n".join(lines)) if lines else None)


def build_ema(train: Train, model: Model, trained: Mapping[str, nn.Module], resume: Resume | None) -> EMA | None:
    """The averages of the model's networks, resumed if there is something to resume; None when switched off."""
    if train.ema_decay <= 0 and train.ema_halflife is None:
        return None
    averaged = {k: trained[k] for k in model.averaged if k in trained}
    ema = EMA(averaged, train.ema_decay, train.ema_halflife, train.ema_rampup)
    if resume:
        for key, network in ema.networks.items():
            checkpoint.load_weights(network, resume.network_path(key), "params_ema", strict=True)
    return ema


def build_evaluator(
    opt: Options, sets: Mapping[str, Loader], folder: Path, device: torch.device, *, for_training: bool
) -> Evaluator:
    """The evaluator of some dataset blocks, its loaders sharing the images out over ranks.

    Raises:
        UserError: two datasets have the same name, so that their results would mix.
    """
    loaders: dict[str, EvalLoader] = {}
    transfers: dict[str, Transfer] = {}
    rounding: dict[str, Rounding] = {}
    sharded = for_training and opt.train is not None and opt.train.strategy == "fsdp"
    for phase, block in sets.items():
        name = block.name or phase
        if name in loaders:
            raise UserError(f"datasets.{phase}: another dataset is called '{name}' too; give each a `name` of its own")
        dataset = build_dataset(block, phase=phase.split("_")[0], scale=opt.scale)
        if (transfer := declared(dataset, "transfer", DatasetTraits)) is not None:
            transfers[name] = transfer
        if (rounds := declared(dataset, "score_rounding", DatasetTraits)) is not None:
            rounding[name] = rounds
        loaders[name] = build_eval_loader(
            dataset,
            seed=seed_of(opt),
            rank=distributed.rank(),
            world=distributed.world_size(),
            workers=block.num_worker_per_gpu,
            batch=block.batch_size_per_gpu,
            even=sharded,
        )
    suffix = opt.val.suffix or opt.name

    def image_name(dataset: str, image: str, iteration: int) -> str:
        return f"{image}/{image}_{iteration}.png" if for_training else f"{image}_{suffix}.png"

    return Evaluator(
        loaders=loaders,
        metrics=opt.val.metrics,
        folder=folder,
        device=device,
        image_name=image_name,
        save_images=opt.val.save_img,
        save_comparisons=opt.val.save_comparison,
        save_grid=opt.val.save_grid,
        best_metric=opt.val.best,
        score_input=opt.val.score_input,
        eight_bit=opt.val.use_image,
        rounding=rounding,
        transfers=transfers,
        linear_format=opt.val.linear_format,
        forgiving=for_training,
        progress=logger.progress if opt.val.pbar else None,
    )


def conditions(model: Model, device: torch.device) -> str:
    """On what device and with which settings of inference scores are computed, in words."""
    settings = {name: getattr(model, name) for name in model.inference_options if hasattr(model, name)}
    sizes = [size_multiple(network) for network in model.networks.values()]
    multiple = math.lcm(*sizes, model.inference.window_size or 1)
    settings["padding"] = f"{model.inference.padding} to multiples of {multiple}"
    settings["tile"] = model.inference.tile
    return f"{device}, " + ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def say_how_far_it_lags(train: Train, ema: EMA, samples: int) -> None:
    """Tell the user, once, if the average will still remember the initial weights at the end of the run.

    Args:
        samples: that the run takes.
    """
    if ema.rampup is not None or train.total_iter < 1:
        return
    key = "ema_decay" if ema.halflife is None else "ema_halflife"
    share = ema.decay**train.total_iter if ema.halflife is None else 0.5 ** (samples / ema.halflife)
    if share < LAGGING:
        return
    better = f"{1 - min(0.5, 10 / train.total_iter):.3g}" if ema.halflife is None else f"{samples / 14:.3g}"
    log.warning(
        "train.%s: %s: after %d iterations the average, which validation scores, is %.0f %% initial weights; "
        "for a run of this length, %s: %s",
        key,
        train[key],
        train.total_iter,
        100 * share,
        key,
        better,
    )


# ------------------------------------------------------------------ options that need the machine
def with_seed(opt: Options, state: Mapping[str, Any] | None) -> Options:
    """Options with a seed: the resumed run's, the options', or a fresh one drawn by rank 0."""
    if opt.manual_seed is not None:
        return opt
    seed = state["seed"] if state else distributed.broadcast(int(np.random.SeedSequence().generate_state(1)[0] % 10000))
    return dataclasses.replace(opt, manual_seed=seed)


def seed_of(opt: Options) -> int:
    """The seed, which the options have by now."""
    assert opt.manual_seed is not None
    return opt.manual_seed


def say_what_is_ignored(opt: Options, device: torch.device) -> None:
    """Tell the user, once, where this machine cannot give what a BasicSR file asks for."""
    if opt.num_gpu != 0 and opt.num_gpu != "auto" and device.type == "cpu":
        log.info("num_gpu: %s, but torch sees no GPU here: running on the CPU", opt.num_gpu)
    elif isinstance(opt.num_gpu, int) and opt.num_gpu > 1 and not distributed.active():
        log.warning(
            "num_gpu: %d without a launcher uses one GPU; start with: torchrun --nproc_per_node=%d -m relume train ... "
            "--launcher pytorch",
            opt.num_gpu,
            opt.num_gpu,
        )
