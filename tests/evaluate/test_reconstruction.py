"""Equal clips score as equal, references are what they are called, and PSNR and SSIM are torchmetrics'."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

import tiny
from videodit.autoencoder import DPVAESettings, PerFrame, Posterior
from videodit.autoencoder.loss import moments
from videodit.autoencoder.perceptual import Perceptual
from videodit.autoencoder.streaming import Windows
from videodit.autoencoder.tiles import Tiles
from videodit.data import toybox
from videodit.evaluate.judges import TOYBOX
from videodit.evaluate.reconstruction import LatentMoments, Parts, fit, measure, previous, psnr, shrunk, ssim, temporal_error, toybox_clips
from videodit.shapes import Size, UserError


class Exact(PerFrame):
    """An autoencoder that loses nothing but, where it is told, adds a constant to the frames of one place in the group."""

    def __init__(self, *, time: int = 4, place: int = 0, brighter: float = 0.0) -> None:
        super().__init__(tiny.image_autoencoder())
        self.group, self.place, self.brighter = time, place, brighter

    @property
    def time(self) -> int:
        return self.group

    def encode(self, video: Tensor) -> Posterior:
        return Posterior(video, torch.zeros_like(video))

    def decode(self, latents: Tensor, frames: int | None = None) -> Tensor:
        video = latents.clone()
        video[:, :, self.place :: self.time] += self.brighter
        return video[:, :, :frames]

    decode_image = decode


def drawn(frames: int = 8, rows: int = 32, columns: int = 40) -> np.ndarray:
    """A scene that moves in every frame."""
    moving = next(i for i in range(99) if toybox.scene(1, i, objects=1).things[0].motion != "still")
    video = toybox.render(toybox.scene(1, moving, objects=1), Size(frames, rows, columns)).copy()
    video[:, :, :4] = (40 * np.arange(frames) % 200)[:, None, None, None]
    return video


def pictures(video: np.ndarray) -> Tensor:
    return torch.from_numpy(video).permute(0, 3, 1, 2) / 255


def noisy(x: Tensor, size: float = 0.1) -> Tensor:
    return (x + size * tiny.grid(*x.shape)).clamp(0, 1)


# --- Figures ---


def test_equal_frames():
    x = pictures(drawn())
    assert psnr(x, x) == math.inf
    torch.testing.assert_close(ssim(x, x), torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-12)
    error = temporal_error(x, x)
    assert error[0].isnan() and (error[1:] == 0).all()


def test_psnr_and_ssim_are_those_of_torchmetrics():
    """In double precision: in single, its SSIM of even pictures is off by up to 1e-3, and that of equal ones is not 1."""
    x = pictures(drawn())
    for y in (noisy(x), shrunk(x), x.roll(1, 0), 1 - x):
        theirs = structural_similarity_index_measure(y.double(), x.double(), data_range=1.0, reduction="none")
        assert isinstance(theirs, Tensor)
        torch.testing.assert_close(ssim(x, y), theirs, rtol=0, atol=1e-9)
        assert psnr(x, y) == pytest.approx(peak_signal_noise_ratio(y, x, data_range=1.0).item(), abs=1e-5)


def test_ssim_of_single_precision_frames_is_that_of_torchmetrics_where_they_are_not_even():
    x = tiny.grid(4, 3, 32, 40).sigmoid()
    theirs = structural_similarity_index_measure(noisy(x), x, data_range=1.0)
    assert isinstance(theirs, Tensor)
    assert ssim(x, noisy(x)).mean().item() == pytest.approx(theirs.item(), abs=1e-5)


def test_a_constant_error_has_no_temporal_error_and_a_flicker_has():
    x = torch.full((4, 3, 16, 16), 0.5)
    brighter = torch.tensor([0.1, 0.1, 0.3, 0.3])[:, None, None, None]
    torch.testing.assert_close(temporal_error(x, x + brighter)[1:].float(), torch.tensor([0.0, 0.2, 0.0]))
    assert psnr(x, x + 0.1) == pytest.approx(20, abs=1e-4)


# --- References ---


def test_the_frame_before_is_copied_and_the_first_has_none():
    x = pictures(drawn(4))
    copied = previous(x)
    assert copied[0].isnan().all() and torch.equal(copied[1:], x[:-1])
    error = temporal_error(x, copied)
    assert error[:2].isnan().all()
    expected = ((x[2] - x[1]) - (x[1] - x[0])).abs().mean()
    assert error[2].item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_shrunk_frame_keeps_what_is_even_and_the_mean_of_a_square():
    x = torch.full((1, 3, 16, 16), 0.25)
    torch.testing.assert_close(shrunk(x), x)
    x = torch.zeros(1, 3, 24, 24)
    x[..., ::2] = 1.0
    torch.testing.assert_close(shrunk(x), torch.full_like(x, 0.5))
    ramp = torch.linspace(0.2, 0.8, 32)[:, None].expand(1, 3, 32, 32).contiguous()
    torch.testing.assert_close(shrunk(ramp)[..., 8:-8, :], ramp[..., 8:-8, :], rtol=0, atol=0.01)


# --- Clips that do not fit ---


@pytest.mark.parametrize(
    ("extent", "size", "told"),
    [
        ((8, 32, 40), None, {"frames": 8, "size": [32, 40], "fit": "whole"}),
        ((11, 32, 40), None, {"frames": 11, "size": [32, 40], "fit": "whole"}),
        ((1, 32, 40), None, {"frames": 1, "size": [32, 40], "fit": "whole"}),
        ((4, 34, 47), None, {"frames": 4, "size": [32, 40], "fit": "cropped"}),
        ((4, 32, 40), (32, 40), {"frames": 4, "size": [32, 40], "fit": "whole"}),
        ((4, 64, 80), (32, 40), {"frames": 4, "size": [32, 40], "fit": "resized"}),
        ((4, 30, 90), (32, 32), {"frames": 4, "size": [32, 32], "fit": "resized and cropped"}),
    ],
)
def test_what_is_done_to_a_clip_is_said(extent: tuple, size: tuple | None, told: dict):
    fitted = fit("a.mp4", drawn(*extent), tiny.dpvae(), size)
    assert len(fitted.told.pop("digest")) == 64
    assert fitted.told == {
        "name": "a.mp4",
        "frames": told["frames"],
        "from": list(extent[1:]),
        "size": told["size"],
        "fit": told["fit"],
    }
    assert list(fitted.pictures.shape) == [told["frames"], 3, *told["size"]]
    assert fitted.pictures.min() >= 0 and fitted.pictures.max() <= 1


def test_the_middle_is_kept():
    video = np.zeros((4, 34, 42, 3), np.uint8)
    video[:, 1:-1, 1:-1] = 255
    assert (fit("a", video, tiny.dpvae()).pictures == 1).all()


@pytest.mark.parametrize(
    ("extent", "size", "words"),
    [
        ((4, 7, 32), None, "a.mp4 is too small .4 frames of 7x32.: name a clip of 8x8 at least"),
        ((4, 32, 32), (32, 33), "33 columns do not fit: use 32 or 40"),
    ],
)
def test_clips_that_cannot_be_made_to_fit(extent: tuple, size: tuple | None, words: str):
    with pytest.raises(UserError, match=words):
        fit("a.mp4", np.zeros((*extent, 3), np.uint8), tiny.dpvae(), size)


@pytest.mark.parametrize(("size", "words"), [(None, "name a clip of 8x8 at least"), ((4, 8), "use a --size of 8x8 at least")])
def test_what_ssim_has_no_window_in_is_too_small(size: tuple | None, words: str):
    with pytest.raises(UserError, match=f"a.mp4 is too small .4 frames of 4x8.: {words}"):
        fit("a.mp4", np.zeros((4, 4, 8, 3), np.uint8), PerFrame(tiny.image_autoencoder(widths=(8, 8, 16))), size)


# --- The whole ---


def test_an_autoencoder_that_loses_nothing():
    torch.manual_seed(0)
    net = Perceptual("st-lpips-alex")
    result = measure(Exact(), [("a", drawn())], perceptual=net)
    figures = result["all"]
    assert figures["psnr"] is None or figures["psnr"] > 120  # what rounding -1..1 leaves
    assert [figures[name] for name in ("ssim", "temporal", "st-lpips-alex")] == pytest.approx([1, 0, 0], abs=1e-6)
    assert (result["group"], result["perceptual"], result["latents"]) == (4, "st-lpips-alex", None)


def test_equal_frames_have_no_psnr_in_json():
    result = measure(Exact(), [("a", np.full((8, 16, 16, 3), 90, np.uint8))])
    assert result["references"]["previous frame copied"]["all"] == {"psnr": None, "ssim": 1.0, "temporal": 0.0}
    json.dumps(result, allow_nan=False)


def test_figures_stand_at_the_place_that_is_wrong():
    video = (drawn() // 2 + 30).astype(np.uint8)
    result = measure(Exact(place=2, brighter=0.2), [("a", video)])  # 0.1 of 0..1
    places = result["positions"]
    assert places[2]["psnr"] == pytest.approx(20, abs=1e-3)
    assert all(place["psnr"] is None or place["psnr"] > 120 for place in (places[0], places[1], places[3]))
    assert [round(place["temporal"], 5) for place in places] == [0, 0, 0.1, 0.1]
    assert result["all"]["psnr"] == pytest.approx(20 + 10 * math.log10(4), abs=1e-3)
    assert result["all"]["temporal"] == pytest.approx(4 * 0.1 / 7, abs=1e-5)


def test_references_by_place_are_computed_by_hand():
    video = drawn()
    x = pictures(video)
    result = measure(Exact(), [("a", video)])
    copied = result["references"]["previous frame copied"]
    assert copied["all"]["psnr"] == pytest.approx(psnr(x[1:], x[:-1]), abs=1e-5)
    assert copied["positions"][0]["psnr"] == pytest.approx(psnr(x[4:5], x[3:4]), abs=1e-5)  # frame 0 has none before it
    assert copied["positions"][3]["psnr"] == pytest.approx(psnr(x[3::4], x[2::4]), abs=1e-5)
    assert copied["all"]["ssim"] == pytest.approx(ssim(x[1:], x[:-1]).mean().item(), abs=1e-5)
    small = result["references"]["4x4 area downscale, bicubic"]
    assert small["positions"][1]["psnr"] == pytest.approx(psnr(x[1::4], shrunk(x)[1::4]), abs=1e-5)


def test_all_clips_together_are_all_their_frames():
    a, b = drawn(), drawn(4, 48, 32)
    autoencoder = tiny.dpvae(trained=True)
    result = measure(autoencoder, [("a", a), ("b", b)])
    one, other = (measure(autoencoder, [(name, video)]) for name, video in (("a", a), ("b", b)))
    assert [clip["name"] for clip in result["clips"]] == ["a", "b"]
    assert result["clips"][0]["positions"] == one["positions"] and result["clips"][1]["all"] == other["all"]
    assert result["all"]["ssim"] == pytest.approx((2 * one["all"]["ssim"] + other["all"]["ssim"]) / 3, abs=1e-5)
    errors = [10 ** (-part["all"]["psnr"] / 10) for part in (one, other)]
    assert result["all"]["psnr"] == pytest.approx(-10 * math.log10((2 * errors[0] + errors[1]) / 3), abs=1e-4)


@torch.no_grad()
def test_the_reconstruction_is_the_autoencoders_and_so_are_its_latents():
    video, autoencoder = drawn(), tiny.dpvae(trained=True)
    result = measure(autoencoder, [("a", video)])
    x = 2 * pictures(video).movedim(1, 0)[None] - 1
    z, z_k = autoencoder.encode(x).mode(), autoencoder.encode_image(x[:, :, ::4]).mode()

    def score(decoded: Tensor, original: Tensor) -> float:
        return psnr((original[0].movedim(1, 0) + 1) / 2, ((decoded[0].movedim(1, 0) + 1) / 2).clamp(0, 1))

    assert result["all"]["psnr"] == pytest.approx(score(autoencoder.decode(z), x), abs=1e-4)
    latents = result["latents"]
    assert latents["image_decoder_psnr"] == pytest.approx(score(autoencoder.decode_image(z), x[:, :, ::4]), abs=1e-4)
    assert latents["image_autoencoder_psnr"] == pytest.approx(score(autoencoder.decode_image(z_k), x[:, :, ::4]), abs=1e-4)
    (mean, std), (mean_k, std_k) = moments(z), moments(z_k)
    assert latents["mean"] == pytest.approx((mean - mean_k).abs().mean().item(), abs=1e-5) and latents["mean"] > 1e-4
    assert latents["deviation"] == pytest.approx((std - std_k).abs().mean().item(), abs=1e-5) and latents["deviation"] > 1e-4


def test_an_inflated_autoencoder_starts_with_the_image_latents():
    latents = measure(tiny.dpvae(), [("a", drawn())])["latents"]
    assert (latents["mean"], latents["deviation"]) == (0, 0)
    assert latents["image_decoder_psnr"] == latents["image_autoencoder_psnr"]


def test_moments_of_parts_are_those_of_the_whole():
    parts = [
        tiny.grid(1, 4, 2, 3, 5, seed=1).double(),
        3 + 2 * tiny.grid(1, 4, 1, 4, 4, seed=2).double(),
        tiny.grid(1, 4, 1, 1, 1).double(),
    ]
    together = LatentMoments.together([LatentMoments.of(part) for part in parts])
    mean, std = moments(torch.cat([part.flatten(2) for part in parts], 2)[..., None, None])
    torch.testing.assert_close(together.mean, mean)
    torch.testing.assert_close(together.std, std)


@pytest.mark.parametrize(
    "autoencoder", [tiny.dpvae(), tiny.dpvae(settings=DPVAESettings(time=4, first="alone")), PerFrame(tiny.image_autoencoder())]
)
def test_a_picture_is_a_clip_of_one_frame(autoencoder: PerFrame):
    result = measure(autoencoder, [("a.png", drawn(1))])
    assert result["all"]["psnr"] > 0 and result["all"]["temporal"] is None
    assert result["references"]["previous frame copied"]["all"] == {"psnr": None, "ssim": None, "temporal": None}
    assert len(result["positions"]) == autoencoder.time
    assert {name: result["positions"][0][name] for name in ("psnr", "ssim")} == {name: result["all"][name] for name in ("psnr", "ssim")}
    json.dumps(result, allow_nan=False)


def test_an_image_autoencoder_has_one_place_and_takes_any_number_of_frames():
    result = measure(PerFrame(tiny.image_autoencoder()), [("a", drawn(5))])
    assert result["positions"] == [result["all"]] and result["latents"] is None
    assert result["clips"][0]["frames"] == 5


def test_toybox_clips_are_held_out():
    names, clips = zip(*toybox_clips(3, Size(4, 16, 24)), strict=True)
    assert names == ("toybox 0", "toybox 1", "toybox 2") and {clip.shape for clip in clips} == {(4, 16, 24, 3)}
    assert (clips[0] == toybox.render(TOYBOX.scenes("held-out", 1)[0], Size(4, 16, 24))).all()


def test_nothing_to_measure():
    with pytest.raises(UserError, match="no clip"):
        measure(tiny.dpvae(), [])


# --- Parts ---


def test_what_windows_and_tiles_cost_is_measured_against_the_whole():
    """Nothing where one holds everything and, to rounding, where time is causal; something where windows end."""
    clips = [("scene", drawn(frames=22, rows=48, columns=48))]

    def parts(reach: str, **cut: object) -> dict:
        autoencoder = tiny.dpvae(trained=True, settings=DPVAESettings(reach=reach))  # pyright: ignore[reportArgumentType]
        result = measure(autoencoder, clips, parts=Parts(**cut))  # pyright: ignore[reportArgumentType]
        assert result["parts"] == result["clips"][0]["parts"]
        return result["parts"]

    assert parts("symmetric", windows=Windows(groups=6, overlap=2), tiles=Tiles(rows=6)) == {"psnr": None, "largest": 0.0}
    assert parts("causal", windows=Windows(groups=1, overlap=0))["largest"] < 1e-4
    cut = parts("symmetric", windows=Windows(groups=2, overlap=1))
    assert 10 < cut["psnr"] < 60 and cut["largest"] > 1e-3
    assert parts("symmetric", tiles=Tiles(rows=5, columns=5, passes=16))["largest"] < 1e-4
    assert measure(tiny.dpvae(), clips)["parts"] is None
