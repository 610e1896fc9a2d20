"""Make the folder of a tiny Qwen2.5-VL with random weights: `python tiny_vlm.py FOLDER [TEXT]`.

Run by the environment of the vLLM tests (`.venv-vllm`), which has transformers and tokenizers. It
has everything that a real model's folder has (configuration, tokenizer, chat template, processor,
weights), so servers load it the way they load a real one, in seconds and without network. It writes
random words; with TEXT it writes that and nothing else, whatever it is asked, for servers that
cannot keep a random model to a form.
"""

import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
)

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Token (as the byte-level vocabulary writes it) -> what is added to its score.
TERSE = {'"': 4.0, "]": 3.0, "}": 4.0, "]}": 4.0, ",": 3.0, "0": 2.0, "1": 2.0, "2": 2.0, "3": 2.0}
TERSE |= {"\\": -8.0, "-": -8.0, "<|im_end|>": 4.0}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' or 'video' in part or 'video_url' in part %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(text: str | None) -> PreTrainedTokenizerFast:
    """Every byte is a token; a few merges; the family's special tokens; `text` as one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=504,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = "the robot arm moves to the red block and grasps it, then places it on the blue plate"
    tokenizer.train_from_iterator([words] * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    if text is not None:
        tokenizer.add_tokens([AddedToken(text, normalized=False)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=32768,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def make_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    token = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1_000_000.0}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": (len(tokenizer) + 63) // 64 * 64,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rope_parameters": rope,
            "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "out_hidden_size": 256,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "fullatt_block_indexes": [1],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
        dtype="float32",
    )
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    return config


def make_terse(model: Qwen2_5_VLForConditionalGeneration, tokenizer) -> None:
    """Make what ends a string, a number or a list likelier, so that replies are short.

    The first dimension of every embedding is the same large number, which survives two random
    layers and so is a bias of every token's score in the last one.
    """
    import torch

    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[:, 0] = 4.0
        head = model.lm_head.weight
        head.normal_(std=0.05)
        head[:, 0] = 0.0
        for text, score in TERSE.items():
            for token, index in tokenizer.get_vocab().items():
                if token == text:
                    head[index, 0] = score / 16  # sqrt(256): the size of the dimension, normed


def make_say(model: Qwen2_5_VLForConditionalGeneration, tokenizer, text: str) -> None:
    """Make the token `text` follow every other token, and the end of the message follow it.

    The layers add nothing, so a token's score depends on the token before it: on its first
    dimension, which is the same for all, and on its second, which only `text` has.
    """
    import torch

    said, end = tokenizer.convert_tokens_to_ids([text, "<|im_end|>"])
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embeddings = model.get_input_embeddings().weight
        embeddings[:, 0] = 4.0
        embeddings[said, 1] = 400.0
        head = model.lm_head.weight
        head.zero_()
        head[said, 0] = 2.0
        head[end, 1] = 2.0


def make(folder: Path, text: str | None = None) -> None:
    """Write the model into `folder`."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(text)
    tokenizer.save_pretrained(folder)
    config = make_config(tokenizer)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    if text is None:
        make_terse(model, tokenizer)
    else:
        make_say(model, tokenizer, text)
    model.save_pretrained(folder)
    sizes = {"shortest_edge": 4 * 28 * 28, "longest_edge": 1024 * 28 * 28}
    processor = Qwen2VLImageProcessor(
        patch_size=14, merge_size=2, temporal_patch_size=2, size=sizes
    )
    processor.save_pretrained(folder)
    image = json.loads((folder / "preprocessor_config.json").read_text())
    image["processor_class"] = "Qwen2_5_VLProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=2))
    video = {**image, "video_processor_type": "Qwen2VLVideoProcessor"}
    video.pop("image_processor_type", None)
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    make(Path(sys.argv[1]), *sys.argv[2:])
