"""How well a tokenizer reconstructs images."""

import torch


@torch.no_grad()
def measure_reconstruction(tokenizer, images):
    """PSNR of reconstructions in dB (mean over images) and how many codes the images use.

    Args:
        tokenizer: any Tokenizer.
        images: (n, 3, H, W) in [0, 1].
    """
    ids = torch.cat([tokenizer.encode(part) for part in images.split(64)])
    decoded = torch.cat([tokenizer.decode(part) for part in ids.split(64)])
    return {"psnr": mean_psnr(decoded, images), "codes_used": int(ids.unique().numel()), "held_out_images": len(images)}


def mean_psnr(images, references):
    """Peak signal-to-noise ratio in dB, mean over images in [0, 1]."""
    errors = (images - references).square().flatten(1).mean(1).clamp_min(1e-10)
    return float((-10.0 * errors.log10()).mean())
