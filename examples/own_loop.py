"""A plain PyTorch loop on stored tokens: a small classifier, trained in a minute on a CPU.

python examples/own_loop.py STORE EVAL_STORE [--epochs 5]
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import seitpp


class SmallNetwork(nn.Module):
    """Ids (b, h, w) to logits: embeddings of the tokenizer's codebook, two convolutions, mean over the grid."""

    def __init__(self, codebook: torch.Tensor, classes: int):
        super().__init__()
        self.embeddings = nn.Embedding.from_pretrained(codebook)
        self.layers = nn.Sequential(
            nn.Conv2d(codebook.shape[1], 64, 3, padding=1), nn.GELU(), nn.Conv2d(64, 64, 3, padding=1), nn.GELU()
        )
        self.head = nn.Linear(64, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits, (b, classes)."""
        return self.head(self.layers(self.embeddings(ids).movedim(-1, 1)).mean(dim=(2, 3)))


def main() -> None:
    """Train on one store, measure on the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store")
    parser.add_argument("eval_store")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    store, eval_store = seitpp.open_store(arguments.store), seitpp.open_store(arguments.eval_store)
    torch.manual_seed(0)
    network = SmallNetwork(store.codebook, len(store.classes))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)

    # The fast loader: no worker processes, rows go to the device packed and are unpacked there.
    batches = seitpp.TokenLoader(store, batch_size=min(64, len(store)), seed=0)
    for epoch in range(arguments.epochs):
        for batch in batches:
            known = batch.labels >= 0
            loss = F.cross_entropy(network(batch.ids)[known], batch.labels[known])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")

    # Or torch's own DataLoader, with the keys of the images.
    right = total = 0
    with torch.no_grad():
        for ids, labels, _keys in DataLoader(seitpp.TokenDataset(eval_store), batch_size=64):
            right += int((network(ids).argmax(1) == labels).sum())
            total += int((labels >= 0).sum())
    print(f"accuracy {right / total:.3f} on {total} images")


if __name__ == "__main__":
    main()
