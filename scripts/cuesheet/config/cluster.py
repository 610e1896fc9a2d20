"""The part of the configuration that is about shards and clusters (section `cluster`)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cuesheet.config.types import PositiveFloat, Section


class ClusterConfig(Section):
    """Shards: episodes that one job annotates, with a model server of its own (docs/cluster.md)."""

    shards: Literal["auto", "always", "never"] = Field(
        default="auto",
        description=(
            "One job a shard instead of one a step and episode. `auto`: where jobs go to a "
            "cluster, and on one machine for more than 2,000 episodes."
        ),
    )
    shard_minutes: PositiveFloat = Field(
        default=30.0, le=100_000, description="How long a shard should take, about."
    )
    video_speed: PositiveFloat = Field(
        default=5.0,
        le=10_000,
        description=(
            "Minutes of video that one shard's job annotates in a minute; with `shard_minutes` it "
            "gives the size of shards. The status command says what it was in truth."
        ),
    )
    episodes_per_shard: int | None = Field(
        default=None,
        ge=1,
        description=(
            "So many episodes a shard, however long they are; null: shards of equal length by "
            "`shard_minutes` and `video_speed`. Changing any of the three deals all episodes out "
            "anew."
        ),
    )
    media: Literal["with_gpu", "separate"] = Field(
        default="with_gpu",
        description=(
            "Where clips and keyframes are made: `with_gpu` in the shard's own job; `separate` in "
            "a job before it that needs no GPU."
        ),
    )
    scratch: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "Folder on each node's own disk, `$TMPDIR` for one, for the pictures of keyframes "
            "while a shard's job works; they are not kept, so that report and review page show "
            "none. null: they are in `results/` and stay. Not with `media: separate`."
        ),
    )
    jobs_per_cpu: PositiveFloat = Field(
        default=2.0,
        le=64,
        description="Steps at once for each CPU of a shard's job; most of them wait for replies.",
    )

    @model_validator(mode="after")
    def _pictures_stay_on_their_node(self) -> Self:
        if self.scratch is not None and self.media == "separate":
            raise ValueError(
                "scratch is a folder of one node, and media: separate makes the keyframes on "
                "another; leave one of them out"
            )
        return self
