# The few commands of this repository. Every one finds, or installs, the tools it needs.

.DEFAULT_GOAL := help
.PHONY: help setup build env demo demo-cluster test test-three torture check bench docs clean

# The tools in use: the machine's own where new enough, else those that `setup` installed.
TOOLS = eval "$$(scripts/toolchain.sh env)" &&

# What the command line sets (REPO, EVENTS, OUT, ...) reaches the scripts as it is: by itself make would expand
# every $ in it, and run what a $(shell ...) says.
$(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),\
    $(eval override $(name) := $$(value $(name)))$(eval export $(name))))

# One folder for all that cargo builds.
export CARGO_TARGET_DIR ?= $(CURDIR)/_build/cargo

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

setup: ## install the tools that are missing (quick when nothing is)
	@scripts/toolchain.sh setup

.PHONY: setup-tests
setup-tests:
	@scripts/toolchain.sh tests

build: setup ## compile everything, below _build/default/lib/*/ebin
	@$(TOOLS) rebar3 compile

env: ## print the exports that put the tools on a shell's PATH: eval "$(make -s env)"
	@scripts/toolchain.sh env

demo: build ## import real events and report; REPO=path or EVENTS=file.ndjson[.gz], ENGINE=ra for stores on disk
	@$(TOOLS) scripts/demo.sh

demo-cluster: build ## the same events through three nodes, one of which is killed, and a check; REPO or EVENTS
	@$(TOOLS) scripts/demo.sh esdb_demo_cluster

test: setup-tests ## all tests, with the native libraries and without
	@$(TOOLS) scripts/test.sh

test-three: setup-tests ## the store's suites on three nodes, of which `test` runs one; SUITES="streams statem"
	@$(TOOLS) scripts/test_three.sh

torture: setup-tests ## stores on nodes that fail, judged by their clients' history; MINUTES=n SEED=s
	@$(TOOLS) scripts/torture.sh

check: setup-tests ## formats, lints, xref, dialyzer, docs, a short fuzzing
	@$(TOOLS) scripts/check.sh

bench: build ## measure against named rivals; BENCH="hash archive" for some, RECORD=1 keeps the table
	@$(TOOLS) scripts/bench.sh $$BENCH

docs: build ## the documentation as HTML, below _build/docs
	@$(TOOLS) scripts/docs.sh

clean: ## remove what was built (the installed tools stay)
	rm -rf _build _checkouts rebar.lock demo/causation.dot demo/causation.svg
