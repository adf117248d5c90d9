"""Figures of evaluation, each by its definition.

Checked against a reference: PSNR and SSIM (scikit-image), the Fréchet distance (SciPy), LPIPS with SqueezeNet (its
authors' weights and pictures). Not verified against a reference: LPIPS with AlexNet, AKD, AED, CSIM, CEIM.
"""
