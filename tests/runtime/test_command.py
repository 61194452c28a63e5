"""The command line of every stage: recipe, then flags; one clear line where something is wrong."""

import ast
import inspect
import re
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import get_origin

import pytest
from safetensors import SafetensorError

import tiny
from seitpp.downstream.ablation import AblationConfig
from seitpp.downstream.adversarial import AdversarialConfig
from seitpp.downstream.fine_grained import FineGrainedConfig
from seitpp.downstream.robustness import RobustnessConfig
from seitpp.downstream.segmentation.train import SegmentationConfig
from seitpp.downstream.storage_curve import StorageCurveConfig
from seitpp.finetune.continual import ContinualConfig
from seitpp.finetune.evaluation import EvaluateConfig
from seitpp.finetune.explore import ExploreConfig
from seitpp.finetune.probe import ProbeConfig
from seitpp.finetune.train import FinetuneConfig
from seitpp.mtm.pretrain import PretrainConfig
from seitpp.pipeline.fit import FitConfig
from seitpp.pipeline.split import SplitConfig
from seitpp.runtime.command import parse, run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.errors import Interrupted
from seitpp.runtime.recipes import find_recipe, read_recipe, recipes_folder
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.yaml_texts import load_texts
from seitpp.tokenadapt.train import TrainTokenAdaptConfig
from seitpp.tokenizers.import_tokenizer import ImportTokenizerConfig
from seitpp.tokenizers.reduce_codebook import ReduceCodebookConfig
from seitpp.tokenizers.tokenize import TokenizeConfig
from seitpp.tokenizers.tokenize_ray import TokenizeRayConfig
from seitpp.tokenizers.train import TrainTokenizerConfig
from seitpp.tokens.store import TokenStore

STAGES = {
    "train_tokenizer": ("seitpp.tokenizers.train", TrainTokenizerConfig),
    "tokenize": ("seitpp.tokenizers.tokenize", TokenizeConfig),
    "tokenize_ray": ("seitpp.tokenizers.tokenize_ray", TokenizeRayConfig),
    "import_tokenizer": ("seitpp.tokenizers.import_tokenizer", ImportTokenizerConfig),
    "reduce_codebook": ("seitpp.tokenizers.reduce_codebook", ReduceCodebookConfig),
    "tokenadapt": ("seitpp.tokenadapt.train", TrainTokenAdaptConfig),
    "pretrain": ("seitpp.mtm.pretrain", PretrainConfig),
    "probe": ("seitpp.finetune.probe", ProbeConfig),
    "explore": ("seitpp.finetune.explore", ExploreConfig),
    "finetune": ("seitpp.finetune.train", FinetuneConfig),
    "evaluate": ("seitpp.finetune.evaluation", EvaluateConfig),
    "continual": ("seitpp.finetune.continual", ContinualConfig),
    "fine_grained": ("seitpp.downstream.fine_grained", FineGrainedConfig),
    "robustness": ("seitpp.downstream.robustness", RobustnessConfig),
    "segmentation": ("seitpp.downstream.segmentation.train", SegmentationConfig),
    "adversarial": ("seitpp.downstream.adversarial", AdversarialConfig),
    "ablation": ("seitpp.downstream.ablation", AblationConfig),
    "storage_curve": ("seitpp.downstream.storage_curve", StorageCurveConfig),
    "split": ("seitpp.pipeline.split", SplitConfig),
    "fit": ("seitpp.pipeline.fit", FitConfig),
}
RECIPES = sorted(path for path in recipes_folder(".").glob("*/*.yaml") if path.parent.name != "accelerate")


@dataclass(frozen=True, kw_only=True)
class ShapeConfig:
    """A part."""

    width: int = 8
    """channels"""
    sides: tuple[int, int] = (2, 3)
    """rows and columns"""

    def __post_init__(self):
        require(self, "width", self.width > 0, "must be above 0")


@dataclass(frozen=True, kw_only=True)
class DemoConfig(StageConfig):
    """A stage."""

    images: str
    """where they are"""
    rate: float = 0.5
    """how fast"""
    crop: bool = True
    """whether to crop"""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """of the model"""
    domains: dict[str, str] = field(default_factory=dict)
    """name to folder"""


def parsed(*words):
    return parse(DemoConfig, ["--output_dir", "out", "--images", "in", *words], recipes="pretrain")


def said(capsys, *words, stage=lambda config: None, config_class=DemoConfig):
    """Run a command that fails: the line it says. Its exit code is 1 and it says nothing else."""
    argv = ["--output_dir", "out", "--images", "in", *words] if config_class is DemoConfig else list(words)
    with pytest.raises(SystemExit) as stopped:
        run_command(stage, config_class, recipes="pretrain", argv=argv)
    assert stopped.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    line = tiny.one_line(captured.err)
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return write


# What is given


def test_a_configuration_is_the_defaults_where_nothing_is_given():
    assert parsed() == DemoConfig(output_dir="out", images="in")


def test_a_recipe_changes_the_defaults_and_flags_change_the_recipe(recipe):
    path = recipe("rate: 0.25\nseed: 3\nshape: {width: 9}\n")
    config = parsed("--config", path, "--seed", "4", "--shape.sides", "[5, 6]", "--crop", "false")
    assert config == DemoConfig(
        output_dir="out", images="in", rate=0.25, seed=4, crop=False, shape=ShapeConfig(width=9, sides=(5, 6))
    )


def test_a_flag_may_hold_its_value_behind_an_equals_sign(recipe):
    assert parsed(f"--config={recipe('rate: 0.25')}", "--shape.width=4") == DemoConfig(
        output_dir="out", images="in", rate=0.25, shape=ShapeConfig(width=4)
    )


def test_numbers_may_be_written_with_an_exponent(recipe):
    assert parsed("--rate", "3e-4").rate == 3e-4
    assert parsed("--config", recipe("rate: 3e-4")).rate == 3e-4


@pytest.mark.parametrize("how", ["flag", "recipe"])
def test_a_field_that_is_a_dictionary_takes_any_keys(recipe, how):
    words = ["--config", recipe("domains: {sketch: a/b, photo: c}")]
    if how == "flag":
        words = ["--domains", "{sketch: a/b, photo: c}"]
    assert parsed(*words).domains == {"sketch": "a/b", "photo": "c"}


def test_a_command_that_does_its_work_exits_with_0():
    seen = []
    with pytest.raises(SystemExit) as stopped:
        run_command(seen.append, DemoConfig, recipes="pretrain", argv=["--output_dir", "o", "--images", "i"])
    assert stopped.value.code == 0
    assert seen == [DemoConfig(output_dir="o", images="i")]


@dataclass(frozen=True, kw_only=True)
class WithoutConfig(StageConfig):
    """A stage that may do without."""

    stores: str | None = "here"
    """None: none"""
    name: str = "none"
    """always one"""


def without(*words):
    return parse(WithoutConfig, ["--output_dir", "out", *words], recipes="pretrain")


@pytest.mark.parametrize("words", [["--stores", "None"], ["--stores=None"], ["--stores", "null"]], ids=str)
def test_none_is_no_value_as_the_texts_of_fields_call_it(words):
    assert without(*words).stores is None


def test_none_in_a_recipe_is_no_value_either(recipe):
    assert without("--config", recipe("stores: None")).stores is None


def test_a_field_that_must_have_a_value_may_be_called_none():
    assert without("--name", "None").name == "None"


# What is wrong


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--rat", "--rate"),
        ("--shape.widht", "--shape.width"),
        ("--output-dir", "--output_dir"),
        ("--imges=x", "--images"),
    ],
)
def test_an_unknown_flag_names_the_nearest(capsys, flag, nearest):
    assert said(capsys, flag, "1") == f"unknown flag {flag.split('=')[0]}; did you mean {nearest}?"


def test_an_unknown_flag_like_no_other_points_to_help(capsys):
    assert said(capsys, "--qqqq", "1") == "unknown flag --qqqq; --help lists the known ones"


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("raet: 1", "raet", "rate"),
        ("raet: {}", "raet", "rate"),
        ("raet: {width: 1}", "raet", "rate"),
        ("shape: {wdith: 3}", "shape.wdith", "shape.width"),
        ("Rate: 1", "Rate", "rate"),
    ],
)
def test_an_unknown_key_of_a_recipe_names_file_and_nearest(capsys, recipe, text, key, nearest):
    path = recipe(text)
    assert said(capsys, "--config", path) == f"{path}: unknown key {key}; did you mean {nearest}?"


def test_an_unknown_recipe_names_the_nearest(capsys):
    assert said(capsys, "--config", "dmeo") == "no recipe dmeo for this stage; did you mean demo?"


@pytest.mark.parametrize(("text", "matters"), [("rate: [", "is not YAML"), ("- 1\n- 2", "is not a recipe")])
def test_a_recipe_that_is_no_recipe_is_named(capsys, recipe, text, matters):
    path = recipe(text)
    line = said(capsys, "--config", path)
    assert path in line
    assert matters in line


@pytest.mark.parametrize(
    ("words", "matters"),
    [
        (["--rate", "fast"], ["rate", "fast"]),
        (["--shape.width", "0"], ["ShapeConfig: width = 0 must be above 0"]),
        (["--shape.width", "1.5"], ["width", "1.5"]),
        (["--shape.sides", "[1]"], ["sides"]),
        (["--crop", "maybe"], ["crop", "maybe"]),
        (["--seed"], ["seed"]),
        (["stray"], ["stray"]),
        (["--config"], ["config"]),
    ],
    ids=str,
)
def test_a_bad_value_is_named(capsys, words, matters):
    line = said(capsys, *words)
    for part in matters:
        assert part in line


def test_a_bad_value_in_a_recipe_is_named(capsys, recipe):
    line = said(capsys, "--config", recipe("rate: fast"))
    assert "rate" in line
    assert "fast" in line


def test_a_missing_value_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda config: None, DemoConfig, recipes="pretrain", argv=["--output_dir", "out"])
    assert stopped.value.code == 1
    assert "images" in tiny.one_line(capsys.readouterr().err)


@pytest.mark.usefixtures("unprivileged")
def test_no_write_permission_is_one_line_that_says_what_to_do(capsys):
    line = said(capsys, "--output_dir", "/locked", stage=lambda config: RunFolder(config, stage="demo"))
    assert line == "no permission to write or read /locked: choose another folder or change its rights"


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full, a device without room, here")
def test_a_full_disk_is_one_line_that_says_what_to_do(capsys, tmp_path):
    def stage(config):
        run = RunFolder(config, stage="demo")
        (run.path / "metrics.jsonl").symlink_to("/dev/full")
        run.log({"step": 0})

    line = said(capsys, "--output_dir", str(tmp_path / "run"), stage=stage)
    assert re.match(r"no space left on the disk while writing .*/metrics\.jsonl: free some and start again", line)


def test_a_full_disk_that_safetensors_met_is_told_the_same_way(capsys):
    def stage(config):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    assert said(capsys, stage=stage).startswith("no space left on the disk")


def test_a_missing_store_is_one_line_that_says_what_to_do(capsys, tmp_path):
    line = said(capsys, stage=lambda config: TokenStore(tmp_path / "nothing"))
    assert line.endswith("nothing is not a token store (no store.json): make one with seitpp tokenize")


def fail(config):
    raise RuntimeError("first line\nsecond line")


def test_an_unexpected_error_is_one_line_too(capsys):
    line = said(capsys, stage=fail)
    assert line == "RuntimeError: first line (unexpected; --debug shows the traceback)"


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_command(fail, DemoConfig, recipes="pretrain", argv=["--debug", "--output_dir", "o", "--images", "i"])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert "second line" in error


def test_ctrl_c_outside_a_training_is_one_line_and_exit_code_130(capsys):
    def interrupted(config):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run_command(interrupted, DemoConfig, recipes="pretrain", argv=["--output_dir", "o", "--images", "i"])
    assert stopped.value.code == 130
    assert tiny.one_line(capsys.readouterr().err) == "stopped. To resume, rerun the same command"


@pytest.mark.parametrize(
    ("resume", "saved", "command"),
    [
        ("auto", True, "the same command"),
        ("none", False, "the same command without --resume"),
        ("elsewhere/step-00000007", True, "the same command without --resume"),
        ("elsewhere/step-00000007", False, "the same command"),  # else it would start from nothing
    ],
)
@pytest.mark.parametrize("end", ["signal", "ctrl-c", "lost process"])
def test_a_command_that_started_afresh_or_elsewhere_goes_on_without_resume(
    capsys, tmp_path, resume, saved, command, end
):
    ends = {
        "signal": (Interrupted(15, "saved"), 143, f"saved. To resume, rerun {command}"),
        "ctrl-c": (KeyboardInterrupt(), 130, f"stopped. To resume, rerun {command}"),
        "lost process": (
            RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), 1,
            f"error: another process ended early; to resume, rerun {command}",
        ),
    }  # fmt: skip
    raised, code, line = ends[end]

    def stage(config):
        if saved:
            (tmp_path / "checkpoints" / "step-00000009").mkdir(parents=True)
        raise raised

    argv = ["--output_dir", str(tmp_path), "--images", "in", "--resume", resume]
    with pytest.raises(SystemExit) as stopped:
        run_command(stage, DemoConfig, recipes="pretrain", argv=argv)
    assert stopped.value.code == code
    assert tiny.one_line(capsys.readouterr().err) == line


@pytest.mark.parametrize(
    ("stage", "words", "matters"),
    [
        ("pretrain", ["--mask.mask_ratio_min", "2"], "mask_ratio_min"),
        ("pretrain", ["--model.encoder.heads", "0"], "EncoderConfig: heads = 0 must be at least 1"),
        ("pretrain", ["--model.label_smoothing", "2"], "ModelConfig: label_smoothing = 2.0 must lie in [0, 1)"),
        ("pretrain", ["--seed", str(2**70)], "PretrainConfig: seed = "),
        ("finetune", ["--encoder.heads", "0"], "EncoderConfig: heads = 0 must be at least 1"),
        ("tokenadapt", ["--geometry.shear", "90"], "GeometryConfig: shear = 90.0 must lie in [0, 90) degrees"),
        ("pretrain", ["--augment.noise", "0.7", "--augment.color_adapt", "0.7"], "noise"),
        ("pretrain", ["--eval_mask_ratio", "0.1"], "eval_mask_ratio"),
        ("pretrain", ["--batch_size", "0"], "batch_size"),
        ("pretrain", ["--preview_every", "1"], "preview_every = 1 needs --tokenizer"),
        ("pretrain", ["--ema_decay", "1.0"], "ema_decay = 1.0 must lie in (0, 1)"),
        ("pretrain", ["--trackers", "[tensorbored]"], "tensorbored"),
        ("finetune", ["--seeds", "0"], "seeds"),
        ("finetune", ["--lr", "0.1", "--blr_candidates", "[0.1, 0.2]"], "lr"),
        ("tokenize", ["--max_skipped", "2"], "max_skipped"),
        ("train_tokenizer", ["--model.image_size", "[60, 64]"], "image_size"),
        ("tokenadapt", ["--held_out", "1"], "held_out"),
        ("robustness", ["--severities", "[6]"], "severities"),
        ("storage_curve", ["--jpegs", "[gif]"], "'gif' is no way to store images"),
        ("adversarial", ["--budgets", "[256]"], "budgets"),
        ("adversarial", ["--attacks", "[cw]"], "'cw'; there are: random, fgsm, pgd"),
        ("probe", ["--features", "[mtm, wavelets]"], "wavelets"),
        ("probe", ["--features", "[pixels]"], "--images and --eval_images"),
        ("explore", ["--images", "photos"], "--images and --eval_images belong together"),
        ("explore", ["--queries", "0"], "queries = 0 must be at least 1"),
        ("explore", ["--map_rows", "1"], "map_rows = 1 must be at least 2"),
        ("split", [], "images = () must name one folder of images"),
        ("split", ["photos", "--test", "1"], "test = 1.0 must lie in (0, 1)"),
        ("fit", ["photos", "more"], "must name one folder of images"),
        ("fit", ["photos", "--resume", "none"], "to start afresh choose another --output_dir"),
        ("fit", ["photos", "--labels", "a.csv", "--unlabelled", "true"], "labels exclude each other"),
    ],
)
def test_stages_refuse_impossible_values_by_name(capsys, stage, words, matters):
    _, config_class = STAGES[stage]
    argv = [*required_flags(config_class), *words]
    assert matters in said(capsys, *argv, config_class=config_class)


# Recipes


def required_flags(config_class):
    """Some value for each field that has no default."""
    missing = [each for each in fields(config_class) if each.default is each.default_factory is MISSING]
    values = {each.name: "[somewhere]" if get_origin(each.type) is tuple else "somewhere" for each in missing}
    return [word for name, value in values.items() for word in (f"--{name}", value)]


def flat(content, prefix=""):
    """{"a.b": value} of nested dictionaries."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def means(text, value):
    """Whether a recipe's text, or list of texts, is a way to write a value."""
    if isinstance(text, list):
        same_length = isinstance(value, list | tuple) and len(value) == len(text)
        return same_length and all(map(means, text, value))
    if isinstance(value, bool) or value is None:
        return text == {True: "true", False: "false", None: "null"}[value]
    return not isinstance(value, list | tuple) and type(value)(text) == value


def defaults(config_class, prefix=""):
    """{"a.b": default} of a configuration class, nested dataclasses included."""
    for each in fields(config_class):
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if is_dataclass(each.type):
            yield from defaults(each.type, f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}", list(default) if isinstance(default, tuple) else default


def documented_fields(config_class, prefix=""):
    """(name, docstring or None) of each field, by the source text; nested dataclasses included."""
    own = {}
    for base in reversed(config_class.__mro__[:-1]):
        (body,) = (node.body for node in ast.parse(inspect.getsource(base)).body)
        for node, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign):
                has_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                own[node.target.id] = after.value.value if has_text else own.get(node.target.id)
    for each in fields(config_class):
        yield f"{prefix}{each.name}", own[each.name]
        if is_dataclass(each.type):
            yield from documented_fields(each.type, f"{prefix}{each.name}.")


def test_every_folder_of_recipes_belongs_to_a_stage():
    folders = {path.name for path in recipes_folder(".").iterdir() if path.is_dir() and list(path.glob("*.yaml"))}
    assert folders - {"accelerate"} <= set(STAGES)  # that one is the launcher's


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_loads(path):
    _, config_class = STAGES[path.parent.name]
    given = dict(flat(read_recipe(str(path), path.parent.name)[1]))
    extra = []
    if config_class is ProbeConfig:
        extra = ["--weights", "w", "--images", "i", "--eval_images", "e"]
    if config_class is ContinualConfig:
        extra = ["--images", "i", "--tokenizer", "t"]
    config = parse(
        config_class, ["--config", path.stem, *required_flags(config_class), *extra], recipes=path.parent.name
    )
    for name, value in given.items():
        found = config
        for part in name.split("."):
            found = getattr(found, part)
        assert means(value, found), name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_states_only_what_differs_from_the_defaults(path):
    _, config_class = STAGES[path.parent.name]
    usual = dict(defaults(config_class))
    own = load_texts(path.read_text())
    if "base" in own:
        usual |= dict(flat(read_recipe(own.pop("base"), path.parent.name)[1]))
    repeated = [name for name, value in flat(own) if value == usual[name] or means(value, usual[name])]
    assert repeated == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_begins_with_its_command(path):
    module, _ = STAGES[path.parent.name]
    first = path.read_text().split("\n")[0]
    assert re.match(rf"# (python|accelerate launch) -m {re.escape(module)} --config {path.stem}\b", first)


def test_a_recipe_is_found_by_name_by_path_and_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = recipes_folder("pretrain") / "demo.yaml"
    assert find_recipe("demo", "pretrain") == packaged
    assert find_recipe("configs/pretrain/demo.yaml", "pretrain") == packaged
    (tmp_path / "mine.yaml").write_text("")
    assert find_recipe("mine.yaml", "pretrain") == Path("mine.yaml")


# Help


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_of_every_stage_is_documented(stage):
    _, config_class = STAGES[stage]
    assert [name for name, text in documented_fields(config_class) if not text] == []


def test_help_all_lists_every_field_with_its_documentation():
    done = tiny.run("-m", "seitpp.mtm.pretrain", "--help_all", COLUMNS="100")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for name, documentation in documented_fields(PretrainConfig):
        assert f"--{name} " in text, name
        assert " ".join(documentation.split())[:60] in text, name


def test_the_configuration_can_be_printed_and_read_again(capsys, recipe):
    with pytest.raises(SystemExit):
        run_command(
            lambda config: None, DemoConfig, recipes="pretrain",
            argv=["--output_dir", "out", "--images", "in", "--rate", "0.125", "--print_config"],
        )  # fmt: skip
    printed = capsys.readouterr().out
    assert parse(DemoConfig, ["--config", recipe(printed)], recipes="pretrain") == DemoConfig(
        output_dir="out", images="in", rate=0.125
    )
