"""Complex numbers between real layers, against gradient x input and each sample alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from flow import flow_error
from oracles import input_times_gradient
from torch import Tensor, nn

from lrp_lightning import Epsilon, SelectiveLRP, TopK, masked_forward, registered_operator
from lrp_lightning.errors import UnsupportedOperatorError

CHANNELS, SIZE = 4, 8
SPECTRAL = nn.Parameter(torch.randn(CHANNELS, CHANNELS, SIZE, SIZE // 2 + 1, dtype=torch.cfloat))
PHASE = torch.polar(torch.ones(SIZE), torch.arange(SIZE) / 3)


def fourier_layer(h: Tensor) -> Tensor:
    """As a Fourier neural operator."""
    weight = SPECTRAL.to(torch.promote_types(h.dtype, torch.cfloat))
    return torch.fft.irfft2(torch.einsum("bihw,iohw->bohw", torch.fft.rfft2(h), weight), s=(SIZE, SIZE))


def rotary(h: Tensor) -> Tensor:
    """As rotary positions are written for Llama."""
    pairs = torch.view_as_complex(h.float().unflatten(-1, (-1, 2)) if h.dtype == torch.half else h.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * PHASE[: pairs.shape[-1]]).flatten(-2)


def short_time(h: Tensor) -> Tensor:
    found = torch.stft(h.flatten(0, 2), 4, 2, window=torch.hann_window(4, dtype=h.dtype), return_complex=True)
    return torch.istft(found * 2, 4, 2, window=torch.hann_window(4, dtype=h.dtype), length=SIZE).view(h.shape)


def crelu(h: Tensor) -> Tensor:
    z = torch.fft.fft(h, dim=2)
    return torch.complex(z.real.relu(), z.imag.relu()).abs()


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "fft2": lambda h: torch.fft.fft2(h).real,
    "there and back": lambda h: torch.fft.ifftn(torch.fft.fftn(h, dim=(2, 3)) * 2, dim=(2, 3)).real,
    "shifted": lambda h: torch.fft.fftshift(torch.fft.fft2(h), dim=(2, 3)).real[..., 1:],
    "rfft and irfft": lambda h: torch.fft.irfft(torch.fft.rfft(h, n=16, dim=3).conj(), n=SIZE, dim=3),
    "magnitudes": lambda h: torch.fft.fft(h, dim=2).abs(),
    "sum of two": lambda h: (torch.fft.fft(h) + 1j * torch.fft.fft(h.flip(3))).real,
    "fourier layer": fourier_layer,
    "rotary": rotary,
    "stft": short_time,
    "crelu": crelu,
}


class Between(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below, self.above = nn.Conv2d(2, CHANNELS, 1, bias=False), nn.Linear(CHANNELS, 3, bias=False)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.above(self.function(self.below(x).relu()).mean((2, 3)))


def inputs() -> Tensor:
    return torch.randn(3, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.double)


@pytest.mark.parametrize("name", LINEAR)
def test_gradient_times_input(name: str) -> None:
    model, x = Between(LINEAR[name]).double(), inputs()
    trace = SelectiveLRP(model, Epsilon(1e-12), TopK(1.0)).trace(x, 1)
    output = model(x).detach()
    torch.testing.assert_close(trace.output, output)
    torch.testing.assert_close(trace.inputs, input_times_gradient(model, x), rtol=1e-5, atol=1e-8)
    assert trace.conservation_error.max() < 1e-8
    torch.testing.assert_close(masked_forward(model, x, trace.masks), output)


@pytest.mark.parametrize("name", LINEAR)
def test_a_batch_is_its_samples(name: str) -> None:
    lrp, x = SelectiveLRP(Between(LINEAR[name]).double(), Epsilon(), TopK(0.5)), inputs()
    whole = lrp.trace(x, 1)
    for i in range(len(x)):
        torch.testing.assert_close(whole.inputs[i : i + 1], lrp.trace(x[i : i + 1], 1).inputs)


@pytest.mark.parametrize("name", [name for name in LINEAR if name != "fourier layer"])
def test_edges(name: str) -> None:
    trace = SelectiveLRP(Between(LINEAR[name]).double(), Epsilon()).trace(inputs(), 1, edges=True)
    assert flow_error(trace) < 1e-6


def test_an_activation_of_complex_numbers_and_a_constant_conserve() -> None:
    model = Between(lambda h: (torch.fft.fft2(h) + (0.1 + 0.2j)).tanh().real).double()
    trace = SelectiveLRP(model, Epsilon(1e-12)).trace(inputs(), 1)
    assert trace.conservation_error.max() < 1e-8
    assert trace.absorbed["constant"].abs().max() > 0


def test_samples_that_a_transform_mixes_are_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"fft_fft in .*mixes samples|torch\.fft\.fft in .*mixes samples"):
        SelectiveLRP(Between(lambda h: torch.fft.fft(h, dim=0).real).double()).attribute(inputs(), 1)


def test_an_angle_is_refused_with_a_way_out() -> None:
    lrp = SelectiveLRP(Between(lambda h: torch.angle(torch.fft.fft(h))).double())
    with pytest.raises(UnsupportedOperatorError, match=r"torch\.angle in .*register_operator\(torch\.angle, 'linear'\)"):
        lrp.attribute(inputs(), 1)
    with registered_operator(torch.angle, "linear"):
        lrp.attribute(inputs(), 1)


def test_a_layer_of_complex_numbers_is_refused_with_a_way_out() -> None:
    weight = torch.randn(CHANNELS, CHANNELS, dtype=torch.cdouble)

    def mix(h: Tensor, by: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return by(torch.fft.fft(h).transpose(1, 3), weight).transpose(1, 3).real

    with pytest.raises(UnsupportedOperatorError, match=r"linear in .*complex numbers.*torch\.einsum"):
        SelectiveLRP(Between(lambda h: mix(h, F.linear)).double()).attribute(inputs(), 1)
    by_einsum = Between(lambda h: mix(h, lambda t, w: torch.einsum("...i,oi->...o", t, w))).double()
    assert SelectiveLRP(by_einsum, Epsilon(1e-12)).trace(inputs(), 1).conservation_error.max() < 1e-8
