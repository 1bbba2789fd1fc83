"""What torch-fidelity and cd-fvd say of the inputs in a folder; runs in their environment, where nothing of this project is.

    python benchmarks/metric_references_theirs.py FOLDER     writes FOLDER/theirs.json and FOLDER/theirs.npz

A stub stands for torchvision: both import it, neither needs it for these scores.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn


class Stub(ModuleType):
    """Whatever is imported from it is an empty class."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or type(name, (), {})


for inside in ("", ".datasets", ".datasets.video_utils", ".models", ".transforms", ".transforms.functional"):
    sys.modules[f"torchvision{inside}"] = Stub(f"torchvision{inside}")

import torch_fidelity  # noqa: E402
from cdfvd.fvd import cdfvd, get_i3d_logits  # noqa: E402
from cdfvd.third_party.i3d.utils import frechet_distance  # noqa: E402
from cdfvd.utils.metric_utils import FeatureStats  # noqa: E402
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: E402
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402


class Frames(torch.utils.data.Dataset):
    """Pictures as torch-fidelity takes them: c h w, uint8."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.frames[index]


def fidelity(given: dict[str, np.ndarray], folder: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    found = {}
    for name in ("many", "few"):
        one, other = (torch.from_numpy(given[f"{name}_{which}"]).float() for which in ("real", "fake"))
        statistics = [fid_features_to_statistics(rows) for rows in (one, other)]
        found[f"frechet, {name} rows"] = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
        kernel = kid_features_to_metric(one.double(), other.double(), kid_subsets=1, kid_subset_size=len(one), verbose=False)
        found[f"kernel, {name} rows"] = kernel["kernel_inception_distance_mean"]
    found["inception, 10 splits"] = isc_features_to_metric(torch.from_numpy(given["logits"]), 10, shuffle=False)["inception_score_mean"]
    weights = str(folder / "inception.pth")
    one, other = Frames(given["frames_real"]), Frames(given["frames_fake"])
    how = {"isc": True, "fid": True, "kid": True, "isc_splits": 1, "kid_subsets": 1, "kid_subset_size": len(one), "samples_shuffle": False}
    quietly = {"cuda": False, "cache": False, "verbose": False, "save_cpu_ram": True, "batch_size": 8}
    scores = torch_fidelity.calculate_metrics(input1=one, input2=other, feature_extractor_weights_path=weights, **how, **quietly)
    found["fid of frames"] = scores["frechet_inception_distance"]
    found["kid of frames"] = scores["kernel_inception_distance_mean"]
    found["is of frames"] = scores["inception_score_mean"]
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=weights)
    with torch.inference_mode():
        rows = network(one.frames)[0].numpy()
    return found, {"inception": rows}


def fvd(given: dict[str, np.ndarray], folder: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    found = {}
    blank = cdfvd.__new__(cdfvd)  # its scores of features need no network
    for name in ("many", "few"):
        pair = [torch.from_numpy(given[f"{name}_{which}"]).float() for which in ("fake", "real")]
        found[f"frechet_distance, {name} rows"] = float(frechet_distance(pair[1].double(), pair[0].double()))
        stats = [FeatureStats(capture_mean_cov=True) for _ in pair]
        for stat, rows in zip(stats, pair, strict=True):
            stat.append(rows.numpy())
        found[f"compute_fvd_from_stats, {name} rows"] = float(cdfvd.compute_fvd_from_stats(blank, *stats))
    rows = {}
    for norms in (1e-5, 1e-3):
        whole = cdfvd("i3d", ckpt_path=str(folder / "i3d.pth"), n_real="full", n_fake="full", compute_feats=True, device="cpu")
        for module in whole.model.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = norms
        for stats, which in ((whole.real_stats, "real"), (whole.fake_stats, "fake")):
            get_i3d_logits(stats, whole.model, given[f"clips_{which}"], batchsize=2, device="cpu")
            rows[which] = stats.get_all()
        distance = frechet_distance(*(torch.from_numpy(rows[which]).double() for which in ("real", "fake")))
        found["fvd of clips" if norms == 1e-3 else "fvd of clips, norms of 0.00001"] = float(distance)
    return found, {f"i3d_{which}": value for which, value in rows.items()}


def main() -> None:
    folder = Path(sys.argv[1])
    with np.load(folder / "given.npz") as held:
        given = dict(held)
    (one, rows), (two, more) = fidelity(given, folder), fvd(given, folder)
    versions = {name: importlib.metadata.version(name) for name in ("torch-fidelity", "cd-fvd", "torch", "numpy", "scipy")}
    np.savez(folder / "theirs.npz", **rows, **more)
    (folder / "theirs.json").write_text(json.dumps({"versions": versions, "torch-fidelity": one, "cd-fvd": two}))


if __name__ == "__main__":
    main()
