"""Preparing image folders for training: what `relume prepare` does with them."""
