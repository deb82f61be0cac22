# Everything that a person or a machine does with this tree is a target here.
# `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/capsule
# Where hack/deps.sh puts a Go of its own, when the machine had none.
export PATH := $(CACHE)/go/bin:$(PATH)

# Asked once, so that one run of make has one answer.
VERSION := $(or $(VERSION),$(shell git describe --tags --always --dirty 2>/dev/null || echo unknown))
COMMIT := $(or $(COMMIT),$(shell git rev-parse HEAD 2>/dev/null))
BIN ?= bin
DIST ?= dist

# Pure Go programs. urfave_cli_no_docs leaves out a Markdown renderer whose
# initialisation costs every start a millisecond.
PURE := $(filter-out capsule-seccomp,$(patsubst cmd/%/main.go,%,$(wildcard cmd/*/main.go)))
TAGS := urfave_cli_no_docs
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# capsulectl starts its shim before its own Go runtime: see supervisor/spare.
ENTRY := $(if $(filter amd64,$(shell go env GOARCH 2>/dev/null)),-E capsule_entry)
GOBUILD := go build -trimpath -buildvcs=false

# capsule-seccomp is the one program with C in it: libseccomp, linked
# statically. NOSECCOMP=1 builds it without; asking for a filter is then E2003.
ifeq ($(NOSECCOMP),1)
SECCOMP_ENV := CGO_ENABLED=0
SECCOMP_FLAGS := -tags $(TAGS),noseccomp -ldflags '$(LDFLAGS)'
else
SECCOMP_ENV := CGO_ENABLED=1
SECCOMP_FLAGS := -tags $(TAGS),osusergo,netgo -ldflags '$(LDFLAGS) -linkmode external -extldflags -static'
endif

# What `make bench`, `make fuzz` and `make test` hand on.
comma := ,
JOBS ?=
N = 200
BENCHFLAGS ?=
CURVES ?= live,records,binds,bytes,clients
# hack/deps.sh bench builds this version of a peer that no distribution has.
GO_JUDGE := v1.8.5
BENCH = PATH=$(CACHE)/go-judge/$(GO_JUDGE):$$PATH GO_JUDGE_VERSION=$(GO_JUDGE) go run ./hack/bench -bin $(BIN)
FUZZTIME ?= 20s
TESTFLAGS ?=
CHAOSFLAGS ?=
CONFORMANCEFLAGS ?=
PKG ?= ./...

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install what is missing to build (Debian, Ubuntu)
	@hack/deps.sh build

.PHONY: build
build: deps ## Build the static binaries into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GOBUILD) -tags $(TAGS) -ldflags '$(LDFLAGS)' -o $(BIN)/ $(addprefix ./cmd/,$(filter-out capsulectl,$(PURE)))
	CGO_ENABLED=0 $(GOBUILD) -tags $(TAGS) -ldflags '$(LDFLAGS) $(ENTRY)' -o $(BIN)/ ./cmd/capsulectl
	$(SECCOMP_ENV) $(GOBUILD) $(SECCOMP_FLAGS) -o $(BIN)/ ./cmd/capsule-seccomp
	@# The linker writes through a mapping, page by page, and the page cache keeps such a
	@# file in single pages. Written in one go it lies there in large pieces, as an
	@# installed program does, and a start maps it with a tenth less processor time.
	@for b in $(PURE) capsule-seccomp; do \
	  cp $(BIN)/$$b $(BIN)/.$$b && mv -f $(BIN)/.$$b $(BIN)/$$b || exit; \
	  ! readelf -lW $(BIN)/$$b | grep -q INTERP || { echo "$(BIN)/$$b is not statically linked" >&2; exit 1; }; \
	done

.PHONY: demo
demo: build ## Run about a dozen real sandboxes and show their verdicts
	@hack/deps.sh demo
	@go run ./hack/demo -bin $(BIN)

.PHONY: test
test: build ## Run every test here, then in virtual machines where there are any
	@go test $(TESTFLAGS) -tags $(TAGS) -json $(PKG) | go run ./hack/testreport
	@hack/vmtest.sh

.PHONY: test-race
test-race: build ## Run the tests under the race detector
	@CGO_ENABLED=1 go test $(TESTFLAGS) -tags $(TAGS) -race -json $(PKG) | go run ./hack/testreport

.PHONY: bench
bench: build ## Measure a sandbox's cost against other sandboxes (N=200, BENCHFLAGS)
	@hack/deps.sh bench
	@$(BENCH) -n $(N) $(BENCHFLAGS)

.PHONY: scaling
scaling: build ## Measure how cost grows: live, records, binds, output, clients (CURVES)
	@go run ./hack/bench -bin $(BIN) -scaling $(CURVES)

.PHONY: bench-docs
bench-docs: build ## Measure both anew and write docs/performance.* and docs/scaling.md (N=500)
	@hack/deps.sh bench
	@$(BENCH) -n $(if $(filter file,$(origin N)),500,$(N)) -seconds 3 -docs docs $(BENCHFLAGS)
	@go run ./hack/bench -bin $(BIN) -scaling $(CURVES) -docs docs

.PHONY: soak
soak: build ## Load one capsuled with 20,000 executions; print what it holds after
	@go run ./hack/soak -bin $(BIN)

.PHONY: chaos
chaos: build ## Kill capsuled, shims and clients under load, damage records (CHAOSFLAGS)
	@go run ./hack/chaos -bin $(BIN) $(CHAOSFLAGS)

.PHONY: conformance
conformance: build ## Run the OCI validation suite against capsule-oci; compare with what is expected
	@go run ./hack/conformance -bin $(BIN) $(CONFORMANCEFLAGS)

.PHONY: walls
walls: deps ## Take one wall out at a time and show which tests notice (WALLS=NAME,NAME)
	@go run ./hack/escape/matrix $(if $(WALLS),-only $(WALLS))

.PHONY: fuzz
fuzz: deps ## Run each fuzz test for FUZZTIME (20s)
	@hack/fuzz.sh $(FUZZTIME)

.PHONY: fmt
fmt: deps ## Format the Go files
	@gofmt -w -s $$(git ls-files --cached --others --exclude-standard '*.go')

.PHONY: lint
lint: deps ## gofmt, go vet for every build variant, staticcheck
	@hack/lint.sh

.PHONY: check
check: lint ## lint, plus: generated files fresh, import rules, cross builds
	@hack/check.sh

.PHONY: generate
generate: deps ## Rebuild the generated code and documents
	@hack/generate.sh

.PHONY: pre-commit
pre-commit: fmt generate check ## What to run before a commit: fmt, generate, check, quick tests
	@go test -short -tags $(TAGS) -json $(PKG) | go run ./hack/testreport

.PHONY: cross
cross: deps ## Other systems, arm64 with libseccomp under qemu, and the build without C
	@hack/cross.sh systems
	@hack/cross.sh noseccomp
	@hack/cross.sh arm64

.PHONY: build-release
build-release: deps ## Pack archives, Debian packages, bills of materials, sums into dist/
	@hack/deps.sh pack arm64
	@VERSION=$(VERSION) COMMIT=$(COMMIT) DIST=$(DIST) hack/release.sh build

.PHONY: release-check
release-check: build-release ## Check dist/: rebuilt bit by bit, the package installed and removed
	@VERSION=$(VERSION) COMMIT=$(COMMIT) DIST=$(DIST) hack/release.sh check
	@hack/deps.sh debtest
	@hack/debtest.sh $(DIST)/capsule-$(VERSION)-linux-$$(go env GOHOSTARCH)*.deb

.PHONY: ci-local
ci-local: ## Run the jobs of .github/workflows here, one after the other (JOBS=test,race)
	@hack/ci-local.sh $(subst $(comma), ,$(JOBS))

.PHONY: clean
clean: ## Remove bin/ and dist/
	rm -rf $(BIN) $(DIST)
