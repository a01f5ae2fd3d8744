# `make demo` and `make test` set up everything they need: only Python 3.10 or newer, git and make must be there.

PYTHON ?= python3
UV_HOME := .uv
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := Scripts
else
BIN := bin
endif
UV := $(UV_HOME)/$(BIN)/uv
RUN := $(VENV)/$(BIN)/python
READY := $(VENV)/.ready

.PHONY: demo test test-slow test-gpu bench-gpu test-comfyui lint types format setup clean

demo: $(READY)
	$(RUN) scripts/demo.py demo_out

# Two processes of one thread each: what most tests do is not parallel in itself.
test: export OMP_NUM_THREADS = 1
test: $(READY) lint types
	$(RUN) -m pytest -n 2 --dist worksteal

# Full-size weights and long files: minutes, up to 16 GB of memory and 10 GB of disk in the temporary folder.
test-slow: $(READY)
	$(RUN) -m pytest -m slow --timeout 1800

# On a CUDA device: the same sound as on the CPU, and the half precisions near it. A few minutes.
test-gpu: $(READY)
	$(RUN) -m pytest -m gpu

# On a CUDA device: tests of kernels and attention, then tables of times, in at most 8 minutes; outputs in benchmarks/results.
bench-gpu: $(READY)
	$(RUN) -m benchmarks.gpu

# In a real ComfyUI: COMFYUI_DIR names its folder, COMFY_PY the Python with its requirements and open_clip_torch. Half an hour
# on two cores. What drives the page needs Chromium, node, and PLAYWRIGHT_DIR, the folder with node_modules/playwright-core.
test-comfyui: $(READY)
	$(RUN) -m pytest -m comfyui -s --timeout 1800

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(READY)
	$(RUN) -m mypy

format: $(READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

setup: $(READY)

$(READY): pyproject.toml $(UV)
	UV_PYTHON_DOWNLOADS=never $(UV) sync --extra dev --python "$(PYTHON)"
	@touch $(READY)

$(UV):
	$(PYTHON) -m venv $(UV_HOME)
	$(UV_HOME)/$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

clean:
	rm -rf $(VENV) $(UV_HOME) demo_out uv.lock
