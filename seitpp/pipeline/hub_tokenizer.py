"""A tokenizer on the Hugging Face Hub, by itself or within a bundle."""

from pathlib import Path

from seitpp.runtime.errors import UserError

HUB = "hf://"
_FILES = ["tokenizer/*", "tokenizer/**/*", "weights/*", "tokenizer.json", "config.json", "*.safetensors"]


def local_tokenizer(spec: str) -> str:
    """Where a tokenizer lies on this machine; one of the Hub is fetched into its cache.

    Args:
        spec: a folder, package.module:Class, or hf://OWNER/NAME.
    Raises: UserError if it can't be fetched.
    """
    if not spec.startswith(HUB):
        return spec
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(spec.removeprefix(HUB), allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{spec} can't be fetched ({reason}): check the name, the network, and hf auth login"
        ) from error
    return str(folder / "tokenizer" if (folder / "tokenizer" / "tokenizer.json").is_file() else folder)
