# Every target sets up what it needs: a virtual environment with the pinned versions, once, and then the job.

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export OMP_WAIT_POLICY ?= PASSIVE
INSTALL := python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: help install train label test test-all lint benchmark clean

help:
	@echo "make install    make the environment .venv: . .venv/bin/activate"
	@echo "make train      train the default task (a phantom CT study, written on first use) in about 5 minutes; ARGS=\"--resume true\" goes on"
	@echo "make label      serve packages through MONAI Label: ARGS=\"dist/pyraseg_dermoscopy_v0.4.0.zip --studies FOLDER\""
	@echo "make test       run the tests that take seconds"
	@echo "make test-all   run the tests that take minutes as well"
	@echo "make lint       check style, formatting, types and which room imports which"
	@echo "make benchmark  measure the deformation and the networks beside those of others (20 minutes)"
	@echo "make clean      remove the environment, the phantom study, its cache and runs; models/ stays"

install: .venv/installed

train: .venv/installed
	python -m monai.bundle run training --config_file configs/train.json $(ARGS)

label: .venv-label/installed
	.venv-label/bin/pyraseg label $(ARGS)

# Two processes with one thread each: most tests spend their time in Python. Files stay together, for their fixtures, in
# the order of their names: the longest come early, and both processes end at about the same time. What Python compiles
# is kept, for each command that a test runs would compile the whole bundle again.
test: .venv/installed-dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: .venv/installed-dev .venv-label/installed
	python -m pytest -m "slow or not slow"

lint: .venv/installed-dev
	ruff check .
	ruff format --check .
	lint-imports --no-cache
	pyrefly check

benchmark: .venv/installed-benchmark
	python -m benchmarks.deformation
	python -m benchmarks.networks

clean:
	rm -rf .venv .venv-label data/phantom runs

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Pyraseg needs Python 3.11 or later; this is $$($(PYTHON) --version). Name another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing Pyraseg into .venv (a few minutes, once) ..."
	$(INSTALL) ".[train,nrrd]"
	@touch $@

.venv/installed-benchmark: .venv/installed-dev
	$(INSTALL) ".[benchmark]"
	@touch $@

# Python compiles what is imported; to compile all of it takes two minutes.
.venv/installed-dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing Pyraseg with its test tools into .venv (a few minutes, once) ..."
	$(INSTALL) ".[dev]" --no-compile
	@touch $@ .venv/installed

.venv-label/installed: scripts/label_requirements.txt
	@echo "Installing MONAI Label into .venv-label (some minutes, once) ..."
	$(PYTHON) -m venv .venv-label
	.venv-label/bin/python -m pip install --quiet --requirement scripts/label_requirements.txt
	.venv-label/bin/python -m pip install --quiet --no-deps --upgrade "monailabel>=0.8.5,<0.9" --editable .
	@touch $@
