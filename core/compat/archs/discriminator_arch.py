"""``basicsr.archs.discriminator_arch``."""

from ....archs.discriminators.unet import UNetDiscriminatorSN
from ....archs.discriminators.vgg import VGGStyleDiscriminator

__all__ = ["UNetDiscriminatorSN", "VGGStyleDiscriminator"]
