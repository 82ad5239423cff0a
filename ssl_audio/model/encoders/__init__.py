"""Encoders: what mixes tokens. One file each; import a new one here so that recipes know its name."""

from ssl_audio.model.encoders.bimamba import BiMamba
from ssl_audio.model.encoders.encoder import Encoder
from ssl_audio.model.encoders.transformer import Transformer

__all__ = ["BiMamba", "Encoder", "Transformer"]
