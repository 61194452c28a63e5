"""The least time that a step of pre-training can take: counted operations and bytes, over rates that a device reaches.

Operations are those of matrix products. Bytes are those that the rest must move through the device's memory, each
number read once and written once: layer norms, logits, warps, the optimizer's state. Sums, activations, dropout and
casts are not counted, as they can be done on a product's way out. Backward, a product costs two, or one where it is not
with trained weights; a layer norm reads its input and a gradient and writes one; logits are read and turned into their
gradient.
"""

import math
from dataclasses import dataclass

_FLOAT = 4
_ADAMW = 7 * _FLOAT  # reads the weight, its gradient and two averages; writes all but the gradient
_CLIPPING = 3 * _FLOAT  # reads the gradient for its norm; reads and writes it


@dataclass(frozen=True)
class Work:
    """What has to be done.

    Attributes:
        operations: of matrix products, a multiplication and an addition being two.
        bytes: to be moved, reading and writing counted both.
    """

    operations: float = 0
    bytes: float = 0

    def __add__(self, other):
        return Work(self.operations + other.operations, self.bytes + other.bytes)

    def __mul__(self, times):
        return Work(self.operations * times, self.bytes * times)

    def seconds(self, product_rate, copy_rate):
        """(by operations, by bytes): the larger is the least that it takes.

        Args:
            product_rate: operations a second.
            copy_rate: bytes a second, read and written.
        """
        return self.operations / product_rate, self.bytes / copy_rate


@dataclass(frozen=True)
class Network:
    """What an image costs in a network, one way.

    Attributes:
        operations: of its products.
        normed: numbers that go through layer norms.
        logits: numbers that it puts out.
        frozen: operations of those products that are with weights which are not trained.
    """

    operations: int
    normed: int
    logits: int = 0
    frozen: int = 0

    def __add__(self, other):
        return Network(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def forward(self, size):
        """Work of the forward pass, with `size` bytes a number."""
        return Work(self.operations, 2 * size * (self.normed + self.logits))

    def backward(self, size):
        """Work of the backward pass, with `size` bytes a number."""
        return Work(2 * self.operations - self.frozen, size * (3 * self.normed + 2 * self.logits))


def product(rows, inner, columns):
    """Operations of a matrix product (rows, inner) x (inner, columns)."""
    return 2 * rows * inner * columns


def blocks(depth, places, width):
    """A stack of transformer blocks and the norm after it: 12 width² weights a block, and attention of all to all."""
    operations = depth * (product(places, width, 12 * width) + 2 * product(places, width, places))
    return Network(operations, normed=(2 * depth + 1) * places * width)


def encoder(config, *, view, channels, kept=None):
    """The token encoder on an image.

    Args:
        config: an EncoderConfig.
        view: (h, w) tokens.
        channels: c, of an embedding.
        kept: patches that it sees; None: all.
    """
    patches = math.prod(view) // config.patch_size**2
    embedding = Network(product(patches, config.patch_size**2 * channels, config.width), normed=0)
    return embedding + blocks(config.depth, 1 + (patches if kept is None else kept), config.width)


def decoder(config, *, view, channels, codes, kept, masked):
    """The decoder and head of masked token modelling on an image.

    Args:
        config: a ModelConfig.
        view: (h, w) tokens.
        channels: c, of an embedding.
        codes: K.
        kept: patches that come from the encoder.
        masked: patches whose tokens are asked for.
    """
    tokens, width = config.encoder.patch_size**2, config.decoder.width
    around = product(1 + kept, config.encoder.width, width) + product(masked, width, tokens * channels)
    last = product(masked * tokens, channels, codes)
    ends = Network(around + last, normed=0, logits=masked * tokens * codes, frozen=last)
    return ends + blocks(config.decoder.depth, 1 + math.prod(view) // tokens, width)


def token_adapt(config, *, grid, view, channels, codes):
    """TokenAdapt's f and g of the published shape on an image: `grid` (h, w) tokens in, `view` (h', w') out."""
    tokens, seen, width = math.prod(grid), math.prod(view), config.width
    ends = product(tokens, channels, width) + product(tokens, width, 4 * channels)
    ends += product(seen, 4 * channels, width) + product(seen, width, codes)
    network = blocks(config.depth, tokens, width) + blocks(config.depth, seen, width)
    return network + Network(ends, normed=0, logits=seen * codes)


def warp(channels, grid, view, size):
    """Resampling maps of `channels` from `grid` to `view`."""
    return Work(bytes=channels * (math.prod(grid) + math.prod(view)) * size)


def augmentation(config, *, grid, view, channels, codes, size):
    """An image of a batch of which TokenAdapt (a TokenAdaptConfig) transforms one half, and the other is cropped."""
    nearest = Work(product(math.prod(view), channels, codes), 2 * math.prod(view) * codes * size)
    cropped = warp(channels, grid, view, size) + nearest
    twice = [[2 * side for side in sides] for sides in (grid, view)]
    network = token_adapt(config, grid=grid, view=view, channels=channels, codes=codes)
    return (cropped + network.forward(size) + warp(channels, *twice, size)) * 0.5


def update(parameters, *, clipped):
    """AdamW for all of a step, and clipping the gradient before it, where it is `clipped`."""
    return Work(bytes=parameters * (_ADAMW + _CLIPPING * clipped))
