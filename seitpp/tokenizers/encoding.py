"""Images to ids by a tokenizer in float32 proper: without autocast and without TF32.

Ids are meant to depend on the device as little as possible. What is left (sums in another order) may still change an
id whose two nearest codes are equally near, from a CPU to a GPU, or from one batch size to another.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from seitpp.tokenizers.sources.decode_ahead import decoded_batches
from seitpp.tokenizers.sources.decoding.resize import resize_of
from seitpp.tokenizers.sources.images import to_float
from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokenizers.tokenizer import Tokenizer


def encoded_batches(
    images: ImageSource,
    rows: range,
    tokenizer: Tokenizer,
    device: torch.device,
    threads: ThreadPoolExecutor,
    batch_size: int,
) -> Iterator[tuple[torch.Tensor | None, list[int], list[tuple[int, str]]]]:
    """Decode and encode a range of images.

    Args:
        images: an ImageSource.
        rows: range of its images.
        tokenizer: a Tokenizer on `device`.
        device: torch.device.
        threads: a ThreadPoolExecutor that decodes.
        batch_size: images per forward pass.
    Yields: (ids (b, h, w) int64 on the device, their rows, [(row, reason)] of those that can't be decoded).
    """
    gpu = device.type == "cuda"
    batches = decoded_batches(
        images, rows, tokenizer.image_size, batch_size, threads, resize=resize_of(tokenizer.preprocessing),
        pin_memory=gpu,
    )  # fmt: skip
    for pixels, decoded, broken in batches:
        with torch.no_grad(), full_precision(device):
            ids = tokenizer.encode(to_float(pixels.to(device, non_blocking=gpu))) if decoded else None
        yield ids, decoded, broken


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """On a GPU, convolutions and products in float32 proper, and by the same algorithm every time."""
    if device.type != "cuda":
        yield
        return
    matmul, backend = torch.get_float32_matmul_precision(), torch.backends.cudnn
    torch.set_float32_matmul_precision("highest")
    try:
        with backend.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
