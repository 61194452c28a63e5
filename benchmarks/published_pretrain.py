"""The published step of pre-training on this machine, for benchmarks/pretrain.py.

    python -m benchmarks.published_pretrain CHECKOUT TIMM FOLDER BATCH STEPS

CHECKOUT is github.com/naver-ai/seit, TIMM a folder with timm 0.5.4, FOLDER holds the release's kind of data files. It
runs `engine_mtm.pretrain_one_epoch` with the model, loader and augmentations of `main_mtm_pretrain.py`, and prints one
JSON line: least seconds of each part of a step, then, untimed in between, images a second of as many steps in a row.
On a GPU that is as published: fp16 autocast and a gradient scaler, cuDNN's benchmark mode, ten loading processes and
pinned memory. Its files stay as they are; from outside, and only without a GPU,

- `torch.Tensor.cuda` gives the tensor itself (the model makes two tensors of zeros on the GPU),
- `torch.cuda.synchronize` does nothing (it is called after every step),
- the gradient scaler, which is off, says a scale of 1 (the engine logs it),
- no worker processes load: one thread does all, as in ours;

and, with or without one,

- `model.module` is the model (the engine reads it, but only DDP has it),
- f and g keep random weights, frozen, as there is no tokenadapt.ckpt,
- the sampler is random, with replacement, so that an epoch has as many steps as are asked for,
- parts are timed by wrapping the iterator, `model.forward`, `Tensor.backward` and `optimizer.step`; what is left of a
  step is called augmentation, and holds its logging and its norm of the gradient too,
- steps that the gradient scaler skipped, as it does until it has found its scale, don't count for the parts.
"""

import json
import sys
import time
import warnings
from types import SimpleNamespace

import torch

_WARM = 3


def main():
    """Run the steps, print the measures."""
    checkout, timm_folder, folder, batch_size, count = sys.argv[1:]
    sys.path[:0] = [timm_folder, checkout]
    warnings.simplefilter("ignore")  # of old timm and autocast without a GPU; torch's own would drown the others
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    if not gpu:
        torch.Tensor.cuda = lambda tensor: tensor
        torch.cuda.synchronize = lambda: None
    torch.backends.cudnn.benchmark = True
    model, optimizer = make_model("cuda" if gpu else "cpu")
    clock = Clock(model, optimizer)
    sizes = {"batch_size": int(batch_size), "count": _WARM + int(count), "gpu": gpu}
    timed = run(model, optimizer, clock, folder, **sizes)[_WARM:]
    clock.stop()
    in_a_row = run(model, optimizer, clock, folder, **sizes)[_WARM:]
    updated = [step for step in timed if step["update"] > 0]
    print(
        json.dumps(
            {
                "parts": {part: min(step[part] for step in updated) for part in timed[0]},
                "rate": len(in_a_row) * int(batch_size) / sum(step["whole step"] for step in in_a_row),
                "precision": "fp16" if gpu else "no",
                "parameters": sum(part.numel() for part in model.parameters() if part.requires_grad),
            }
        )
    )


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
    """Seconds spent in what it wraps, since the last step; after `stop` it neither waits nor counts."""

    def __init__(self, model, optimizer):
        self.runs = True
        self.seconds = {"loader": 0.0, "forward": 0.0, "backward": 0.0, "update": 0.0}
        model.forward = self.wrapped("forward", model.forward)
        optimizer.step = self.wrapped("update", optimizer.step)
        torch.Tensor.backward = self.wrapped("backward", torch.Tensor.backward)

    def wrapped(self, part, function):
        """The function, timed."""

        def timed(*arguments, **named):
            if not self.runs:
                return function(*arguments, **named)
            torch.cuda.synchronize()  # what was begun before it is not its own
            start = time.perf_counter()
            result = function(*arguments, **named)
            torch.cuda.synchronize()
            self.seconds[part] += time.perf_counter() - start
            return result

        return timed

    def stop(self):
        """Let everything run as if it was not wrapped."""
        self.runs = False

    def take(self):
        """The seconds of each part; then start anew."""
        taken = dict(self.seconds)
        self.seconds.update(dict.fromkeys(self.seconds, 0.0))
        return taken


class Counted:
    """A loader that notes how long each step took; the engine waits for the device at the end of each."""

    def __init__(self, loader, clock):
        self.loader, self.clock, self.steps = loader, clock, []

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        batches = iter(self.loader)
        following = self.clock.wrapped("loader", lambda: next(batches))
        for _ in range(len(self)):
            start = time.perf_counter()
            yield following()
            whole, parts = time.perf_counter() - start, self.clock.take()
            self.steps.append({"whole step": whole, "augmentation": whole - sum(parts.values()), **parts})


def run(model, optimizer, clock, folder, *, batch_size, count, gpu):
    """An epoch of `count` steps; returns the seconds of each step and of its parts."""
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
    sampler = torch.utils.data.RandomSampler(data, replacement=True, num_samples=count * batch_size)
    loader = torch.utils.data.DataLoader(
        data, batch_size, sampler=sampler, drop_last=True, num_workers=10 if gpu else 0, pin_memory=gpu
    )
    counted, scaler = Counted(loader, clock), misc.NativeScalerWithGradNormCount()
    if not gpu:
        scaler.state_dict = lambda: {"scale": 1.0}
    device = torch.device("cuda" if gpu else "cpu")
    pretrain_one_epoch(
        model, codebook.to(device), counted, optimizer, device, 0, scaler,
        tf_base=token_transform.build_geo_transform(False, options),
        tf_tokenadapt=token_transform.build_geo_transform(True, options), args=options, print_freq=10**9,
    )  # fmt: skip
    return counted.steps


if __name__ == "__main__":
    main()
