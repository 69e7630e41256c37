/* SPDX-License-Identifier: Apache-2.0 */
/* test_snapshot.c - every field of a vCPU comes out as it went in; anything else is refused, with the right reason. */
#include "hv/snapshot.h"

#include "base/bytes.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <zlib.h>

/* Random bytes everywhere, but bools, which have two values, and what is of the node. */
static struct hv_snapshot sample(uint64_t seed)
{
	struct rng r = { seed };
	struct hv_snapshot s;
	bool *const flags[] = {
		&s.cpu.sti_shadow,     &s.cpu.nmi_blocked,    &s.cpu.nmi_latched,
		&s.cpu.event_valid,    &s.lapic.wait_sipi,    &s.cpu.event_has_error,
		&s.lapic.nmi_pending,  &s.lapic.init_pending, &s.halted,
		&s.lapic.sipi_pending,
	};

	for (size_t i = 0; i < sizeof(s); i++)
		((uint8_t *)&s)[i] = (uint8_t)rng_next(&r);
	for (unsigned i = 0; i < ARRAY_LEN(flags); i++)
		*flags[i] = rng_below(&r, 2);
	s.cpu.tsc_offset = 0;
	s.cpu.irq_latched = false;
	s.cpu.irq_vector = 0;
	return s;
}

Test(snapshot, comes_out_as_it_went_in)
{
	for (uint64_t seed = 0; seed < 200; seed++) {
		uint8_t a[HV_SNAPSHOT_MAX], b[HV_SNAPSHOT_MAX];
		struct hv_snapshot in = sample(seed), out;
		size_t n = hv_snapshot_encode(&in, a);

		cr_assert_eq(hv_snapshot_decode(a, n, &out), 0);
		cr_assert_eq(hv_snapshot_encode(&out, b), n);
		cr_assert_arr_eq(a, b, n);
		cr_expect_arr_eq(out.cpu.gpr, in.cpu.gpr, sizeof(in.cpu.gpr));
		cr_expect_arr_eq(out.cpu.fxsave, in.cpu.fxsave, sizeof(in.cpu.fxsave));
		cr_expect_arr_eq(out.cpu.ymm_high, in.cpu.ymm_high, sizeof(in.cpu.ymm_high));
		cr_expect_arr_eq(out.cpu.mtrr_var, in.cpu.mtrr_var, sizeof(in.cpu.mtrr_var));
		cr_expect_arr_eq(out.lapic.irr, in.lapic.irr, sizeof(in.lapic.irr));
		cr_expect_eq(out.lapic.timer_deadline, in.lapic.timer_deadline);
		cr_expect_eq(out.cpu.kernel_gs_base, in.cpu.kernel_gs_base);
		cr_expect_eq(out.addr_seq, in.addr_seq);
		cr_expect_eq(out.halted, in.halted);
	}
}

/* Bytes of the structs that do not travel: padding, and tsc_offset, irq_latched, irq_vector.  Whoever adds a field to them and
 * not to visit() sees the number grow. */
#define STAYS 43u

Test(snapshot, leaves_nothing_out)
{
	struct hv_snapshot base = sample(1);
	uint8_t a[HV_SNAPSHOT_MAX], b[HV_SNAPSHOT_MAX];
	size_t n = hv_snapshot_encode(&base, a), silent = 0;

	for (size_t i = 0; i < sizeof(base); i++) {
		struct hv_snapshot s = base;

		((uint8_t *)&s)[i] ^= 1;
		silent += hv_snapshot_encode(&s, b) == n && !memcmp(a, b, n);
	}
	cr_expect_eq(silent, STAYS, "%zu", silent);
	cr_expect_lt(n, 8192, "the goal for a guest without AVX-512");
}

Test(snapshot, damage_is_seen)
{
	struct hv_snapshot in = sample(2), out;
	uint8_t a[HV_SNAPSHOT_MAX];
	size_t n = hv_snapshot_encode(&in, a);

	for (size_t bit = 0; bit < n * 8; bit++) {
		a[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		cr_assert_neq(hv_snapshot_decode(a, n, &out), 0, "bit %zu", bit);
		a[bit / 8] ^= (uint8_t)(1u << (bit % 8));
	}
	for (size_t len = 0; len < n; len++)
		cr_assert_eq(hv_snapshot_decode(a, len, &out), -EBADMSG, "length %zu", len);
	cr_expect_eq(hv_snapshot_decode(a, n, &out), 0);
}

Test(snapshot, another_version_is_named)
{
	struct hv_snapshot in = sample(3), out;
	uint8_t a[HV_SNAPSHOT_MAX];
	size_t n = hv_snapshot_encode(&in, a);

	put_le16(a + 4, HV_SNAPSHOT_VERSION - 1);
	put_le32(a + n - 4, (uint32_t)crc32(0, a, (uInt)(n - 4)));
	cr_expect_eq(hv_snapshot_decode(a, n, &out), -EPROTO);
}

Test(snapshot, a_flag_with_a_third_value_is_refused)
{
	struct hv_snapshot in = sample(4), out;
	uint8_t a[HV_SNAPSHOT_MAX];
	size_t n = hv_snapshot_encode(&in, a), at = n - 4 - 8 - 4 - 8 - 1; /* halted */

	a[at] = 2;
	put_le32(a + n - 4, (uint32_t)crc32(0, a, (uInt)(n - 4)));
	cr_expect_eq(hv_snapshot_decode(a, n, &out), -EBADMSG);
}
