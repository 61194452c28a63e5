"""How well a tokenizer reconstructs images."""

from typing import TYPE_CHECKING, Any

import torch

from seitpp.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from accelerate import Accelerator


@torch.no_grad()
def measure_reconstruction(
    tokenizer: Tokenizer, images: torch.Tensor, accelerator: "Accelerator | None" = None
) -> dict[str, float]:
    """PSNR of reconstructions in dB (mean over images) and how many codes the images use.

    Args:
        tokenizer: any Tokenizer.
        images: (n, 3, H, W) in [0, 1], the same on all processes.
        accelerator: accelerate.Accelerator; its processes divide the images. None: this process measures all.
    """
    rank, processes = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    found: Any = torch.zeros(len(images), device=images.device)
    used: Any = torch.zeros(tokenizer.codebook_size, device=images.device)
    for places in torch.arange(len(images)).split(64)[rank::processes]:
        ids = tokenizer.encode(images[places])
        found[places] = psnr(tokenizer.decode(ids), images[places])
        used[ids.unique()] = 1.0
    if accelerator is not None and processes > 1:  # each image is measured by one process: the others add zeros
        found, used = accelerator.reduce(found), accelerator.reduce(used)
    return {"psnr": float(found.mean()), "codes_used": int((used > 0).sum()), "held_out_images": len(images)}


def psnr(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each image in [0, 1], (n,)."""
    errors = (images - references).square().flatten(1).mean(1).clamp_min(1e-10)
    return -10.0 * errors.log10()


def mean_psnr(images: torch.Tensor, references: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, mean over images in [0, 1]."""
    return float(psnr(images, references).mean())
