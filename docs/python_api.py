"""Write docs/python-api.md from the docstrings: python docs/python_api.py (a test holds the page to them)."""

import inspect
from pathlib import Path

import seitpp

CHAPTERS = {
    "Stores": ("open_store", "TokenLoader", "TokenDataset"),
    "Images and tokens": ("load_tokenizer", "tokenize_images", "decode"),
    "Models": ("load", "load_encoder", "load_classifier", "embed", "predict", "Predictions", "Bundle"),
    "Training loops of your own": ("Augment", "AugmentConfig"),
    "Errors": ("UserError",),
}
HEAD = """# Python API

`import seitpp` imports nothing heavy; each name brings what it needs when it is first used. `help(seitpp)` shows the
same.

```python
import seitpp

store = seitpp.open_store("stores/train")
images = seitpp.decode(store.ids([0, 1, 2]), "runs/tokenizer")
features = seitpp.embed("runs/mtm", store)
seitpp.predict("runs/finetune", ["cat.jpg"], tokenizer="runs/tokenizer")[0]
```

`examples/first_steps.ipynb` uses all of it; `examples/own_loop.py` is a plain PyTorch loop on stored tokens.
"""


def page() -> str:
    """The page as Markdown."""
    lines = [HEAD]
    for chapter, names in CHAPTERS.items():
        lines += [f"## {chapter}", ""]
        for name in names:
            lines += [f"### `seitpp.{name}`", "", "```text", _signature(name), "", _documented(name), "```", ""]
    return "\n".join(lines)


def _signature(name):
    """Name and parameters without types, which the docstring has; short where they are many."""
    value = getattr(seitpp, name)
    if inspect.isclass(value) and issubclass(value, Exception):
        return f"{name}(message)"
    parameters = inspect.signature(value).parameters.values()
    line = f"{name}({', '.join(str(each.replace(annotation=each.empty)) for each in parameters)})"
    return line if len(line) <= 120 and "<factory>" not in line else f"{name}(...)"


def _documented(name):
    return inspect.getdoc(getattr(seitpp, name)) or ""


if __name__ == "__main__":
    (Path(__file__).parent / "python-api.md").write_text(page())
