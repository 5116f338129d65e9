# Everything starts here. Each target installs what it needs on Debian (with sudo when not root); on another
# distribution it names the packages and stops.

CARGO ?= cargo
VERIFIERS := target/verifiers

.PHONY: build demo test lab torture bench lint audit tools

build:
	@scripts/dependencies build
	$(CARGO) build --workspace --bins

demo:
	@scripts/dependencies build demo
	@$(CARGO) build --quiet -p passhold -p daemon -p demo
	@target/debug/demo

test:
	@scripts/dependencies build demo test
	@scripts/dependencies lab || echo "*** The guest's packages cannot be installed; its tests will be skipped. ***"
	swtpm-tests/verifiers/install.sh $(VERIFIERS)
	$(CARGO) build --workspace --bins
	PASSHOLD_VERIFIERS=$(CURDIR)/$(VERIFIERS) $(CARGO) test --workspace

# The part of `make test` that runs in a guest with a real kernel.
lab:
	@scripts/dependencies build lab
	$(CARGO) build --workspace --bins
	PASSHOLD_LAB=required $(CARGO) test -p swtpm-tests --test guest

# The numbers of docs/threat-model.md; takes hours.
torture:
	@scripts/dependencies build demo test
	swtpm-tests/verifiers/install.sh $(VERIFIERS)
	$(CARGO) build --release --workspace --bins
	PASSHOLD_TORTURE=1 PASSHOLD_VERIFIERS=$(CURDIR)/$(VERIFIERS) $(CARGO) test --release --workspace -- --nocapture

bench:
	@scripts/dependencies build demo
	$(CARGO) bench --workspace --benches

lint: tools
	@scripts/dependencies build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	$(CARGO) deny --workspace check bans licenses sources

# Needs the RustSec database from GitHub, so it stands apart.
audit: tools
	$(CARGO) deny --workspace check advisories

tools:
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
