"""Self-supervised pretraining of audio encoders: SSAST and SSAMBA as one framework."""

__version__ = "0.1.0"
