"""The published step of fine-tuning on this machine, for benchmarks/finetune.py.

    python -m benchmarks.published_finetune CHECKOUT TIMM FOLDER BATCH STEPS

As benchmarks/published_pretrain.py, whose docstring says what is done from outside, but
`engine_mtm.finetune_one_epoch` with the model, optimizer, loader and augmentations of `main_mtm_finetune.py`: Emb-Noise
and ColorAdapt, CutMix, and Mixup in TokenAdapt's half.
"""

import json
import sys
import warnings
from types import SimpleNamespace

import torch

from benchmarks.published_pretrain import WARM, Clock, Counted


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
    sizes = {"batch_size": int(batch_size), "count": WARM + int(count), "gpu": gpu}
    timed = run(model, optimizer, clock, folder, **sizes)[WARM:]
    clock.stop()
    in_a_row = run(model, optimizer, clock, folder, **sizes)[WARM:]
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
    """(the published ViT-B/2 for fine-tuning, its AdamW with layer-wise rates)."""
    import models_mtm
    import util.lr_decay as layer_decay

    model = models_mtm.deit_base_token_32(drop_path_rate=0.1)
    for name, parameter in model.named_parameters():
        if "conversion_function" in name or "reverse_transform" in name:
            parameter.requires_grad = False
    model.to(device)
    model.__dict__["module"] = model  # not as a submodule, which would never end
    groups = layer_decay.param_groups_lrd(model, 0.1, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.65)
    return model, torch.optim.AdamW(groups, lr=1e-5)


def run(model, optimizer, clock, folder, *, batch_size, count, gpu):
    """An epoch of `count` steps; returns the seconds of each step and of its parts."""
    import datasets
    import token_transform
    import util.misc as misc
    from engine_mtm import finetune_one_epoch
    from timm.data import Mixup
    from timm.loss import SoftTargetCrossEntropy

    mixing = {
        "cutmix_alpha": 1.0, "cutmix_minmax": None, "prob": 1.0, "switch_prob": 0.5, "mode": "batch",
        "label_smoothing": 0.1, "num_classes": 1000,
    }  # fmt: skip
    options = SimpleNamespace(
        accum_iter=1, lr=1e-5, min_lr=0.0, warmup_epochs=5, epochs=100, input_size=224, token_patch_size=8,
        rrc_ratio=0.08, rrc=False, src=False, eda_rc_prob=0.0, eda_sc_prob=0.0, nb_classes=1000,
        token_noise_prob=0.75, token_noise_scale=1.0, token_noise_std=1.0, token_coloradapt_prob=0.25,
        cutmix=1.0, cutmix_minmax=None, mixup_prob=1.0, mixup_switch_prob=0.5, mixup_mode="batch", smoothing=0.1,
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
    finetune_one_epoch(
        model, codebook.to(device), SoftTargetCrossEntropy(), counted, optimizer, device, 0, scaler, 0.0,
        Mixup(mixup_alpha=0.0, **mixing), token_transform.build_color_transform(True, options),
        token_transform.build_geo_transform(False, options), token_transform.build_geo_transform(True, options),
        options, print_freq=10**9,
    )  # fmt: skip
    return counted.steps


if __name__ == "__main__":
    main()
