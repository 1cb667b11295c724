"""Relume: config-driven training for image restoration, frame interpolation and one-step generation."""

__version__ = "0.1.0"
