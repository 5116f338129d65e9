# Everything starts here. Each target installs what it needs on Debian (with sudo when not root); on another
# distribution it names the packages and stops.

CARGO ?= cargo
VERIFIERS := target/verifiers

.PHONY: build demo test lab fuzz torture bench lint audit release install deb reproducible sbom

build:
	@scripts/dependencies build
	$(CARGO) build --workspace --bins

demo:
	@scripts/dependencies build demo
	@$(CARGO) build --quiet -p passhold -p daemon -p demo
	@target/debug/demo

DEB = $$(echo $(CURDIR)/target/debian/passhold_*.deb)

test:
	@scripts/dependencies build demo test
	@scripts/dependencies lab || echo "*** The guest's packages cannot be installed; its tests will be skipped. ***"
	@scripts/dependencies package || echo "*** What tests the package cannot be installed; its tests will be skipped. ***"
	swtpm-tests/verifiers/install.sh $(VERIFIERS)
	$(CARGO) build --workspace --bins
	$(MAKE) deb PROFILE=dev
	PASSHOLD_DEB=$(DEB) PASSHOLD_VERIFIERS=$(CURDIR)/$(VERIFIERS) $(CARGO) test --workspace
	$(MAKE) fuzz FUZZ_SECONDS=30

# The part of `make test` that runs in a guest with a real kernel.
lab:
	@scripts/dependencies build lab
	$(CARGO) build --workspace --bins
	$(MAKE) deb PROFILE=dev
	PASSHOLD_DEB=$(DEB) PASSHOLD_LAB=required $(CARGO) test -p swtpm-tests --test guest

# libFuzzer on every parser, each for so long. What sanitizers need of a nightly compiler is left out. A finding is put beside
# the corpus and ends it.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS := hid ctap webauthn_json account settings ipc
HOST := x86_64-unknown-linux-gnu
COVERAGE := --cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ := target/fuzz

fuzz:
	@scripts/dependencies build fuzz
	RUSTFLAGS="$(COVERAGE)" $(CARGO) build --release --locked --manifest-path fuzz/Cargo.toml --target $(HOST) --target-dir $(FUZZ)
	@set -e; for target in $(FUZZ_TARGETS); do \
		mkdir -p $(FUZZ)/corpus/$$target; \
		echo "fuzzing $$target for $(FUZZ_SECONDS) seconds"; \
		$(FUZZ)/$(HOST)/release/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 \
			-artifact_prefix=$(FUZZ)/$$target- $(FUZZ)/corpus/$$target fuzz/corpus/$$target 2>$(FUZZ)/$$target.log \
			|| { tail -n 40 $(FUZZ)/$$target.log; exit 1; }; \
		grep number_of_executed_units $(FUZZ)/$$target.log; \
	done

# The numbers of docs/threat-model.md; takes hours.
torture:
	@scripts/dependencies build demo test lab package
	swtpm-tests/verifiers/install.sh $(VERIFIERS)
	$(CARGO) build --release --workspace --bins
	$(MAKE) deb
	PASSHOLD_LAB=required PASSHOLD_DEB=$(DEB) PASSHOLD_TORTURE=1 PASSHOLD_VERIFIERS=$(CURDIR)/$(VERIFIERS) $(CARGO) test --release --workspace -- --nocapture
	$(MAKE) fuzz

bench:
	@scripts/dependencies build demo
	$(CARGO) build --release --workspace --bins
	$(CARGO) bench --workspace --benches

# No more crates than these are linked into what runs with the keys: passholdd, and passhold with what it draws. More take a reason
# in Cargo.toml, and a new number here.
LINKED_daemon := 161
LINKED_passhold := 175

lint: tool-deny
	@scripts/dependencies build lint
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	$(CARGO) deny --workspace check bans licenses sources
	$(MAKE) linked-daemon linked-passhold
	systemd-analyze security --offline=true --threshold=15 dist/systemd/system/passholdd.service >/dev/null

linked-%:
	test $$($(CARGO) tree -p $* -e normal,no-proc-macro --prefix none | cut -d' ' -f1,2 | sort -u | wc -l) -le $(LINKED_$*)

# Needs the RustSec database from GitHub, so it stands apart.
audit: tool-deny
	$(CARGO) deny --workspace check advisories

tool-%:
	@$(CARGO) $* --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-$*

# What is installed: the programs, of this profile, and what they say of themselves. This machine's paths are left out of them.
PROFILE ?= release
TARGET := $(or $(CARGO_TARGET_DIR),target)
BUILT := $(TARGET)/$(PROFILE:dev=debug)
RELEASE_FLAGS := --remap-path-prefix=$(CURDIR)=passhold --remap-path-prefix=$(abspath $(TARGET))=target \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo --cfg poly1305_backend="soft"

ifeq ($(PROFILE),release)
release: export RUSTFLAGS = $(RELEASE_FLAGS)
endif
release:
	@scripts/dependencies build
	$(CARGO) build --profile $(PROFILE) --locked -p passhold -p daemon --bins
	mkdir -p target/manuals
	$(CARGO) run --profile $(PROFILE) --locked -p daemon --example manuals -- target/manuals

# After `make release`.
PREFIX ?= /usr/local
ROOT = $(DESTDIR)$(PREFIX)
ZSH_FUNCTIONS ?= $(PREFIX)/share/zsh/site-functions

install:
	install -D -s -t $(ROOT)/bin $(BUILT)/passhold $(BUILT)/passholdd
	install -D -m 644 -t $(ROOT)/share/man/man1 target/manuals/*.1
	install -D -m 644 -t $(ROOT)/share/man/man8 target/manuals/*.8
	install -D -m 644 -t $(ROOT)/lib/udev/rules.d dist/udev/*
	install -D -m 644 -t $(ROOT)/lib/sysusers.d dist/sysusers/*
	install -D -m 644 -t $(ROOT)/lib/modules-load.d dist/modules-load/*
	install -D -m 644 -t $(ROOT)/lib/systemd/system dist/systemd/system/*
	install -D -m 644 -t $(ROOT)/lib/systemd/user dist/systemd/user/*
	sed -i 's,=/usr/bin,=$(PREFIX)/bin,' $(ROOT)/lib/systemd/*/passhold*.service
	COMPLETE=bash $(BUILT)/passhold | install -D -m 644 /dev/stdin $(ROOT)/share/bash-completion/completions/passhold
	COMPLETE=zsh $(BUILT)/passhold | install -D -m 644 /dev/stdin $(DESTDIR)$(ZSH_FUNCTIONS)/_passhold
	COMPLETE=fish $(BUILT)/passhold | install -D -m 644 /dev/stdin $(ROOT)/share/fish/vendor_completions.d/passhold.fish

# target/debian/passhold_VERSION_ARCHITECTURE.deb
EPOCH = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct))

deb: release tool-deb
	@scripts/dependencies deb
	rm -rf target/package target/debian
	$(MAKE) install DESTDIR=target/package PREFIX=/usr ZSH_FUNCTIONS=/usr/share/zsh/vendor-completions
	SOURCE_DATE_EPOCH=$(EPOCH) $(CARGO) deb --quiet --locked --no-build -p passhold --output target/debian/

# Two builds in two folders must be the same to the last bit.
reproducible:
	rm -rf target/reproducible
	@set -e; for folder in here elsewhere/there; do \
		mkdir -p target/reproducible/$$folder; \
		git ls-files -z | xargs -0 cp --parents -t target/reproducible/$$folder; \
		env -u CARGO_TARGET_DIR SOURCE_DATE_EPOCH=$(EPOCH) $(MAKE) -C target/reproducible/$$folder deb; \
		(cd target/reproducible/$$folder && sha256sum target/release/passhold target/release/passholdd target/debian/*) \
			>target/reproducible/$$(basename $$folder).sha256; \
	done
	cat target/reproducible/here.sha256
	cmp target/reproducible/here.sha256 target/reproducible/there.sha256

# What the two programs are made of, as CycloneDX tells it: target/sbom/*.cdx.json
sbom: tool-cyclonedx
	$(CARGO) cyclonedx --quiet --format json --spec-version 1.5 --describe binaries
	mkdir -p target/sbom
	mv cli/passhold_bin.cdx.json target/sbom/passhold.cdx.json
	mv daemon/passholdd_bin.cdx.json target/sbom/passholdd.cdx.json
	rm examples/*/*_bin.cdx.json
