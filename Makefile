# SPDX-License-Identifier: Apache-2.0
# kvsteer's one build. `make help` tells what there is.
#
#   make [V=1] [CC=clang] [SANITIZE=address,undefined] [WERROR=0] [O=2]

O ?= 2
WERROR ?= 1
CLANG ?= $(firstword $(foreach c,clang-19 clang-18 clang-16 clang-15 clang-14 clang,$(shell command -v $(c) 2>/dev/null)))
BPFTOOL ?= $(firstword $(shell command -v bpftool 2>/dev/null) /usr/sbin/bpftool)
PKGS := libzmq msgpack-c jansson yaml-0.1 libcurl libbpf libnl-3.0 libnl-route-3.0
# Debian 12 names msgpack's C library "msgpack".
PKGS := $(foreach p,$(PKGS),$(if $(filter msgpack-c,$(p)),$(shell pkg-config --exists msgpack-c && echo msgpack-c || echo msgpack),$(p)))

comma := ,
prefix ?= /usr
OUT := .output$(if $(SANITIZE),/san-$(subst $(comma),-,$(SANITIZE)))$(if $(filter-out cc gcc,$(CC)),/$(notdir $(CC)))
LLHTTP := /usr/share/llhttp

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || cat VERSION 2>/dev/null || echo unknown)

CFLAGS ?= -g
ALL_CFLAGS = -std=gnu11 -O$(O) -D_GNU_SOURCE -Wall -Wextra $(if $(filter 1,$(WERROR)),-Werror) \
	-Wno-unused-parameter -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -fno-strict-aliasing \
	$(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all) $(COVERAGE_FLAGS) \
	-Iuser -Iinclude -I$(OUT) $(CFLAGS)
ALL_LDFLAGS = $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(COVERAGE_FLAGS) $(LDFLAGS)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
LIBS = $(PKG_LIBS) -lresolv -lm -lpthread

Q := $(if $(V),,@)
msg = $(if $(V),,@printf '  %-8s %s\n' $(1) $(2);)

LIB_SRC := $(filter-out user/agent/main.c user/cli/%,$(wildcard user/*/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(OUT)/%.o) $(addprefix $(OUT)/llhttp/,llhttp.o api.o http.o)
LIB := $(OUT)/libkvs.a

BIN_kvsteerd := user/agent/main.c
BIN_kvsteer := $(wildcard user/cli/*.c)
BIN_kvsim := $(wildcard tools/sim/*.c)
BIN_kvload := $(wildcard tools/load/*.c)
BINS := $(foreach b,kvsteerd kvsteer kvsim kvload,$(if $(BIN_$(b)),$(b)))
BIN_PATHS := $(addprefix $(OUT)/bin/,$(BINS))

all: $(BIN_PATHS)

$(OUT)/%.o: %.c
	@mkdir -p $(@D)
	$(call msg,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) $(PKG_CFLAGS) -DKVS_VERSION='"$(VERSION)"' -MMD -MP -c -o $@ $<

# llhttp's generated C comes from Debian's node-llhttp and is compiled in, without our warnings.
$(OUT)/llhttp/%.o: $(LLHTTP)/%.c
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
	$$(Q)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$^ $$(LIBS)
endef
$(foreach b,$(BINS),$(eval $(call bin_rule,$(b))))

# --- unit tests: one program per selftests/unit/test_*.c ---
UNIT_SRC := $(wildcard selftests/unit/test_*.c)
UNIT_BIN := $(UNIT_SRC:selftests/unit/%.c=$(OUT)/unit/%)
$(OUT)/unit/%: $(OUT)/selftests/unit/%.o $(LIB)
	@mkdir -p $(@D)
	$(call msg,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
unit: $(UNIT_BIN)
.SECONDARY:

clean:
	$(Q)rm -rf .output

.DELETE_ON_ERROR:
.PHONY: all unit clean
-include $(shell find .output -name '*.d' 2>/dev/null)
