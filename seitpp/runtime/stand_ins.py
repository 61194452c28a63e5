"""Stand-ins for heavy libraries while a stage says what its flags are.

A configuration is a dataclass beside what it configures, in modules that need torch, whose import takes seconds. Help
runs none of it. So these libraries are stood in for by objects that can be asked for, called, inherited from and
decorated with, and do nothing, as Sphinx's `autodoc_mock_imports` does to document a package without what it needs.
What was imported meanwhile is forgotten at the end.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HEAVY = frozenset(
    (
        "accelerate", "datasets", "diffusers", "einops", "fsspec", "huggingface_hub", "imagecorruptions_imaug",
        "matplotlib", "numba", "numpy", "onnx", "pandas", "PIL", "pyarrow", "ray", "safetensors", "scipy",
        "segmentation_models_pytorch", "sklearn", "tensorboard", "timm", "torch", "torchmetrics", "torchvision",
    )
)  # fmt: skip
"""Names of the libraries, as they are imported."""


class StandIn:
    """Anything of a library: an attribute, a call or an item of it is another stand-in; as a base class it is none."""

    def __getattr__(self, name: str) -> "StandIn":
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return StandIn()

    def __call__(self, *_: Any, **__: Any) -> "StandIn":
        """Another one; so a function that it decorates becomes one, too."""
        return StandIn()

    def __getitem__(self, _: Any) -> "StandIn":
        return StandIn()

    def __iter__(self) -> Iterator["StandIn"]:
        return iter(())

    def __or__(self, _: Any) -> "StandIn":
        return self

    __ror__ = __or__

    def __bool__(self) -> bool:
        return False

    def __mro_entries__(self, _: tuple[Any, ...]) -> tuple[type, ...]:
        return ()


class _Module(ModuleType):
    """A module of a library: whatever is imported from it is a stand-in."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return StandIn()


class _Finder(MetaPathFinder, Loader):
    """Finds every module of the heavy libraries, with nothing in it."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in HEAVY else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is to be run."""


@contextmanager
def stand_ins() -> Iterator[None]:
    """Stand in for heavy libraries; where torch is there already, nothing could be saved, and nothing is done."""
    if "torch" in sys.modules:
        yield
        return
    finder, before = _Finder(), set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in (*HEAVY, "seitpp"):
                del sys.modules[name]
