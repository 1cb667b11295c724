"""Losses of one-step generation: between generated images and their targets, in pixels, in features, and along the path.

Besides prediction and target, some want to know more about the samples. Attributes say so, and `GenerationModel` provides it:
``context``, names of keyword arguments among ``t`` (B,), the time, ``point`` (B, C, H, W), the network's input x_t, and for
losses of features ``distances`` (B, B), those that the plan expects among targets; and ``in_features``, whether the arguments
are feature vectors (B, d) instead of images. A loss of images with a method ``gaps``, uniform numbers (B,) -> steps in time
(B,), has for its target what the averaged generator predicts that far along the path, and ``gap`` in its context.
"""
