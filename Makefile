# Every target is one line that anyone could type without make.
RECIPE ?= demo
TASK ?= demo_keyword
CORPUS ?= demo
ROOT ?=
ARGS ?=
TORCH ?=
BIN := .venv/bin

.PHONY: help setup pretrain finetune compare shards bench gpu test soak check docs lock clean
.DEFAULT_GOAL := help

help:
	@echo "make pretrain [RECIPE=ssast_base_patch] [ENCODER=bimamba SIZE=tiny] [DEVICES=8 NODES=4] [NAME=...] [ARGS=...]"
	@echo "make finetune TASK=ks2 [ADAPTER=lora] [CHECKPOINT=file|newest|none] [NAME=...] [ARGS=...]   tasks: recipes/finetune; adapters: recipes/adapters"
	@echo "make compare TASK=ks2 [ARGS='--encoders [transformer_tiny,bimamba_tiny] --seeds 3']"
	@echo "make shards CORPUS=folder ROOT=/data/audio [ARGS=...]"
	@echo "make bench | make gpu [ARGS='--minutes 20'] | make test | make soak | make check | make docs | make setup [TORCH=cpu]"

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	@echo "setup: $$(grep -c == requirements.lock) packages into .venv; downloading takes the time$(if $(filter cpu,$(TORCH)),, (most of it CUDA libraries: make setup TORCH=cpu leaves them out)), then bytecode"
	python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep -o '^uv==[^ ]*' requirements.lock)
	grep -vE '$(if $(filter cpu,$(TORCH)),^(nvidia-|cuda-|triton==),^$$)' requirements.lock > .venv/requirements.txt
	$(BIN)/uv pip sync --compile-bytecode $(if $(TORCH),--torch-backend $(TORCH)) --python $(BIN)/python .venv/requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

shards/demo/manifest.json: | .venv/ready
	$(BIN)/ssl-audio shards write --corpus demo --out shards/demo

pretrain: .venv/ready $(if $(filter demo,$(RECIPE)),shards/demo/manifest.json)
	$(BIN)/ssl-audio pretrain --config $(RECIPE) $(if $(ENCODER)$(SIZE),--model.backbone.encoder recipes/encoders/$(or $(ENCODER),transformer)_$(or $(SIZE),$(if $(filter demo,$(RECIPE)),demo,tiny)).yaml) $(if $(NAME),--name $(NAME)) $(if $(DEVICES),--trainer.devices $(DEVICES)) $(if $(NODES),--trainer.num_nodes $(NODES)) $(ARGS)

finetune: .venv/ready
	$(BIN)/ssl-audio finetune --config $(TASK) $(if $(ADAPTER),--config adapters/$(ADAPTER)) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) $(if $(NAME),--name $(NAME)) $(ARGS)

compare: .venv/ready shards/demo/manifest.json
	$(BIN)/ssl-audio compare --task $(TASK) $(ARGS)

shards: .venv/ready
	$(BIN)/ssl-audio shards write --corpus $(CORPUS) $(if $(ROOT),--root $(ROOT)) --out shards/$(CORPUS) $(ARGS)

bench: .venv/ready
	$(BIN)/ssl-audio bench step $(ARGS)

gpu: .venv/ready
	$(BIN)/ssl-audio bench gpu $(ARGS)

test: .venv/ready
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --dist worksteal -q $(ARGS)

soak: .venv/ready
	for script in "kills.py --kills 100" compiled.py hostile.py hostile_checkpoints.py combinations.py triples.py; do \
		OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python tests/soak/$$script || exit 1; done

check: .venv/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # site/index.html

lock:
	$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --no-emit-index-url --extra demo --extra dev --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv shards/demo
