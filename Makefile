# `make demo` and `make test` need Python 3.11 and nothing else; .venv is made once and again when its inputs change.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export PATH := $(CURDIR)/.tools:$(PATH)

.PHONY: help demo ablation benchmark towers chaos test faults check audit pictures clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       train plain CLIP and Structure-CLIP on generated scenes, end with the page that compares them"
	@echo "make ablation   what each part of the method adds: eight rows, three seeds, one table"
	@echo "make benchmark  captions a second beside the field's parser"
	@echo "make towers     which of open_clip's architectures train, evaluate and export here: the table of sclip/model/README.md"
	@echo "make chaos      kill a training 20 times at random moments and audit it, beside webdataset (half an hour)"
	@echo "make test       run the tests"
	@echo "make faults     run the tests in which workers, nodes, drivers and heads are killed, and clusters grow and shrink"
	@echo "make check      the linters: of Python, the Dockerfile, shell scripts, CloudFormation, Compose and Kubernetes"
	@echo "make pictures   draw the pictures of the README; the demo's runs must be there"
	@echo "make audit      known vulnerabilities of the pinned packages, asked of PyPI's advisories"

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Structure-CLIP beside the same towers without negatives and knowledge encoder; a later call uses the finished runs.
demo: .venv/installed
	$(BIN)/sclip pretrain run.name=clip loss.negatives=none model.kee.enabled=false $(ARGS)
	$(BIN)/sclip pretrain run.name=structure-clip run.compare_with=clip $(ARGS)

ablation: .venv/installed
	$(BIN)/sclip ablation $(ARGS)

# SceneGraphParser is a peer to measure with and nothing that sclip needs.
benchmark: .venv/installed
	$(PIP) --constraint constraints.txt --editable '.[benchmark]'
	$(BIN)/sclip benchmark scenegraph $(ARGS)

# Nothing comes from a hub: tokenizers and text towers' configs are made, so that all of it also runs without a network.
towers: .venv/installed
	mkdir -p output
	HF_HUB_OFFLINE=1 $(BIN)/sclip benchmark towers --json output/towers.json $(ARGS)

# Twenty kills of drivers, workers and encoders, with 2 and 1 workers in turns; the other rows of the table are small.
chaos: .venv/installed
	$(BIN)/sclip benchmark stream --rounds 1 --kills 20 $(ARGS)

# In two processes, one of which has all that starts clusters: two clusters at once would wait for each other's CPUs.
test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder --ignore tests/faults $(ARGS)

faults: .venv/installed
	$(BIN)/python -m pytest tests/faults $(ARGS)

# Ray's manifests are held against KubeRay's schemas by tests, which render them. kubernetes-validate only warns of a kind
# that it does not know, so what it says at all is a failure.
MANIFESTS = $(filter-out %/kustomization.yaml %/raycluster.yaml, \
    $(wildcard cluster/kuberay/*.yaml cluster/kuberay/base/*.yaml cluster/mlflow/*.yaml))
check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint cluster/Dockerfile
	$(BIN)/shellcheck .ci/run .ci/tools $(wildcard cluster/*.sh cluster/*/*.sh)
	$(BIN)/cfn-lint cluster/launcher/aws-account.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec cluster/compose.yaml
	! $(BIN)/kubernetes-validate --strict --quiet -k 1.33 -k 1.37 $(MANIFESTS) 2>&1 | grep .

# In an environment of its own; strict, so that advisories that do not answer are a failure and no clean result.
audit:
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	.audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

# Each picture shows what a command writes. RUNS is where the demo left its page; Chromium photographs a page's upper part.
RUNS ?= $(HOME)/sclip/runs
COMPARISON = $(abspath $(RUNS))/structure-clip/comparison.html
PICTURES := sclip/report/pictures
PHOTOGRAPH := chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --log-level=3 --force-device-scale-factor=2
pictures: .venv/installed
	folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && \
	echo "a tall astronaut rides a white horse" | $(BIN)/sclip negatives - --max-candidates 2 --html "$$folder/page.html" && \
	$(PHOTOGRAPH) --window-size=860,425 --screenshot=$(PICTURES)/graph.webp "file://$$folder/page.html"
	$(BIN)/python -c "$$PLAN" $(PICTURES)/plan.svg
	@test -f $(COMPARISON) || { echo "no $(COMPARISON): run make demo first, or set RUNS"; false; }
	$(PHOTOGRAPH) --window-size=860,700 --screenshot=$(PICTURES)/comparison.webp file://$(COMPARISON)

# What --plan prints on the cluster of cluster/launcher/aws.yaml, at prices like those in cluster/README.md; no cluster runs.
define PLAN
import os, re, sys
from dataclasses import replace
from pathlib import Path
from rich.console import Console
from sclip.config.loader import load
from sclip.launch.capacity import Capacity, sized
from sclip.launch.node_types import NodeType
from sclip.launch.plan import check_memory, make, show
from sclip.launch.plan.price_table import Price, Prices

head, parser = NodeType("head", 0, 0, 1, 1), NodeType("parser", 32, 0, 0, 16)
capacity = Capacity.of(head, parser, NodeType("trainer", 48, 4, 0, 2, "L40S"))
prices = Prices({"head": Price(0.2), "parser": Price(0.26, spot=True), "trainer": Price(12.29)}, "USD")
config = load(["data.shards=s3://bucket/train/*.tar", f"run.storage={os.devnull}"], "paper")
console = Console(record=True, width=108, file=sys.stderr)
command = "$$ sclip pretrain --config paper data.shards='s3://bucket/train/*.tar' --plan --prices prices.yaml"
console.print(command, highlight=False)
plan = make(sized(config, capacity), capacity, 1000, 10 * 10_000_000, {}, prices)
show(replace(plan, memory=check_memory(plan.config, capacity)), console)
console.print()
svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=""), flags=re.DOTALL)  # GitHub loads no fonts
Path(sys.argv[1]).write_text(svg)
endef
export PLAN

clean:
	rm -rf .venv .audit *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
