# make demo, make test: each sets up what it needs.  Needs Python 3.11 or later, pip and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Set in many containers: each process would then compile what it imports again, seconds of torch alone.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint types audit build bench-embed bench-endurance bench-finetune bench-growth bench-ingest bench-live bench-map bench-probes bench-search bench-small bench-ui chaos mutants pretrain report-chorales report-probes screenshots ui lock clean

help:            ## this list
	@grep -E '^[a-z-]+: .*##' Makefile | sed 's/:.*##/\t/'

# Without compiling: a minute instead of three, since most modules of what is installed are never imported.  Who imports one
# first compiles it for all.  What librosa and umap-learn have numba compile takes most of a minute when first used: here, on
# two cores at once.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tonelake needs Python 3.11 or later, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	$(BIN)/python -c "from tonelake.embed.librosa_import import load_librosa; load_librosa()" & librosa=$$!; \
		$(BIN)/python -c "from tonelake.index.maps.umap import load_umap; load_umap()" && wait $$librosa
	@touch $@

demo: $(READY)   ## forty chorales, from notes to neighbours
	$(BIN)/tonelake demo

test: $(READY)   ## the whole test suite; make test COVERAGE=1 also says which lines and branches no test runs
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder -q $(if $(COVERAGE),--cov)

lint: $(READY)   ## ruff
	$(BIN)/ruff check .

types: $(READY)  ## mypy
	$(BIN)/mypy

audit:           ## known vulnerabilities of what is installed, as pip-audit knows them
	rm -rf .venv-audit
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip --progress-spinner off

build: $(READY)  ## the wheel, into dist/
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

bench-embed: $(READY)  ## embedding speed and memory against a plain loop (15 minutes)
	$(BIN)/python -m bench.embed

bench-endurance: $(READY)  ## memory, files and disk over 100,000 clips and 10,000 queries (20 minutes)
	$(BIN)/python -m bench.endurance

bench-finetune: $(READY)  ## LoRA steps and memory against a plain loop (5 minutes)
	$(BIN)/python -m bench.finetune

bench-growth: $(READY)  ## time and memory for 1,000 to 100,000 clips (an hour)
	$(BIN)/python -m bench.growth

bench-ingest: $(READY)  ## ingest, first and again, against a plain loop (8 minutes, most of it to make the files)
	$(BIN)/python -m bench.ingest

chaos: $(READY)        ## kill -9 in the middle of everything, 200 times, and what was lost (20 minutes)
	$(BIN)/python -m bench.chaos

mutants: $(READY)      ## small errors put into the code, one at a time: which do the tests notice? (an hour or two)
	$(BIN)/python -m pip install --quiet cosmic-ray
	$(BIN)/python -m bench.mutants

bench-live: $(READY)   ## live audio's latency by layer, and k-means against scikit-learn (5 minutes)
	$(BIN)/python -m bench.live

bench-probes: $(READY)  ## a grid of probes against a loop and scikit-learn (half an hour)
	$(BIN)/python -m bench.probes

report-chorales: $(READY) ## docs/chorales.md anew (10 minutes)
	$(BIN)/python -m bench.chorales

bench-map: $(READY)    ## maps against plain UMAP (25 minutes)
	$(BIN)/python -m bench.maps --alone 1000000

bench-search: $(READY)  ## an index of ours among its like: FAISS, LanceDB, hnswlib, Voyager, USearch
	$(BIN)/python -m pip install --quiet hnswlib voyager usearch
	$(BIN)/python -m bench.search

bench-small: $(READY)  ## what the small MERT is worth, and its card (15 minutes)
	$(BIN)/python -m bench.small

bench-ui: $(READY)     ## the app's map in Chromium: first points, clicks, frames (10 minutes)
	$(BIN)/python -m bench.ui

screenshots: $(READY)  ## pictures of every page of the app, docs/app/ (10 minutes)
	$(BIN)/python -m bench.screenshots

pretrain: $(READY)     ## the small MERT anew (an hour or two; stopped, it goes on from small-work)
	$(BIN)/python -m bench.pretrain --work small-work

report-probes: $(READY) ## docs/chorales-probes.md anew (15 minutes)
	$(BIN)/python -m bench.chorale_probes

ui: $(READY)     ## the app, on the demo's lake
	$(BIN)/tonelake ui --lake demo-lake

lock:            ## requirements.lock anew, from pyproject.toml
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade "pip>=25"
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0
	.venv-lock/bin/python -m pip install --quiet --editable .[dev]
	echo "# Made by 'make lock'.  torch comes as the build that pip finds for the machine." > requirements.lock
	.venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v -E '^(nvidia-|triton)' >> requirements.lock
	rm -rf .venv-lock

clean:           ## everything that can be made again
	rm -rf .venv .venv-lock .venv-audit dist demo-lake .pytest_cache .mypy_cache .ruff_cache
