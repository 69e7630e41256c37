# SPDX-License-Identifier: Apache-2.0
#
# Agents and command line as processes, with a test double for the slice: quick ones in `make check`, the
# twenty-times-over ones in `make test`.

$(call test_prog,tests/system/cluster/fake_slice,tests/system/cluster/fake_slice.c,)
$(call test_prog,tests/system/cluster/rogue,tests/system/cluster/rogue.c,)

CLUSTER_TEST_PROGS := $(B)/bin/unum $(B)/bin/unumd $(B)/tests/system/cluster/fake_slice \
	$(B)/tests/system/cluster/rogue

.PHONY: check-cluster test-cluster
check-cluster: $(CLUSTER_TEST_PROGS)
	$(Q)$(TALLY) cluster 120 python3 -B tests/system/cluster/test_cluster.py $(B)
	$(Q)$(TALLY) cluster-hosts 90 python3 -B tests/system/cluster/test_hosts.py $(B)
	$(Q)$(TALLY) cluster-fabric 90 python3 -B tests/system/cluster/test_fabric.py $(B)
test-cluster: $(CLUSTER_TEST_PROGS)
	$(Q)$(TALLY) cluster-kill 600 python3 -B tests/system/cluster/test_kill.py $(B)

CHECK_TARGETS += check-cluster
TEST_TARGETS += test-cluster
