"""The benchmarks: what they count is right, what they time is what they say, and every one of them runs."""

import json
import math
import sys
import time
from functools import partial

import pytest
import torch
from torch import nn

import tiny
from benchmarks import finetune, limits, pretrain, published_pretrain, steps, tokenize
from benchmarks.device import copy_rate, product_rate, write_profile
from benchmarks.synthetic import make_store
from seitpp.mtm.augmentation import augment
from seitpp.mtm.cost import training_flops
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.masking import MaskConfig
from seitpp.mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig
from seitpp.runtime.devices import compile_in_place
from seitpp.tokenadapt.model import TokenAdapt, TokenAdaptConfig

PAPERS = {"view": (28, 28), "channels": 32, "kept": 117}  # of 196 patches 79 are dropped
CPU = torch.device("cpu")


OF_MEMORY = ("resident memory that opening takes", "k-NN: memory at its peak")
"""Measures that are 0 where the process had as much memory already."""


def measures(module, *words):
    """What `python -m benchmarks.MODULE` prints: name to the rest of its line."""
    done = tiny.run("-m", f"benchmarks.{module}", *words, timeout=600, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    read = {line.pop("name"): line for line in lines}
    assert len(read) == len(lines), "two measures of one name"
    for name, measure in read.items():
        assert math.isfinite(measure["value"]), name
        assert measure["value"] > 0 or (measure["value"] == 0 and name in OF_MEMORY), name
        assert measure["unit"], name
    return read


def numbers_of(read, prefix):
    """Of the measures whose name begins so, the rest of the name to the measure."""
    return {name.removeprefix(prefix): measure for name, measure in read.items() if name.startswith(prefix)}


def check_parts(read, prefix):
    """The parts of a single step, and the shares that they and their limits have."""
    parts = numbers_of(read, prefix)
    whole = parts.pop("whole step")
    assert list(parts) == ["loader", "augmentation", "forward", "backward", "update"]
    assert sum(part["value"] for part in parts.values()) == pytest.approx(whole["value"], rel=2e-3)
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1, abs=2e-3)
    known = numbers_of(read, "limit: ")
    assert list(known) == ["augmentation", "forward", "backward", "update", "whole step"]
    for name, limit in known.items():
        assert limit["reached_percent"] > 0, name
        if name != "whole step":
            assert limit["value"] == max(limit["by_operations"], limit["by_bytes"])
    total = known.pop("whole step")
    assert total["value"] == pytest.approx(sum(limit["value"] for limit in known.values()), rel=2e-3)
    assert total["images_per_second"] == pytest.approx(1 / total["value"], rel=2e-3)


def test_the_papers_encoder_takes_20_6_gflop_on_the_patches_it_sees():
    # A block on 118 places of 768: 24 x 118 x 768² for its matrices, 4 x 118² x 768 for attention.
    block = 1_670_381_568 + 42_774_528
    patches = 2 * 196 * 128 * 768
    assert limits.encoder(EncoderConfig(), **PAPERS).operations == 12 * block + patches == 20_596_408_320


def test_the_papers_decoder_and_head_take_5_4_gflop():
    # A block on 197 places of 512: 24 x 197 x 512² and 4 x 197² x 512.
    blocks = 4 * (1_239_416_832 + 79_480_832)
    into = 2 * 118 * 768 * 512
    head = 2 * 115 * 512 * 128 + 2 * 115 * 4 * 32 * 391
    network = limits.decoder(ModelConfig(), codes=391, masked=115, **PAPERS)
    assert network.operations == blocks + into + head == 5_394_973_952
    assert network.logits == 115 * 4 * 391


def test_f_and_g_of_a_half_and_crops_of_the_other_take_4_7_gflop_an_image():
    # A block on 1024 places of 384, one on 784: 24 n 384² and 4 n² 384.
    f = 3_623_878_656 + 1_610_612_736 + 2 * 1024 * (32 * 384 + 384 * 128)
    g = 2_774_532_096 + 944_111_616 + 2 * 784 * (128 * 384 + 384 * 391)
    nearest = 2 * 784 * 32 * 391
    shape = {"grid": (32, 32), "view": (28, 28), "channels": 32, "codes": 391}
    work = limits.augmentation(TokenAdaptConfig(), **shape, size=2)
    assert work.operations == (f + g + nearest) / 2 == pytest.approx(4.7e9, rel=0.01)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_counted_operations_are_those_that_torch_counts_in_the_models(patch_size):
    view, channels, codes = (4, 6), 5, 37
    config = ModelConfig(
        encoder=EncoderConfig(width=24, depth=3, heads=2, patch_size=patch_size),
        decoder=DecoderConfig(width=16, depth=2, heads=4),
    )
    model = MaskedTokenModel(config, view=view, codebook_size=codes, embedding_dim=channels)
    patches = 24 // patch_size**2
    masks = MaskConfig(mask_ratio_mean=0.5, mask_ratio_std=1e-6)
    seen = {"view": view, "channels": channels, "kept": patches - math.ceil(0.4 * patches)}
    network = limits.encoder(config.encoder, **seen)
    network += limits.decoder(config, codes=codes, masked=patches // 2, **seen)
    assert network.forward(4).operations + network.backward(4).operations == training_flops(model, masks)


def test_counted_operations_of_f_and_g_are_those_that_torch_counts():
    config = TokenAdaptConfig(width=64)
    adapt = TokenAdapt(config, grid=(32, 32), view=(28, 28), codebook_size=391, embedding_dim=32)
    counted = limits.token_adapt(config, grid=(32, 32), view=(28, 28), channels=32, codes=391)
    assert counted.operations == pretrain.adapt_flops(adapt)


def test_bytes_of_a_block_are_those_of_its_layer_norms():
    network = limits.blocks(1, 3, 4)  # two norms and the one after it, of 3 places of 4 numbers
    assert network.forward(2).bytes == 3 * 12 * (2 + 2)
    assert network.backward(2).bytes == 3 * 12 * (2 + 2 + 2)


def test_logits_are_written_and_read_once_each_way():
    network = limits.Network(operations=7, normed=0, logits=10, frozen=3)
    assert network.forward(4) == limits.Work(7, 10 * (4 + 4))
    assert network.backward(4) == limits.Work(2 * 7 - 3, 10 * (4 + 4))


def test_a_warp_reads_one_map_and_writes_the_other():
    assert limits.warp(5, (2, 3), (1, 4), 4) == limits.Work(0, 5 * (6 + 4) * 4)


def test_adamw_moves_28_bytes_a_parameter_and_clipping_12():
    assert limits.update(10, clipped=False) == limits.Work(0, 280)
    assert limits.update(10, clipped=True) == limits.Work(0, 400)


def test_work_adds_up_and_takes_its_operations_and_its_bytes_in_seconds():
    work = limits.Work(3e12, 1e9) + limits.Work(1e12, 7.6e9) * 0.5
    assert work == limits.Work(3.5e12, 4.8e9)
    assert work.seconds(500e12, 4.8e12) == (0.007, 0.001)


def test_rates_are_those_of_a_real_processor():
    assert 1e8 < product_rate(CPU, torch.float32) < 1e14
    assert 1e8 < copy_rate(CPU) < 1e13


def test_a_profile_lists_what_ran_by_the_time_it_took(tmp_path):
    large, small = torch.randn(300, 300), torch.randn(3, 3)

    def action():
        for _ in range(7):
            large @ large
        for _ in range(5):
            torch.tanh(small)

    busy = write_profile(tmp_path / "kernels.txt", action, CPU)
    head, titles, *rows = (tmp_path / "kernels.txt").read_text().splitlines()
    assert titles.split() == ["ms", "share", "calls", "name"]
    table = [row.split(maxsplit=3) for row in rows]
    calls = {name: int(count) for _, _, count, name in table}
    assert (calls["aten::mm"], calls["aten::tanh"]) == (7, 5)
    times = [float(ms) for ms, _, _, _ in table]
    assert times == sorted(times, reverse=True)
    assert sum(float(share.rstrip("%")) for _, share, _, _ in table) == pytest.approx(100, abs=0.5)
    assert sum(times) == pytest.approx(float(head.split()[4]), abs=0.02)
    assert 0 < busy <= 1


class Sleepy:
    """A step of 10 ms of loading and 30 ms of work."""

    batch_size, device = 8, CPU

    def run(self, index, mark):
        time.sleep(0.01)
        mark("loader")
        time.sleep(0.03)
        mark("forward")


def test_parts_of_a_step_take_what_they_take_and_add_up_to_the_whole():
    seconds = steps.measure_parts(Sleepy(), 1)
    assert seconds["loader"] >= 0.01
    assert seconds["forward"] >= 0.03
    assert seconds["whole step"] == pytest.approx(seconds["loader"] + seconds["forward"])


def test_the_least_of_each_part_counts_by_itself():
    first, second = {"whole step": 7.0, "loader": 3.0}, {"whole step": 6.0, "loader": 4.0}
    assert steps.least([first, second]) == {"whole step": 6.0, "loader": 3.0}


def test_steps_in_a_row_say_how_many_images_and_how_long_data_was_waited_for(capsys):
    rate = steps.measure_throughput(Sleepy(), 5)
    assert 0 < rate <= 8 / 0.04
    read = {line["name"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert read["steps in a row"]["value"] == pytest.approx(rate, rel=1e-3)
    waited = next(line["value"] for name, line in read.items() if "loader" in name)
    assert 5 < waited < 75  # 25, were sleep as exact as it says


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        (pretrain, ["--bogus"], "unrecognized arguments: --bogus"),
        (pretrain, ["--precision", "fp8"], "invalid choice: 'fp8'"),
        (pretrain, ["--steps", "none"], "invalid int value"),
        (pretrain, ["--batch_size", "3"], "--batch_size 3 must be a multiple of 2"),
        (pretrain, ["--steps", "0"], "--steps 0 must be at least 1"),
        (pretrain, ["--reference", "somewhere"], "--reference needs --reference_path"),
        (pretrain, ["--quick", "--reference", "a", "--reference_path", "b"], "no --quick"),
        (finetune, ["--compiled", "3"], "unrecognized arguments: --compiled 3"),
        (finetune, ["--batch_size", "6"], "--batch_size 6 must be a multiple of 4"),
        (tokenize, ["--rows", "3"], "unrecognized arguments: --rows 3"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_is_measured(module, words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo looks at a block's input
def test_a_compiled_step_has_the_losses_of_a_plain_one(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "compile_in_place", partial(compile_in_place, backend="eager"))
    monkeypatch.setattr(augment, "compile_in_place", lambda model: None)  # in tests/gpu, with the compiler
    make_store(tmp_path / "store", 16)
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        step = pretrain.Step(tmp_path, 2, "no", quick=True, compiled=compiled)
        losses.append([float(step.run(index)) for index in range(3)])
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_the_published_step_is_timed_by_parts_until_the_clock_stops(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "backward", torch.Tensor.backward)  # given back after the test
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    clock = published_pretrain.Clock(model, optimizer)
    batches = [torch.randn(4, 3) for _ in range(5)]

    def an_epoch():
        counted = published_pretrain.Counted(batches, clock)
        for place, batch in enumerate(counted):
            time.sleep(0.005)  # what the engine does between the parts
            model(batch).sum().backward()
            if place:  # a gradient scaler skips its first steps
                optimizer.step()
        return counted.steps

    timed = an_epoch()
    assert len(timed) == len(batches)
    assert [step["update"] > 0 for step in timed] == [False, True, True, True, True]
    for step in timed:
        whole = step.pop("whole step")
        assert set(step) == {"loader", "augmentation", "forward", "backward", "update"}
        assert sum(step.values()) == pytest.approx(whole)
        assert 0.005 <= step["augmentation"] < whole
    clock.stop()
    for step in an_epoch():
        assert step["whole step"] == step["augmentation"]
        assert step["forward"] == step["update"] == 0


@pytest.mark.slow
def test_pretraining_is_measured_and_profiled(tmp_path):
    read = measures("pretrain", "--quick", "--steps", 1, "--profile", tmp_path / "kernels.txt")
    check_parts(read, "ours: ")
    assert read["steps in a row"]["value"] == pytest.approx(1 / read["steps in a row"]["seconds_per_image"], rel=2e-3)
    networks = sum(measure["value"] for measure in numbers_of(read, "counted: ").values())
    # Backward costs twice as much, but for the logits, whose table is not trained; half of the images pass f and g.
    logits = 2 * 115 * 4 * 32 * 391 / 1e9
    f_and_g = 0.676575232 / 2
    assert read["operations counted"]["value"] == pytest.approx(3 * networks - logits + f_and_g, rel=1e-3)
    assert "aten::addmm" in (tmp_path / "kernels.txt").read_text()


@pytest.mark.slow
def test_fine_tuning_and_features_are_measured():
    read = measures("finetune", "--quick", "--steps", 1)
    check_parts(read, "fine-tuning: ")
    assert read["features"]["value"] > read["steps in a row"]["value"]
    assert read["features: operations counted"]["value"] < read["operations counted"]["value"]


@pytest.mark.slow
def test_tokenising_is_measured_against_the_bare_forward_pass():
    read = measures("tokenize", "--quick")
    ratio = read["tokenise / bare forward pass, small"]
    assert ratio["value"] == pytest.approx(ratio["ours"] / ratio["theirs"], rel=2e-3)
    assert ratio["ours"] == read["tokenise, small"]["value"]


@pytest.mark.slow
def test_codings_are_measured_on_the_same_rows():
    read = measures("coding", "--quick")
    assert read["bits per token, packed"]["value"] == 9
    bits = numbers_of(read, "bits per token, ")
    for suffix in ("", ", 32 x 32"):
        mine = bits[f"coded{suffix}"]
        assert mine["without_offsets"] < mine["value"] < bits[f"packed{suffix}"]["value"]
    assert read["rows decoded per second"]["compiled"]


@pytest.mark.slow
def test_segmentation_is_measured_against_its_bare_network():
    read = measures("segmentation", "--quick")
    ratio = read["training step / bare forward and backward pass"]
    assert ratio["value"] == pytest.approx(ratio["ours"] / ratio["theirs"], rel=2e-3)
    assert read["bytes a row: tokens"]["value"] == 32 * 32 * 9 / 8
    assert read["bytes a row: place"]["value"] == 28
    assert read["rows read with label maps"]["at_once"] == 16


@pytest.mark.slow
def test_a_second_classifier_is_measured_against_the_first():
    read = measures("downstream", "--quick")
    for name in ("robustness: first classifier / second, time", "evaluation of a store / bare forward pass, time"):
        assert read[name]["value"] == pytest.approx(read[name]["ours"] / read[name]["theirs"], rel=2e-3)
    assert (read["robustness: memory at its peak"]["images"], read["robustness: memory at its peak"]["sets"]) == (
        24,
        16,
    )


@pytest.mark.slow
def test_probes_are_measured():
    read = measures("probe", "--quick")
    for name in ("features / bare forward pass", "k-NN / bare matrix product"):
        assert read[name]["value"] == pytest.approx(read[name]["ours"] / read[name]["theirs"], rel=2e-3)
    assert read["probe: memory at its peak"]["rows"] == 2000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("loader", "batches of 256 unpacked to int64 ids, with labels"),
        ("store", "bytes of the folder over those of its content"),
        ("start", "import seitpp.mtm.pretrain"),
    ],
)
def test_the_other_benchmarks_run(module, said):
    assert said in measures(module, "--quick")
