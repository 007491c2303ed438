# make demo, make test: each sets up what it needs.  Needs Python 3.11 or later, pip and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --max-worker-restart 1 -q --durations 10 --durations-min 5

# Set in many containers: each process would then compile what it imports again, seconds of torch alone.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-slow lint types docs audit build bench-embed bench-encoders bench-endurance bench-files bench-finetune bench-frames bench-growth bench-ingest bench-live bench-map bench-names bench-probes bench-ray bench-real bench-scale bench-search bench-serve bench-small bench-statistics bench-ui chaos mutants pretrain report-chorales report-notes report-probes screenshots ui lock clean

help:            ## list the targets
	@grep -E '^[a-z-]+: .*##' Makefile | sed 's/:.*##/\t/'

# Installed without compiling: a minute instead of three, since most modules of the dependencies are never imported.  The first
# import of a module compiles it.  librosa and umap-learn have numba compile functions at their first use, which takes most of a
# minute: done here, both at once.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tonelake needs Python 3.11 or later, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	$(BIN)/python -c "from tonelake.embed import load_librosa; load_librosa()" & librosa=$$!; \
		$(BIN)/python -c "from tonelake.index import load_umap; load_umap()" && wait $$librosa
	-@$(BIN)/tonelake weights musicnn    # 29 MB by pip; without a network its tests are skipped
	@touch $@

demo: $(READY)   ## forty chorales, from notes to neighbours
	$(BIN)/tonelake demo

test: $(READY)   ## the tests but the slow ones; with COVERAGE=1 also lists the lines and branches that no test runs
	$(PYTEST) -m "not slow" $(if $(COVERAGE),--cov)

test-slow: $(READY)  ## the slow tests: kills, clusters, whole training runs
	$(PYTEST) --numprocesses $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 1)') -m slow $(SELECT)    # many wait for other processes

lint: $(READY)   ## ruff
	$(BIN)/ruff check .

types: $(READY)  ## mypy
	$(BIN)/mypy

docs: $(READY)   ## the documentation as a site, into site/; a warning fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

audit:           ## known vulnerabilities of the locked dependencies, as pip-audit knows them
	rm -rf .venv-audit
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip --progress-spinner off

build: $(READY)  ## the wheel and the source distribution, into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -t wheel -t sdist >/dev/null

bench-embed: $(READY)  ## embedding speed and memory against transformers loops and OpenVINO (25 minutes)
	$(BIN)/python -m pip install --quiet openvino
	$(BIN)/python -m bench.embed

bench-encoders: $(READY)  ## encoders against their published forward passes (5 minutes)
	$(BIN)/python -m bench.encoders

bench-endurance: $(READY)  ## memory, files and disk over 100,000 clips and 10,000 queries (20 minutes)
	$(BIN)/python -m bench.endurance

bench-files: $(READY)  ## 1,200 audio files in every situation, compared with what is right (4 minutes)
	$(BIN)/python -m bench.files

bench-finetune: $(READY)  ## LoRA steps and memory against loops with PEFT (5 minutes)
	$(BIN)/python -m bench.finetune

bench-frames: $(READY)  ## a grid of heads on frames against one fit after another (10 minutes)
	$(BIN)/python -m bench.frames

bench-growth: $(READY)  ## time and memory for 1,000 to 100,000 clips (an hour)
	$(BIN)/python -m bench.growth

bench-ingest: $(READY)  ## ingest, first and again, against a librosa loop (8 minutes, most of it to make the files)
	$(BIN)/python -m bench.ingest

chaos: $(READY)        ## kill -9 at 200 random moments, and count lost rows (20 minutes)
	$(BIN)/python -m bench.chaos

mutants: $(READY)      ## mutation testing: put small errors into the code and list those no test notices (an hour or two)
	$(BIN)/python -m pip install --quiet cosmic-ray
	$(BIN)/python -m bench.mutants

bench-live: $(READY)   ## live audio's latency by encoder and layer, and k-means against scikit-learn (15 minutes)
	$(BIN)/python -m bench.live

bench-probes: $(READY)  ## a grid of probes against a PyTorch loop and scikit-learn (half an hour)
	$(BIN)/python -m bench.probes

report-chorales: $(READY) ## rewrite docs/chorales.md (10 minutes)
	$(BIN)/python -m bench.chorales

bench-map: $(READY)    ## maps against plain UMAP (30 minutes)
	$(BIN)/python -m bench.maps --yardstick 200000 --alone 1000000

bench-names: $(READY)  ## songs by name: accuracy, latency and size for 100,000 made-up songs (5 minutes)
	$(BIN)/python -m bench.names

bench-ray: $(READY)    ## the Ray engine on one machine against the local engine (5 minutes)
	$(BIN)/python -m bench.ray

bench-real: $(READY)   ## retrieval of artists on real music, fetched from Debian packages, 1.5 GB (20 minutes)
	$(BIN)/python -m bench.real

bench-scale: $(READY)  ## ten million clips, by simulation: time, memory, disk and requests (15 minutes, 10 GB of disk)
	$(BIN)/python -m bench.ten_million

bench-search: $(READY)  ## our index against FAISS, LanceDB, hnswlib, Voyager and USearch
	$(BIN)/python -m pip install --quiet hnswlib voyager usearch
	$(BIN)/python -m bench.search

bench-serve: $(READY)  ## the HTTP service: 50 clients and 100,000 requests against the library's own calls (6 minutes)
	$(BIN)/python -m bench.serve

bench-small: $(READY)  ## quality of the small MERT, and its model card (15 minutes)
	$(BIN)/python -m bench.small

bench-statistics: $(READY)  ## coverage of the printed intervals in simulated lakes, and false distinctions (20 minutes)
	$(BIN)/python -m bench.statistics
	$(BIN)/python -m bench.statistics --lakes 1000 --designs classes tags numbers seeds overlap groups groups_unequal groups_anisotropic

bench-ui: $(READY)     ## the app in Chromium: the first points of a map, clicks, frames, the page of a song (10 minutes)
	$(BIN)/python -m bench.ui

screenshots: $(READY)  ## pictures of every page of the app, docs/app/ (first 1.5 GB of music and half an hour, then 10 minutes)
	$(BIN)/python -m bench.screenshots

pretrain: $(READY)     ## train the small MERT again (an hour or two; resumes from small-work)
	$(BIN)/python -m bench.pretrain --work small-work

report-notes: $(READY) ## rewrite docs/notes.md: notes read from frames of rendered chorales (45 minutes); BASIC_PITCH=FOLDER of packages compares it
	$(BIN)/python -m bench.notes $(if $(BASIC_PITCH),--basic-pitch $(BASIC_PITCH))

report-probes: $(READY) ## rewrite docs/chorales-probes.md (15 minutes)
	$(BIN)/python -m bench.chorale_probes

ui: $(READY)     ## the app, on the demo's lake
	$(BIN)/tonelake ui --lake demo-lake

lock:            ## rewrite requirements.lock from pyproject.toml
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0
	.venv-lock/bin/python -m pip install --quiet --editable .[all] --group dev --group docs
	echo "# Made by 'make lock'.  torch comes as the build that pip finds for the machine." > requirements.lock
	.venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v -E '^(nvidia-|triton)' >> requirements.lock
	rm -rf .venv-lock

clean:           ## remove everything that can be made again
	rm -rf .venv .venv-lock .venv-audit dist site demo-lake .pytest_cache .mypy_cache .ruff_cache
