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
$(call test_prog,tests/simvm/simvm,$(SIMVM_SRCS),$(addprefix -Wl$(comma)--wrap=,$(SIMVM_WRAP)))
