"""The optics of the hologram recipes: simulation of in-line (Gabor) holograms by the angular spectrum method.

Latychevskaia and Fink, "Practical algorithms for simulation and reconstruction of digital in-line holograms", Applied
Optics 54(9), 2015, for a plane reference wave, as in section 4.1 of the spatial-mask paper. The paper gives no optical
constants; the defaults here are ours.

Other constants are another `HologramSimulation`, other optics a subclass with an `intensity` of its own.
`register_optics` gives either a name, which ``python -m recipes.hologram_pruning --optics NAME`` finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


def transfer_function(
    size_px: int, pixel_m: float, wavelength_m: float, distance_m: float, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Free-space transfer function H over a distance z, without the carrier exp(ikz).

    ``H(f) = exp(2πi z/λ (sqrt(1 - (λ fx)² - (λ fy)²) - 1))``, and 0 for evanescent waves. The phase is of the order of
    1e5 rad, so it is computed in float64.

    Returns:
        ``[size_px, size_px]`` complex128 in the order of `torch.fft.fft2`.
    """
    frequency = torch.fft.fftfreq(size_px, d=pixel_m, dtype=torch.float64, device=device) * wavelength_m
    squared_cosine = 1 - frequency[:, None] ** 2 - frequency[None, :] ** 2
    phase = 2 * math.pi * distance_m / wavelength_m * (squared_cosine.clamp_min(0).sqrt() - 1)
    return torch.polar((squared_cosine > 0).double(), phase)


def propagate(field: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    """Propagate a complex field ``[..., size, size]``; the conjugate transfer function propagates it back."""
    return torch.fft.ifft2(torch.fft.fft2(field) * transfer.to(field.dtype))


@dataclass(frozen=True)
class HologramSimulation:
    """Makes pairs of hologram and target from digits.

    A digit is enlarged ``upsampling`` times and zero-padded to ``padded_px``. The object transmits
    ``exp(-absorption * digit)``. The hologram is the intensity of the field at ``distance_m``, plus Gaussian noise
    relative to the background intensity 1, cropped to ``image_px`` and scaled to 0..1 by its own minimum and maximum.

    Attributes:
        image_px, padded_px: side of the hologram, and of the field that is propagated.
        upsampling: factor by which a digit is enlarged.
        pixel_m, wavelength_m, distance_m: size of a pixel, wavelength of the light, distance from object to sensor.
        absorption: exponent of a pixel of value 1.
        noise: standard deviation of the noise.
    """

    image_px: int = 256
    padded_px: int = 512
    upsampling: int = 3
    pixel_m: float = 3.45e-6
    wavelength_m: float = 532e-9
    distance_m: float = 8e-3
    absorption: float = 1.0
    noise: float = 0.03

    def targets(self, digits: torch.Tensor) -> torch.Tensor:
        """Targets ``[batch, 1, image_px, image_px]`` of digits ``[batch, 28, 28]`` in 0..1."""
        return centre_crop(self._place(digits), self.image_px)

    def holograms(self, digits: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Holograms ``[batch, 1, image_px, image_px]`` in 0..1 of digits ``[batch, 28, 28]`` in 0..1."""
        transmission = torch.exp(-self.absorption * self._place(digits)).to(torch.complex64)
        intensity = centre_crop(self.intensity(transmission), self.image_px)
        noise = torch.randn(intensity.shape, generator=generator)  # on the CPU: the same data whatever the device
        hologram = intensity + self.noise * noise.to(digits.device)
        low, high = hologram.amin((2, 3), keepdim=True), hologram.amax((2, 3), keepdim=True)
        return (hologram - low) / (high - low)

    def intensity(self, transmission: torch.Tensor) -> torch.Tensor:
        """What the sensor sees of an object, 1 where there is none; for other optics, override this.

        Args:
            transmission: ``[batch, 1, padded_px, padded_px]`` complex64.

        Returns:
            ``[batch, 1, padded_px, padded_px]`` float32.
        """
        optics = self.pixel_m, self.wavelength_m, self.distance_m
        transfer = transfer_function(self.padded_px, *optics, transmission.device)
        return propagate(transmission, transfer).abs().square()

    def crop_digits(self, images: torch.Tensor) -> torch.Tensor:
        """The digits ``[batch, 1, 28, 28]`` in images ``[batch, 1, image_px, image_px]``, for a digit classifier."""
        return F.avg_pool2d(centre_crop(images, 28 * self.upsampling), self.upsampling)

    def _place(self, digits: torch.Tensor) -> torch.Tensor:
        large = F.interpolate(digits.unsqueeze(1), scale_factor=float(self.upsampling), mode="nearest")
        before = (self.padded_px - large.shape[-1]) // 2
        after = self.padded_px - large.shape[-1] - before
        return F.pad(large, (before, after, before, after))


SMALL_HOLOGRAMS = HologramSimulation(image_px=64, padded_px=192, upsampling=1, pixel_m=3 * 3.45e-6)
"""For short experiments: digits of 28 px, as they are."""
OPTICS: dict[str, HologramSimulation] = {"paper": HologramSimulation(), "small": SMALL_HOLOGRAMS}
"""Simulations by name."""


def register_optics(name: str, simulation: HologramSimulation) -> None:
    """Give a simulation a name.

    Raises:
        ValueError: another simulation has the name.
    """
    if OPTICS.setdefault(name, simulation) != simulation:
        raise ValueError(f"name is {name!r}, which is the name of other optics; choose another")


def centre_crop(images: torch.Tensor, size_px: int) -> torch.Tensor:
    """Central ``[..., size_px, size_px]`` of images ``[..., height, width]``."""
    top, left = ((length - size_px) // 2 for length in images.shape[-2:])
    return images[..., top : top + size_px, left : left + size_px]
