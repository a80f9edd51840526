# SPDX-License-Identifier: Apache-2.0
# kvsteer's one build. `make help` tells what there is.
#
#   make [V=1] [CC=clang] [SANITIZE=address,undefined] [WERROR=0] [O=2]
#
# Everything made is under .output/; builds with another compiler or sanitizer have a folder of their own there, so
# they live side by side. Sources, unit tests, fuzzers and BPF programs are found by their names: no list to keep.

O ?= 2
WERROR ?= 1
CLANG ?= $(firstword $(foreach v,-19 -18 -17 -16 -15 -14,$(shell command -v clang$(v) 2>/dev/null)) $(shell command -v clang 2>/dev/null))
# Ubuntu's bpftool is a wrapper that refuses kernels other than its own; the real ones lie below linux-tools.
BPFTOOL ?= $(firstword $(foreach b,bpftool /usr/sbin/bpftool $(wildcard /usr/lib/linux-tools*/*/bpftool),$(shell $(b) version >/dev/null 2>&1 && echo $(b))))
PKGS := libzmq msgpack-c jansson yaml-0.1 libbpf libnl-3.0 libnl-route-3.0
# Debian 12 names msgpack's C library "msgpack".
PKGS := $(foreach p,$(PKGS),$(if $(filter msgpack-c,$(p)),$(shell pkg-config --exists msgpack-c 2>/dev/null && echo msgpack-c || echo msgpack),$(p)))

# zstd is optional: Content-Encoding: zstd is passed on unread without it.
ZSTD := $(shell pkg-config --exists libzstd 2>/dev/null && echo libzstd)
PKGS += zlib $(ZSTD)

comma := ,
prefix ?= /usr
OUT := .output$(if $(SANITIZE),/san-$(subst $(comma),-,$(SANITIZE)))$(if $(filter-out cc gcc,$(CC)),/$(notdir $(CC)))$(if $(COVERAGE_FLAGS),/coverage)
BPF_OUT := .output/bpf
LLHTTP := /usr/share/llhttp

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || cat VERSION 2>/dev/null || echo unknown)

CFLAGS ?= -g
ALL_CFLAGS = -std=gnu11 -O$(O) -D_GNU_SOURCE -Wall -Wextra $(if $(filter 1,$(WERROR)),-Werror) \
	-Wno-unused-parameter -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -fno-strict-aliasing \
	$(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all) $(COVERAGE_FLAGS) \
	-Iuser -Iinclude -isystem .output $(if $(ZSTD),-DKVS_ZSTD) $(CFLAGS)
ALL_LDFLAGS = $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(COVERAGE_FLAGS) $(LDFLAGS)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
LIBS = $(PKG_LIBS) -lresolv -lm -lpthread
# The command line alone asks by libcurl: hubs speak TLS. The daemon has a client of its own.
LIBS_kvsteer := $(shell pkg-config --libs libcurl 2>/dev/null)

Q := $(if $(V),,@)
msg = $(if $(V),,@printf '  %-8s %s\n' $(1) $(2);)

# --- BPF: all of it, or none with a message ---
BPF_MISSING := $(if $(CLANG),,clang) $(if $(BPFTOOL),,bpftool)
BPF := $(if $(strip $(BPF_MISSING)),0,1)
BPF_SRC := $(wildcard bpf/*.bpf.c)
SKELS := $(if $(filter 1,$(BPF)),$(BPF_SRC:bpf/%.bpf.c=$(BPF_OUT)/%.skel.h))
# The tests' own programs, never part of the product.
TEST_SKELS := $(patsubst selftests/bpf/%.bpf.c,$(BPF_OUT)/%.skel.h,$(wildcard selftests/bpf/*.bpf.c))

# datapath/ is one interface with two bodies: kernel.c where programs can be built, null.c where they cannot.
LIB_SRC := $(filter-out user/agent/main.c user/cli/% user/datapath/$(if $(filter 1,$(BPF)),null,kernel).c,$(wildcard user/*/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(OUT)/%.o)
LIB := $(OUT)/libkvs.a

# llhttp: the generated C of Debian 12's node-llhttp is compiled in; later releases have the library.
ifneq ($(wildcard $(LLHTTP)/llhttp.c),)
PKG_CFLAGS += -I/usr/share/include/llhttp
LIB_OBJ += $(addprefix $(OUT)/llhttp/,llhttp.o api.o http.o)
else
PKGS += libllhttp
LIBS += -lllhttp
endif

BIN_kvsteerd := $(wildcard user/agent/main.c)
BIN_kvsteer := $(wildcard user/cli/*.c)
BIN_kvsim := $(wildcard tools/sim/*.c)
BIN_kvload := $(wildcard tools/load/*.c)
BIN_kvreplay := $(wildcard tools/replay/*.c)
BIN_kvbench := $(wildcard tools/bench/*.c)
BINS := $(strip $(foreach b,kvsteerd kvsteer kvsim kvload kvreplay kvbench,$(if $(BIN_$(b)),$(b))))
BIN_PATHS := $(addprefix $(OUT)/bin/,$(BINS))

all: $(BIN_PATHS) $(if $(BINS),,$(LIB)) ## build the programs into .output/bin

help: ## this list
	@echo 'usage: make [TARGET] [V=1] [CC=clang] [SANITIZE=address,undefined] [WERROR=0] [O=2]'
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | while IFS='	' read -r t d; do printf '  %-13s %s\n' "$$t" "$$d"; done

# What the compiler cannot say well: which package is missing.
need:
	@command -v pkg-config >/dev/null || { echo 'kvsteer: pkg-config is missing; run: make deps' >&2; exit 1; }
	@for p in $(PKGS) libcurl; do pkg-config --exists $$p || { echo "kvsteer: library $$p is missing; run: make deps" >&2; exit 1; }; done
ifneq ($(BPF),1)
	@echo 'kvsteer: built without BPF: missing $(strip $(BPF_MISSING)); everything is relayed' >&2
endif

$(OUT)/%.o: %.c | need
	@mkdir -p $(@D)
	$(call msg,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) $(PKG_CFLAGS) -DKVS_VERSION='"$(VERSION)"' -MMD -MP -c -o $@ $<

$(OUT)/user/datapath/kernel.o: $(SKELS)

# What names the version is compiled again when it has changed.
$(patsubst %.c,$(OUT)/%.o,$(shell grep -ls KVS_VERSION user/*/*.c tools/*/*.c)): .output/version
.output/version: always
	@mkdir -p $(@D)
	@echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' >$@
always:

$(OUT)/llhttp/%.o: $(LLHTTP)/%.c | need
	@mkdir -p $(@D)
	$(call msg,CC,$<)
	$(Q)$(CC) -O2 -g $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -I/usr/share/include/llhttp -w -c -o $@ $<

$(LIB): $(LIB_OBJ)
	$(call msg,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

define bin_rule
$(OUT)/bin/$(1): $$(BIN_$(1):%.c=$(OUT)/%.o) $$(LIB)
	@mkdir -p $$(@D)
	$$(call msg,LINK,$$@)
	$$(Q)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$^ $$(LIBS) $$(LIBS_$(1))
endef
$(foreach b,$(BINS),$(eval $(call bin_rule,$(b))))

# Warnings of the BPF back end are errors; types come from bpf/vmlinux.h, so no BTF of the build machine is needed.
vpath %.bpf.c bpf selftests/bpf
$(BPF_OUT)/%.bpf.o: %.bpf.c
	@mkdir -p $(@D)
	$(call msg,BPF,$<)
	$(Q)$(CLANG) -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter \
		-Ibpf -Iinclude -MMD -MP -MT $@ -c -o $@ $<

$(BPF_OUT)/%.skel.h: $(BPF_OUT)/%.bpf.o
	$(call msg,SKEL,$@)
	$(Q)$(BPFTOOL) gen object $(BPF_OUT)/$*.linked.o $< && \
		{ echo '/* NOLINTBEGIN */'; $(BPFTOOL) gen skeleton $(BPF_OUT)/$*.linked.o name $* || exit 1; \
		echo '/* NOLINTEND */'; } > $@

# --- tests: one program per selftests/{unit,bpf}/test_*.c; fuzzers with a main that replays their corpus ---
UNIT_BIN := $(patsubst selftests/unit/%.c,$(OUT)/unit/%,$(wildcard selftests/unit/test_*.c))
BPF_BIN := $(if $(filter 1,$(BPF)),$(patsubst selftests/bpf/%.c,$(OUT)/bpftest/%,$(wildcard selftests/bpf/test_*.c)))
FUZZ_SRC := $(wildcard selftests/fuzz/fuzz_*.c)
FUZZ_BIN := $(FUZZ_SRC:selftests/fuzz/%.c=$(OUT)/fuzz/%)
# What starts threads is also run under the thread sanitizer.
THREADED := $(patsubst selftests/unit/%.c,%,$(shell grep -l pthread_create selftests/unit/test_*.c 2>/dev/null))

$(OUT)/unit/%: $(OUT)/selftests/unit/%.o $(LIB)
	@mkdir -p $(@D)
	$(call msg,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

# It runs the program.
$(OUT)/unit/test_cli: | $(OUT)/bin/kvsteer

$(BPF_BIN:$(OUT)/bpftest/%=$(OUT)/selftests/bpf/%.o): $(SKELS) $(TEST_SKELS)
$(OUT)/bpftest/%: $(OUT)/selftests/bpf/%.o $(LIB)
	@mkdir -p $(@D)
	$(call msg,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

FUZZ_MAIN = $(if $(findstring fuzzer,$(SANITIZE)),,$(OUT)/selftests/fuzz/main.o)
$(OUT)/selftests/fuzz/fuzz_%.o: ALL_CFLAGS += -Wno-missing-prototypes
$(OUT)/fuzz/%: $(OUT)/selftests/fuzz/%.o $(if $(findstring fuzzer,$(SANITIZE)),,$(OUT)/selftests/fuzz/main.o) $(LIB)
	@mkdir -p $(@D)
	$(call msg,LINK,$@)
	$(Q)$(CC) $(subst fuzzer-no-link,fuzzer,$(ALL_LDFLAGS)) -o $@ $^ $(LIBS)

unit: $(UNIT_BIN) ## build the unit tests
bpf: $(SKELS) $(BPF_BIN) ## build the BPF programs and their tests
fuzz-bins: $(FUZZ_BIN)
tsan-bins: $(THREADED:%=$(OUT)/unit/%)

# Unless the caller says how many.
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
CHECK_SAN := $(or $(SANITIZE),address$(comma)undefined)
ONLY ?= unit bpf e2e fuzz
check: ## install what is missing, build, run all tests (ONLY=unit|bpf|e2e|fuzz, V=1, SANITIZE=…)
	@tools/check/deps.sh
	@+$(MAKE) -s $(JOBS) SANITIZE= CHECK_SAN='$(CHECK_SAN)' check-built

# Unit tests and fuzz corpora run with sanitizers, what starts threads under TSan as well; bpf and e2e as shipped.
check-built:
	@+$(if $(filter e2e bpf,$(ONLY)),$(MAKE) -s all bpf)
	@+$(if $(filter unit,$(ONLY)),$(MAKE) -s SANITIZE=$(CHECK_SAN) unit && $(MAKE) -s SANITIZE=thread tsan-bins)
	@+$(if $(filter fuzz,$(ONLY)),$(MAKE) -s SANITIZE=$(CHECK_SAN) fuzz-bins)
	@BPF_MISSING='$(strip $(BPF_MISSING))' CHECK_SAN='$(subst $(comma),-,$(CHECK_SAN))' V='$(V)' OUT='$(OUT)' \
		selftests/run.sh $(ONLY)

demo: ## install what is missing, build, show kvsteer at work (KEEP=1 leaves it running)
	@tools/check/deps.sh
	@+$(MAKE) -s $(JOBS) all
	@KEEP='$(KEEP)' selftests/demo.sh

bench: all ## compare with HAProxy and nginx (root; ONLY=small,stream,long,memory ROUNDS=N MD=FILE)
	@tools/check/deps.sh bench
	@tools/bench/run.py --bin $(OUT)/bin $(if $(filter-out unit bpf e2e fuzz,$(ONLY)),--only $(ONLY)) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MD),--md $(MD))

bench-splice: all ## what the splice must reach, beside the relay, HAProxy and nginx (root; 10 min; ROUNDS=N MD=FILE)
	@tools/check/deps.sh bench
	@tools/bench/run.py --bin $(OUT)/bin --only stream,first,loss,big,many,stall,life \
		--candidates direct,kvsteer,kvsteer-tc,haproxy,nginx $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MD),--md $(MD))

MINUTES ?= 11
soak: all ## everything that can go wrong, at once (root; MINUTES=11, KVS_SEED= repeats a run); stops by itself
	@tools/check/deps.sh
	@selftests/e2e/chaos.py --seconds $(shell echo $$(($(MINUTES) * 60))) --streams 32 --long 30

deps: ## install the missing Debian packages (root)
	@tools/check/deps.sh dev

# --- fuzzing: make fuzz builds with libFuzzer; make fuzz-run T=60 F=json looks for new inputs ---
T ?= 60
FUZZ_SAN := fuzzer-no-link,address,undefined
fuzz: ## build the fuzzers with libFuzzer and run them once over their corpora
	@+$(MAKE) -s CC=$(CLANG) SANITIZE=$(FUZZ_SAN) fuzz-bins
	@for f in $(FUZZ_SRC:selftests/fuzz/fuzz_%.c=%); do echo "  FUZZ     $$f"; \
		$(FUZZ_DIR)/fuzz_$$f -runs=0 selftests/fuzz/corpus/$$f 2>&1 | tail -n 1 || exit 1; done

fuzz-run: ## look for new inputs with one fuzzer: F=json T=60 (seconds)
	@test -n '$(F)' || { echo 'usage: make fuzz-run F=NAME [T=60]; names: $(FUZZ_SRC:selftests/fuzz/fuzz_%.c=%)' >&2; exit 2; }
	@+$(MAKE) -s CC=$(CLANG) SANITIZE=$(FUZZ_SAN) $(FUZZ_DIR)/fuzz_$(F)
	@mkdir -p .output/found/$(F)
	$(FUZZ_DIR)/fuzz_$(F) -max_total_time=$(T) -timeout=5 -rss_limit_mb=2048 -artifact_prefix=.output/found/$(F)/ \
		.output/found/$(F) selftests/fuzz/corpus/$(F)
FUZZ_DIR = .output/san-$(subst $(comma),-,$(FUZZ_SAN))/$(notdir $(CLANG))/fuzz

# --- benchmarks: one program per selftests/bench/bench_*.c ---
$(OUT)/bench/%: $(OUT)/selftests/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(call msg,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
bench-bpe: $(OUT)/bench/bench_bpe ## the encoder's speed beside the tokenizers library, on real models (fetches them)
	@selftests/real/bpe.py --fuzz 1000 --speed
check-tokenizers: $(OUT)/bench/bench_bpe ## the encoder against the tokenizers library, on real models (fetches them)
	@selftests/real/bpe.py
bench-index: $(OUT)/bench/bench_index ## the prefix index's speed and memory, next to a plain one
	@$<

# --- the house rules ---
lint: check-layers ## format, clang-tidy, shellcheck, commit messages, layers
	@tools/check/lint.sh

check-layers: ## includes point one way (tools/check/layers.txt)
	@tools/check/layers.sh

coverage: ## line coverage of the unit tests, by file
	@+$(MAKE) -s O=0 COVERAGE_FLAGS='--coverage -fprofile-update=atomic' unit
	@find .output/coverage -name '*.gcda' -delete
	@for t in $(UNIT_BIN:$(OUT)/%=.output/coverage/%); do $$t >/dev/null 2>&1 || echo "  FAILED   $$t"; done
	@gcovr -r . --object-directory .output/coverage -f 'user/.*' --print-summary

compile_commands.json: ## for editors and clang-tidy
	@tools/check/compdb.sh '$(CC) $(ALL_CFLAGS) $(PKG_CFLAGS)' $(LIB_SRC) $(foreach b,$(BINS),$(BIN_$(b))) > $@

MAN_RST := $(wildcard docs/man/*.rst)
install: all ## DESTDIR= prefix=/usr
	install -d $(DESTDIR)$(prefix)/sbin $(DESTDIR)$(prefix)/bin $(DESTDIR)$(prefix)/lib/systemd/system
	$(foreach b,$(filter-out kvbench,$(BINS)),install -m 755 $(OUT)/bin/$(b) $(DESTDIR)$(prefix)/$(if $(filter kvsteerd,$(b)),sbin,bin)/ &&) true
	install -m 644 deploy/kvsteerd.service $(DESTDIR)$(prefix)/lib/systemd/system/
	@for m in $(MAN_RST); do n=$$(basename $$m .rst); d=$(DESTDIR)$(prefix)/share/man/man$${n##*.}; \
		install -d $$d && rst2man $$m > $$d/$$n || exit 1; done
	@c=$$($(OUT)/bin/kvsteer completion bash 2>/dev/null) || exit 0; \
		d=$(DESTDIR)$(prefix)/share/bash-completion/completions; install -d $$d && printf '%s\n' "$$c" > $$d/kvsteer

clean: ## remove .output
	$(Q)rm -rf .output compile_commands.json

.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all always help need unit bpf fuzz-bins tsan-bins check check-built demo bench bench-splice soak bench-index bench-bpe check-tokenizers deps fuzz fuzz-run lint \
	check-layers coverage compile_commands.json install clean
-include $(shell find .output -name '*.d' 2>/dev/null)
