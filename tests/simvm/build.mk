# SPDX-License-Identifier: Apache-2.0
#
# tests/simvm/build.mk - `make sim-vm [SEEDS=20]`: payload guests on the bt engine, all slices of a VM in one process and in
# virtual time, everything drawn from a seed.

comma := ,
SIMVM := $(B)/tests/simvm/simvm
SIMVM_WRAP := pthread_create pthread_join pthread_self pthread_setschedparam pthread_mutex_init pthread_mutex_destroy \
	pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock syscall clock_gettime nanosleep sched_yield \
	sched_setscheduler close_range prctl getrandom getpid open clock_tsc log_set_thread assert_failed ic_open ic_deliver
# Guest SSE state may be in the registers where these run.
CFLAGS_tests_simvm_runtime := -mgeneral-regs-only -fno-tree-loop-distribute-patterns
CFLAGS_tests_simvm_wrap := $(CFLAGS_tests_simvm_runtime)
SIMVM_SRCS := $(addprefix tests/simvm/,simvm_main.c simvm.c plan.c runtime.c wrap.c swap.S)
SIMVM_LD := $(addprefix -Wl$(comma)--wrap=,$(SIMVM_WRAP))
$(call test_prog,tests/simvm/simvm,$(SIMVM_SRCS),$(SIMVM_LD))
SIMVM_SEEDS := $(if $(filter command line environment,$(origin SEEDS)),$(SEEDS),20)

# What the seeds name; tests/payloads has the rules, which are not known yet where prerequisites are read.
SIMVM_GUESTS := $(patsubst %,build/payloads/%.elf,lock ipi irq mmio cross pagetables smc timer tsc hello absent)

.PHONY: sim-vm sim-vm-proof
sim-vm: $(SIMVM) $(SIMVM_GUESTS)
	$(Q)$(TALLY) $@ 600 $< build/payloads --seeds $(SIMVM_SEEDS) --check-replay
# Needs some minutes: slips in what the seeds are about, each of which one of 50 seeds must notice.
sim-vm-proof: $(SIMVM) $(SIMVM_GUESTS)
	$(Q)CC="$(CC) $(CPPFLAGS) $(CFLAGS)" LD="$(SIMVM_LD) -Wl,--start-group $(LIBS) -Wl,--end-group $(LDLIBS)" \
		$(TALLY) $@ 1200 tests/simvm/proof.sh $(B) $(call obj_of,$(SIMVM_SRCS))

TEST_TARGETS += sim-vm
