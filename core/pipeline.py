"""From an option file to a finished run: build everything, hand over to the `Trainer` or the `Evaluator`."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..datasets import build_dataset
from ..datasets.loading.loader import TrainLoader, build_train_loader
from . import changes, options
from .building import global_batch
from .building.evaluator import build_evaluator, conditions
from .building.first import first_iteration, trained_by
from .building.machine import say_what_is_ignored, seed_of, with_seed, with_usable_precision
from .building.networks import build_ema, build_model, build_optimizers, compile_as, lay_out, say_how_far_it_lags
from .building.pictures import training_pictures
from .building.ranks import require_same_data, require_same_run
from .building.schedules import build_schedules, say_where_they_end
from .building.step import watch
from .building.summary import data_summary
from .building.weights import find_weights, refuse_missing, refuse_random_weights
from .errors import UserError, expanded, first_line
from .experiment import Experiment, Resume, find_resume, save_options
from .files import inside, refuse_links
from .guard import Guard
from .inference.network import channels_innermost, explaining_channels
from .options import counts
from .options.description import weights_description
from .options.schema import Options, Train
from .runtime import allocator, checkpoint, distributed, logger, memory, parallel, shards, threads, zero
from .runtime.checkpoint import Checkpoints
from .runtime.gate import gate
from .runtime.precision import autocast
from .runtime.signals import Stopped, StopRequest
from .runtime.speed import computing
from .runtime.state import seed_everything
from .trainer import Trainer
from .training.parts import Parts

log = logging.getLogger("relume")


# ------------------------------------------------------------------ the two pipelines
def train_pipeline(
    opt: Mapping[str, Any],
    *,
    launcher: str = "none",
    auto_resume: bool = False,
    stop: StopRequest | None = None,
    notes: Iterable[object] = (),
) -> dict[str, dict[str, float]]:
    """Train what the options describe.

    Args:
        opt: options from `options.load`, or a plain dict of the same shape; not modified.
        launcher: ``none``, ``pytorch`` (torchrun) or ``slurm``.
        auto_resume: continue from the newest good checkpoint of this experiment, if there is one, whatever the options say.
        stop: what listens to signals already; one that listens from here on when None.
        notes: what the log shall say about the options, a line each (`options.Resolved.notes`).

    Returns:
        The last validation's means, ``results[dataset][metric]``.

    Raises:
        UserError: anything the user can mend. Its ``code`` is the exit code: 2; 3 after too many non-finite steps; 75 or 130
            when a signal ended the run after a checkpoint.
    """
    checked = options.check(opt)
    if checked.train is None:
        raise UserError("there is no `train` section in these options; test.py runs files without one")
    if "train" not in checked.datasets:
        raise UserError("datasets: there is no `train` block")
    experiment = Experiment(checked)
    stop = stop or StopRequest(starting=True)
    with (
        stop,
        contextlib.ExitStack() as claim,
        experiment.last_words.recorded(stop),
        distributed.joined(
            launcher, checked.dist_params, checked.num_gpu == 0, lambda: stop.code, checked.device
        ) as device,
    ):
        logger.start_console()
        require_same_run(checked, "train")
        say_what_is_ignored(checked, device)
        logger.trackers(checked.logger)  # before anything is created
        experiment.own(claim)
        claim.enter_context(memory.bounded(device))
        if device.type == "cpu":
            allocator.keep_freed()
        return run_training(checked, experiment, stop, device, auto_resume, notes)


def run_training(
    opt: Options,
    experiment: Experiment,
    stop: StopRequest,
    device: torch.device,
    auto_resume: bool,
    notes: Iterable[object],
) -> dict[str, dict[str, float]]:
    """`train_pipeline` in an experiment that this run owns."""
    # Where training starts: checkpoint, seed, and samples per step.
    resume = find_resume(opt, experiment, auto_resume or opt.auto_resume or distributed.restarted())
    refuse_missing(opt, ("train", "val"), weights=resume is None)
    if resume:
        from .runtime import training_state

        training_state.checked(resume.state, resume.path)
    opt = with_seed(opt, resume.state if resume else None)
    opt = global_batch.kept(opt, resume.state if resume else None)
    # The data decide how long an epoch is.
    with experiment.explaining():
        dataset = build_training_set(opt)
    opt = counts.resolved(opt, counts.length_of(dataset), distributed.world_size())
    train = opt.train
    assert train is not None
    experiment.opt = opt
    # Nothing is left to do, or options have changed since.
    if resume and resume.iteration >= train.total_iter and not resume.state["pending_validation"]:
        log.info("%s", experiment.complete(resume))
        return dict(resume.state["results"])
    if resume:
        changes.check(resume.state.get("options"), opt, resume.path, tell=distributed.is_main())
    # Train, and say how it ended.
    with contextlib.ExitStack() as cleanup:
        with experiment.explaining():
            trainer = build_trainer(opt, train, dataset, experiment, resume, device, cleanup, stop)
        say(notes)
        leave_if_asked(stop)
        began = time.monotonic()
        with experiment.last_words.following(lambda: trainer.iteration), explaining_channels():
            trainer.fit()
        took, parts = time.monotonic() - began, trainer.parts
        log.info("%s", experiment.farewell(trainer.last_results, parts.best, took, parts.evaluator.unscored))
    return trainer.last_results


def leave_if_asked(stop: StopRequest) -> None:
    """Leave together with the other ranks if a signal has come to one of them, before anything is trained.

    Raises:
        Stopped: it has.
    """
    if code := max(distributed.gather(stop.code)):
        raise Stopped.early(code)


def test_pipeline(
    opt: Mapping[str, Any], *, launcher: str = "none", random_weights: bool = False, notes: Iterable[object] = ()
) -> dict[str, dict[str, float]]:
    """Run a trained model over the ``test*`` and ``val*`` datasets of the options: images, scores, a table.

    Args:
        opt: options from `options.load`, or a plain dict of the same shape; not modified.
        launcher: the launcher, as for `train_pipeline`; the images are shared out over ranks.
        random_weights: whether networks may keep the weights that they are initialised with.
        notes: notes to log, as for `train_pipeline`.

    Returns:
        Mean scores, ``results[dataset][metric]``.

    Raises:
        UserError: anything the user can mend.
    """
    from .metrics import report

    checked = options.check(opt)
    with (
        distributed.joined(launcher, checked.dist_params, checked.num_gpu == 0, kind=checked.device) as device,
        contextlib.ExitStack() as cleanup,
    ):
        # What is asked for, refused before anything is built where it cannot be had.
        logger.start_console()
        require_same_run(checked, "test")
        say_what_is_ignored(checked, device)
        sets = checked.sets("val", "test")
        if not sets:
            raise UserError("datasets: there is no `test` (or test_1, val, ...) block")
        checked = find_weights(checked)
        refuse_missing(checked, ("val", "test"))
        checked = with_seed(checked, None)
        seed_everything(seed_of(checked), 0, 0)
        cleanup.enter_context(memory.bounded(device))
        # Where the results go, and the data.
        with gate("path.results_root"):
            results_root = expanded(checked.path.results_root or "results") / checked.name
        refuse_links(results_root, "the folder of results")
        inside(results_root.parent, results_root)
        pictures = results_root / "visualization"
        evaluator = build_evaluator(checked, sets, pictures, device, cleanup, for_training=False)
        require_same_data({name: loader.dataset for name, loader in evaluator.loaders.items()})
        distributed.connect(device)
        loading = max(block.num_worker_per_gpu for block in sets.values())
        cpu = cleanup.enter_context(threads.shared_out(checked.dist_params.threads, loading, device))
        # The model, ready for inference.
        model, networks = build_model(checked, device, for_training=False)
        refuse_random_weights(checked, networks, random_weights)
        checked = with_usable_precision(checked, device, networks)
        for network in networks.values():
            network.eval()
            if checked.val.channels_last:
                channels_innermost(network)
            compile_as(network, checked.val.compile)
        # The test itself, and what is kept of it.
        with test_log(results_root, checked.name):
            log.info("%s", logger.header(checked, networks, device, cpu))
            say(notes)
            with torch.no_grad(), autocast(device, checked.val.amp):
                results = evaluator.run(model, 0)
            parameters = sum(p.numel() for network in networks.values() for p in network.parameters())
            few = {d: said for d in results if (said := evaluator.counted(d))}
            sets_said = report.about(evaluator.loaders, evaluator.seconds, few)
            log.info("%s", report.report(results, sets_said, parameters, conditions(model, device, checked.val.amp)))
            log.info("Scores and seconds of every image and the saved pictures are in %s", results_root)
        if distributed.is_main():
            logger.write_json(results_root / "metrics.json", results)
            save_options(results_root / f"{checked.name}.yml", checked)
            logger.write_json(results_root / "seconds.json", evaluator.took)
        return results


def say(notes: Iterable[object]) -> None:
    """Log what is to be known about the options, on the main rank."""
    for note in notes if distributed.is_main() else ():
        log.info("note: %s", note)


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
    dataset: Any,
    experiment: Experiment,
    resume: Resume | None,
    device: torch.device,
    cleanup: contextlib.ExitStack,
    stop: StopRequest,
) -> Trainer:
    """Everything that a training run needs, resumed where `resume` says so; `cleanup` gets what must be closed.

    The order matters: weights and averages come before anything wraps or shards the networks, optimizers after sharding and
    before DistributedDataParallel.
    """
    seed = seed_of(opt)
    seed_everything(seed, 0, 0)  # the same initial weights on every rank
    cleanup.enter_context(computing(train.matmul_precision, train.cudnn_benchmark, opt.deterministic))
    if opt.deterministic and device.type == "cuda":
        from .ops.deterministic_forms import Forms

        cleanup.enter_context(Forms())
    start = resume.iteration if resume else 0

    # Data
    loader = build_training_loader(opt, train, dataset, resume, device)
    cleanup.callback(loader.close)
    validation = opt.sets("val")
    evaluator = build_evaluator(opt, validation, experiment.visualization, device, cleanup, for_training=True)
    require_same_data({"train": dataset, **{name: each.dataset for name, each in evaluator.loaders.items()}})
    distributed.connect(device)  # only now that the loading processes are there: forking could hang in its threads
    loading = opt.datasets["train"].num_worker_per_gpu
    cpu = cleanup.enter_context(threads.shared_out(opt.dist_params.threads, loading, device))
    leave_if_asked(stop)

    # Networks, their weights and their averages
    model, networks = build_model(opt, device, for_training=True, resume=resume)
    opt = with_usable_precision(opt, device, networks)
    train = opt.train or train
    trained = {k: n for k, n in networks.items() if k not in model.frozen}
    seed_everything(seed, 0, distributed.rank())
    with gate("train"):
        model.prepare(dataset, device)
    ema = build_ema(train, model, trained, resume)
    if ema is not None and distributed.is_main():
        say_how_far_it_lags(train, ema, loader.position_after(train.total_iter))
    model.averages = ema.networks if ema else {}

    # How they are laid out, compiled and split over ranks
    if train.sync_bn:
        from .runtime.batch_norm import synchronised

        for key, network in trained.items():
            trained[key] = model.networks[key] = synchronised(network, device)
    lay_out(train, opt.val, trained, ema)

    # Optimizers and their schedules
    blocks = model.training_blocks(train)
    optimizers = build_optimizers(model, blocks, opt)
    if train.zero_optimizer:
        optimizers = {k: zero.divided(o, f"optim_{k}") for k, o in optimizers.items()}
    model.begin(start + 1)
    if train.strategy == "ddp":
        find_unused = opt.find_unused_parameters or model.find_unused_parameters
        for key, network in trained.items():
            one_call = key not in model.discriminators
            model.networks[key] = parallel.wrap(network, device, find_unused, one_call, train.grad_compression)
    better = evaluator.better.get(evaluator.best or "") if evaluator.loaders else None
    schedulers = build_schedules(optimizers, blocks, train, loader.position_after, better)

    # Records
    experiment.prepare(opt, fresh=resume is None)
    experiment.last_words.begin()
    validated = resume is None or not resume.state["pending_validation"]
    run_logger = cleanup.enter_context(logger.RunLogger(experiment.root, experiment.tensorboard, opt, start, validated))
    evaluator.picture = lambda dataset, name, picture, it: run_logger.image(f"{dataset}/{name}", picture, it)
    header = logger.header(opt, networks, device, cpu)
    if distributed.is_main():
        log.info("%s", header)
        epoch = counts.Epoch.of(opt, counts.length_of(dataset), distributed.world_size())
        block, last = opt.datasets["train"], train.total_iter
        log.info("%s", data_summary(block, dataset, epoch, loader, evaluator, last, opt.val))
        if not opt.name.startswith("debug"):  # whose few steps no schedule was made for
            say_where_they_end(schedulers, trained, train.total_iter)

    # The trainer
    watch(trained, opt, device)
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
        guard=Guard(train.max_nonfinite, experiment.root, device, trained_by(train)),
        device=device,
        descriptions={k: weights_description(opt, k, average=ema is not None and k in ema.networks) for k in trained},
        show=training_pictures(experiment.visualization, dataset, run_logger.image),
    )
    trainer = Trainer(parts, opt, start, stop)
    trainer.unproven = lambda: first_iteration(opt, parts)
    if resume:
        resume_trainer(trainer, resume)
    return trainer


def build_training_set(opt: Options) -> Any:
    """The training set; what it draws as it is built does not depend on the rank."""
    seed_everything(seed_of(opt), 0, 0)
    with gate("datasets.train", opt.datasets["train"].also(scale=opt.scale)):
        return build_dataset(opt.datasets["train"], phase="train", scale=opt.scale)


def build_training_loader(
    opt: Options, train: Train, dataset: Any, resume: Resume | None, device: torch.device
) -> TrainLoader:
    """This rank's loader of the training set, which goes on where `resume` stopped."""
    with gate("datasets.train", opt.datasets["train"].also(scale=opt.scale)):
        threads.refuse_too_many("num_worker_per_gpu", opt.datasets["train"].num_worker_per_gpu)
        return build_train_loader(
            dataset,
            opt.datasets["train"],
            seed=seed_of(opt),
            rank=distributed.rank(),
            world=distributed.world_size(),
            accumulate=train.accumulate,
            iteration=resume.iteration if resume else 0,
            position=resume.state["position"] if resume else 0,
            device=device,
            channels_last=train.channels_last,
        )


def resume_trainer(trainer: Trainer, resume: Resume) -> None:
    """Continue where a state left off; checkpoints of later iterations are forgotten.

    Raises:
        UserError: the state has not the optimizers, losses, ... that these options ask for.
    """
    try:
        trainer.load_state(
            shards.completed(resume.state, resume.path, trainer.parts.networks, trainer.parts.optimizers)
        )
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, IndexError) as e:
        raise UserError(
            f"{resume.path}: does not fit these options, which ask for other optimizers, parameters or losses "
            f"({type(e).__name__}: {first_line(e)}). Resume with the options of that run, or start anew from its "
            "weights with path.pretrain_network_g"
        ) from e
    if distributed.is_main():
        log.info("Resumed at iteration %d from %s", resume.iteration, resume.path)
        global_batch.say_whether_it_changes(resume.state, trainer.parts.loader.batch_of(resume.iteration + 1))
        trainer.parts.checkpoints.forget_after(resume.iteration)
