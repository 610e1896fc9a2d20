"""Snakemake whose jobs on SLURM are noticed within a second of their end.

After each check that finds no finished job, the plugin (2.8.0) waits 10 s longer before the next
one, which no option limits. Runs of the tests, whose jobs are short, would mostly wait for it.
"""

import asyncio
import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor


async def sleep(self: Executor) -> None:
    await asyncio.sleep(self.workflow.remote_execution_settings.seconds_between_status_checks)


Executor.sleep = sleep

if __name__ == "__main__":
    main(sys.argv[1:])
