#!/bin/sh
# Run by every pod in its empty folder: links there what shards share on the volume, next to the files
# that Snakemake carries to and fro. The volume's folder is the one that this script is in.
set -eu
shared="$(cd "$(dirname "$0")/../.." && pwd)"
for name in config/prompts corrections data envs results .cache .cuesheet; do
  mkdir -p "$shared/$name" "$(dirname "$name")"
  ln -s "$shared/$name" "$name"
done
