"""Generative models as Lightning modules, with any prior of `adapters.priors`."""

from adapters.models.vae import VAE

__all__ = ["VAE"]
