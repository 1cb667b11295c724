"""FID, KID and the others as the evaluator runs them: cached references, shared features, any number of ranks."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filling import waves

from relume.core.errors import UserError
from relume.core.features import FEATURES, FeatureExtractor
from relume.core.imaging.image_io import imwrite
from relume.core.metrics import METRICS, metric_direction
from relume.core.metrics.generative import Moments, frechet_distance, kernel_distance, precision_recall
from relume.core.metrics.reference import quantised
from relume.core.runtime import distributed
from relume.datasets import build_dataset

FACES = {"type": "ShippedImagesDataset", "source": "faces", "resolution": 8}
PIXELS = {"type": "pixel_avgpool", "size": 2}
CPU = torch.device("cpu")


def images(count: int = 24) -> torch.Tensor:
    """Images that are partly out of range, as a network's."""
    return (waves("sets", (count, 3, 8, 8)) * 0.7 + 0.5).float()


def run(metric: Any, reference: Any, batches: list[tuple[torch.Tensor, list[int]]]) -> dict[str, float]:
    metric.start(reference, CPU)
    for made, indices in batches:
        metric.update(made, indices)
    return metric.compute()


def build(name: str, **options: Any) -> Any:
    return METRICS.build({"type": name, "features": PIXELS, **options})


@pytest.fixture
def faces() -> Any:
    return build_dataset(FACES, phase="val")


def vectors(x: torch.Tensor) -> torch.Tensor:
    return FEATURES.build(PIXELS)(quantised(x * 2 - 1))


def test_scores_are_those_of_the_rounded_images_against_the_dataset(faces: Any) -> None:
    made = images()
    batches = [(made[:10], list(range(10))), (made[10:], list(range(10, 24)))]
    real = torch.stack([faces.image(i) for i in range(100)])
    x, y = vectors(made), FEATURES.build(PIXELS)(real)
    a, b = Moments.of(x), Moments.of(y)
    expected = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert run(build("FID"), faces, batches)[""] == pytest.approx(expected, rel=1e-10)
    kid = run(build("kid", subsets=7, subset_size=11), faces, batches)
    values = kernel_distance(x, y, 7, 11)
    assert (kid[""], kid["_std"]) == pytest.approx((float(values.mean()), float(values.std(correction=0))), rel=1e-10)
    both = run(build("Precision", k=2), faces, batches)[""], run(build("Recall", k=2), faces, batches)[""]
    assert both == precision_recall(x, y, 2)
    assert metric_direction("FID") == metric_direction("KID") == "lower"
    assert metric_direction("Recall") == metric_direction("InceptionScore") == "higher"


def handed_over(shares: list[Any], value: Any) -> list[Any]:
    """`distributed.gather` of a rank that is alone; notes what it gives."""
    shares.append(value)
    return [value]


def received(shares: list[Any], value: Any) -> list[Any]:
    """`distributed.gather` with other ranks' values."""
    return shares


def test_two_ranks_score_what_one_would(faces: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = images(23)
    for name, options in (("FID", {}), ("KID", {"subset_size": 9}), ("Recall", {}), ("Precision", {})):
        one = run(build(name, **options), faces, [(made, list(range(23)))])
        shares: list[Any] = []
        ranks = [build(name, **options) for _ in range(2)]
        for rank, metric in enumerate(ranks):
            metric.start(faces, CPU)
            metric.update(made[rank::2], list(range(rank, 23, 2)))
        with monkeypatch.context() as m:
            m.setattr(distributed, "gather", partial(handed_over, shares))
            for metric in ranks:
                copy.copy(metric).compute()
        with monkeypatch.context() as m:
            m.setattr(distributed, "gather", partial(received, shares))
            for metric in ranks:
                assert metric.compute() == pytest.approx(one, rel=1e-12), name


def test_each_batch_goes_through_the_network_once(faces: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = [build(n) for n in ("FID", "KID", "Precision")]
    assert len({id(m.features) for m in metrics}) == 1
    seen = []
    plain = FeatureExtractor.forward
    monkeypatch.setattr(FeatureExtractor, "forward", lambda self, x: seen.append(len(x)) or plain(self, x))
    for metric in metrics:
        metric.start(faces, CPU)
    assert sum(seen) == 100, "the reference, once for all of them"
    for batch in images().split(8):
        for metric in metrics:
            metric.update(batch, list(range(8)))
    assert seen[-3:] == [8, 8, 8] and sum(seen) == 124
    for metric in metrics:
        metric.start(faces, CPU)  # the next evaluation
    assert sum(seen) == 124


def test_statistics_are_cached_and_refused_for_another_network_or_dataset(faces: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "stats" / "faces.safetensors")
    batches = [(images(), list(range(24)))]
    first = run(build("FID", stats=path), faces, batches)
    again = build("FID", stats=path)
    again.features.references.clear()
    assert run(again, None, batches) == first, "the images are not needed any more"
    kid = build("KID", stats=path)
    kid.features.references.clear()
    scores = run(kid, faces, batches)
    assert scores == run(build("KID"), faces, batches), "features are added to a cache of moments"
    kid.features.references.clear()
    assert run(kid, None, batches) == scores
    other = build_dataset({**FACES, "resolution": 10}, phase="val")
    with pytest.raises(UserError, match=r"faces\.safetensors: its dataset_id is faces-\w+, but this run's is faces-"):
        run(build("FID", stats=path), other, batches)
    with pytest.raises(UserError, match=r"its net_id is pixel_avgpool-\w+, but this run's is pixel_avgpool-"):
        run(build("FID", stats=path, features={"type": "pixel_avgpool", "size": 3}), faces, batches)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((tmp_path / "stats" / "faces.safetensors").read_bytes()[:50])
    with pytest.raises(UserError, match="cannot be read as cached statistics"):
        run(build("FID", stats=str(torn)), faces, batches)


def test_published_moments_are_taken_on_trust_if_they_fit(faces: Any, tmp_path: Any) -> None:
    moments = Moments.of(FEATURES.build(PIXELS)(torch.stack([faces.image(i) for i in range(100)])))
    np.savez(tmp_path / "ref.npz", mu=moments.mean.numpy(), sigma=moments.covariance.numpy())
    batches = [(images(), list(range(24)))]
    published = run(build("FID", stats=str(tmp_path / "ref.npz")), None, batches)
    assert published == pytest.approx(run(build("FID"), faces, batches), rel=1e-10)
    with pytest.raises(UserError, match=r"needs features, and .* has moments only"):
        run(build("KID", stats=str(tmp_path / "ref.npz")), None, batches)
    with pytest.raises(UserError, match=r"has 12 features, but pixel_avgpool-.* gives 27"):
        run(build("FID", stats=str(tmp_path / "ref.npz"), features={"type": "pixel_avgpool", "size": 3}), None, batches)
    np.savez(tmp_path / "pickled.npz", mu=np.array([object()]), sigma=np.zeros(1))
    with pytest.raises(UserError, match=r"not a readable \.npy array of numbers"):
        run(build("FID", stats=str(tmp_path / "pickled.npz")), None, batches)


def test_mistakes_are_one_line(faces: Any) -> None:
    with pytest.raises(
        UserError, match="FID: there are no real images to compare with; give the dataset a `reference`"
    ):
        run(build("FID"), None, [])
    with pytest.raises(UserError, match="FID: list cannot be a reference; use a dataset of"):
        run(build("FID"), [1, 2], [])
    with pytest.raises(UserError, match="KID: needs at least 2 images, there are 1"):
        run(build("KID"), faces, [(images(1), [0])])
    with pytest.raises(UserError, match="Recall: needs at least 4 images, there are 3"):
        run(build("Recall"), faces, [(images(3), [0, 1, 2])])
    for metric, reference, count, message in (
        ("FID", None, 9, "there are no real images"),
        ("KID", faces, 1, "needs at least 2 images, there are 1"),
        ("Recall", faces, 3, "needs at least 4 images"),
    ):
        with pytest.raises(UserError, match=message):
            build(metric).check(reference, count)
    build("Recall").check(faces, 4)
    with pytest.raises(UserError, match="InceptionScore: features must have a classifier"):
        build("InceptionScore")
    with pytest.raises(UserError, match=r"stats: x\.txt must end in \.safetensors"):
        run(build("FID", stats="x.txt"), faces, [])


def test_torch_fidelity_agrees(faces: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fidelity = pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    extractor = FEATURES.build(PIXELS)
    head = waves("head", (12, 6)).float() * 8

    class Tiny(FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name: str, features_list: list[str], **kwargs: Any) -> None:
            super().__init__(name, features_list)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = {"f": extractor(x.float() / 127.5 - 1)}
            found["l"] = found["f"] @ head
            return tuple(found[k] for k in self.features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "f", "l"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return {"isc": "l"}.get(metric, "f")

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> torch.Tensor:
            return torch.zeros(1, 3, 8, 8, dtype=torch.uint8)

    class Bytes(torch.utils.data.Dataset):
        def __init__(self, x: torch.Tensor) -> None:
            self.x = ((quantised(x) + 1) * 127.5).round().to(torch.uint8)

        def __len__(self) -> int:
            return len(self.x)

        def __getitem__(self, i: int) -> torch.Tensor:
            return self.x[i]

    fidelity.register_feature_extractor("relume-tiny", Tiny)
    try:
        made, real = images(40), torch.stack([faces.image(i) for i in range(100)])
        theirs = fidelity.calculate_metrics(
            input1=Bytes(made * 2 - 1),
            input2=Bytes(real),
            feature_extractor="relume-tiny",
            isc=True,
            fid=True,
            kid=True,
            prc=True,
            kid_subset_size=20,
            kid_subsets=10,
            isc_splits=4,
            cuda=False,
            verbose=False,
            cache=False,
            save_cpu_ram=True,
        )
    finally:
        FEATURE_EXTRACTORS_REGISTRY.pop("relume-tiny", None)

    mine = build("FID").features.extractor
    monkeypatch.setattr(mine, "classify", lambda f: f @ head, raising=False)
    score = run(METRICS.get("InceptionScore")(mine, splits=4), None, [(made, list(range(40)))])
    kid = run(build("KID", subsets=10, subset_size=20), faces, [(made, list(range(40)))])
    batches = [(made, list(range(40)))]
    ours = {
        "frechet_inception_distance": run(build("FID"), faces, batches)[""],
        "kernel_inception_distance_mean": kid[""],
        "kernel_inception_distance_std": kid["_std"],
        "inception_score_mean": score[""],
        "inception_score_std": score["_std"],
        "precision": run(build("Precision"), faces, batches)[""],
        "recall": run(build("Recall"), faces, batches)[""],
    }
    for key, value in ours.items():
        assert value == pytest.approx(theirs[key], rel=1e-4, abs=1e-6), key


def test_results_of_pairs_are_compared_with_their_ground_truths(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    for i in range(6):
        image = rng.rand(24, 24 + 8 * (i % 2), 3)  # of two sizes
        imwrite(str(tmp_path / "gt" / f"{i}.png"), image)
        imwrite(str(tmp_path / "lq" / f"{i}.png"), image**2)
    folders = {"dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq")}
    dataset = build_dataset({"type": "PairedImageDataset", **folders}, phase="val", scale=1)
    metric = METRICS.build({"type": "calculate_fid", "features": {"type": "pixel_avgpool", "size": 4}})
    metric.check(dataset.reference, len(dataset))
    scores = {}
    for key in ("gt", "lq"):
        metric.start(dataset.reference, torch.device("cpu"))
        for i in range(len(dataset)):
            metric.update(dataset[i][key][None], [i])
        (scores[key],) = metric.compute().values()
    assert scores["gt"] == pytest.approx(0, abs=1e-6)
    assert scores["lq"] > 0.01
    alone = build_dataset({"type": "SingleImageDataset", "dataroot_lq": folders["dataroot_lq"]}, phase="val", scale=1)
    assert alone.reference is None
    with pytest.raises(UserError, match="no real images to compare with"):
        metric.check(alone.reference, len(alone))
