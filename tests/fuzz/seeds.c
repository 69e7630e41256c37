/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/seeds.c - writes the corpora of tests/fuzz from the encoders that make such bytes in production.
 *
 * Usage     seeds DIRECTORY: one folder per target, one file per seed; files of other names stay.
 */
#include "cluster-config/control.h"
#include "dsm/core/wire.h"
#include "hv/core/virtio_blk.h"
#include "hv/snapshot.h"
#include "hv/wire.h"
#include "interconnect/core/frame.h"
#include "interconnect/core/hello.h"
#include "vcpu-migrate/wire.h"

#include <lz4.h>
#include <lzma.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include "base/assert.h"
#include "base/bytes.h"

static const char *dir;

static void seed(const char *target, const char *name, const void *bytes, size_t len)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, target);
	mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/%s/%s", dir, target, name);
	f = fopen(path, "wb");
	if (!f || fwrite(bytes, 1, len, f) != len || fclose(f)) {
		perror(path);
		exit(1);
	}
}

/* --- messages ----------------------------------------------------------------------------------------- */

static void frames(void)
{
	static uint8_t b[5 + 2 * IC_FRAME_MAX];
	struct writer w = { b, b + sizeof(b), false };
	static const struct ic_frame list[] = { { .body_len = 16, .epoch = 7 },
						{ .port = 1, .body_len = 5, .data_len = 64, .epoch = 7, .seq = 1 },
						{ .epoch = 7, .seq = 2 } };

	writer_u8(&w, 2);
	writer_u32(&w, 7);
	for (unsigned i = 0; i < ARRAY_LEN(list); i++) {
		static const uint8_t fill[128] = { 1, 2, 3 };
		uint8_t h[IC_FRAME_HEADER];

		ic_frame_encode(&list[i], h);
		writer_bytes(&w, h, sizeof(h));
		writer_bytes(&w, fill, (size_t)list[i].body_len + list[i].data_len);
	}
	seed("frame", "three", b, (size_t)(w.p - b));
	seed("frame", "cut-off", b, (size_t)(w.p - b) - 30);
}

static void hellos(void)
{
	static const char *const names[] = { "", "hello", "challenge", "proof", "accept", "refuse" };
	uint8_t all[8 * IC_HELLO_MAX];
	size_t used = 0;

	for (unsigned k = IC_HELLO; k <= IC_REFUSE; k++) {
		struct ic_hello h = { .kind = k, .vm_id = 0x1122334455667788, .from = 1, .epoch = 3,
				      .nonce = { 1, 2, 3 }, .mac = { 4, 5, 6 }, .why = IC_REFUSED_KEY };
		uint8_t b[IC_HELLO_MAX];
		size_t len = ic_hello_encode(&h, b);

		seed("hello", names[k], b, len);
		memcpy(all + used, b, len);
		used += len;
	}
	seed("hello", "all", all, used);
}

static void dsm_messages(void)
{
	for (unsigned k = 1; k < PROTO_KINDS; k++) {
		bool grant = k == PROTO_GRANT;
		struct proto_msg m = { .kind = (uint8_t)k, .right = grant ? PROTO_WRITE : 0, .node = 2, .acks = 1,
				       .copy = 1, .page = 3,
				       .bytes = grant || k == PROTO_RETURN ? PROTO_BYTES_PAGE : 0 };
		uint8_t b[1 + WIRE_MSG_BYTES];

		b[0] = m.bytes == PROTO_BYTES_PAGE;
		wire_encode(&m, b + 1);
		seed("dsm_wire", proto_kind_name((uint8_t)k), b, sizeof(b));
	}
}

/* Scripts of fuzz_dsm_peer: nodes and self, then events. */
static void dsm_peers(void)
{
	/* Of two nodes this one is 0, home of page 0: its own request; a write by n1, unmapped here, DONE; its eviction. */
	static const uint8_t home[] = { 0x01, 0, 0x80, 0, 0x06, 5, 8, PROTO_REQ_WRITE, 0, 0xf2, 0, 1, 0, 5, 8, PROTO_DONE, 0,
					0, 0x00, 5, 8, PROTO_EVICT, 0, 5, 8, PROTO_RETURN | 0xc0, 0 };
	/* Node 1 of four asks n0 for its page: GRANT with 2 acks, ACKs, FWD_READ, RECALL. */
	static const uint8_t node[] = { 0x13, 0, 0x80, 5, 0, PROTO_GRANT | 0xe0, 0x20, 5, 16, PROTO_ACK, 0, 5, 24, PROTO_ACK, 0,
					0xf5, 0, PROTO_FWD_READ, 2, 2, 0, 0xf2, 0, 1, 0, 0xf5, 0, PROTO_RECALL, 0, 1, 0, 3, 0 };

	seed("dsm_peer", "home", home, sizeof(home));
	seed("dsm_peer", "node", node, sizeof(node));
}

static void hv_messages(void)
{
	static const struct hv_msg list[] = {
		{ .kind = HV_MSG_IPI, .ipi = { .mode = 0, .vector = 0xfd, .to = { { 5 } } } },
		{ .kind = HV_MSG_ADDR, .addr = { 2, 1, { .id = 2, .ldr = 4, .enabled = true, .x2apic = true } } },
		{ .kind = HV_MSG_PULSE, .pulse = { 9 } },
		{ .kind = HV_MSG_EOI, .eoi = { 0x31 } },
		{ .kind = HV_MSG_IO, .io = { 1, HV_IO_MMIO, true, 4, 0xfec00000, 7 } },
		{ .kind = HV_MSG_IO_DONE, .io_done = { 1, 2 } },
		{ .kind = HV_MSG_PROBE, .probe = { 3 } },
		{ .kind = HV_MSG_CLOCK, .clock = { .seq = 3, .tsc_khz = 2000000, .guest_tsc = 5 } },
	};

	for (unsigned i = 0; i < ARRAY_LEN(list); i++) {
		uint8_t b[HV_MSG_BYTES_MAX];
		char name[8];

		snprintf(name, sizeof(name), "kind-%u", list[i].kind);
		seed("hv_wire", name, b, hv_msg_encode(&list[i], b));
	}
}

static void moves(void)
{
	static const struct mig_msg list[] = {
		{ .kind = HO_MSG_OFFER, .ho.msg = { HO_MSG_OFFER, 1, 0, 0, 7 } },
		{ .kind = HO_MSG_REFUSE, .ho = { .msg = { HO_MSG_REFUSE, 1, HO_FEATURES, 0, 7 }, .text = "it lacks avx" } },
		{ .kind = HO_MSG_STATE, .ho = { .msg = { HO_MSG_STATE, 1, 0, 0, 7 }, .ns = 9000 } },
		{ .kind = HO_MSG_HOME, .ho.msg = { HO_MSG_HOME, 1, 0, 2, 7 } },
		{ .kind = MIG_MSG_ORDER, .order = { 5, 1, 0, 0, 2 } },
		{ .kind = MIG_MSG_DONE, .done = { .order = 5, .vcpu = 1, .result = HO_FULL, .to = 2, .text = "full" } },
	};
	static const struct hv_snapshot halted = { .cpu = { .rip = 0xffffffff81000000, .rflags = 0x202, .xcr0 = 1 }, .halted = true };
	uint8_t snapshot[HV_SNAPSHOT_MAX];

	for (unsigned i = 0; i < ARRAY_LEN(list); i++) {
		uint8_t b[MIG_BODY_MAX];
		char name[16];

		snprintf(name, sizeof(name), "kind-%u", list[i].kind);
		seed("mig_wire", name, b, mig_msg_encode(&list[i], b));
	}
	seed("snapshot", "halted", snapshot, hv_snapshot_encode(&halted, snapshot));
}

static void control(const struct cc_msg *m)
{
	uint8_t *frame;
	size_t len;
	int err = cc_msg_encode(m, &frame, &len);

	ASSERT(!err);
	seed("control", cc_msg_name(m->type), frame + CC_FRAME_HEAD, len - CC_FRAME_HEAD);
	free(frame);
}

static void controls(void)
{
	static struct cc_msg prepare = { .type = CC_MSG_PREPARE, .prepare = {
		.name = "big", .vm_id = 77, .vm_key = { 1, 2 }, .self = 1, .nodes = 2, .node_name = { "alpha", "beta" },
		.range = { { 0, 512, 0 }, { 512, 512, 1 } }, .ranges = 2, .vcpus = 3, .vcpu_node = { 0, 1, 1 },
		.cache_pages = 64, .numa = CC_NUMA_FLAT, .engine = CC_ENGINE_BT, .kernel = "/k", .initrd = "/i",
		.cmdline = "quiet", .device = { { CC_DEV_SERIAL, 0, false, "" }, { CC_DEV_BLK, 1, true, "/d" } },
		.devices = 2, .fabric_backend = "tcp", .fabric_device = "", .fabric_listen = "127.0.0.1:0",
		.dead_after_ms = 5000 } };
	static const struct cc_msg list[] = {
		{ .type = CC_MSG_HELLO, .hello = { CC_VERSION, "alpha" } },
		{ .type = CC_MSG_PREPARED, .prepared = { "127.0.0.1:4000" } },
		{ .type = CC_MSG_FAILED, .failed = { "no kernel" } },
		{ .type = CC_MSG_CONNECT, .connect = { { "127.0.0.1:4000", "127.0.0.1:4001" }, 2 } },
		{ .type = CC_MSG_READY }, { .type = CC_MSG_RUN }, { .type = CC_MSG_STOP },
		{ .type = CC_MSG_CONSOLE, .console = { (const uint8_t *)"hi\n", 3 } },
		{ .type = CC_MSG_PROGRESS, .progress = { "joined" } },
		{ .type = CC_MSG_ENDED, .ended = { CC_END_CRASH, 1, "triple fault", "rip 0\n" } },
		{ .type = CC_MSG_STATS, .stats = { .node = 1, .vcpus = 2, .faults_read = 5, .hot = { { 7, 9 } }, .engine = "bt" } },
		{ .type = CC_MSG_PING, .ping = { 3 } }, { .type = CC_MSG_PONG, .ping = { 4 } },
	};

	control(&prepare);
	for (unsigned i = 0; i < ARRAY_LEN(list); i++)
		control(&list[i]);
}

/* --- topology files ----------------------------------------------------------------------------------- */

static void topologies(void)
{
	static const char full[] =
		"pool: lab\nkey: pool.key\ndead_after: 5s\nnodes:\n"
		"  - { name: alpha, address: 10.0.0.1, port: 7702, cpus: 4, memory: 1GiB, cache: 64MiB, fabric: { backend: tcp } }\n"
		"  - { name: beta, address: \"::1\", cpus: 2, memory: 512MiB }\n"
		"vms:\n  - name: big\n    vcpus: 3\n    memory: 768MiB\n    numa: flat\n    engine: bt\n    kernel: k\n"
		"    initrd: i\n    cmdline: quiet\n    console: { node: beta }\n    rng: { node: beta }\n    shares:\n"
		"      alpha: { vcpus: 1, memory: 512MiB }\n      beta: { vcpus: 2, memory: 256MiB }\n    disks: [ { node: beta, path: d.img, readonly: true } ]\n    nics: [ { node: alpha, tap: t0 } ]\n";
	static const char small[] = "pool: p\nnodes: [ { name: a, address: h, cpus: 1, memory: 64MiB } ]\n"
				    "vms: [ { name: v, vcpus: 1, memory: 32MiB, kernel: /k } ]\n";
	static const char wrong[] = "pool: &x lab\npool: *x\nnodes: !t [ {name: a, nmae: b}, - ]\n...\n---\nvms: { a: 'b', \"c\\x41\": |\n  d\n }\n";

	seed("topology", "full", full, sizeof(full) - 1);
	seed("topology", "small", small, sizeof(small) - 1);
	seed("topology", "wrong", wrong, sizeof(wrong) - 1);
}

/* --- kernels ------------------------------------------------------------------------------------------ */

#define ELF_LEN 0x180u

/* A 64-bit ELF with one load segment at 1 MiB and a PVH note. */
static void elf_make(uint8_t p[static ELF_LEN])
{
	static const uint64_t load[5] = { 0x100, 0xffffffff81000000, 0x100000, 0x40, 0x1000 };
	static const uint64_t note[5] = { 0x140, 0, 0, 20, 20 };

	memset(p, 0, ELF_LEN);
	memcpy(p, "\177ELF\2\1\1", 7);
	put_le16(p + 18, 62);
	put_le64(p + 24, 0x100010);
	put_le64(p + 32, 64);
	put_le16(p + 54, 56);
	put_le16(p + 56, 2);
	for (unsigned i = 0; i < 5; i++) {
		put_le64(p + 64 + 8 + 8 * i, load[i]);
		put_le64(p + 64 + 56 + 8 + 8 * i, note[i]);
	}
	put_le32(p + 64, 1);
	put_le32(p + 64 + 56, 4);
	memset(p + 0x100, 0xf4, 0x40);
	put_le32(p + 0x140, 4);
	put_le32(p + 0x144, 4);
	put_le32(p + 0x148, 18);
	memcpy(p + 0x14c, "Xen", 4);
	put_le32(p + 0x150, 0x100020);
}

static size_t bzimage_make(uint8_t *p, const uint8_t *payload, size_t len, bool size_word)
{
	const size_t at = 4 * 512 + 0x20;

	memset(p, 0, at);
	p[0x1f1] = 3;
	p[0x201] = 0x66;
	memcpy(p + 0x202, "HdrS", 4);
	put_le16(p + 0x206, 0x20f);
	put_le32(p + 0x22c, 0x7fffffff);
	put_le16(p + 0x236, 1);
	put_le32(p + 0x238, 2047);
	put_le32(p + 0x248, 0x20);
	put_le32(p + 0x24c, (uint32_t)len + (size_word ? 4 : 0));
	put_le32(p + 0x260, 0x200000);
	memcpy(p + at, payload, len);
	put_le32(p + at + len, ELF_LEN);
	return at + len + (size_word ? 4 : 0);
}

static void packed(const char *name, const uint8_t *bytes, size_t len, bool size_word)
{
	static uint8_t file[8192];

	seed("unpack", name, bytes, len);
	seed("kernel", name, file, bzimage_make(file, bytes, len, size_word));
}

static size_t gzip_make(const uint8_t *in, size_t len, uint8_t *out, size_t room)
{
	z_stream z = { .next_in = (uint8_t *)in, .avail_in = (uInt)len, .next_out = out, .avail_out = (uInt)room };

	ASSERT(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	ASSERT(deflate(&z, Z_FINISH) == Z_STREAM_END);
	deflateEnd(&z);
	return room - z.avail_out;
}

static void kernels(void)
{
	uint8_t elf[ELF_LEN], out[4096], boot[0x80] = { 0 };
	lzma_options_lzma lzma;
	lzma_stream s = LZMA_STREAM_INIT;
	size_t len = 0;
	int n;

	elf_make(elf);
	seed("kernel", "pvh", elf, sizeof(elf));
	packed("elf", elf, sizeof(elf), false);
	packed("gzip", out, gzip_make(elf, sizeof(elf), out, sizeof(out)), false);
	ASSERT(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC32, NULL, elf, sizeof(elf), out, &len, sizeof(out)) == LZMA_OK);
	packed("xz", out, len, true);
	lzma_lzma_preset(&lzma, 1);
	ASSERT(lzma_alone_encoder(&s, &lzma) == LZMA_OK);
	s.next_in = elf;
	s.avail_in = sizeof(elf);
	s.next_out = out;
	s.avail_out = sizeof(out);
	ASSERT(lzma_code(&s, LZMA_FINISH) == LZMA_STREAM_END);
	lzma_end(&s);
	packed("lzma", out, sizeof(out) - s.avail_out, true);
	packed("zstd", out, ZSTD_compress(out, sizeof(out), elf, sizeof(elf), 3), true);
	put_le32(out, 0x184c2102);
	n = LZ4_compress_default((const char *)elf, (char *)out + 8, sizeof(elf), sizeof(out) - 8);
	put_le32(out + 4, (uint32_t)n);
	packed("lz4", out, 8 + (size_t)n, true);
	memcpy(boot, elf, 0x40);
	boot[4] = 1; /* 32 bits, and a multiboot header */
	put_le32(boot + 28, 0x34);
	put_le16(boot + 42, 32);
	put_le16(boot + 44, 1);
	put_le32(boot + 0x60, 0x1badb002);
	put_le32(boot + 0x68, 0u - 0x1badb002);
	seed("kernel", "multiboot", boot, sizeof(boot));
}

/* --- virtio ------------------------------------------------------------------------------------------- */

enum { REG_DRIVER_FEATURES = 0x20, REG_DRIVER_SEL = 0x24, REG_QUEUE_SEL = 0x30, REG_QUEUE_NUM = 0x38,
       REG_QUEUE_READY = 0x44, REG_NOTIFY = 0x50, REG_STATUS = 0x70, REG_DESC = 0x80, REG_AVAIL = 0x90,
       REG_USED = 0xa0 };
#define DESC_AT 0x100u
#define AVAIL_AT 0x300u
#define USED_AT 0x400u
#define DATA_AT 0x800u

static unsigned steps;

static void step(struct writer *w, uint8_t kind, uint16_t offset, uint32_t value)
{
	writer_u8(w, kind);
	writer_u8(w, 2);
	writer_u16(w, offset);
	writer_u32(w, value);
	steps++;
}

/* Brings the device up with every queue's rings at the same place, 8 entries. */
static void driver(struct writer *w, unsigned queues)
{
	steps = 0;
	step(w, 0, REG_STATUS, HV_VIRTIO_ACKNOWLEDGE | HV_VIRTIO_DRIVER);
	step(w, 0, REG_DRIVER_SEL, 1);
	step(w, 0, REG_DRIVER_FEATURES, 1);
	step(w, 0, REG_STATUS, HV_VIRTIO_ACKNOWLEDGE | HV_VIRTIO_DRIVER | HV_VIRTIO_FEATURES_OK);
	for (unsigned q = 0; q < queues; q++) {
		step(w, 0, REG_QUEUE_SEL, q);
		step(w, 0, REG_QUEUE_NUM, 8);
		step(w, 0, REG_DESC, DESC_AT);
		step(w, 0, REG_AVAIL, AVAIL_AT);
		step(w, 0, REG_USED, USED_AT);
		step(w, 0, REG_QUEUE_READY, 1);
	}
	step(w, 0, REG_STATUS, HV_VIRTIO_ACKNOWLEDGE | HV_VIRTIO_DRIVER | HV_VIRTIO_FEATURES_OK | HV_VIRTIO_DRIVER_OK);
	step(w, 0, REG_NOTIFY, 0);
	step(w, 1, 0x60, 0);
	step(w, 2, 0, 40);
}

/* One chain: header readable, data writable, a status byte. */
static void rings(uint8_t *ram, uint32_t type, bool to_device)
{
	static const uint32_t len[3] = { 16, 512, 1 };

	for (unsigned i = 0; i < 3; i++) {
		uint8_t *d = ram + DESC_AT + 16 * i;

		put_le64(d, DATA_AT + 0x400 * i);
		put_le32(d + 8, len[i]);
		put_le16(d + 12, (uint16_t)((i < 2 ? 1 : 0) | (i == 2 || (i == 1 && !to_device) ? 2 : 0)));
		put_le16(d + 14, (uint16_t)(i + 1));
	}
	put_le16(ram + AVAIL_AT + 2, 1);
	put_le32(ram + DATA_AT, type);
}

static void virtio(const char *name, uint8_t device, uint32_t type, bool to_device)
{
	static uint8_t b[2 + 8 * 64 + 0x1400];
	struct writer w = { b + 2, b + sizeof(b), false };

	memset(b, 0, sizeof(b));
	driver(&w, device % 3 == 1 ? 2 : 1);
	b[0] = device;
	b[1] = (uint8_t)steps;
	if (device % 3 == 0) {
		rings(w.p, type, to_device);
	} else {
		/* One writable buffer; for the console's output it is a readable one. */
		put_le64(w.p + DESC_AT, DATA_AT);
		put_le32(w.p + DESC_AT + 8, 32);
		put_le16(w.p + DESC_AT + 12, to_device ? 0 : 2);
		put_le16(w.p + AVAIL_AT + 2, 1);
	}
	seed("virtio", name, b, (size_t)(w.p - b) + (device % 3 ? DATA_AT + 32 : DATA_AT + 16));
}

/* A queue of 256 and a chain of more segments than a device takes. */
static void virtio_long(void)
{
	enum { LEN = 256, DESC = 0x1000, RING = 0x400, USED = 0x2000 };
	static uint8_t b[2 + 8 * 64 + DESC + 16 * LEN];
	struct writer w = { b + 2, b + sizeof(b), false };

	driver(&w, 1);
	b[1] = (uint8_t)steps;
	for (unsigned i = 0; i < steps; i++) {
		uint8_t *s = b + 2 + 8 * i;
		uint16_t reg = get_le16(s + 2);

		if (s[0] == 0 && (reg == REG_QUEUE_NUM || reg == REG_DESC || reg == REG_AVAIL || reg == REG_USED))
			put_le32(s + 4, reg == REG_QUEUE_NUM ? LEN : reg == REG_DESC ? DESC : reg == REG_AVAIL ? RING : USED);
	}
	for (unsigned i = 0; i < LEN; i++) {
		uint8_t *d = w.p + DESC + 16 * i;

		put_le64(d, DATA_AT);
		put_le32(d + 8, i ? 1 : 16);
		put_le16(d + 12, i + 1 < LEN ? 1 : 2);
		put_le16(d + 14, (uint16_t)(i + 1));
	}
	put_le16(w.p + RING + 2, 1);
	seed("virtio", "disk-long", b, (size_t)(w.p - b) + DESC + 16 * LEN);
}

static void virtios(void)
{
	virtio_long();
	virtio("disk-read", 0, 0, false);
	virtio("disk-write", 0, 1, true);
	virtio("disk-flush", 0, 4, false);
	virtio("disk-id", 0, 8, false);
	virtio("console-in", 1, 0, false);
	virtio("console-out", 1, 0, true);
	virtio("rng", 2, 0, false);
}

/* --- guest code: one instruction of each kind that the translator tells apart ---------------------------- */

#define CODE(name, text) extern const uint8_t name[], name##_end[]; \
	__asm__(".pushsection .rodata\n" #name ":\n" text "\n" #name "_end: .popsection")

CODE(code64, "add %rbx, %rax\n lock cmpxchg %rcx, (%rbx)\n lea 8(%rip), %r10\n bts %r14, 4(%r15)\n mulsd (%rsi), %xmm1\n"
	     "fld1\n fstpt (%rdi)\n pushq $5\n popq (%rsp)\n leave\n pause\n rdtsc\n cld\n tzcnt %ecx, %eax\n"
	     "movabs 0x123456789, %eax\n maskmovdqu %xmm1, %xmm2\n crc32 %al, %ecx\n call *8(%rax,%r11,4)\n jne .\n loop .\n"
	     "jrcxz .\n ret $8\n rep movsb\n cpuid\n syscall\n mov %rax, %cr3\n mov %fs:(%r11), %gs\n out %al, $0x80\n wrmsr\n"
	     "iretq\n lgdt (%rax)\n hlt\n ud2\n jmp *%r14\n .byte 0xc5, 0xf8, 0x58, 0xc1");
CODE(code32, ".code32\n pusha\n mov 8(%bp,%si), %ax\n lcall $8, $0x1234\n les (%eax), %ecx\n daa\n aam\n bound %eax, (%ecx)\n"
	     "enter $8, $1\n popf\n into\n loopw .\n jcxz .\n push %ds\n inc %eax\n sidt (%esp)\n .code64");

static void guest_code(void)
{
	static const uint8_t modes[] = { 0, 4, 8, 16, 64, 128, 1, 2, 5, 33, 130 };
	uint8_t b[512];

	for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
		bool wide = (modes[i] & 3) == 0;
		const uint8_t *code = wide ? code64 : code32, *end = wide ? code64_end : code32_end;
		char name[16];

		b[0] = modes[i];
		b[1] = modes[i] & 4 ? 20 : 250; /* across the end of the page, too */
		memcpy(b + 2, code, (size_t)(end - code));
		snprintf(name, sizeof(name), "mode-%u", modes[i]);
		seed("bt", name, b, 2 + (size_t)(end - code));
	}
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: seeds DIRECTORY\n");
		return 2;
	}
	dir = argv[1];
	mkdir(dir, 0777);
	frames();
	hellos();
	dsm_messages();
	dsm_peers();
	hv_messages();
	moves();
	controls();
	topologies();
	kernels();
	virtios();
	guest_code();
	return 0;
}
