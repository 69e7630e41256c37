/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmio.c - device registers and ports from every processor, whichever node the device is on.
 *
 * What      Every virtio-mmio window of the DSDT: identification, a status register written by one processor and read by
 *           all, reset; a window with no device reads as all ones. All processors at once, too. The scratch register of
 *           the serial port, also with string instructions.
 * Options   rounds=N; slots=N, how many devices there must be at least.
 * Source    virtio 1.2, 4.2.2 (MMIO device register layout), 2.1 (device status); 16550D, scratch register.
 */
#include "rt/rt.h"

const char payload_name[] = "mmio";

enum { MAGIC = 0x00, VERSION = 0x04, DEVICE_ID = 0x08, FEATURES = 0x10, FEATURES_SEL = 0x14, STATUS = 0x70 };
#define SCRATCH 0x3ff /* COM1 + 7 */
#define MAGIC_VALUE 0x74726976u
#define STATUS_ACKNOWLEDGE 1u
#define STATUS_DRIVER 2u
#define FEATURE_VERSION_1 1u /* bit 32: bit 0 of word 1 */

static struct barrier meet;
static unsigned rounds, devices;
static uint32_t first_id[MMIO_SLOTS_MAX], low_features[MMIO_SLOTS_MAX], bus_lock;

static uint32_t get(unsigned slot, unsigned reg)
{
	return *(volatile uint32_t *)(platform.mmio_slot[slot] + reg);
}

static void put(unsigned slot, unsigned reg, uint32_t v)
{
	*(volatile uint32_t *)(platform.mmio_slot[slot] + reg) = v;
}

static void identify(unsigned cpu)
{
	for (unsigned i = 0; i < rounds; i++)
		for (unsigned s = 0; s < platform.mmio_slots; s++) {
			uint32_t magic = get(s, MAGIC), id = get(s, DEVICE_ID);

			if (!first_id[s]) {
				CHECK(magic == 0xffffffffu, "empty window %u: cpu %u reads %x", s, cpu, magic);
				continue;
			}
			CHECK(magic == MAGIC_VALUE, "window %u: cpu %u reads magic %x", s, cpu, magic);
			CHECK(get(s, VERSION) == 2, "window %u: cpu %u reads version %u", s, cpu, get(s, VERSION));
			CHECK(id == first_id[s], "window %u: cpu %u reads device %u, not %u", s, cpu, id, first_id[s]);
		}
}

static void status(unsigned cpu)
{
	for (unsigned s = 0; s < platform.mmio_slots; s++)
		for (unsigned turn = 0; first_id[s] && turn < platform.cpus; turn++) {
			uint32_t now = turn % 2 ? STATUS_ACKNOWLEDGE : STATUS_ACKNOWLEDGE | STATUS_DRIVER;

			barrier_wait(&meet);
			if (turn == cpu) {
				put(s, STATUS, 0);
				CHECK(get(s, STATUS) == 0, "window %u: status %x after reset", s, get(s, STATUS));
				put(s, STATUS, STATUS_ACKNOWLEDGE);
				put(s, STATUS, now);
			}
			barrier_wait(&meet);
			CHECK(get(s, STATUS) == now, "window %u: cpu %u reads status %x, cpu %u wrote %x", s, cpu,
			      get(s, STATUS), turn, now);
		}
	barrier_wait(&meet);
}

/* A select and a read that belong together, under a lock of our own, from all processors. */
static void selects(unsigned cpu)
{
	for (unsigned i = 0; i < rounds; i++)
		for (unsigned s = 0; s < platform.mmio_slots; s++) {
			if (!first_id[s])
				continue;
			WAIT_FOR(!__atomic_exchange_n(&bus_lock, 1, __ATOMIC_SEQ_CST), "cpu %u never gets the lock", cpu);
			put(s, FEATURES_SEL, 1);
			CHECK(get(s, FEATURES) & FEATURE_VERSION_1, "window %u: cpu %u finds no VERSION_1", s, cpu);
			put(s, FEATURES_SEL, 0);
			CHECK(get(s, FEATURES) == low_features[s], "window %u: cpu %u reads features %x, not %x", s, cpu,
			      get(s, FEATURES), low_features[s]);
			store(&bus_lock, 0);
		}
}

/* One writes, all read, each in turn. */
static void ports(unsigned cpu)
{
	uint8_t bytes[4];

	for (unsigned i = 0; i < rounds; i++)
		for (unsigned turn = 0; turn < platform.cpus; turn++) {
			uint8_t want = (uint8_t)(i * 16 + turn + 1), out[3] = { 0, 0xff, want };
			const void *si = out;
			void *di = bytes;
			uint64_t n = sizeof(out);

			barrier_wait(&meet);
			if (turn == cpu && i % 2)
				outb(SCRATCH, want);
			else if (turn == cpu)
				__asm__ volatile("rep outsb" : "+S"(si), "+c"(n) : "d"(SCRATCH) : "memory");
			barrier_wait(&meet);
			CHECK(inb(SCRATCH) == want, "cpu %u reads %x from a port, cpu %u wrote %x", cpu, inb(SCRATCH), turn,
			      want);
			n = sizeof(bytes);
			__asm__ volatile("rep insb" : "+D"(di), "+c"(n) : "d"(SCRATCH) : "memory");
			CHECK(bytes[0] == want && bytes[3] == want, "cpu %u: rep insb reads %x .. %x, not %x", cpu, bytes[0],
			      bytes[3], want);
		}
	barrier_wait(&meet);
}

void payload_main(void)
{
	rounds = (unsigned)option("rounds", 20);
	for (unsigned s = 0; s < platform.mmio_slots; s++) {
		first_id[s] = get(s, MAGIC) == MAGIC_VALUE ? get(s, DEVICE_ID) : 0;
		devices += first_id[s] != 0;
		if (!first_id[s])
			continue;
		put(s, FEATURES_SEL, 0);
		low_features[s] = get(s, FEATURES);
		print("mmio: window %u at %lx: device %u\n", s, platform.mmio_slot[s],
		      first_id[s]);
	}
	CHECK(devices >= option("slots", 1), "%u devices in %u windows", devices, platform.mmio_slots);
	cpus_start();
	cpus_run(identify);
	cpus_run(status);
	cpus_run(selects);
	cpus_run(ports);
	print("mmio: %u devices from %u processors: ok\n", devices, platform.cpus);
}
