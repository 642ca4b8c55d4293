# Targets a person needs: demo, test, quick, bench, scale, lint, generate. `make tools` fetches the pinned tools that lint and generate use.

TOOLS   := $(CURDIR)/.tools
export PATH := $(TOOLS):$(PATH)

BUF_VERSION               := v1.75.0
PROTOC_GEN_GO_VERSION     := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
GOLANGCI_LINT_VERSION     := v2.15.0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X github.com/ententehq/entente/node.Version=$(VERSION)

.PHONY: all build demo test quick bench scale fuzz lint generate check-generated tools clean

all: build

build: ## the binary, in bin/
	go build -ldflags '$(LDFLAGS)' -o bin/entente ./cmd/entente

demo: ## two regions on this machine, federated
	go run ./cmd/entente demo

test: ## every test, with the race detector
	go test -race -timeout 20m ./...
	@echo "the tests of $$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -c .) packages passed"

quick: ## the tests for the inner loop: no race detector, no real servers, in under two minutes
	.ci/quick

bench: ## the claims of docs/BENCHMARKS.md, each a ratio measured in one run
	go test -run '^$$' -bench . -benchtime 3s -timeout 30m ./bundle/... ./raftstore ./authority ./federation ./routing ./routing/plan ./routing/exchange ./routing/xds ./e2e

scale: ## the tables of docs/SCALE.md, from federations of up to 10,000 clusters under a virtual clock; about 35 minutes on two cores
	go test -run '^TestScaleTables$$' -count 1 -v -timeout 3h ./federation -scale

FUZZTIME ?= 60s
fuzz: ## every fuzz target for FUZZTIME
	@set -e; for pkg in $$(go list ./...); do \
		dir=$$(go list -f '{{.Dir}}' $$pkg); \
		for target in $$(cat $$dir/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p'); do \
			echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

lint: tools
	golangci-lint run ./...
	buf lint

generate: tools
	buf generate

check-generated: generate ## fails when generated code is not what its source gives
	@changed=$$(git status --porcelain -- api); \
	if [ -n "$$changed" ]; then echo "generated code is out of date; run 'make generate' and commit:"; echo "$$changed"; exit 1; fi

tools: $(TOOLS)/buf-$(BUF_VERSION) $(TOOLS)/protoc-gen-go-$(PROTOC_GEN_GO_VERSION) $(TOOLS)/protoc-gen-go-grpc-$(PROTOC_GEN_GO_GRPC_VERSION) $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)

# A marker file holds the version, so that a changed pin installs anew.
$(TOOLS)/buf-%:
	GOBIN=$(TOOLS) go install github.com/bufbuild/buf/cmd/buf@$*
	@touch $@
$(TOOLS)/protoc-gen-go-v%:
	GOBIN=$(TOOLS) go install google.golang.org/protobuf/cmd/protoc-gen-go@v$*
	@touch $@
$(TOOLS)/protoc-gen-go-grpc-%:
	GOBIN=$(TOOLS) go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$*
	@touch $@
$(TOOLS)/golangci-lint-%:
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$*
	@touch $@

clean:
	rm -rf bin .tools
