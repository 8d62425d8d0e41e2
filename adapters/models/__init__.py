"""Generative models as Lightning modules, with any prior of `adapters.priors`."""

from adapters.models.classifier import AttributeClassifier
from adapters.models.vae import VAE
from adapters.models.wgan import WGAN

__all__ = ["VAE", "WGAN", "AttributeClassifier"]
