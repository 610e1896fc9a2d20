"""Measures the cost of the workflow without decoding, encoding and the model server.

    python benchmarks/overhead.py [--json FILE] [--episodes 64] [--cores 2] [--dataset FOLDER]

At shard scale, the dataset has 64 episodes (repeated demo episodes, two cameras). A first run fills
the cache with the demo model. Then everything is created again from the cache, with the run's job
server and with one Python process per job. Overhead is the CPU time of the run (Snakemake, process
starts, imports, gateway) without that of the jobs that decode and encode.

With `--dataset` (such as dev_v3), a first run records replies of the demo model. It is then
repeated against a server that returns them after 0.5 s, with clips encoded as H.264 (the default)
and with copied AV1 (`media.clip_codec: auto`). Wall seconds, CPU seconds and memory of the whole
run are listed next to those of the reference (one process, 16 episodes in parallel), which were
measured on another day: 332 calls, 23.6 s, 20.9 CPU seconds, 1.0 GB.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring
import slot_server
import workflow_cost
from datasets import many_episodes
from measuring import Target

DEMO_MODEL = "cuesheet-demo-1"
DECODING = ("extract_clip", "decode_keyframes")
REFERENCE = {"calls": 332, "wall_s": 23.6, "cpu_s": 20.9, "peak_mb": 1000}


def at_shard_scale(folder: Path, episodes: int, cores: int) -> dict[str, Any]:
    """Return the cost of runs that are answered from the cache."""
    dataset = many_episodes(folder / "many", episodes)
    cache = {"cache_dir": str(folder / "cache")}
    workflow_cost.run(folder / "fill", {"dataset": str(dataset), "vlm": cache}, cores)
    replay = {"serve": "replay", "model": DEMO_MODEL, **cache}
    settings = {"dataset": str(dataset), "vlm": replay}
    found: dict[str, Any] = {"episodes": episodes}
    for name, job_server in (("job_server", True), ("process_a_job", False)):
        cost = workflow_cost.run(folder / name, settings, cores, job_server=job_server)
        decoding_s = sum(cost["jobs"].get(rule, {}).get("cpu_s", 0.0) for rule in DECODING)
        cost["decoding_cpu_s"] = decoding_s
        cost["overhead_cpu_s_per_episode"] = (cost["cpu_s"] - decoding_s) / episodes
        found[name] = cost
    # Without the job server, jobs cannot be distinguished. They decode and encode as much.
    plain = found["process_a_job"]
    plain["decoding_cpu_s"] = found["job_server"]["decoding_cpu_s"]
    plain["overhead_cpu_s_per_episode"] = (plain["cpu_s"] - plain["decoding_cpu_s"]) / episodes
    return found


def against_a_slow_server(
    folder: Path, dataset: Path, cores: int, reply_s: float
) -> dict[str, Any]:
    """Return the cost of runs whose requests take `reply_s` seconds: clips encoded, and copied."""
    folder.mkdir()
    port_file = folder / "demo.port"
    command = [sys.executable, "-m", "demo_vlm", "--port-file", str(port_file)]
    with (
        slot_server.process_with_port(command, port_file) as port,
        slot_server.running(
            reply_s, 1000, upstream=f"http://127.0.0.1:{port}/v1", model=DEMO_MODEL
        ) as server,
    ):
        vlm = {"serve": "external", "base_urls": [server.base_url], "model": DEMO_MODEL}
        found = {}
        for name, codec in (("record", "h264"), ("encoded", "h264"), ("copied", "auto")):
            vlm |= {"cache_dir": str(folder / f"cache-{name}")}
            settings = {"dataset": str(dataset), "vlm": vlm, "media": {"clip_codec": codec}}
            server.reset()
            cost = workflow_cost.run(folder / name, settings, cores)
            stats = server.stats()
            if name != "record" and stats["recorded"]:
                sys.exit(f"{stats['recorded']} calls differ from those of the first run")
            found[name] = {**cost, "calls": stats["calls"]}
    return found


def show(found: dict[str, Any], episodes: int) -> None:
    print(f"{'CPU ms an episode':<34}{'job server':>12}{'alone':>12}")
    served, plain = found["job_server"], found["process_a_job"]
    for rule, of in served["jobs"].items():
        print(f"  {rule:<32}{1000 * of['cpu_s'] / episodes:>12.0f}")
    for key in ("job_server_cpu_s", "gateway_cpu_s", "snakemake_and_clients_cpu_s", "cpu_s"):
        label = "all" if key == "cpu_s" else key.removesuffix("_cpu_s").replace("_", " ")
        alone = f"{1000 * plain[key] / episodes:>12.0f}" if key != "job_server_cpu_s" else ""
        print(f"  {label:<32}{1000 * served[key] / episodes:>12.0f}{alone}")


def beside_the_reference(cost: dict[str, Any], clips: str) -> list[Target]:
    """Return the cost of a run per request, compared with the baseline."""
    print({name: value for name, value in cost.items() if name != "jobs"})
    label = f"0.5 s server, clips {clips}: times less"
    found = []
    for name, what in (("wall_s", "wall time a call"), ("cpu_s", "CPU time a call")):
        plain, ours = REFERENCE[name] / REFERENCE["calls"], cost[name] / cost["calls"]
        found.append(Target(f"{label} {what}", plain / ours, 1.0))
    return [*found, Target(f"{label} memory", REFERENCE["peak_mb"] / cost["peak_mb"], 1.0)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--dataset", type=Path, help="run this one against a server of 0.5 s")
    parser.add_argument("--reply-s", type=float, default=0.5)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="overhead."))
    targets, figures = [], {}
    try:
        if options.episodes:
            found = figures["shard"] = at_shard_scale(folder, options.episodes, options.cores)
            show(found, options.episodes)
            value = found["job_server"]["overhead_cpu_s_per_episode"]
            plain = found["process_a_job"]["overhead_cpu_s_per_episode"]
            targets += [
                Target("overhead: CPU s an episode", value, 1.0, at_most=True),
                Target("overhead: times less than with a process a job", plain / value, 1.0),
            ]
        if options.dataset:
            figures["slow_server"] = against_a_slow_server(
                folder / "slow", options.dataset.resolve(), options.cores, options.reply_s
            )
            for clips in ("encoded", "copied"):
                targets += beside_the_reference(figures["slow_server"][clips], clips)
    finally:
        shutil.rmtree(folder)
    measuring.publish("overhead", targets, figures, options.json)


if __name__ == "__main__":
    main()
