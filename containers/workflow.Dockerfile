# Snakemake with the library and its pinned dependencies (docs/containers.md). Build it in the
# repository's folder: docker build --file containers/workflow.Dockerfile --tag cuesheet .
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/cuesheet
COPY envs/workflow.lock.txt envs/workflow.lock.txt
RUN python -m pip install --no-cache-dir --require-hashes --requirement envs/workflow.lock.txt

COPY pyproject.toml README.md LICENSE Snakefile ./
COPY scripts scripts
COPY rules rules
COPY config config
COPY profiles profiles
COPY envs envs
COPY docs/captions docs/captions
COPY data data
RUN python -m pip install --no-cache-dir --no-deps --editable .

# Any user may run it. Snakemake asks for the user's name, which a number given by --user does not have.
# Caches go to the mounted folder.
ENV USER=cuesheet HOME=/tmp XDG_CACHE_HOME=/work/.cache
WORKDIR /work
ENTRYPOINT ["python", "-m", "snakemake", "--snakefile", "/opt/cuesheet/Snakefile"]
CMD ["--help"]
