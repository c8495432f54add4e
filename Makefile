# Each target is one line; what it needs is installed first. Scripts are in deploy/ and .ci/.
SERVERS := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/servers
export PATH := $(SERVERS)/bin:$(PATH):$(HOME)/.cargo/bin
SLUICE := $(or $(CARGO_TARGET_DIR),target)/debug/sluice
FAST := $(or $(CARGO_TARGET_DIR),target)/drill/sluice
comma := ,
SERVICES := -p sluice -p sluice-gateway -p sluice-logic -p sluice-task

.PHONY: run release cluster test api-check test-containers bench serve-figures mutants drill-quick drill-herd drill drill-long drill-bites tokens deps build fast dev check
run: dev          ; exec $(SLUICE) dev $(ARGS)
cluster: build    ; exec $(SLUICE) cluster $(ARGS)
# One client of it is on Node where that one is built.
drill-quick: build; exec $(SLUICE) drill quick $(or $(ARGS),--clients 100 --rate 100 --foreign python=1$(if $(wildcard client/js/dist/node.js),$(comma)js=1))
drill-herd: build ; exec $(SLUICE) drill herd $(or $(ARGS),--crowd 300 --rooms 200 --rounds 5)
drill: fast       ; exec $(FAST) drill mix --report drill.html $(ARGS)
drill-long: fast  ; exec $(FAST) drill mix --rounds $(or $(ROUNDS),300) --report drill.html $(ARGS)
drill-bites: build; .ci/bites $(ARGS)
tokens: build     ; cargo nextest run -p sluice --test promises --run-ignored only -E 'test(ten_minutes_of_short_tokens)' --no-capture
test: $(if $(ARGS),build,deps); .ci/test $(ARGS)
api-check: build  ; .ci/api $(ARGS)
test-containers: deps; tools/sluice/tests/containers.sh $(ARGS)
bench: deps       ; .ci/bench $(ARGS)
serve-figures:    ; cargo nextest run --locked --cargo-profile $(or $(PROFILE),release) -p sluice --test dev --run-ignored only -E 'test(figures::figures)' --no-capture
mutants:          ; .ci/mutants $(ARGS)
deps:             ; deploy/deps.sh $(SERVERS)
build: deps       ; cargo build --locked $(SERVICES)
fast: deps        ; cargo build --locked --profile drill $(SERVICES)
dev:              ; deploy/deps.sh $(SERVERS) rust && cargo build --locked -p sluice --no-default-features --features dev
check: deps       ; .ci/check
release: deps     ; deploy/release.sh $(ARGS)
