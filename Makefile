# Each target is one line; what it needs is installed first. Scripts are in deploy/ and .ci/.
SERVERS := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/servers
export PATH := $(SERVERS)/bin:$(PATH):$(HOME)/.cargo/bin
SERVICES := -p sluice -p sluice-gateway -p sluice-logic -p sluice-task

.PHONY: run test bench deps build check
run: build        ; exec $(or $(CARGO_TARGET_DIR),target)/debug/sluice cluster $(ARGS)
test: build       ; .ci/test $(ARGS)
bench: deps       ; .ci/bench $(ARGS)
deps:             ; deploy/deps.sh $(SERVERS)
build: deps       ; cargo build --locked $(SERVICES)
check: deps       ; .ci/check
