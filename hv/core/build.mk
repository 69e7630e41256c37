# SPDX-License-Identifier: Apache-2.0
#
# The DSDT: C preprocessor (constants of layout.h), iasl, then a C array that acpi.c includes.

$(B)/gen/hv/core/dsdt.aml: hv/core/dsdt.asl hv/core/layout.h
	@mkdir -p $(@D)
	$(if $(Q),@echo "  ASL   $<")
	$(Q)$(CC) -E -P -undef -x assembler-with-cpp -I. $< -o $(@:.aml=.i.asl)
	$(Q)iasl -vs -ve -p $(@:.aml=) $(@:.aml=.i.asl) >$(@:.aml=.log) 2>&1 || { head -n 20 $(@:.aml=.log); exit 1; }

$(B)/gen/hv/core/dsdt.h: $(B)/gen/hv/core/dsdt.aml
	$(Q){ echo 'static const uint8_t dsdt_aml[] = {'; od -An -v -tx1 $< | sed 's/ \(..\)/0x\1,/g'; echo '};'; } >$@

$(B)/obj/hv/core/acpi.o: $(B)/gen/hv/core/dsdt.h
