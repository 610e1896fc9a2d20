"""What the tests have lerobot do, in its own environment: `python lerobot_tools.py COMMAND ...`.

write_v21 SOURCE TARGET [CAMERA]
                           copy a v3.0 dataset frame by frame with lerobot 0.3.3, which writes v2.1;
                           images of CAMERA go into the data files, of others into videos
convert ROOT               lerobot's own converter from v2.1 to v3.0, in place
load ROOT                  print what LeRobotDataset gives: a hash of every frame, as JSON lines
render ROOT [no-video]     with lerobot 0.6.1, render every recipe for every frame, as JSON lines
batches ROOT               with lerobot 0.6.1, render a blend of recipes in a torch DataLoader
"""

import hashlib
import json
import sys
from pathlib import Path


def write_v21(source: Path, target: Path, images_of: str = "") -> None:
    """Needs lerobot 0.3.3 on the path."""
    import av
    import numpy as np
    import pyarrow.parquet as pq
    from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset

    assert CODEBASE_VERSION == "v2.1", CODEBASE_VERSION
    info = json.loads((source / "meta/info.json").read_text())
    counters = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
    features = {k: v for k, v in info["features"].items() if k not in counters}
    cameras = [key for key, feature in features.items() if feature["dtype"] == "video"]
    dataset = LeRobotDataset.create(
        repo_id="made/v21",
        fps=info["fps"],
        root=target,
        use_videos=True,
        features={
            key: {
                "dtype": "image" if key == images_of else feature["dtype"],
                "shape": tuple(feature["shape"]),
                "names": feature["names"],
            }
            for key, feature in features.items()
        },
    )
    files = sorted((source / "meta/episodes").glob("*/*.parquet"))
    episodes = [row for file in files for row in pq.read_table(file).to_pylist()]
    for episode in episodes:
        data = info["data_path"].format(
            chunk_index=episode["data/chunk_index"], file_index=episode["data/file_index"]
        )
        filters = [("episode_index", "=", episode["episode_index"])]
        rows = pq.read_table(source / data, filters=filters).to_pylist()
        images = {key: _decoded(av, source, info, episode, key, len(rows)) for key in cameras}
        for number, row in enumerate(rows):
            frame = {key: images[key][number] for key in cameras}
            for key, feature in features.items():
                if key in cameras:
                    continue
                value = row[key]
                if feature["dtype"] != "string":
                    value = np.array(value, dtype=feature["dtype"]).reshape(feature["shape"])
                frame[key] = value
            dataset.add_frame(frame, task=episode["tasks"][0])
        dataset.save_episode()


def _decoded(av, source, info, episode, key, length):
    path = info["video_path"].format(
        video_key=key,
        chunk_index=episode[f"videos/{key}/chunk_index"],
        file_index=episode[f"videos/{key}/file_index"],
    )
    first = round(episode[f"videos/{key}/from_timestamp"] * info["fps"])
    frames = []
    with av.open(str(source / path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if first <= number < first + length:
                frames.append(frame.to_ndarray(format="rgb24"))
    assert len(frames) == length
    return frames


def convert(root: Path) -> None:
    """Needs lerobot 0.4."""
    from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

    convert_dataset(root.name, root=root.parent, push_to_hub=False)


def load(root: Path) -> None:
    """One line per frame: its numbers, task and a hash of everything in it."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("made/loaded", root=root, video_backend="torchcodec")
    for number in range(len(dataset)):
        frame = dataset[number]
        digest = hashlib.sha256()
        for key in sorted(frame):
            value = frame[key]
            digest.update(key.encode())
            content = value.numpy().tobytes() if hasattr(value, "numpy") else repr(value).encode()
            digest.update(content)
        line = {
            "index": int(frame["index"]),
            "episode_index": int(frame["episode_index"]),
            "keys": sorted(frame),
            "task": frame["task"],
            "subtask": frame.get("subtask"),
            "sha256": digest.hexdigest(),
        }
        print(json.dumps(line))


def _vqa_bindings(camera: str) -> dict[str, str]:
    """The default bindings of VQA find the rows of all cameras, and two on a frame are an error."""
    return {
        "vqa_query": f"emitted_at(t, style=vqa, role=user, camera={camera})",
        "vqa": f"emitted_at(t, style=vqa, role=assistant, camera={camera})",
    }


def recipes(cameras: list[str]) -> dict[str, dict]:
    """A recipe for each default binding of lerobot 0.6.1, and for what comes before and after."""

    def answer(name: str, **binding: str) -> dict:
        return {
            "bindings": _vqa_bindings(cameras[0]) | binding,
            "messages": [
                {"role": "user", "content": "${task}", "stream": "high_level"},
                {
                    "role": "assistant",
                    "content": f"${{{name}}}",
                    "stream": "low_level",
                    "target": True,
                    "if_present": name,
                },
            ],
        }

    speech = answer("speech")
    del speech["messages"][1]["content"]
    speech["messages"][1]["tool_calls_from"] = "speech"
    found = {
        **{name: answer(name) for name in ("subtask", "plan", "memory", "interjection")},
        "speech": speech,
        "previous": answer("previous", previous="nth_prev(t, style=subtask, offset=1)"),
        "next": answer("next", next="nth_next(t, style=subtask, offset=1)"),
    }
    for camera in cameras:
        image = {"type": "image", "feature": camera}
        question = [image, {"type": "text", "text": "${vqa_query}"}]
        asked = {"role": "user", "content": question, "stream": "high_level"}
        reply = {"role": "assistant", "content": "${vqa}", "stream": "high_level", "target": True}
        found[f"vqa {camera}"] = {
            "bindings": _vqa_bindings(camera),
            "messages": [asked | {"if_present": "vqa_query"}, reply | {"if_present": "vqa"}],
        }
    return found


def _open_061(root: Path):
    import lerobot_on_311

    lerobot_on_311.install()
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("made/annotated", root=root, video_backend="pyav")
    assert dataset.meta.has_language_columns
    assert [tool["function"]["name"] for tool in dataset.meta.tools] == ["say"]
    return dataset


def render(root: Path, no_video: str = "") -> None:
    """One line per frame: the messages that each recipe renders, None if it renders none."""
    dataset = _open_061(root)
    from lerobot.configs.recipe import TrainingRecipe
    from lerobot.datasets.language_render import render_sample

    cameras = dataset.meta.camera_keys
    written = {name: TrainingRecipe.from_dict(r) for name, r in recipes(cameras).items()}
    frames = dataset.hf_dataset if no_video else dataset
    for number in range(len(dataset)):
        frame = frames[number]
        rendered = {
            name: render_sample(
                recipe=recipe,
                persistent=frame["language_persistent"],
                events=frame["language_events"],
                t=float(frame["timestamp"]),
                sample_idx=number,
            )
            for name, recipe in written.items()
        }
        shapes = {camera: list(frame[camera].shape) for camera in cameras if camera in frame}
        line = {name: frame[name].item() for name in ("index", "episode_index", "frame_index")}
        line |= {"task": frame.get("task"), "shapes": shapes}
        line["messages"] = {name: one and one["messages"] for name, one in rendered.items()}
        print(json.dumps(line))


def batches(root: Path) -> None:
    """One line per batch: what lerobot's own processor step and collate function make of it."""
    dataset = _open_061(root)
    import torch
    from lerobot.configs.recipe import TrainingRecipe
    from lerobot.lerobot_types import TransitionKey
    from lerobot.processor.render_messages_processor import RenderMessagesStep
    from lerobot.utils.collate import lerobot_collate_fn

    written = recipes(dataset.meta.camera_keys)
    blend = {name: {**recipe, "weight": 1.0} for name, recipe in written.items()}
    step = RenderMessagesStep(recipe=TrainingRecipe.from_dict({"blend": blend}))

    class Rendered(torch.utils.data.Dataset):
        def __len__(self):
            return len(dataset)

        def __getitem__(self, number):
            done = step({TransitionKey.COMPLEMENTARY_DATA: dataset[number]})
            return done and done[TransitionKey.COMPLEMENTARY_DATA]

    loader = torch.utils.data.DataLoader(Rendered(), 32, collate_fn=lerobot_collate_fn)
    for batch in loader:
        sizes = [len(batch["index"]), len(batch["messages"]), len(batch["message_streams"])]
        roles = {message["role"] for messages in batch["messages"] for message in messages}
        print(json.dumps({"sizes": sizes, "roles": sorted(roles), "tasks": batch["task"]}))


if __name__ == "__main__":
    command, first, *rest = sys.argv[1:]
    if command == "write_v21":
        write_v21(Path(first), Path(rest[0]), *rest[1:])
    elif command == "convert":
        convert(Path(first))
    elif command == "render":
        render(Path(first), *rest)
    elif command == "batches":
        batches(Path(first))
    else:
        load(Path(first))
