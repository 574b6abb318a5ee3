# Everything here runs on a fresh clone with Go alone; e2e also needs Node with
# npm and a C compiler. CI (.ci/run) is made of these targets.

BIN     ?= bin/appview
REF     ?= main
BENCH   ?= .
FUZZ    ?= 5m
SEEDS   ?= 20
COVER   ?= cover.out
TARGETS ?= darwin/arm64 windows/amd64 linux/arm64 linux/386 linux/arm
DIST    ?= dist
RELEASE ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

# What ships is pure Go. Only the race detector needs cgo.
export CGO_ENABLED = 0

# Tools have a module file of their own, so that go.mod lists only what ships.
TOOL = go tool -modfile=.ci/tools.mod
LINT = $(TOOL) golangci-lint

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)$$/\1\t\2/p' Makefile | awk -F '\t' '{ printf "  make %-14s %s\n", $$1, $$2 }'

.PHONY: build
build: ## build the program as bin/appview (BIN=path to put it elsewhere)
	go build -trimpath -ldflags='-s -w' -o '$(BIN)' .

.PHONY: release
release: ## build the last commit for every platform into DIST=dist, with checksums
	@bash .ci/release '$(DIST)' $(RELEASE)

.PHONY: release-check
release-check: ## build a release twice and fail if the bytes differ
	@set -eu; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	bash .ci/release "$$tmp/one" linux/amd64; \
	GOCACHE="$$tmp/cache" bash .ci/release "$$tmp/two" linux/amd64; \
	cmp "$$tmp/one/SHA256SUMS" "$$tmp/two/SHA256SUMS"; \
	cd "$$tmp/one" && sha256sum --check --quiet SHA256SUMS; \
	echo "release-check: the same bytes both times"

.PHONY: test
test: ## run the quick tests, no network needed; many of them wait more than they work
	go test -short -parallel 5 ./...

.PHONY: test-long
test-long: ## run the tests that take seconds each as well
	go test -timeout 20m ./...

.PHONY: race
race: ## run the tests with the race detector, in random order
	CGO_ENABLED=1 go test -race -shuffle=on -timeout 25m ./...

.PHONY: lint
lint: ## run golangci-lint, import rules included
	$(LINT) run ./...

.PHONY: fmt
fmt: ## format the code
	$(LINT) fmt

.PHONY: fmt-check
fmt-check: ## fail and show the difference if the code is not formatted
	$(LINT) fmt --diff

.PHONY: vet
vet: ## run go vet, over the e2e, browser and nginx tests too
	go vet ./...
	go vet -tags=e2e ./e2e/...
	go vet -tags=browser,nginx ./cmd

.PHONY: tidy-check
tidy-check: ## fail if go.mod or go.sum is not what go mod tidy makes
	go mod tidy -diff

.PHONY: cross
cross: ## build and vet for the other platforms (TARGETS="os/arch ..."), and run the demo on 32 bits
	@set -eu; for t in $(TARGETS); do \
		echo "cross $$t"; \
		GOOS=$${t%/*} GOARCH=$${t#*/} go build -o /dev/null ./...; \
		GOOS=$${t%/*} GOARCH=$${t#*/} go vet ./...; \
	done; \
	if [ "$$(go env GOOS GOARCH | paste -sd/)" = linux/amd64 ]; then \
		echo "cross linux/386: the demo"; \
		GOARCH=386 go run . demo --exit --repos 100 >/dev/null; \
	fi

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZ=5m each
	@bash .ci/fuzz '$(FUZZ)'

.PHONY: zoo
zoo: ## run the zoo of misbehaving hosts at its full size: 5,000 repos on 200 hosts
	ZOO_REPOS=5000 go test -count=1 -timeout=20m -run='^TestZooEndsAsItShould$$' ./backfill

.PHONY: soak
soak: zoo ## crash, kill and compare with SEEDS=20 seeds (SOAK_SEED=n: one again), then a network in trouble
	@bash .ci/soak '$(SEEDS)'
	SOAK=1 go test -count=1 -timeout=60m -v -run='^TestSoak$$' ./cmd

.PHONY: mutants
mutants: ## break the code on purpose and see that the tests notice (MUTANTS="name ...")
	@MUTANTS_TIME='$(MUTANTS_TIME)' bash .ci/mutate $(MUTANTS)

.PHONY: bench
bench: ## run the benchmarks (BENCH=regexp for some of them)
	go test -run='^$$' -bench='$(BENCH)' -benchmem ./...

.PHONY: bench-compare
bench-compare: ## compare benchmarks with REF=main, ten runs a side
	@REF='$(REF)' BENCH='$(BENCH)' bash .ci/bench-compare

.PHONY: cover
cover: ## show the test coverage by function (COVER=file for the profile)
	go test -coverpkg=./... -coverprofile='$(COVER)' ./...
	go tool cover -func='$(COVER)'

.PHONY: check
check: fmt-check tidy-check lint vet test ## what to run before a commit

.PHONY: docs
docs: ## make openapi.json and docs/api.md from server/openapi/openapi.yaml, docs/interop.md from its list
	UPDATE_DOCS=1 go test -count=1 -run='^(TestDocsAreMadeFromTheDescription|TestInteropDocsListTheDisagreements)$$' ./server ./internal/sandbox/sandboxtest/interop

.PHONY: run
run: ## build and serve on 127.0.0.1:3000, data in ./appview-data (ARGS="--collection ...")
	go run . serve $(ARGS)

.PHONY: demo
demo: ## run the whole job on an invented network, nothing else needed
	go run . demo $(ARGS)

.PHONY: e2e
e2e: ## run the built program against real PDSes, PLC, relay and collection directory
	@bash .ci/e2e

.PHONY: browser
browser: ## drive the page in a real browser (chromium; BROWSER_SHOTS=folder keeps screenshots)
	@bash .ci/browser

.PHONY: nginx
nginx: ## put a real nginx in front of the server, as docs/operating.md says, by port and by socket
	@bash .ci/nginx

.PHONY: screenshot
screenshot: ## make docs/page.png, the screenshot in README.md, on an invented network
	@SCREENSHOT='$(CURDIR)/docs/page.png' bash .ci/browser '^TestScreenshot$$'

.PHONY: ci
ci: ## everything CI runs, with the time each member took
	@bash .ci/run
