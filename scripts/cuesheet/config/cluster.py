"""Settings of shards and clusters (section `cluster`)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cuesheet.config.types import PositiveFloat, Section


class ClusterConfig(Section):
    """Shards: episodes that one job annotates with its own model server (docs/cluster.md)."""

    shards: Literal["auto", "always", "never"] = "auto"
    """Run one job per shard instead of one per step and episode. `auto`: on a cluster, and on one
    machine for more than 2,000 episodes.
    """
    shard_minutes: PositiveFloat = Field(default=30.0, le=100_000)
    """Approximate duration of a shard in minutes."""
    video_speed: PositiveFloat = Field(default=5.0, le=10_000)
    """Minutes of video that one shard annotates per minute; together with `shard_minutes` it
    determines the size of shards. `cuesheet status` prints the measured value.
    """
    episodes_per_shard: int | None = Field(default=None, ge=1)
    """Episodes per shard, whatever their length; null: shards of equal length by `shard_minutes`
    and `video_speed`. Changing any of the three assigns all episodes again.
    """
    media: Literal["with_gpu", "separate"] = "with_gpu"
    """Which job creates clips and keyframes: `with_gpu`: the shard's own job; `separate`: an
    earlier job that needs no GPU.
    """
    scratch: str | None = Field(default=None, min_length=1)
    """Folder on each node's local disk, such as `$TMPDIR`, for keyframe images while a shard runs.
    They are deleted afterwards, so report and review page show none. null: they are stored in
    `results/`. It cannot be combined with `media: separate`.
    """
    jobs_per_cpu: PositiveFloat = Field(default=2.0, le=64)
    """Concurrent steps per CPU of a shard; most of them wait for replies."""

    @model_validator(mode="after")
    def _images_stay_on_their_node(self) -> Self:
        if self.scratch is not None and self.media == "separate":
            raise ValueError(
                "scratch is a folder of one node, and media: separate decodes keyframes on "
                "another; leave one of them out"
            )
        return self
