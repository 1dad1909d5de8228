import pytest
import torch

from recipes.datasets.digits import load_digits
from recipes.datasets.holography import HologramSimulation, centre_crop, propagate, transfer_function

OPTICS = (128, 3.45e-6, 532e-9)


def field():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 128, 128, dtype=torch.complex128, generator=generator)


def test_propagating_z1_then_z2_equals_z1_plus_z2():
    one, two, both = (transfer_function(*OPTICS, z) for z in (3e-3, 5e-3, 8e-3))
    torch.testing.assert_close(propagate(propagate(field(), one), two), propagate(field(), both), rtol=0, atol=1e-11)


def test_energy_is_conserved():
    """Every wave propagates at this pixel size (λ / 2 p = 0.08), so |H| = 1 and Parseval's theorem holds."""
    out = propagate(field(), transfer_function(*OPTICS, 8e-3))
    assert out.abs().square().sum().item() == pytest.approx(field().abs().square().sum().item(), rel=1e-12)


def test_evanescent_waves_are_dropped():
    transfer = transfer_function(16, 0.2e-6, 532e-9, 1e-6)  # λ / 2 p = 1.33: the highest frequencies do not propagate
    assert transfer[8, 8] == 0
    assert transfer[0, 0] == 1


def test_a_plane_wave_stays_a_plane_wave():
    ones = torch.ones(1, 128, 128, dtype=torch.complex128)
    torch.testing.assert_close(propagate(ones, transfer_function(*OPTICS, 8e-3)), ones)


def test_a_point_source_spreads_as_fresnel_rings():
    """The first dark ring of a point hologram: the phase k r² / 2z gains π between extrema of the rings."""
    size, pixel, wavelength, z = 512, 3.45e-6, 532e-9, 8e-3
    transmission = torch.ones(1, size, size, dtype=torch.complex128)
    transmission[0, size // 2, size // 2] = 0
    intensity = propagate(transmission, transfer_function(size, pixel, wavelength, z)).abs().square()[0]
    profile = intensity[size // 2, size // 2 :] - 1
    # -(1/iλz) exp(iπ r²/λz) p²: its real part, -sin(π r²/λz) p²/λz, first vanishes at r = sqrt(λ z) = 65.2 µm
    crossing = next(i for i in range(1, 60) if profile[i] < 0 <= profile[i + 1]) * pixel
    assert crossing == pytest.approx((wavelength * z) ** 0.5, abs=2 * pixel)


@pytest.mark.parametrize(
    "simulation",
    [
        HologramSimulation(),
        HologramSimulation(image_px=64, padded_px=192, upsampling=1, pixel_m=3 * 3.45e-6),
    ],
    ids=["paper", "small"],
)
def test_back_propagation_brings_the_digit_back(simulation):
    digits = load_digits()[0][:4]
    hologram = simulation.holograms(digits, torch.Generator().manual_seed(0))[:, 0]
    target = simulation.targets(digits)[:, 0]
    assert hologram.shape == target.shape == (4, simulation.image_px, simulation.image_px)
    assert (hologram.amin((1, 2)) == 0).all()
    assert (hologram.amax((1, 2)) == 1).all()
    amplitude = (hologram / hologram.median()).clamp_min(0).sqrt().to(torch.complex128)
    transfer = transfer_function(
        simulation.image_px, simulation.pixel_m, simulation.wavelength_m, simulation.distance_m
    )
    refocused = 1 - propagate(amplitude, transfer.conj()).abs()
    for image, digit, raw in zip(refocused, target, hologram, strict=True):
        back = torch.corrcoef(torch.stack([image.flatten(), digit.double().flatten()]))[0, 1]
        blurred = torch.corrcoef(torch.stack([-raw.flatten(), digit.flatten()]))[0, 1]
        assert back > 0.6
        assert back > blurred


def test_noise_is_relative_to_the_background():
    digits = torch.zeros(1, 28, 28)
    simulation = HologramSimulation(image_px=64, padded_px=128, upsampling=1, noise=0.03)
    hologram = simulation.holograms(digits, torch.Generator().manual_seed(0))
    noise = 0.03 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = (noise - noise.min()) / (noise.max() - noise.min())
    torch.testing.assert_close(hologram, expected, rtol=1e-3, atol=1e-4)


def test_cropped_digits_are_the_digits():
    digits = load_digits()[0][:8]
    simulation = HologramSimulation()
    torch.testing.assert_close(simulation.crop_digits(simulation.targets(digits))[:, 0], digits)


def test_digits_are_ten_thousand_in_a_fixed_order():
    digits, labels = load_digits()
    assert digits.shape == (10_000, 28, 28)
    assert (digits.min(), digits.max()) == (0, 1)
    assert labels.bincount().min() > 800
    assert labels[:20].unique().numel() > 5  # shuffled
    torch.testing.assert_close(load_digits()[1], labels)


def test_centre_crop_of_odd_differences():
    assert centre_crop(torch.arange(5).expand(5, 5), 2)[0].tolist() == [1, 2]
