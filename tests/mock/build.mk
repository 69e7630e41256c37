# SPDX-License-Identifier: Apache-2.0
# A fake libibverbs, for tests of the verbs path where there is no RDMA: first in LD_LIBRARY_PATH it stands for the true one.
TEST_PROGS += $(B)/tests/mock/libibverbs.so.1
MOCK_VERBS := $(B)/tests/mock/libibverbs.so.1
$(B)/obj/tests/mock/%.o: CFLAGS += -fPIC
$(MOCK_VERBS): $(patsubst %.c,$(B)/obj/%.o,$(wildcard tests/mock/*.c)) tests/mock/libibverbs.map
	@mkdir -p $(@D)
	$(if $(Q),@echo "  SO    $@")
	$(Q)$(CC) -shared -pthread $(if $(SAN),-fsanitize=$(SAN)) -Wl,-soname,libibverbs.so.1 \
		-Wl,--version-script=tests/mock/libibverbs.map -o $@ $(filter %.o,$^)
