"""Settings of the model and its server (section `vlm`)."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cuesheet.config.managed import ManagedConfig
from cuesheet.config.types import Mapping, PositiveFloat, Section, Text, null_is_none

# Values of `serve` for which the run starts and stops the server, with the settings of `managed`.
STARTED = ("managed", "vllm-batch")


class SamplingConfig(Section):
    """Sampling parameters. Changing one changes the cache key of every request."""

    temperature: Annotated[float | None, BeforeValidator(null_is_none)] = Field(
        default=0.2, ge=0, le=2
    )
    """Sampling temperature; 0 is greedy decoding. null: not sent."""
    top_p: Annotated[float | None, BeforeValidator(null_is_none)] = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; null: not sent."""
    max_tokens: Annotated[int | None, BeforeValidator(null_is_none)] = Field(default=1024, ge=1)
    """Maximum number of tokens per reply; doubled once if a reply is cut off. null: not sent."""
    seed: Annotated[int | None, BeforeValidator(null_is_none)] = Field(default=0, ge=0)
    """Random seed sent with every request; null: not sent."""
    reasoning_effort: Text = None
    """Reasoning effort (`low`, `medium` or `high`); sent if set."""
    chat_template_kwargs: Mapping = None
    """Arguments of the chat template, e.g. `{enable_thinking: false}`; sent if set."""
    mm_processor_kwargs: Mapping = None
    """Arguments of the image processor, e.g. `{max_pixels: 401408}`; sent if set."""


class ImagesConfig(Section):
    """How images are sent."""

    format: Literal["jpeg", "png"] = "jpeg"
    """Image format of data URLs."""
    jpeg_quality: int = Field(default=90, ge=1, le=100)
    """Quality of JPEG images."""
    transport: Literal["data_url", "file_url"] = "data_url"
    """`file_url`: send `file://` paths, if the server shares the disk and allows them."""


class PriceConfig(Section):
    """Prices of the model, in any currency. Used only for the estimate and the budget."""

    input: float = Field(default=0.0, ge=0)
    """Price per million prompt tokens."""
    output: float = Field(default=0.0, ge=0)
    """Price per million reply tokens."""
    gpu_hour: float = Field(default=0.0, ge=0)
    """Price per GPU hour; needs `vlm.throughput`."""


class ThroughputConfig(Section):
    """Tokens per second of all servers together. Used only for the estimate."""

    input: float | None = Field(default=None, gt=0)
    """Prompt tokens per second."""
    output: float | None = Field(default=None, gt=0)
    """Reply tokens per second."""


class BudgetConfig(Section):
    """Limits of one run. A run that reaches a limit sends no more requests; its files are kept."""

    requests: int | None = Field(default=None, ge=0)
    """Maximum number of requests; null: no limit."""
    tokens: int | None = Field(default=None, ge=0)
    """Maximum number of prompt and reply tokens; null: no limit."""
    cost: float | None = Field(default=None, ge=0)
    """Maximum cost by `vlm.price.input` and `output`; null: no limit."""


class VlmConfig(Section):
    """The vision-language model and its server."""

    serve: Literal["demo", "managed", "vllm-batch", "external", "replay"] = "demo"
    """`demo`: the built-in demo model (classical vision, not a language model); `managed`: the run
    starts a server for `model` and stops it at its end; `vllm-batch`: vLLM's offline entry point in
    one process instead of its server; `external`: OpenAI-compatible servers at `base_urls`;
    `replay`: no server, only cached responses.
    """
    model: Text = None
    """Model name as the server lists it. Required for `managed` and `vllm-batch` (a name on the
    Hugging Face hub or a folder), `external`, and `replay` (whose responses are replayed). Part of
    the cache key.
    """
    base_urls: list[str] = Field(default=[])
    """URLs of external servers, e.g. `[http://127.0.0.1:8000/v1]`; several share the load."""
    api_key_env: Text = None
    """Environment variable that holds the key (never the key itself). If neither this nor
    `api_key_file` is set, Hugging Face servers get the token of `hf auth login` (`HF_TOKEN` takes
    precedence).
    """
    api_key_file: Text = None
    """File that contains the key."""
    replicas: int = Field(default=1, ge=1, le=64)
    """Server processes for `demo`, `managed` and `vllm-batch`."""
    concurrency: int = Field(default=32, ge=1, le=4096)
    """Maximum number of requests in flight over the whole run. About 1.5 times the number that the
    servers process at once keeps them busy.
    """
    timeout_s: PositiveFloat = 300.0
    """Timeout per reply."""
    max_attempts: int = Field(default=5, ge=1, le=20)
    """Attempts per request on 429, 5xx and lost connections."""
    max_restarts: int = Field(default=3, ge=0)
    """Restarts of a server that has crashed."""
    ready_timeout_s: PositiveFloat = 900.0
    """Timeout for a server to become ready."""
    check: bool = True
    """Check the server before the work starts: address, key, model, and one small request with
    images and a reply schema. A managed server is checked when it has started.
    """
    structured_output: bool = True
    """Send the schema of the reply as `response_format`; servers that reject it are detected.
    false: put the schema into the prompt from the start, for servers that accept it but ignore it
    (known: `transformers serve`).
    """
    cache_dir: str = ".cache/vlm"
    """Folder of the response cache; every response is stored here under a hash of its request."""
    coordinates: Literal["auto", "pixels", "resized_pixels", "thousandths", "fractions"] = "auto"
    """Unit of the model's coordinates: `pixels` of the image sent, `resized_pixels` of the image as
    Qwen2.5-VL resizes it, `thousandths` of width and height (Qwen3-VL), `fractions` of width and
    height (0 to 1); `auto`: by model family.
    """
    price: PriceConfig = PriceConfig()
    throughput: ThroughputConfig = ThroughputConfig()
    budget: BudgetConfig = BudgetConfig()
    managed: ManagedConfig = ManagedConfig()
    sampling: SamplingConfig = SamplingConfig()
    images: ImagesConfig = ImagesConfig()

    @field_validator("base_urls")
    @classmethod
    def _urls_have_a_scheme(cls, urls: list[str]) -> list[str]:
        urls = [re.sub(r"^\w+(?=:)", lambda found: found[0].lower(), url.strip()) for url in urls]
        for url in urls:
            if "@" in url.partition("://")[2].partition("/")[0]:
                raise ValueError(
                    "a URL holds a name or a password; use api_key_env or api_key_file"
                )
            if not re.match(r"https?://[^/]", url):
                raise ValueError(
                    f"{url!r} does not begin with http:// or https://; write for example "
                    "[http://127.0.0.1:8000/v1]"
                )
            if problem := _address_problem(url):
                raise ValueError(
                    f"{url!r} is not an address: {problem}; write for example "
                    "[http://127.0.0.1:8000/v1]"
                )
            if re.search(r"/(chat/completions|completions|responses|messages|models)/?(\?|$)", url):
                raise ValueError(
                    f"{url!r} is the address of one function; leave out the end after the version, "
                    "for example [http://127.0.0.1:8000/v1]"
                )
        return urls

    @field_validator("api_key_env")
    @classmethod
    def _is_name_of_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(  # it may be the key itself, so it is not shown
                "this is not the name of an environment variable; name the variable that holds "
                "the key, for example HF_TOKEN"
            )
        return name

    @model_validator(mode="after")
    def _keys_agree(self) -> "VlmConfig":
        if self.serve == "demo" and (self.model or self.base_urls):
            raise ValueError(
                "serve is demo, which has its own model, but model or base_urls is set; "
                "remove them, or set serve to managed or external"
            )
        if self.serve == "external" and not self.base_urls:
            raise ValueError(
                "serve is external but base_urls is empty; name at least one, for example "
                "[http://127.0.0.1:8000/v1]"
            )
        if self.serve in STARTED and self.base_urls:
            raise ValueError(
                f"serve is {self.serve}, so the run starts its own server, but base_urls names "
                "others; leave base_urls out or set serve to external"
            )
        if self.serve == "external" and not self.model:
            raise ValueError(
                "serve is external but model is not set; name the model as the server lists it "
                "(GET <base_url>/models shows the names)"
            )
        if self.serve in STARTED and not self.model:
            raise ValueError(
                f"serve is {self.serve} but model is not set; name a vision-language model, for "
                "example Qwen/Qwen3-VL-8B-Instruct, or its folder"
            )
        if self.serve == "replay" and not self.model:
            raise ValueError(
                "serve is replay but model is not set; name the model whose responses are to be "
                "replayed (`cuesheet cache stats` lists those in the cache)"
            )
        if self.serve == "replay" and self.base_urls:
            raise ValueError(
                "serve is replay, which sends no requests, but base_urls is set; remove it, or set "
                "serve to external"
            )
        if self.budget.cost is not None and not (self.price.input or self.price.output):
            raise ValueError(
                "budget.cost is set but there is no price; set price.input and price.output, the "
                "prices of a million tokens"
            )
        if self.api_key_env and self.api_key_file:
            raise ValueError("both api_key_env and api_key_file are set; keep one of them")
        if self.serve in STARTED and (self.api_key_env or self.api_key_file):
            raise ValueError(
                "api_key_env and api_key_file are for external servers; a managed one gets a "
                "random key at every start: leave them out"
            )
        if self.serve == "vllm-batch" and (
            self.managed.server != "vllm" or self.managed.command is not None
        ):
            raise ValueError(
                "serve is vllm-batch, which is a vLLM without its server, but managed names "
                "another server or command; leave managed.server and managed.command out"
            )
        return self


def _address_problem(url: str) -> str:
    """Return why a URL with a scheme is not an address; "" if it is one."""
    if re.search(r"\s", url):
        return "it has a space"
    try:
        parts = urlsplit(url)
        is_bare_ipv6 = parts.netloc.count(":") > 1 and "[" not in parts.netloc
        if is_bare_ipv6:
            return "an IPv6 address is written in brackets, such as [::1]"
        if parts.port == 0 or not parts.hostname:
            return "it has no host or the port 0"
    except ValueError as error:
        return str(error)
    return ""
