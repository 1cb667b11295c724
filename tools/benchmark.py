"""Speed and memory, as ratios against a peer measured in the same run: ``python tools/benchmark.py [section ...]``.

Peers take turns and the best of several rounds counts, so that a busy machine harms both alike. Peak memory is the growth of a
fresh process's resident set. Nothing here is a test: tests never look at a clock.
"""

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
# Python puts this folder on sys.path; its list.py must not shadow anything.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != REPO / "tools"]
sys.path.append(str(REPO / "tests" / "archs"))  # the plain transcriptions of the formulas that we compare with

import argparse
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Row = tuple[str, str, str, str]
"""What was measured, ours, the peer's, and the ratio or the target."""


def best_of(rounds: int, *contestants: Callable[[], Any]) -> list[float]:
    """Shortest time of each contestant in seconds, taking turns."""
    for contestant in contestants:
        contestant()
    times = [float("inf")] * len(contestants)
    for _ in range(rounds):
        for i, contestant in enumerate(contestants):
            began = time.perf_counter()
            contestant()
            times[i] = min(times[i], time.perf_counter() - began)
    return times


def peak_mib(*arguments: str) -> float:
    """Growth of the resident set of a fresh process that runs ``benchmark.py --alone <arguments>``."""
    command = [sys.executable, str(Path(__file__).resolve()), "--alone", *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def resident_mib() -> float:
    """Largest resident set of this process so far. (Linux's getrusage would count the parent's, before exec, as well.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ------------------------------------------------------------------ the framework
def overhead() -> list[Row]:
    """What the trainer adds to a step: forward, backward and Adam of a network of a hundred tensors, with it and without.

    The network is small, so that what it computes does not hide in its own variance what the trainer adds.
    """
    from relume.core.guard import Guard
    from relume.core.models.restoration import RestorationModel
    from relume.core.optimizers import build_optimizer
    from relume.core.trainer import Parts, Trainer
    from relume.losses import build_loss
    from relume.schedulers import build_scheduler

    device = torch.device("cpu")
    batch = {"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 8, 8), "lq_path": ["a", "b"]}
    network, bare = (nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(50))) for _ in range(2))
    model = RestorationModel({"g": network}, {"pixel": build_loss({"type": "L1Loss"})})
    optimizer = build_optimizer(model.named_parameters("g"), {"type": "Adam", "lr": 1e-4})
    options: Any = {
        "manual_seed": 0,
        "train": {
            "accumulate": 1,
            "amp": "off",
            "grad_clip_norm": None,
            "grad_clip_value": None,
            "use_grad_clip": False,
        },
    }
    parts: Any = Parts(
        model=model,
        networks={"g": network},
        ema=None,
        optimizers={"g": optimizer},
        schedulers={"g": build_scheduler(optimizer, None)},
        loader=iter(lambda: batch, None),
        evaluator=None,  # type: ignore[arg-type]
        checkpoints=None,
        logger=None,
        guard=Guard(3, Path("."), device),
        device=device,  # type: ignore[arg-type]
    )
    trainer = Trainer(parts, options)
    theirs = torch.optim.Adam(bare.parameters(), lr=1e-4)

    def plain() -> None:
        theirs.zero_grad(set_to_none=True)
        (bare(batch["lq"]) - batch["gt"]).abs().mean().backward()
        theirs.step()

    ours, peer = best_of(200, trainer.step, plain)
    share = 100 * (ours - peer) / 0.050
    label = "trainer overhead, of a 50 ms step (target: <= 2 %)"
    return [(label, f"{(ours - peer) * 1e3:.2f} ms", f"{peer * 1e3:.2f} ms bare loop", f"{share:.1f} %")]


def photographs(folder: Path, count: int, side: int) -> None:
    """Pairs of PNG files to load."""
    from relume.core.image_io import imwrite

    generator = torch.Generator().manual_seed(0)
    for name in ("lq", "gt"):
        for i in range(count):
            smooth = nn.functional.interpolate(
                torch.rand(1, 3, 16, 16, generator=generator), size=(side, side), mode="bicubic"
            )
            imwrite(folder / name / f"{i:05d}.png", smooth[0].clamp(0, 1))


def loading() -> list[Row]:
    """Images per second through the training loader, by number of workers."""
    from relume.core import options
    from relume.datasets import build_dataset
    from relume.datasets.loader import build_train_loader

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        photographs(Path(name), 32, 512)
        peer = 0.0
        for workers in (0, 1, 2, 4):
            block = {
                "type": "PairedImageDataset",
                "dataroot_lq": f"{name}/lq",
                "dataroot_gt": f"{name}/gt",
                "gt_size": 128,
                "use_hflip": True,
                "use_rot": True,
                "batch_size_per_gpu": 8,
                "num_worker_per_gpu": workers,
            }
            opt = options.check(
                {
                    "name": "bench",
                    "model_type": "RestorationModel",
                    "network_g": {"type": "MSRResNet"},
                    "datasets": {"train": block},
                    "train": {"total_iter": 100},
                }
            )
            dataset = build_dataset(opt.datasets.train, phase="train", scale=1)
            loader = build_train_loader(
                dataset,
                opt.datasets.train,
                seed=0,
                rank=0,
                world=1,
                accumulate=1,
                iteration=0,
                position=0,
                device=torch.device("cpu"),
            )
            for _ in range(max(2, 2 * workers)):
                next(loader)
            began = time.perf_counter()
            for _ in range(25):
                next(loader)
            speed = 25 * 8 / (time.perf_counter() - began)
            loader.close()
            peer = peer or speed
            rows.append(
                (
                    f"loading 512x512 PNG pairs, {workers} worker(s)",
                    f"{speed:.0f} images/s",
                    f"{peer:.0f} images/s in process",
                    f"{speed / peer:.2f} x",
                )
            )
    return rows


def checkpoint() -> list[Row]:
    """How long a step waits for a checkpoint, against plain ``torch.save``, which promises nothing."""
    from relume.core.checkpoint import Checkpoints

    tensors = {f"p{i}": torch.rand(1024, 1024) for i in range(25)}
    with tempfile.TemporaryDirectory() as name:
        checkpoints = Checkpoints(Path(name), keep=1)
        ours, peer = best_of(
            3,
            lambda: checkpoints.save(1, {"g": {"params": tensors}}, {"iter": 1}),
            lambda: torch.save({"params": tensors}, f"{name}/plain.pth"),
        )
    return [
        (
            "checkpoint of 100 MiB: synced, checksummed",
            f"{ours:.2f} s",
            f"{peer:.2f} s torch.save",
            f"{ours / peer:.1f} x",
        )
    ]


def startup() -> list[Row]:
    """From the command to the end of ``--check``, and to the first iteration, against importing torch."""

    def run(*command: str) -> Callable[[], None]:
        return lambda: subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True) and None

    quickstart = str(REPO / "options" / "quickstart.yml")
    train = str(REPO / "train.py")
    with tempfile.TemporaryDirectory() as folder:
        one = ["--force_yml", "train:total_iter=1", "val:val_freq=null", "datasets={train: {batch_size_per_gpu: 1}}"]
        check, first, peer = best_of(
            3,
            run(train, "-opt", quickstart, "--check"),
            run(train, "-opt", quickstart, *one[:2]),
            run("-c", "import torch"),
        )
    return [
        ("train.py --check (target: < 3 s)", f"{check:.2f} s", f"{peer:.2f} s import torch", f"{check / peer:.1f} x"),
        (
            "train.py, one iteration and a validation",
            f"{first:.2f} s",
            f"{peer:.2f} s import torch",
            f"{first / peer:.1f} x",
        ),
    ]


def pairing() -> list[Row]:
    """Matching 20,000 pairs of files, against looking every name up in a list, as BasicSR does."""
    from relume.datasets import build_dataset

    with tempfile.TemporaryDirectory() as name:
        for side in ("lq", "gt"):
            (Path(name) / side).mkdir()
            for i in range(20000):
                (Path(name) / side / f"{i:05d}.png").touch()
        block = {"type": "PairedImageDataset", "dataroot_lq": f"{name}/lq", "dataroot_gt": f"{name}/gt"}
        ours = best_of(1, lambda: build_dataset(block, phase="val"))[0]
        names = [p.name for p in (Path(name) / "lq").iterdir()]
        began = time.perf_counter()
        for i in range(0, 20000, 20):
            assert f"{i:05d}.png" in names
        peer = 20 * (time.perf_counter() - began)
    return [
        (
            "pairing 20,000 files (target: < 1 s)",
            f"{ours:.2f} s",
            f"{peer:.1f} s by list look-up",
            f"{peer / ours:.0f} x",
        )
    ]


# ------------------------------------------------------------------ architectures
def contestants(system: str) -> dict[str, Callable[[], nn.Module]]:
    """Ours and the plain transcription of the same formulas, by system, in the originals' configurations."""
    import reference_underwater as reference

    from relume.archs import build_network

    spectroformer = {"dim": 16, "num_blocks": [2, 3, 3, 4], "num_refinement_blocks": 4, "num_heads": [1, 2, 4, 8]}
    makers: dict[str, tuple[dict[str, Any], Callable[[], nn.Module]]] = {
        "spectroformer": (
            {"type": "Spectroformer", **spectroformer},
            lambda: reference.Spectroformer(**spectroformer),
        ),
        "phaseformer": ({"type": "Phaseformer"}, reference.Phaseformer),
        "agssf1": ({"type": "SpectroformerAGSSF", "variant": "agssf1"}, lambda: reference.AGSSF(variant="agssf1")),
    }
    block, plain = makers[system]
    return {"ours": lambda: build_network(block), "plain": plain}


def work(network: nn.Module, side: int, backward: bool) -> Callable[[], None]:
    """One forward (and backward) at 1 x 3 x side x side."""
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def forward() -> None:
        with torch.no_grad():
            network(x)

    def both() -> None:
        network.zero_grad(set_to_none=True)
        outputs = network(x)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        sum(o.mean() for o in outputs).backward()

    return both if backward else forward


def network_rows(system: str) -> list[Row]:
    """Time and peak memory of one network against its plain transcription."""
    rows: list[Row] = []
    makers = contestants(system)
    for side in (128, 256):
        networks = {}
        for who, make in makers.items():
            torch.manual_seed(0)
            networks[who] = make()
        for backward in (False, True):
            what = "forward+backward" if backward else "forward"
            ours, plain = best_of(
                5 if side == 128 else 3, *(work(networks[w], side, backward) for w in ("ours", "plain"))
            )
            rows.append(
                (f"{system} {what} 1x3x{side}x{side}", f"{ours:.2f} s", f"{plain:.2f} s plain", f"{plain / ours:.2f} x")
            )
        ours, plain = (peak_mib(system, who, str(side)) for who in ("ours", "plain"))
        rows.append(
            (
                f"{system} peak memory 1x3x{side}x{side}",
                f"{ours:.0f} MiB",
                f"{plain:.0f} MiB plain",
                f"{100 * ours / plain:.0f} %",
            )
        )
    return rows


def alone(system: str, who: str, side: str) -> None:
    """In a process of our own: one forward+backward, and print how far the resident set grew."""
    network = contestants(system)[who]()
    work(network, 16, True)()
    before = resident_mib()
    work(network, int(side), True)()
    print(resident_mib() - before)


SECTIONS: dict[str, Callable[[], list[Row]]] = {
    "trainer": overhead,
    "loading": loading,
    "checkpoint": checkpoint,
    "startup": startup,
    "pairing": pairing,
    "spectroformer": lambda: network_rows("spectroformer"),
    "phaseformer": lambda: network_rows("phaseformer"),
    "agssf1": lambda: network_rows("agssf1"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], help="what to measure; everything when omitted")
    parser.add_argument("--alone", nargs=3, metavar=("SYSTEM", "WHO", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        alone(*arguments.alone)
        return 0
    print(f"torch {torch.__version__}, {arguments.threads} thread(s)\n")
    for name in arguments.sections or SECTIONS:
        for what, ours, peer, ratio in SECTIONS[name]():
            print(f"{what:<52} {ours:>16}   {peer:<28} {ratio:>8}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
