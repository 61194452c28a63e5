"""The published step of pre-training on this machine, for benchmarks/pretrain.py.

    python -m benchmarks.published_pretrain CHECKOUT TIMM FOLDER BATCH STEPS

CHECKOUT is github.com/naver-ai/seit, TIMM a folder with timm 0.5.4, FOLDER holds the release's kind of data files. It
runs `engine_mtm.pretrain_one_epoch` with the model, loader and augmentations of `main_mtm_pretrain.py`, and prints one
JSON line: least seconds of each part of a step. Its files stay as they are; from outside, and only without a GPU,

- `torch.Tensor.cuda` gives the tensor itself (the model makes two tensors of zeros on the GPU),
- `torch.cuda.synchronize` does nothing (it is called after every step),
- the gradient scaler, which is off, says a scale of 1 (the engine logs it);

and, with or without one,

- `model.module` is the model (the engine reads it, but only DDP has it),
- f and g keep random weights, frozen, as there is no tokenadapt.ckpt,
- the sampler is random, not distributed, and no worker processes load: one thread does all, as in ours,
- parts are timed by wrapping the iterator, `model.forward`, `Tensor.backward` and `optimizer.step`; what is left of a
  step is called augmentation, and holds its logging and its norm of the gradient too.
"""

import json
import sys
import time
import warnings
from types import SimpleNamespace

import torch


def main():
    """Run the steps, print the measures."""
    checkout, timm_folder, folder, batch_size, count = sys.argv[1:]
    sys.path[:0] = [timm_folder, checkout]
    warnings.simplefilter("ignore")  # of old timm and autocast without a GPU; torch's own would drown the others
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.Tensor.cuda = lambda tensor: tensor
        torch.cuda.synchronize = lambda: None
    model, optimizer = make_model(device)
    clock = Clock(model, optimizer)
    steps = run(model, optimizer, clock, folder, int(batch_size), int(count) + 1, device)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    best = {part: min(step[part] for step in steps[1:]) for part in steps[0]}  # the first is warm-up
    print(json.dumps({**best, "parameters": trained}))


def make_model(device):
    """(the published ViT-B/2 as its main makes it, its AdamW)."""
    import models_mtm
    import timm.optim.optim_factory as optim_factory

    model = models_mtm.mae_token_vit_base_patch16_dec512d4b_k2s2_vitvqgan_32(
        mask_ratio_min=0.4, mask_ratio_max=1.0, mask_ratio_mu=0.45, mask_ratio_std=0.25, smoothing=0.1
    )
    for name, parameter in model.named_parameters():
        if "conversion_function" in name or "reverse_transform" in name:
            parameter.requires_grad = False
    model.to(device)
    model.__dict__["module"] = model  # not as a submodule, which would never end
    return model, torch.optim.AdamW(optim_factory.add_weight_decay(model, 0.05), lr=1e-5, betas=(0.9, 0.95))


class Clock:
    """Seconds spent in what it wraps, since the last step."""

    def __init__(self, model, optimizer):
        self.seconds = {"loader": 0.0, "forward": 0.0, "backward": 0.0, "update": 0.0}
        model.forward = self.wrapped("forward", model.forward)
        optimizer.step = self.wrapped("update", optimizer.step)
        torch.Tensor.backward = self.wrapped("backward", torch.Tensor.backward)

    def wrapped(self, part, function):
        """The function, timed."""

        def timed(*arguments, **named):
            start = time.perf_counter()
            result = function(*arguments, **named)
            torch.cuda.synchronize()
            self.seconds[part] += time.perf_counter() - start
            return result

        return timed

    def take(self):
        """The seconds of each part; then start anew."""
        taken = dict(self.seconds)
        self.seconds.update(dict.fromkeys(self.seconds, 0.0))
        return taken


class Counted:
    """So many batches of a loader; it notes how long each step took."""

    def __init__(self, loader, count, clock):
        self.loader, self.count, self.clock, self.steps = loader, count, clock, []

    def __len__(self):
        return self.count

    def __iter__(self):
        batches = iter(self.loader)
        following = self.clock.wrapped("loader", lambda: next(batches))
        for _ in range(self.count):
            start = time.perf_counter()
            yield following()
            whole, parts = time.perf_counter() - start, self.clock.take()
            self.steps.append({"whole step": whole, "augmentation": whole - sum(parts.values()), **parts})


def run(model, optimizer, clock, folder, batch_size, count, device):
    """An epoch of `count` steps; returns the seconds of their parts."""
    import datasets
    import token_transform
    import util.misc as misc
    from engine_mtm import pretrain_one_epoch

    options = SimpleNamespace(
        accum_iter=1, lr=1e-5, min_lr=0.0, warmup_epochs=40, epochs=400, input_size=224, token_patch_size=8,
        rrc_ratio=0.2, rrc=False, src=False, eda_rc_prob=0.0, eda_sc_prob=0.0,
        codebook_path=f"{folder}/codebook.ckpt", train_token_file=f"{folder}/train-token.data.bin.gz",
        train_label_file=f"{folder}/train-label.txt",
    )  # fmt: skip
    codebook, tokens = token_transform.build_codebook(options)
    data, _ = datasets.build_dataset(True, tokens, options)
    loader = torch.utils.data.DataLoader(data, batch_size, shuffle=True, drop_last=True)
    counted, scaler = Counted(loader, count, clock), misc.NativeScalerWithGradNormCount()
    if device == "cpu":
        scaler.state_dict = lambda: {"scale": 1.0}
    pretrain_one_epoch(
        model, codebook.to(device), counted, optimizer, torch.device(device), 0, scaler,
        tf_base=token_transform.build_geo_transform(False, options),
        tf_tokenadapt=token_transform.build_geo_transform(True, options), args=options, print_freq=10**9,
    )  # fmt: skip
    return counted.steps


if __name__ == "__main__":
    main()
