# Suites that several backends or mappings must pass.
$(call test_prog,tests/conform/dsm_nodes,tests/conform/dsm_nodes.c)
