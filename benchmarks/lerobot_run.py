"""Runs `lerobot-annotate` in LeRobot's environment, also with Python 3.11, without torchvision.

    python benchmarks/lerobot_run.py FOLDER[:FOLDER] [options of lerobot-annotate]

The folders contain LeRobot 0.6.1 and the packages that the environment lacks (openai).
"""

import os
import sys
from pathlib import Path


def main() -> None:
    folders, *arguments = sys.argv[1:]
    # Instead of this folder, whose module datasets is not the package that LeRobot imports.
    sys.path[:1] = folders.split(os.pathsep)
    if sys.version_info < (3, 12):
        sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
        import lerobot_on_311

        lerobot_on_311.install()
    sys.argv = ["lerobot-annotate", *arguments]
    from lerobot.scripts.lerobot_annotate import main as annotate

    annotate()


if __name__ == "__main__":
    main()
