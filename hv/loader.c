/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loader.c - the kernel, its initrd, command line and ACPI tables, from files into guest memory.  Node 0 only.
 *
 * What      Everything is read and checked before the nodes join, so that a bad file fails early; it is written once
 *           memory spans all nodes.
 * Threads   The thread that starts the slice.
 * I/O       Reads the kernel and initrd files.
 */
#include "hv/slice_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRITE_TIMEOUT_NS (30 * NS_PER_S)
#define CMDLINE_CAP 4096u

/* --- command line ------------------------------------------------------------------------------------------------ */

/* True when some word of `line` is `key` or begins with "key=". */
static bool cmdline_has(const char *line, const char *key)
{
	size_t len = strlen(key);

	for (const char *p = line; *p;) {
		p += strspn(p, " ");
		if (!strncmp(p, key, len) && (p[len] == '=' || p[len] == ' ' || !p[len]))
			return true;
		p += strcspn(p, " ");
	}
	return false;
}

static void cmdline_add(char *line, const char *key, const char *value)
{
	size_t len = strlen(line);

	if (!cmdline_has(line, key))
		snprintf(line + len, CMDLINE_CAP - len, "%s%s=%s", len ? " " : "", key, value);
}

static bool has_device(const struct cc_vm_spec *spec, enum cc_device_kind kind)
{
	for (unsigned i = 0; i < spec->devices; i++)
		if (spec->device[i].kind == kind)
			return true;
	return false;
}

/* The user's, and what this machine needs where the user has not set it. */
static void cmdline_make(struct hv_slice *s, char *line)
{
	const struct cc_vm_spec *spec = s->spec;
	char khz[24];

	snprintf(line, CMDLINE_CAP, "%s", spec->cmdline);
	if (has_device(spec, CC_DEV_CONSOLE))
		cmdline_add(line, "console", "hvc0");
	else if (has_device(spec, CC_DEV_SERIAL))
		cmdline_add(line, "console", "ttyS0");
	/* There is no HPET and no PM timer to measure the TSC by, and the timer chip jitters as much as the host. */
	snprintf(khz, sizeof(khz), "%llu", (unsigned long long)s->clock.tsc_khz);
	cmdline_add(line, "tsc_early_khz", khz);
	/* One TSC for all nodes is what time.c makes sure of; Linux' own check between sockets would give it up. */
	cmdline_add(line, "tsc", "reliable");
}

/* --- plan -------------------------------------------------------------------------------------------------------- */

static void ram_of_spec(const struct cc_vm_spec *spec, struct hv_boot_input *in)
{
	for (unsigned i = 0; i < spec->ranges; i++) {
		gpa_t start = spec->range[i].first << PAGE_SHIFT;
		uint64_t len = spec->range[i].count << PAGE_SHIFT;
		struct hv_boot_ram *last = in->ram_count ? &in->ram[in->ram_count - 1] : NULL;

		if (last && last->start + last->len == start)
			last->len += len;
		else if (in->ram_count < HV_BOOT_RAM_MAX)
			in->ram[in->ram_count++] = (struct hv_boot_ram){ start, len };
	}
}

static int unpack_linux(struct hv_loader *l, const char *path, char text[static HV_TEXT_MAX])
{
	struct hv_bzimage b;
	const char *why, *format;
	int err;

	if (!hv_bzimage_parse(l->kernel.data, l->kernel.len, &b, &why)) {
		snprintf(text, HV_TEXT_MAX, "%s: %s", path, why);
		return -EINVAL;
	}
	err = hv_kernel_unpack(l->kernel.data + b.payload_off, b.payload_len, &l->elf, &format);
	if (err)
		snprintf(text, HV_TEXT_MAX, "%s: cannot unpack the kernel (%s): %s", path,
			 hv_boot_packing_name(b.packing), strerror(-err));
	return err;
}

static int read_file(const char *path, struct hv_bytes *out, char text[static HV_TEXT_MAX])
{
	int err = hv_file_read(path, out);

	if (err)
		snprintf(text, HV_TEXT_MAX, "%s: %s", path, strerror(-err));
	return err;
}

static int make_acpi(struct hv_slice *s, struct hv_loader *l, char text[static HV_TEXT_MAX])
{
	const struct cc_vm_spec *spec = s->spec;
	struct hv_acpi_mem mem[CC_RANGES_MAX];
	struct hv_acpi_config cfg = {
		.vcpus = spec->vcpus,
		.nodes = spec->nodes,
		.node_of = spec->vcpu_node,
		.mem = mem,
		.mem_count = spec->ranges,
		.virtio_slots = s->virtio_slots,
		.numa = spec->numa == CC_NUMA_EXPOSE && spec->nodes > 1,
	};

	for (unsigned i = 0; i < spec->ranges; i++)
		mem[i] = (struct hv_acpi_mem){ spec->range[i].first << PAGE_SHIFT,
					       spec->range[i].count << PAGE_SHIFT,
					       spec->range[i].node };
	l->acpi = calloc(1, HV_ACPI_SIZE);
	if (!l->acpi)
		return -ENOMEM;
	l->acpi_len = hv_acpi_build(&cfg, HV_ACPI_START, l->acpi, HV_ACPI_SIZE);
	if (l->acpi_len)
		return 0;
	snprintf(text, HV_TEXT_MAX, "ACPI tables do not fit");
	return -E2BIG;
}

static int plan(struct hv_slice *s, struct hv_loader *l, char text[static HV_TEXT_MAX])
{
	const struct cc_vm_spec *spec = s->spec;
	struct hv_boot_input *in = &l->input;
	const char *why;
	int err;

	if (!hv_boot_kind_of(l->kernel.data, l->kernel.len, &in->kind, &why)) {
		snprintf(text, HV_TEXT_MAX, "%s: %s", spec->kernel, why);
		return -EINVAL;
	}
	if (in->kind == HV_BOOT_LINUX) {
		err = unpack_linux(l, spec->kernel, text);
		if (err)
			return err;
		cmdline_make(s, l->cmdline);
	} else {
		snprintf(l->cmdline, CMDLINE_CAP, "%s", spec->cmdline);
	}
	if (s->multi && s->engine->mapping == DSM_MAP_UFFD && spec->private_tables &&
	    !hv_boot_private_tables(l->kernel.data, l->kernel.len)) {
		snprintf(text, HV_TEXT_MAX,
			 "%s: is said to share no page tables between vCPUs, but does not carry the mark", spec->kernel);
		return -EINVAL;
	}
	in->image = (struct hv_boot_bytes){ l->kernel.data, l->kernel.len };
	in->elf = (struct hv_boot_bytes){ l->elf.data, l->elf.len };
	in->cmdline = l->cmdline;
	if (l->initrd.data)
		in->modules[in->modules_count++] =
			(struct hv_boot_bytes){ l->initrd.data, l->initrd.len };
	ram_of_spec(spec, in);
	in->rsdp = HV_ACPI_START;
	if (!hv_boot_make(in, &l->plan, &why)) {
		snprintf(text, HV_TEXT_MAX, "%s: %s", spec->kernel, why);
		return -EINVAL;
	}
	return 0;
}

int hv_loader_open(struct hv_slice *s, struct hv_loader **out, char text[static HV_TEXT_MAX])
{
	const struct cc_vm_spec *spec = s->spec;
	struct hv_loader *l = calloc(1, sizeof(*l));
	int err;

	if (!l || !(l->cmdline = calloc(1, CMDLINE_CAP))) {
		free(l);
		return -ENOMEM;
	}
	err = read_file(spec->kernel, &l->kernel, text);
	if (!err && spec->initrd[0])
		err = read_file(spec->initrd, &l->initrd, text);
	if (!err)
		err = make_acpi(s, l, text);
	if (!err)
		err = plan(s, l, text);
	if (err) {
		hv_loader_close(l);
		return err;
	}
	log_info("loader: kernel %s cmdline %s", spec->kernel, l->cmdline);
	*out = l;
	return 0;
}

static int write_bytes(struct hv_slice *s, gpa_t gpa, const uint8_t *bytes, uint64_t len,
		       char text[static HV_TEXT_MAX])
{
	int err = dsm_copy_out(s->dsm, gpa, bytes, len, clock_now_ns() + WRITE_TIMEOUT_NS);

	if (err)
		snprintf(text, HV_TEXT_MAX, "cannot write guest memory at 0x%llx: %s",
			 (unsigned long long)gpa, strerror(-err));
	return err;
}

/*
 * What a PC has at its reset vector (SDM vol 3, 9.1.4): a guest that restarts "through the BIOS", as Linux does after a
 * panic, jumps to f000:fff0.  There is no firmware; these instructions ask the reset register.
 */
static const uint8_t reset_vector[] = {
	0xb0, HV_RESET_VALUE,				   /* mov al, value */
	0xba, HV_PORT_RESET & 0xff, HV_PORT_RESET >> 8, /* mov dx, port */
	0xee,						   /* out dx, al */
	0xf4, 0xeb, 0xfd,				   /* 1: hlt; jmp 1b */
};

int hv_loader_write(struct hv_slice *s, const struct hv_loader *l, char text[static HV_TEXT_MAX])
{
	int err = write_bytes(s, HV_ACPI_START, l->acpi, l->acpi_len, text);

	if (!err)
		err = write_bytes(s, HV_RESET_VECTOR, reset_vector, sizeof(reset_vector), text);
	for (unsigned i = 0; !err && i < l->plan.chunks_count; i++) {
		const struct hv_boot_chunk *c = &l->plan.chunks[i];

		if (c->bytes) /* zeros are there already */
			err = write_bytes(s, c->gpa, c->bytes, c->len, text);
	}
	return err;
}

void hv_loader_close(struct hv_loader *l)
{
	hv_bytes_free(&l->kernel);
	hv_bytes_free(&l->elf);
	hv_bytes_free(&l->initrd);
	free(l->acpi);
	free(l->cmdline);
	free(l);
}
