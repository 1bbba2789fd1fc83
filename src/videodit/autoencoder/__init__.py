"""Pixels to latents and back: the image autoencoder that is given, and the video autoencoder made from it."""

from videodit.autoencoder.model import DPVAE, DPVAESettings, PerFrame, Posterior, inflate

__all__ = ["DPVAE", "DPVAESettings", "PerFrame", "Posterior", "inflate"]
