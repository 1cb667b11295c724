"""Relume: config-driven training for image restoration, frame interpolation and one-step generation."""

import os

__version__ = "0.1.0"

# OpenMP's threads wait by spinning, which takes the cores from whoever has work: loading processes, a second run. On two busy
# cores a training step was measured 3 to 30 times slower than with threads that sleep. Takes effect if torch is not loaded yet;
# whoever sets the variable keeps it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
