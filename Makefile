# SPDX-License-Identifier: Apache-2.0
#
# One non-recursive file: a directory with .c files is a static library, a *_main.c is a program.
# Test tiers bring their own fragment, tests/<tier>/build.mk.
#
#   make            programs in build/bin            make check   under a minute, no root
#   make test       everything                       make demo    one guest on two nodes
#   make shell      the same, interactive            make bench   numbers for docs/performance.md
#
# SAN=address|undefined|thread builds and checks into a directory of its own; V=1 shows commands.

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

SAN ?=
CC := gcc
B := build$(if $(SAN),-$(SAN))
Q := $(if $(V),,@)

PKGS := yaml-0.1 libprotobuf-c openssl zlib liblzma libzstd liblz4 jansson
DEPS_MISSING := $(shell pkg-config --exists $(PKGS) 2>/dev/null && test -e /usr/include/Zydis/Zydis.h || echo yes)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null)

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef \
	-Wimplicit-fallthrough
CFLAGS := -std=gnu11 -O2 -g $(WARN) -fno-strict-aliasing -fstack-protector-strong -pthread \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
CPPFLAGS := -D_GNU_SOURCE -Iinclude -I. -I$(B)/gen $(PKG_CFLAGS)
# Paths of the fabric are plugins (interconnect/fabric.c): they are found beside the program, and use what is linked into it.
LDFLAGS := -pthread -rdynamic -Wl,-rpath,'$$$$ORIGIN:$$$$ORIGIN/../lib:$$$$ORIGIN/../../lib' $(if $(SAN),-fsanitize=$(SAN))
LDLIBS := $(PKG_LIBS) -lZydis -lm

# Libraries, highest layer first, which is also link order.
LIB_DIRS := hv hv/kvm hv/bt hv/core vcpu-migrate vcpu-migrate/core dsm dsm/core cluster-config \
	cluster-config/core interconnect interconnect/core include/base
lib_srcs = $(filter-out %_main.c,$(wildcard $(1)/*.c $(1)/*.S))
LIB_DIRS := $(foreach d,$(LIB_DIRS),$(if $(call lib_srcs,$(d)),$(d)))
lib_of = $(B)/lib/$(subst /,-,$(1)).a
LIBS := $(foreach d,$(LIB_DIRS),$(call lib_of,$(d)))
obj_of = $(patsubst %,$(B)/obj/%.o,$(basename $(1)))

PROG_SRCS := $(wildcard hv/*_main.c cluster-config/*_main.c)
prog_of = $(B)/bin/$(subst _,-,$(patsubst %_main.c,%,$(notdir $(1))))
PROGS := $(foreach s,$(PROG_SRCS),$(call prog_of,$(s)))

# Generated sources.
GEN_OBJS := $(B)/obj/gen/cluster-config/control.pb-c.o

# --- plugins: interconnect/paths/NAME.c with slots.c --------------------------------------------------------------
PATH_PKGS_verbs := libibverbs
PATH_PKGS_ofi := libfabric
PATH_PKGS_ucx := ucx
PATHS := $(foreach n,verbs ofi ucx,$(B)/lib/unum-path-$(n).so)
$(B)/obj/interconnect/paths/%.o: CFLAGS += -fPIC
$(PATHS): $(B)/lib/unum-path-%.so: $(B)/obj/interconnect/paths/%.o $(B)/obj/interconnect/paths/slots.o
	@mkdir -p $(@D)
	$(if $(Q),@echo "  SO    $@")
	$(Q)$(CC) -shared $(if $(SAN),-fsanitize=$(SAN)) -o $@ $^ $(shell pkg-config --libs $(PATH_PKGS_$*))

.PHONY: all check test demo shell bench lint fmt clean
all: $(PROGS) $(PATHS)

# --- packages that are missing -----------------------------------------------------------------------
# Make remakes what it includes before anything else and starts over: then pkg-config knows them.
ifneq ($(DEPS_MISSING),)
ifeq ($(MAKE_RESTARTS)$(filter clean fmt,$(MAKECMDGOALS)),)
.PHONY: $(B)/packages
$(B)/packages:
	$(Q)tests/guest/install-deps.sh
	$(Q)mkdir -p $(@D) && touch $@
include $(B)/packages
endif
endif

# --- compile ----------------------------------------------------------------------------------------
$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(subst /,_,$(basename $<))) -MMD -MP -c $< -o $@

$(B)/obj/%.o: %.S
	@mkdir -p $(@D)
	$(if $(Q),@echo "  AS    $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(B)/obj/gen/%.o: $(B)/gen/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -O2 -g $(if $(SAN),-fsanitize=$(SAN)) -MMD -MP -c $< -o $@

$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h: %.proto
	@mkdir -p $(@D)
	$(if $(Q),@echo "  PROTO $<")
	$(Q)protoc-c --proto_path=$(<D) --c_out=$(@D) $<

$(B)/obj/cluster-config/control.o: $(B)/gen/cluster-config/control.pb-c.h

define lib_rule
$(call lib_of,$(1)): $(call obj_of,$(call lib_srcs,$(1))) $(if $(filter cluster-config,$(1)),$(GEN_OBJS))
	@mkdir -p $$(@D)
	$(if $(Q),@echo "  AR    $$@")
	$(Q)rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach d,$(LIB_DIRS),$(eval $(call lib_rule,$(d))))

define prog_rule
$(call prog_of,$(1)): $(call obj_of,$(1)) $(LIBS)
	@mkdir -p $$(@D)
	$(if $(Q),@echo "  LD    $$@")
	$(Q)$(CC) $(LDFLAGS) -o $$@ $$< -Wl,--start-group $(LIBS) -Wl,--end-group $(LDLIBS)
endef
$(foreach s,$(PROG_SRCS),$(eval $(call prog_rule,$(s))))

# Any other program of the tree: $(call test_prog,path-under-build,sources,extra libs)
define test_prog_rule
$(B)/$(1): $(call obj_of,$(2)) $(LIBS)
	@mkdir -p $$(@D)
	$(if $(Q),@echo "  LD    $$@")
	$(Q)$(CC) $(LDFLAGS) -o $$@ $(call obj_of,$(2)) -Wl,--start-group $(LIBS) -Wl,--end-group \
		$(LDLIBS) $(3)
endef
TEST_PROGS :=
test_prog = $(eval $(call test_prog_rule,$(1),$(2),$(3)))$(eval TEST_PROGS += $(B)/$(1))

# --- unit tests: tests/unit/<component>/test_*.c, one Criterion program each -------------------------
UNIT_SRCS := $(wildcard tests/unit/*/test_*.c)
UNIT_PROGS := $(UNIT_SRCS:%.c=$(B)/%)
$(foreach s,$(UNIT_SRCS),$(call test_prog,$(s:%.c=%),$(s),-lcriterion))

# --- tiers ------------------------------------------------------------------------------------------
# A tier is a target that runs tests through $(TALLY) NAME SECONDS COMMAND, which keeps their count for the sum.  Tiers
# run one after another, whatever -j says: they measure time.  What they need is built before, in parallel.
TALLY := tests/tally.sh
export B SAN
# What a sanitizer reports ends the program: in a forked node or behind a swallowed stderr, too, it is a failure.
export TSAN_OPTIONS ?= halt_on_error=1
export UBSAN_OPTIONS ?= halt_on_error=1:print_stacktrace=1
CHECK_TARGETS :=
TEST_TARGETS :=
-include $(wildcard hv/*/build.mk) $(wildcard tests/*/build.mk tests/system/*/build.mk)

.PHONY: unit test-build
unit: $(UNIT_PROGS)
	$(Q)$(TALLY) $@ 600 tests/unit/run.sh $(UNIT_PROGS)
lint: all
	$(Q)$(TALLY) $@ 60 tests/lint/run.sh
test-build: all $(TEST_PROGS)

define run_tiers
	$(Q)rm -rf $(B)/results
	$(Q)+$(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc)) test-build
	$(Q)+bad=0; for tier in $(1); do $(MAKE) --no-print-directory $$tier || bad=1; done; \
		tests/summary.sh $(B)/results && [ $$bad = 0 ]
endef
check: deps
	$(call run_tiers,lint unit $(CHECK_TARGETS))
test: deps
	$(Q)+$(MAKE) --no-print-directory guest
	$(call run_tiers,lint unit $(CHECK_TARGETS) $(TEST_TARGETS))

fmt:
	$(Q)git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build build-address build-undefined build-thread

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
