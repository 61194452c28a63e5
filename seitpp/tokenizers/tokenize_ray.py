"""Turn images into a token store on a Ray cluster: the same shards as `seitpp tokenize` makes, byte for byte.

    pip install 'seitpp[ray]'
    python -m seitpp.tokenizers.tokenize_ray --images photos/train --tokenizer runs/tokenizer --output_dir stores/train
    RAY_ADDRESS=auto python -m seitpp.tokenizers.tokenize_ray … --num_actors 32 --gpus_per_actor 1

Without RAY_ADDRESS a Ray of this machine alone is started, which is what the tests do; a cluster of several machines
was not tried yet. Images, tokenizer and store must lie where every machine sees them under the same path or URL;
images behind a URL are listed once, and each worker reads the addresses of that list. A killed job is resumed by the
same command, or with `seitpp.tokenizers.tokenize`'s.
"""

import logging
import os
import time
from dataclasses import dataclass

import torch

from seitpp.runtime.command import explain, run_command
from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.progress import Progress
from seitpp.tokenizers.tokenize import TokenizeConfig, make_shards
from seitpp.tokenizers.tokenize_job import TokenizeJob


@dataclass(frozen=True, kw_only=True)
class TokenizeRayConfig(TokenizeConfig):
    """Turn images into a token store on a Ray cluster."""

    num_actors: int = 1
    """workers on the cluster; each holds the tokenizer and makes one shard at a time"""
    gpus_per_actor: float = 0.0
    """GPUs of each worker; 0: they run on CPUs"""
    cpus_per_actor: float = 1.0
    """cores of each worker"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "num_actors", self.num_actors >= 1, "must be at least 1")
        require(self, "gpus_per_actor", self.gpus_per_actor >= 0, "must not be below 0")
        require(self, "cpus_per_actor", self.cpus_per_actor > 0, "must be above 0")


class ShardMaker:
    """A worker: opens the job once, then makes shards by number.

    Args:
        config: a TokenizeRayConfig.
    """

    def __init__(self, config: TokenizeRayConfig):
        self.device = torch.device("cuda" if config.gpus_per_actor else "cpu")
        self.config = config
        self.job = None  # opened by the first call, whose answer can hold an error

    def __call__(self, batch):
        """Make the shards of a batch; an error is an answer, not an exception, which Ray would try again."""
        images, problem = 0, ""
        try:
            self.job = self.job or TokenizeJob(self.config, self.device, listed=True)
            shards = [self.job.shards[number] for number in batch["number"].tolist()]
            make_shards(self.job, shards, self.device)
            images = sum(len(shard.rows) for shard in shards)
        except Exception as error:
            problem = explain(error)
        return {"images": [images], "problem": [problem]}


def main(config: TokenizeRayConfig) -> None:
    """Make the missing shards on the cluster, then the manifest."""
    ray = _import_ray()
    job = TokenizeJob(config, "cpu")
    for line in job.notices:
        print(line)
    missing = job.prepare()
    there = done = len(job.images) - sum(len(job.shards[number].rows) for number in missing)
    started = time.monotonic()
    with Progress(len(job.images), "tokenise", start=done) as progress:
        for answer in _answers(ray, config, missing):
            if answer["problem"]:
                raise UserError(answer["problem"])
            done += int(answer["images"])
            progress.update(done, f"{(done - there) / (time.monotonic() - started):.0f} images/s")
    print(job.finish())


def _import_ray():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # both are read when ray is imported
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # or each actor's start is told as if it were an error
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("seitpp.tokenizers.tokenize_ray needs Ray: pip install 'seitpp[ray]'") from error
    return ray


def _answers(ray, config, missing):
    """What ShardMaker says of each shard, as they come."""
    if not missing:
        return
    # "local": or Ray waits minutes for whatever cluster was last started on this machine, dead or alive
    address = os.environ.get("RAY_ADDRESS", "local")
    ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    logging.getLogger("ray.data").setLevel("ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    numbers = ray.data.from_items([{"number": number} for number in missing], override_num_blocks=len(missing))
    made = numbers.map_batches(
        ShardMaker,
        fn_constructor_args=(config,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=config.num_actors),
        num_cpus=config.cpus_per_actor,
        num_gpus=config.gpus_per_actor or None,
    )
    try:
        yield from made.iter_rows()
    finally:
        ray.shutdown()


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, TokenizeRayConfig, recipes="tokenize")


if __name__ == "__main__":
    cli()
