"""How far a picture is from another, pixel by pixel: L1, PSNR and SSIM, one figure per pair of pictures.

Pictures are RGB in [0, 1]. Compute on lossless pictures: a video encoder's loss is larger than most differences.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from training.networks.precision import single_precision

Pictures = Float[Tensor, "B 3 H W"]
Figures = Float[Tensor, " B"]

_WINDOW, _SPREAD = 11, 1.5  # Wang et al., 2004
_K1, _K2 = 0.01, 0.03


@single_precision
def l1(generated: Pictures, real: Pictures) -> Figures:
    """Mean |Δ|."""
    return (generated - real).abs().mean(dim=(1, 2, 3))


@single_precision
def psnr_db(generated: Pictures, real: Pictures) -> Figures:
    """Peak signal to noise ratio for a peak of 1; infinite for equal pictures."""
    return -10 * (generated - real).square().mean(dim=(1, 2, 3)).log10()


def ssim(generated: Pictures, real: Pictures) -> Figures:
    """Structural similarity with a Gaussian window of 11, σ = 1.5 (Wang et al., IEEE TIP 2004), mean over RGB.

    Only windows that lie inside the picture count. In double precision: variances are small differences.

    Raises:
        ValueError: for pictures smaller than the window.
    """
    if min(generated.shape[2:]) < _WINDOW:
        raise ValueError(
            f"SSIM needs pictures of {_WINDOW} px and more, found {generated.shape[3]}×{generated.shape[2]}"
        )
    mine, theirs = generated.double(), real.double()
    mean_mine, mean_theirs = _blurred(mine), _blurred(theirs)
    var_mine = _blurred(mine**2) - mean_mine**2
    var_theirs = _blurred(theirs**2) - mean_theirs**2
    covariance = _blurred(mine * theirs) - mean_mine * mean_theirs
    c1, c2 = _K1**2, _K2**2
    above = (2 * mean_mine * mean_theirs + c1) * (2 * covariance + c2)
    below = (mean_mine**2 + mean_theirs**2 + c1) * (var_mine + var_theirs + c2)
    return (above / below).mean(dim=(1, 2, 3))


def _blurred(pictures: Tensor) -> Tensor:
    offsets = torch.arange(_WINDOW, dtype=pictures.dtype, device=pictures.device) - _WINDOW // 2
    taps = torch.exp(-0.5 * (offsets / _SPREAD) ** 2)
    taps = taps / taps.sum()
    channels = pictures.shape[1]
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        pictures = functional.conv2d(pictures, taps.view(shape).expand(channels, 1, -1, -1), groups=channels)
    return pictures
