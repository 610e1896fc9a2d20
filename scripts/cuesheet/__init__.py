"""Library behind the Cuesheet workflow; imports nothing of Snakemake."""

__version__ = "0.1.0"
