"""Published checkpoints: read as they are, written so that they read back, refused where they are something else."""

import argparse
import collections
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file

import published
import tiny
from seitpp import mtm
from seitpp.finetune import export, import_model
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.formats.published import from_published, read_heads, to_published
from seitpp.mtm.masking import Masks, make_masks
from seitpp.mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig, load_model
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.foreign.state_dict import read_weights
from seitpp.tokenadapt import published as token_adapt_published
from seitpp.tokenadapt.model import TokenAdapt, TokenAdaptConfig, load_token_adapt

GRID, VIEW = (32, 32), (28, 28)  # of the release, whatever the recordings
HEADS = {"heads": 3, "decoder_heads": 4}  # those of the recordings: no tensor tells them


def positions_slowly(width, rows, columns):
    """Sines and cosines by column, then by row, one place and channel at a time."""
    table = np.zeros((1, rows * columns, width))
    quarter = width // 4
    for place in range(rows * columns):
        for channel in range(quarter):
            frequency = 10000 ** (-channel / quarter)
            for start, coordinate in ((0, place % columns), (2 * quarter, place // columns)):
                table[0, place, start + channel] = np.sin(coordinate * frequency)
                table[0, place, start + quarter + channel] = np.cos(coordinate * frequency)
    return torch.from_numpy(table).float()


def fixed_tables(width, decoder_width, rows, columns):
    """Published positions of a pre-training: zeros for the cls token, which comes first."""
    return {
        name: torch.cat([torch.zeros(1, 1, each), positions_slowly(each, rows, columns)], dim=1)
        for name, each in (("pos_embed", width), ("decoder_pos_embed", decoder_width))
    }


@dataclass
class Release:
    """A published pre-training with all that its file holds, and its recording."""

    mtm: dict
    adapt: dict
    recorded: dict

    @property
    def whole(self):
        return {**self.mtm, **self.adapt}


@pytest.fixture(scope="module")
def release():
    adapt, mtm, recorded = (
        published.published_weights("tokenadapt"), published.published_weights("mtm"), published.recording("mtm"),
    )  # fmt: skip
    width = len(adapt["conversion_function.0.bias"])
    adapt["conversion_function.1.de_pos_embedding"] = positions_slowly(width, *GRID)
    adapt["reverse_transform.0.en_pos_embedding"] = positions_slowly(width, *VIEW)
    mtm |= fixed_tables(len(mtm["norm.bias"]), len(mtm["decoder_norm.bias"]), VIEW[0] // 2, VIEW[1] // 2)
    return Release(mtm, adapt, recorded)


@pytest.fixture(scope="module")
def release_store(tmp_path_factory):
    """A store of K = 391 codes of 32 channels, 32 x 32 tokens."""
    ids = tiny.random_ids(3, 391, (32, 32))
    return tiny.make_store(tmp_path_factory.mktemp("release"), ids, codes=391, dim=32)


@pytest.fixture
def small():
    """Another shape than any recording: 2 x 3 patches."""
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=EncoderConfig(width=24, depth=3, heads=2), decoder=DecoderConfig(width=16, depth=1, heads=4)
    )
    model = MaskedTokenModel(config, view=(4, 6), codebook_size=11, embedding_dim=5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def assert_recorded(model, recorded):
    """The model computes what the published one did."""
    masked, dropped = recorded["mask"], recorded["drop_mask"]
    masks = Masks(masked, dropped, int(masked[0].sum()), int(dropped[0].sum()))
    with torch.no_grad():
        latent = model.encode(recorded["ids"], masks)
        assert published.largest_difference(latent, recorded["latent"]) < 1e-4
        logits = rearrange(
            model.logits(model.decode(latent, masks)), "b (h w) (p q) k -> b (h p w q) k", h=VIEW[0] // 2, p=2, q=2
        )  # the published order is that of the tokens on the grid
        assert published.largest_difference(logits[:, ::16], recorded["logits_every_16th"]) < 1e-4
        for smoothing, key in ((0.0, "loss"), (0.1, "loss_smoothing_0_1")):
            model.label_smoothing = smoothing
            assert float(model(recorded["ids"], masks)[0]) == pytest.approx(float(recorded[key]), abs=1e-4)


def assert_same(weights, others):
    assert weights.keys() == others.keys()
    for name in weights:
        assert weights[name].shape == others[name].shape, name
        assert float((weights[name] - others[name]).abs().max()) < 1e-5, name


# Pre-training


def test_parity_of_a_pre_training_with_all_that_its_file_holds(release):
    assert_recorded(from_published(release.whole, "it", **HEADS), release.recorded)


def test_the_shape_is_read_from_the_tensors(small):
    model = from_published(to_published(small), "it", view=(4, 6), heads=2, decoder_heads=4)
    assert model.described == {**small.described, "view": [4, 6]}


def test_heads_of_64_channels_and_16_in_the_decoder_are_the_usual_ones():
    config = ModelConfig(encoder=EncoderConfig(width=128, depth=1, heads=2), decoder=DecoderConfig(width=32, depth=1))
    model = MaskedTokenModel(config, view=(4, 4), codebook_size=7, embedding_dim=3)
    described = from_published(to_published(model), "it").described["model"]
    assert (described["encoder"]["heads"], described["decoder"]["heads"]) == (2, 16)


def test_every_published_tensor_comes_back_under_its_name_and_shape(release):
    model = from_published(release.whole, "it", **HEADS)
    adapt = token_adapt_published.from_published(release.whole, "it")
    assert_same(to_published(model, adapt), release.whole)
    assert_same(to_published(model), release.mtm)


@torch.no_grad()
def test_a_model_that_was_exported_computes_the_same(small):
    again = from_published(to_published(small), "it", view=(4, 6), heads=2, decoder_heads=4)
    noise = torch.from_numpy(np.random.default_rng(0).random((3, 6)))
    masks, ids = make_masks(noise, masked_count=4, dropped_count=2), tiny.random_ids(3, 11, (4, 6))
    assert float(again(ids, masks)[0]) == pytest.approx(float(small(ids, masks)[0]), abs=1e-6)


def test_a_fixed_table_may_be_missing(release):
    weights = {name: tensor for name, tensor in release.mtm.items() if "pos_embed" not in name or "learned" in name}
    assert_recorded(from_published(weights, "it", **HEADS), release.recorded)


def test_half_precision_is_read_as_float(release):
    model = from_published({name: tensor.half() for name, tensor in release.mtm.items()}, "it", **HEADS)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def without(name):
    return lambda weights: weights.pop(name)


def changed(name, change):
    return lambda weights: weights.update({name: change(weights[name])})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("norm.bias"), r"lacks norm.bias \(1 missing, 0 unknown\)"),
        (lambda weights: weights.update({"head.weight": torch.zeros(128, 32)}), "has an unknown head.weight"),
        (without("cls_token"), "no MTM pre-training \\('cls_token' is missing"),
        (lambda weights: weights.update(odd=torch.zeros(2)), "has an unknown odd"),
        (changed("blocks.1.mlp.fc1.bias", lambda t: t[:-1]), r"mlp.fc1.bias has the shape \(\d+,\), expected \(\d+,\)"),
        (changed("pos_embed", lambda t: t + 1), "pos_embed is not the table of sines and cosines"),
        (changed("pos_embed", lambda t: t[:, 1:]), r"pos_embed has the shape \(1, 196, .*expected \(1, 197, "),
        (changed("decoder_pos_embed", lambda t: t.flip(1)), "decoder_pos_embed is not the table"),
        (changed("decoder_pos_embed_learned", lambda t: t[:, 2:]), "194 patches are no square: give --view"),
    ],
)
def test_a_pre_training_of_another_kind_is_refused_in_one_line(release, spoil, message):
    weights = dict(release.mtm)
    spoil(weights)
    with pytest.raises(UserError, match=message) as refused:
        from_published(weights, "it.pth", **HEADS)
    tiny.one_line(str(refused.value))
    assert "it.pth" in str(refused.value)


def test_a_width_that_does_not_tell_the_heads_asks_for_them(release):
    with pytest.raises(UserError, match=f"width {len(release.mtm['norm.bias'])}, no multiple of 64: give --heads"):
        from_published(release.mtm, "it")


def test_a_decoders_width_that_does_not_fit_the_usual_heads_asks_for_them():
    config = ModelConfig(
        encoder=EncoderConfig(width=64, depth=1, heads=1), decoder=DecoderConfig(width=24, depth=1, heads=3)
    )
    weights = to_published(MaskedTokenModel(config, view=(4, 4), codebook_size=7, embedding_dim=3))
    with pytest.raises(UserError, match="decoder of width 24, no multiple of 16: give --decoder_heads"):
        from_published(weights, "it")


# TokenAdapt


def test_token_adapt_taken_out_of_a_pre_training_is_that_of_its_own_file(release):
    alone, taken_out = (token_adapt_published.from_published(each, "it") for each in (release.adapt, release.whole))
    assert (alone.grid, alone.view) == (taken_out.grid, taken_out.view) == (GRID, VIEW)
    assert_same(taken_out.state_dict(), alone.state_dict())


def test_every_tensor_of_token_adapt_comes_back_under_its_name_and_shape(release):
    model = token_adapt_published.from_published(release.adapt, "it")
    assert_same(token_adapt_published.to_published(model), release.adapt)


def test_token_adapt_of_any_shape_survives_the_journey():
    torch.manual_seed(0)
    model = TokenAdapt(TokenAdaptConfig(width=64, depth=2), grid=(3, 5), view=(2, 4), codebook_size=9, embedding_dim=6)
    weights = token_adapt_published.to_published(model)
    again = token_adapt_published.from_published(weights, "it", grid=(3, 5), view=(2, 4))
    assert again.described == model.described
    assert_same(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("other", [{"mixer": "convolution"}, {"map_scale": 4}, {"map_channels": 7}])
def test_a_token_adapt_of_our_own_kind_is_not_exported_as_the_published_one(other):
    config = TokenAdaptConfig(width=64, **other)
    model = TokenAdapt(config, grid=(3, 5), view=(2, 4), codebook_size=9, embedding_dim=6)
    ((name, value),) = other.items()
    with pytest.raises(UserError, match=f"{name} is {value}, the published one's"):
        token_adapt_published.to_published(model)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("conversion_function.0.weight"), "is no TokenAdapt"),
        (without("reverse_transform.1.bias"), "lacks reverse_transform.1.bias"),
        (lambda weights: weights.update({"reverse_transform.2.weight": torch.zeros(2)}), "unknown reverse_transform.2"),
        (lambda weights: weights.update({"optimizer.step": torch.zeros(1)}), "unknown optimizer.step"),
        (without("reverse_transform.0.en_pos_embedding"), "has no reverse_transform.0.en_pos_embedding.*give its view"),
        (
            changed("conversion_function.1.de_pos_embedding", lambda t: t.mT.reshape(t.shape)),
            "de_pos_embedding is not the table",
        ),
        (changed("conversion_function.1.de_pos_embedding", lambda t: t[:, :-1]), "1023 positions of .* are no square"),
    ],
)
def test_a_token_adapt_of_another_kind_is_refused_in_one_line(release, spoil, message):
    weights = dict(release.adapt)
    spoil(weights)
    with pytest.raises(UserError, match=message) as refused:
        token_adapt_published.from_published(weights, "it.ckpt")
    tiny.one_line(str(refused.value))
    assert "it.ckpt" in str(refused.value)


def test_a_part_that_the_published_model_lacks_is_not_exported_in_silence(small):
    small.encoder.register_tokens = torch.nn.Parameter(torch.zeros(1, 1, 24))
    with pytest.raises(UserError, match=r"encoder\.register_tokens, which the published one lacks"):
        to_published(small)


# Files


def save(path, content):
    torch.save(content, path)
    return str(path)


def import_config(folder, **fields):
    return import_model.ImportModelConfig(output_dir=str(folder), **fields)


def test_a_checkpoint_of_the_release_becomes_a_run(release, release_store, tmp_path, capsys):
    content = {
        "model": collections.OrderedDict(release.whole), "epoch": 399, "scaler": {"scale": 1.0},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "args": argparse.Namespace(lr=1e-3, device="cuda"),
    }  # fmt: skip
    file = save(tmp_path / "checkpoint-399.pth", content)
    config = import_config(tmp_path / "run", kind="mtm", checkpoint=file, store=str(release_store), **HEADS)
    import_model.main(config)
    assert "28 x 28 tokens, K = 391, from checkpoint-399.pth; it holds a TokenAdapt too" in tiny.one_line(
        capsys.readouterr().out
    )
    model, fingerprint = load_model(tmp_path / "run")
    assert fingerprint == "a" * 64
    assert read_json(tmp_path / "run" / "weights" / "config.json")["grid"] == [32, 32]
    assert_recorded(model, release.recorded)
    import_model.main(config)
    assert "finished before" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_heads_that_nobody_tells_are_assumed_aloud(tmp_path, capsys, suffix):
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=EncoderConfig(width=128, depth=1, heads=4), decoder=DecoderConfig(width=32, depth=1, heads=4)
    )
    weights = to_published(MaskedTokenModel(config, view=(4, 4), codebook_size=37, embedding_dim=5))
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    store = str(tiny.make_store(tmp_path / "store", tiny.random_ids(2, 37, (4, 4))))
    file = str(tmp_path / f"it{suffix}")
    if suffix == ".safetensors":
        save_file(weights, file)
    else:
        save(file, {"model": weights})
    for number, (told, heads, said) in enumerate(
        [
            ({}, (2, 16), "; heads 2 and 16 (assumed: 64 channels each, the papers' decoder; if it has others, "
                "give --heads and --decoder_heads)"),
            ({"heads": 4}, (4, 16), "; heads 4 and 16 (assumed: the papers' decoder; if it has others, "
                "give --decoder_heads)"),
            ({"heads": 4, "decoder_heads": 4}, (4, 4), ""),
        ]
    ):  # fmt: skip
        folder = tmp_path / f"run-{number}"
        import_model.main(import_config(folder, kind="mtm", checkpoint=file, store=store, **told))
        assert tiny.one_line(capsys.readouterr().out).endswith(f"from it{suffix}{said}")
        described = mtm.load(folder).described["model"]
        assert (described["encoder"]["heads"], described["decoder"]["heads"]) == heads


@torch.no_grad()
def test_our_own_export_tells_its_heads_so_that_it_computes_the_same_without_flags(tmp_path, capsys):
    folder = tiny.make_mtm(tmp_path / "ours")
    store = str(tiny.make_store(tmp_path / "store", tiny.random_ids(2, tiny.CODES, tiny.GRID)))
    file = str(tmp_path / "it.pth")
    export.main(export.ExportModelConfig(weights=str(folder), kind="published", out=file))
    capsys.readouterr()
    import_model.main(import_config(tmp_path / "run", kind="mtm", checkpoint=file, store=store, view=tiny.GRID))
    assert tiny.one_line(capsys.readouterr().out).endswith("from it.pth")
    ids = tiny.random_ids(3, tiny.CODES, tiny.GRID, seed=1)
    noise = torch.from_numpy(np.random.default_rng(0).random((3, 6)))
    masks = make_masks(noise, masked_count=4, dropped_count=2)
    again, ours = mtm.load(tmp_path / "run"), mtm.load(folder)
    assert float(again(ids, masks)[0]) == float(ours(ids, masks)[0])


@pytest.mark.parametrize("beside", [{"num_heads": True}, {"num_heads": "3"}, {"num_heads": 0}, {}, [3], None])
def test_what_is_no_number_of_heads_beside_the_weights_tells_nothing(tmp_path, beside):
    assert read_heads(save(tmp_path / "it.pth", {"model": {"a": torch.zeros(1)}, "args": beside})) == {}


@pytest.mark.parametrize("whole", [False, True])
def test_token_adapt_becomes_a_run_from_its_own_file_or_that_of_a_pre_training(release, release_store, tmp_path, whole):
    content = {"model": release.whole} if whole else release.adapt
    file = save(tmp_path / "tokenadapt.ckpt", content)
    import_model.main(import_config(tmp_path / "run", kind="tokenadapt", checkpoint=file, store=str(release_store)))
    model, fingerprint = load_token_adapt(tmp_path / "run")
    assert fingerprint == "a" * 64
    assert_same(token_adapt_published.to_published(model), release.adapt)


def test_a_tokenizer_says_what_the_ids_mean_as_well_as_a_store(tokenizer_folder, tmp_path):
    folder = tiny.make_mtm(tmp_path / "ours")
    file = save(tmp_path / "it.pth", {"model": to_published(mtm.load(folder))})
    config = import_config(
        tmp_path / "run", kind="mtm", checkpoint=file, tokenizer=str(tokenizer_folder), view=tiny.GRID, heads=3,
        decoder_heads=2,
    )  # fmt: skip
    import_model.main(config)
    assert_same(mtm.load(tmp_path / "run").state_dict(), mtm.load(folder).state_dict())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codes": 37}, "is for K = 391, but .* has 37 codes"),
        ({"grid": (24, 32)}, "must fit into the stored grid"),
    ],
)
def test_a_checkpoint_for_other_ids_is_refused_and_leaves_nothing(release, tmp_path, fields, message):
    codes, grid = fields.get("codes", 391), fields.get("grid", (32, 32))
    store = tiny.make_store(tmp_path / "store", tiny.random_ids(2, codes, grid), codes=codes, dim=32)
    file = save(tmp_path / "it.pth", {"model": release.mtm})
    with pytest.raises(UserError, match=message):
        import_model.main(import_config(tmp_path / "run", kind="mtm", checkpoint=file, store=str(store), **HEADS))
    assert not (tmp_path / "run").exists()


def test_a_pre_training_with_a_broken_token_adapt_in_it_is_refused(release, release_store, tmp_path):
    weights = {**release.whole, "conversion_function.2.weight": torch.zeros(1)}
    file = save(tmp_path / "it.pth", {"model": weights})
    with pytest.raises(UserError, match=r"unknown conversion_function\.2"):
        import_model.main(
            import_config(tmp_path / "run", kind="mtm", checkpoint=file, store=str(release_store), **HEADS)
        )


def test_a_codebook_of_another_dimension_is_refused_for_token_adapt(release, tmp_path):
    store = tiny.make_store(tmp_path / "store", tiny.random_ids(2, 391, (32, 32)), codes=391, dim=16)
    file = save(tmp_path / "it.ckpt", release.adapt)
    with pytest.raises(UserError, match=r"embeddings of 32 channels, but the codebook of .* has 16"):
        import_model.main(import_config(tmp_path / "run", kind="tokenadapt", checkpoint=file, store=str(store)))


@pytest.mark.parametrize(
    "fields", [{}, {"store": "a", "tokenizer": "b"}, {"store": "a", "kind": "tokenadapt", "heads": 3}]
)
def test_flags_that_contradict_each_other_are_refused(fields):
    with pytest.raises(UserError, match=r"ImportModelConfig: (store|heads)"):
        import_config("run", **{"kind": "mtm", "checkpoint": "it", **fields})


def test_exported_files_are_read_by_torch_without_trust_and_hold_the_published_layout(tmp_path):
    folder, adapt = tiny.make_mtm(tmp_path / "mtm"), tiny.make_token_adapt(tmp_path / "adapt")
    for weights, token_adapt, name in ((folder, adapt, "it.pth"), (adapt, None, "it.ckpt")):
        export.main(
            export.ExportModelConfig(
                weights=str(weights), kind="published", token_adapt=token_adapt and str(token_adapt),
                out=str(tmp_path / name),
            )
        )  # fmt: skip
    content = torch.load(tmp_path / "it.pth", weights_only=True)
    assert content.keys() == {"model", "args"}
    assert content["args"] == {"num_heads": 3, "decoder_num_heads": 2}
    assert_same(content["model"], read_weights(tmp_path / "it.pth"))
    again = from_published(content["model"], "it", view=tiny.GRID, heads=3, decoder_heads=2)
    assert_same(again.state_dict(), mtm.load(folder).state_dict())
    bare = torch.load(tmp_path / "it.ckpt", weights_only=True)
    for weights in (bare, content["model"]):
        model = token_adapt_published.from_published(weights, "it", grid=tiny.GRID, view=tiny.GRID)
        assert_same(model.state_dict(), load_token_adapt(adapt)[0].state_dict())


def test_a_token_adapt_of_another_tokenizer_does_not_go_into_the_file(tmp_path):
    folder, adapt = tiny.make_mtm(tmp_path / "mtm"), tiny.make_token_adapt(tmp_path / "adapt", fingerprint="b" * 64)
    config = export.ExportModelConfig(
        weights=str(folder), kind="published", token_adapt=str(adapt), out=str(tmp_path / "it")
    )
    with pytest.raises(UserError, match="belongs to tokenizer bbbbbbbbbbbb"):
        export.main(config)
    assert not (tmp_path / "it").exists()
