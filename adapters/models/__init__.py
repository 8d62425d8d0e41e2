"""Generative models as Lightning modules, with any prior of `adapters.priors`."""

from adapters.models.baselines import CVAE, JMVAE, TELBO
from adapters.models.classifier import AttributeClassifier
from adapters.models.conditional import AttributeVAE, ConditionalVAE
from adapters.models.vae import VAE
from adapters.models.wgan import WGAN

__all__ = ["CVAE", "JMVAE", "TELBO", "VAE", "WGAN", "AttributeClassifier", "AttributeVAE", "ConditionalVAE"]
