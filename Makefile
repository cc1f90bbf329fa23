# Everything is a target here; `make` alone lists them. Each builds .venv first, and nothing is done twice.
# Needs python3 (3.11 or newer, with its venv module), gcc, make and git.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ENV    := $(VENV)/.complete
DATA   := $(BIN)/python -m prefcore.data.sources
# Errors are shown, warnings are not: pip has one for every place of the user's own settings that lacks a package.
PIP    := -m pip install -qq --disable-pip-version-check
BCO    := $(VENV)/peers/trl-1.13.0
ANGR   := $(VENV)/peers/angr
SITE   := $(VENV)/peers/site
TAUGHT := build/quick/reference/config.json

# Notebooks and stages find this environment's python and kernel, whatever else the user has installed.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH PYTHONPATH PYTHONHOME
# Nothing reports usage. Whether the hub may be asked (HF_HUB_OFFLINE) stays with the user.
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env angr data repro test lab smoke study bench site lint clean lock

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

env: $(ENV)  ## create .venv from pyproject.toml and requirements.lock

# The stamp is written last: an interrupted set-up goes on at the next call.
$(ENV): pyproject.toml requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "prefcore needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) lacks its venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "making $(VENV)" && $(PYTHON) -m venv $(VENV); }
	@echo "installing $$(grep -c == requirements.lock) packages from requirements.lock into $(VENV) (two minutes)"
	@$(BIN)/python $(PIP) -r requirements.lock
	@echo "installing prefcore itself, as a link to this folder"
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

data: $(ENV)  ## fetch the raw data and weights into data/, checked by hash
	@$(DATA)

angr: $(ANGR)/.complete  ## the decompiler of GenNm's programs, about 440 MB beside the environment

# In an environment of its own, since it pins packages that nothing else here needs; it imports only with these two.
$(ANGR)/.complete: $(ENV)
	@test -x $(ANGR)/bin/pip || $(PYTHON) -m venv $(ANGR)
	@echo "installing the decompiler angr into $(ANGR) (a minute)"
	@$(ANGR)/bin/python $(PIP) 'angr==9.2.213' 'bitstring<5' 'pycparser==3.0'
	@touch $@

repro: data angr  ## environment, data, and every stage of dvc.yaml
	@test -e .git || $(BIN)/dvc config --quiet --local core.no_scm true
	$(BIN)/dvc repro

test: $(ENV)  ## environment and tests; needs no network once .venv exists
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lab: $(ENV)  ## JupyterLab, at the map of all chapters
	$(BIN)/python -m jupyterlab --notebook-dir=. notebooks/index.ipynb

smoke: $(ENV)  ## every notebook with a tiny random model
	$(BIN)/python -m prefcore smoke

study: data  ## one method at full size: make study METHOD=odpo
	@test -n "$(METHOD)" || { echo "say which method: make study METHOD=odpo" >&2; exit 1; }
	$(BIN)/python -m prefcore study $(METHOD)

bench: $(BCO)/.complete $(TAUGHT)  ## speed and memory beside TRL, and growth; stopped, it goes on at the next call
	$(BIN)/python -m benchmarks.bench --out benchmarks/results

# What the pipeline's first stages make, where they have not run yet: SmolLM2, and the policy that is sampled from.
$(TAUGHT): | data
	@test -e .git || $(BIN)/dvc config --quiet --local core.no_scm true
	$(BIN)/dvc repro reference

# TRL 1.13.0 is the last with BCO. It lies beside the environment, never in it.
$(BCO)/.complete: $(ENV)
	test -e $@ || $(BIN)/python $(PIP) --no-deps --upgrade --target $(BCO) trl==1.13.0
	@touch $@

site: $(SITE)/.complete  ## site/, results as pages to read, from executed studies (runs/study, kept in docs/executed) and committed metrics
	@rm -rf build/site
	@$(SITE)/bin/python -m docs.pages build/site/pages
	@$(SITE)/bin/python -m sphinx -q -W -c docs -d build/site/doctrees build/site/pages build/site/html
	@rm -rf site && cp -R build/site/html site
	@du -sh site

# The builder of the pages, which needs nothing of the environment and so leaves it as it is.
$(SITE)/.complete: docs/requirements.txt
	@test -x $(SITE)/bin/pip || $(PYTHON) -m venv $(SITE)
	@echo "installing Sphinx and MyST-NB into $(SITE) (half a minute)"
	@$(SITE)/bin/python $(PIP) -r $<
	@touch $@

lint: $(ENV)  ## ruff
	$(BIN)/ruff check .

clean:  ## remove the environment, prepared files and runs; data/, metrics and figures stay
	rm -rf $(VENV) build runs .pytest_cache .ruff_cache prefcore.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# Resolved in a fresh environment. Left out: local build tags, paths, and accelerator wheels, which torch asks for itself
# where they are needed. The comment at the top of the old lock is kept.
lock: LOCK = $(VENV)-lock
lock:  ## write requirements.lock anew; PIP_CONSTRAINT=requirements.lock keeps the versions that still fit
	rm -rf $(LOCK)
	$(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/python $(PIP) torch==2.13.0
	$(LOCK)/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*p["dependencies"], *p["optional-dependencies"]["test"], sep="\n")' > $(LOCK)/wanted.txt
	$(LOCK)/bin/python $(PIP) -r $(LOCK)/wanted.txt
	$(LOCK)/bin/python -m pip check
	$(LOCK)/bin/python -m pip freeze --all | sed 's/+[^ ]*$$//' | grep -v '[@/]' > $(LOCK)/frozen.txt
	{ sed -n '/^#/p' requirements.lock; grep '^torch==' $(LOCK)/frozen.txt; \
	  grep -viE '^(torch|pip|wheel|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*|triton[a-z0-9-]*)==' $(LOCK)/frozen.txt; } > $(LOCK)/lock.txt
	mv $(LOCK)/lock.txt requirements.lock
	rm -rf $(LOCK)
