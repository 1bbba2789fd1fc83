"""A model folder comes back as it was saved, and whatever is wrong with one is said in one sentence."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file, save_file

import tiny
from videodit import config, models
from videodit.autoencoder import DPVAE, PerFrame, inflate
from videodit.models import ModelFolder, Provenance
from videodit.shapes import UserError


class Trap:
    """A pickle that would leave a trace if anything opened it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture
def folder(world: tiny.World, tmp_path: Path) -> Path:
    """A copy of the video model that a test may spoil."""
    return Path(shutil.copytree(world.video_model, tmp_path / "model"))


def fails(action: Callable[[], object], match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        action()
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith((".", "?")) and len(sentence) < 600


# --- There and back ---


@pytest.mark.parametrize("which", ["image_model", "video_model"])
def test_what_is_loaded_saves_the_same(world: tiny.World, tmp_path: Path, which: str) -> None:
    folder = getattr(world, which)
    models.save(tmp_path / "again", models.load(folder))
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again"]


def test_what_half_precision_cannot_hold_is_kept_as_it_is(tmp_path: Path) -> None:
    network = tiny.transformer()
    with torch.no_grad():
        network.text.bias[0] = 1e5
    models.save_backbone(tmp_path / "large", network, Provenance())
    assert models.load_backbone(tmp_path / "large").text.bias[0] == 1e5
    file = tmp_path / "large" / "backbone.safetensors"
    assert models.precision_of(file) == torch.float32 and load_file(file)["out.weight"].dtype == torch.half


def test_what_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    for error in (UserError, KeyboardInterrupt):
        with pytest.raises(error), models.written(tmp_path / "out") as aside:
            (aside / "half").touch()
            raise error
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_number_is_not_loaded(tmp_path: Path) -> None:
    network = tiny.transformer()
    network.out.bias.data[0] = float("nan")
    models.save_backbone(tmp_path / "broken", network, Provenance())
    fails(lambda: models.load_backbone(tmp_path / "broken"), r"no finite number \(out.bias\)")


def test_a_model_comes_back_in_fp32_as_half_precision_left_it(tmp_path: Path) -> None:
    saved = tiny.model(tiny.dpvae(trained=True), tiny.CLIP)
    models.save(tmp_path / "model", saved)
    loaded = models.load(tmp_path / "model")
    for part in ("autoencoder", "text", "backbone"):
        before, after = getattr(saved, part).state_dict(), getattr(loaded, part).state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], value.half().float()) for name, value in before.items())
        assert not getattr(loaded, part).training
    assert loaded.settings.size == tiny.CLIP and loaded.settings.text == tiny.TEXT and isinstance(loaded.autoencoder, DPVAE)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "model.toml", "tokenizer.json", *(f"{part}.safetensors" for part in ("autoencoder", "text", "backbone"))
    }  # fmt: skip


def test_saving_replaces_a_folder_whole(world: tiny.World, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("")
    models.save(tmp_path / "model", models.load(world.image_model))
    assert not (tmp_path / "model" / "old").exists()
    models.load(tmp_path / "model")


def test_an_autoencoder_comes_from_each_kind_of_folder(world: tiny.World) -> None:
    kinds = {world.image_autoencoder: PerFrame, world.autoencoder: DPVAE, world.image_model: PerFrame, world.video_model: DPVAE}
    for folder, kind in kinds.items():
        autoencoder = models.load_autoencoder(folder)
        assert type(autoencoder) is kind and autoencoder.scaling == 0.8 and autoencoder.shift == 0.1
        assert models.describe(folder) == models.describe_autoencoder(autoencoder)
        assert not any(p.requires_grad for p in autoencoder.image.parameters())


def test_an_image_autoencoder_loads_as_diffusers_saved_it(world: tiny.World) -> None:
    theirs = AutoencoderKL.from_pretrained(world.image_autoencoder).state_dict()
    ours = models.load_autoencoder(world.image_autoencoder).image.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], value) for name, value in theirs.items())


# --- What can be wrong ---


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    fails(lambda: models.load(tmp_path / "none"), "none does not exist: give a folder with a model.toml")
    fails(lambda: models.load(tmp_path / "file"), "file is a file: give a folder")
    fails(lambda: models.load(tmp_path / "empty"), "There is no model.toml in .*empty: give the folder that training left")
    fails(lambda: models.load_autoencoder(tmp_path / "none"), "does not exist")


def test_an_autoencoder_is_no_model(world: tiny.World) -> None:
    fails(lambda: models.load(world.autoencoder), "holds an autoencoder, not a whole model")
    fails(lambda: models.load(world.image_autoencoder), "There is no model.toml")


@pytest.mark.parametrize("file", ["autoencoder.safetensors", "text.safetensors", "backbone.safetensors", "tokenizer.json"])
def test_a_file_is_missing_or_another(folder: Path, file: str) -> None:
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    fails(lambda: models.load(folder), f"{file} is not the file that was saved .*copy the whole folder again")
    (folder / file).write_bytes(whole[: len(whole) // 2])
    fails(lambda: models.load(folder), f"{file} is not the file that was saved")
    (folder / file).unlink()
    fails(lambda: models.load(folder), f"{file} is missing from")


def undigested(folder: Path, change: Callable[[str], str] = lambda text: text) -> None:
    """Rewrite model.toml without digests, as someone would who edits a folder by hand."""
    text = (folder / "model.toml").read_text()
    without = re.sub(r"^digests = .*$", "digests = {}", text, flags=re.MULTILINE)
    assert without != text
    (folder / "model.toml").write_text(change(without))


@pytest.mark.parametrize("left", [0, 7, 1000, -1])
def test_a_truncated_file_without_digests(folder: Path, left: int) -> None:
    undigested(folder)
    path = folder / "backbone.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    fails(lambda: models.load(folder), "backbone.safetensors is not a complete safetensors file")


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04.", b'{"model": {"type": "BPE"}}'])
def test_a_corrupt_tokenizer_without_digests(folder: Path, content: bytes) -> None:
    undigested(folder)
    (folder / "tokenizer.json").write_bytes(content)
    fails(lambda: models.load(folder), "tokenizer.json is not a tokenizer")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("depth = 2", "depth = 3", "does not fit its model.toml"),
        ("width = 48", "width = 32", "does not fit its model.toml"),
        ("takes = ", "take = ", "model.toml: take is not a setting; did you mean takes?"),
        ('kind = "model"', 'kind = "modal"', "kind takes one of"),
        ("fps = 8.0", "fps = quick", "is not valid TOML"),
        ("fps = 8.0", 'fps = "quick"', "fps takes a number"),
        ('kind = "dpvae"', 'kind = "per-frame"', "groups is not a setting"),
    ],
)
def test_a_model_toml_that_is_wrong(folder: Path, old: str, new: str, match: str) -> None:
    undigested(folder, lambda text: text.replace(old, new))
    fails(lambda: models.load(folder), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"act_fn": "relu"}, "with act_fn = relu is not read: only silu is"),
        ({"down_block_types": [*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"]}, "with up_block_types = .*is not read: only"),
        ({"latents_mean": [0.1] * 8, "latents_std": [2.0] * 8}, "with latents_mean, a number for each channel, is not read"),
        ({"latents_std": [2.0] * 8}, "with latents_std, a number for each channel, is not read"),
        ({"up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3]}, "with up_block_types = .*is not read"),
        ({"in_channels": 4}, "with in_channels = 4 is not read: only 3"),
        ({"scaling_factor": None}, "with scaling_factor = None is not read"),
        ({"norm_num_groups": 0}, "does not describe an AutoencoderKL"),
        ({"latent_channels": -4}, "does not describe an AutoencoderKL"),
        ({"block_out_channels": []}, "does not describe an AutoencoderKL"),
    ],
)
def test_an_image_autoencoder_of_another_shape(change: dict[str, object], match: str, world: tiny.World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.image_autoencoder, tmp_path / "image"))
    described = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(described))
    fails(lambda: models.describe(folder), match)
    if "does not describe" not in match:
        fails(lambda: inflate(AutoencoderKL.from_config(described)), match)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError):
        models.load_autoencoder(folder)


def test_weights_of_other_names(folder: Path) -> None:
    undigested(folder)
    path = folder / "text.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "more": torch.zeros(3)}, path)
    fails(lambda: models.load(folder), "does not fit its model.toml")


def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "opened"))
    (folder / "backbone.safetensors").unlink()
    (folder / "backbone.pt").write_bytes(trap)
    fails(lambda: models.load(folder), r"holds a pickle \(backbone.pt\) in place of backbone.safetensors: only safetensors are read")
    undigested(folder)
    (folder / "backbone.safetensors").write_bytes(trap)
    fails(lambda: models.load(folder), "not a complete safetensors file")
    (folder / "model.toml").unlink()
    fails(lambda: models.load(folder), r"holds a pickle \(backbone.pt\), which can run code")
    assert not (tmp_path / "opened").exists()


def test_a_diffusers_folder_with_only_a_pickle(world: tiny.World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.image_autoencoder, tmp_path / "image"))
    (weights,) = folder.glob("*.safetensors")
    weights.unlink()
    fails(lambda: models.load_autoencoder(folder), "holds no diffusion_pytorch_model.safetensors")
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "opened")))
    fails(lambda: models.load_autoencoder(folder), r"holds only a pickle \(diffusion_pytorch_model.bin\): save it with save_pretrained")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("text", ["", "[]", "3", '{"block_out_channels": "wide"}', '{"down_block_types": ["Nothing"]}'])
def test_a_diffusers_folder_with_another_config(world: tiny.World, tmp_path: Path, text: str) -> None:
    folder = Path(shutil.copytree(world.image_autoencoder, tmp_path / "image"))
    (folder / "config.json").write_text(text)
    fails(lambda: models.load_autoencoder(folder), "config.json does not describe an AutoencoderKL")


def test_model_toml_says_all(world: tiny.World) -> None:
    settings = config.read(ModelFolder, world.video_model / "model.toml")
    assert settings.digests == {path.name: models.digest(path) for path in world.video_model.iterdir() if path.name != "model.toml"}
    assert settings.autoencoder == models.describe(world.autoencoder) and settings.sampling == tiny.SAMPLING


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert models.commit() == ""
