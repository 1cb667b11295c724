"""Losses of one-step generation: between generated images and their targets, in pixels, in features, and along the path.

Besides prediction and target, some want to know more about the samples. Attributes say so, and `GenerationModel` provides it:
``context``, names of keyword arguments among ``t`` (B,), the time, and ``point`` (B, C, H, W), the network's input x_t; and
``in_features``, whether the arguments are feature vectors (B, d) instead of images.
"""
