# SPDX-License-Identifier: AGPL-3.0-only
# make demo      build, then watch real agents go through the whole life of a device
# make test      every test, on real peers that it installs and starts itself
# make bench     speed against peers measured in the same run -> bench/results.json
# make controls  remove one guarded check at a time in a copy of the tree and expect red
# make reference rewrite docs/reference after a change of the command line or the API
# make release   a signed release: VERSION=1.4.0 DAY=2027-03-01 KEY=release.key OUT=folder (docs/releases.md)
# make build     bin/openthings, bin/openthings-agent, bin/openthings-verify
# make fuzz      each fuzz target for FUZZTIME (default 20s)

GO       ?= go
FUZZTIME ?= 20s
export CGO_ENABLED ?= 0
export GOFLAGS := -buildvcs=false
# A program with the race detector waits for a second before it ends, each of the hundreds of commands of the stories.
export GORACE ?= atexit_sleep_ms=20
# Every test runs under the race detector, which need not watch these packages count in memory of their own: docs/decisions/0060.
UNWATCHED := modernc.org/... golang.org/x/crypto/... math/big regexp/... compress/flate $(addprefix crypto/internal/fips140/,nistec/... edwards25519/... bigmod mlkem)
RACE     := -race $(foreach packages,$(UNWATCHED),-gcflags=$(packages)=-race=false)
BUILD    := $(GO) build -trimpath -ldflags "-s -w -buildid="
PKCS11   := ./hardware/pkcs11 ./agent/keys ./identity/keystore ./identity/embedded
VENDOR   := console/assets/vendor/stamp
FIRMWARE := demo/assets/stamp

.PHONY: build release demo test bench controls reference race-flags fuzz assets clean
build: assets
	$(BUILD) -o bin/ ./cmd/...

release: assets
	scripts/release.sh "$(VERSION)" "$(DAY)" "$(KEY)" "$(OUT)"

assets: $(VENDOR) $(FIRMWARE)

$(VENDOR): package.json package-lock.json scripts/assets.sh
	scripts/deps.sh build
	scripts/assets.sh
	@touch $@

$(FIRMWARE): scripts/firmware.sh $(shell find demo/firmware -type f 2>/dev/null)
	scripts/firmware.sh
	@touch $@

demo: build
	bin/openthings demo

test: assets
	scripts/deps.sh test
	CGO_ENABLED=1 $(GO) vet $(RACE) ./...
	CGO_ENABLED=1 $(GO) test $(RACE) -vet=off -timeout 20m ./...
	CGO_ENABLED=1 $(GO) vet $(RACE) -tags pkcs11 $(PKCS11)
	CGO_ENABLED=1 $(GO) test $(RACE) -vet=off -tags pkcs11 $(PKCS11)

bench: build
	scripts/deps.sh test
	$(GO) run ./bench -out bench/results.json

controls: assets
	scripts/deps.sh test
	$(GO) run ./controls

race-flags: # what RACE is, for tests that build with it
	@echo $(RACE)

reference: assets
	$(GO) test ./cmd/openthings ./app -run '^TestReference$$' -update

fuzz: assets
	scripts/fuzz.sh $(FUZZTIME)

clean:
	rm -rf bin node_modules console/assets/vendor demo/assets/stamp
