/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cluster-config/test_facts.c - what hosts tell of themselves, and what others might send instead. */
#include "cluster-config/facts.h"

#include <criterion/criterion.h>
#include <string.h>

static const char told[] =
	"{ \"host\": \"alpha\", \"cpu\": { \"features\": \"avx aes\" }, \"tsc\": { \"khz\": 2400000 },"
	"  \"kvm\": { \"inline\": { \"ok\": false, \"why\": \"no perf\", \"fix\": \"setcap\" },"
	"             \"dispatch\": { \"ok\": true, \"why\": \"\", \"fix\": \"\" } },"
	"  \"kernel\": { \"private_tables\": true },"
	"  \"verdict\": {"
	"    \"one\": { \"engine\": \"kvm\", \"kvm\": true, \"faults\": \"dispatch\", \"refusal\": \"\", \"why\": \"\","
	"               \"fix\": \"\" },"
	"    \"several\": { \"engine\": \"bt\", \"kvm\": false, \"faults\": \"none\", \"refusal\": \"unsound\","
	"                   \"why\": \"NPT\", \"fix\": \"\" },"
	"    \"several_private\": { \"engine\": \"none\" } } }";

Test(facts, all_that_is_used)
{
	struct cc_host h;
	const struct cc_facts *f = &h.facts;

	cc_host_read(&h, told, "");
	cr_assert_str_eq(f->unknown, "");
	cr_expect_str_eq(cc_json_text(h.json, "host"), "alpha");
	cr_expect_str_eq(f->features, "avx aes");
	cr_expect_eq(f->tsc_khz, 2400000);
	cr_expect(f->private_tables);
	cr_expect_not(f->inline_faults.ok);
	cr_expect_str_eq(f->inline_faults.why, "no perf");
	cr_expect_str_eq(f->inline_faults.fix, "setcap");
	cr_expect(f->dispatch_faults.ok);
	cr_expect_eq(f->offer[CC_SPAN_ONE].engine, CC_HOST_KVM);
	cr_expect(f->offer[CC_SPAN_ONE].kvm);
	cr_expect_str_eq(f->offer[CC_SPAN_ONE].faults, "dispatch");
	cr_expect_eq(f->offer[CC_SPAN_SEVERAL].engine, CC_HOST_BT);
	cr_expect_not(f->offer[CC_SPAN_SEVERAL].kvm);
	cr_expect_str_eq(f->offer[CC_SPAN_SEVERAL].refusal, "unsound");
	cr_expect_str_eq(f->offer[CC_SPAN_SEVERAL].why, "NPT");
	cr_expect_eq(f->offer[CC_SPAN_PRIVATE].engine, CC_HOST_NONE);
	cr_expect_str_eq(f->offer[CC_SPAN_PRIVATE].why, "");
	cc_host_clear(&h);
}

Test(facts, what_is_not_ours_is_unknown)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"7",
		"{}",
		"{ \"verdict\": 3 }",
		"{ \"verdict\": { \"one\": [], \"several\": {}, \"several_private\": {} } }",
		"{ \"verdict\": { \"one\": { \"engine\": \"kvm\" }, \"several\": { \"engine\": \"bt\" } } }",
		"{ \"verdict\": { \"one\": { \"engine\": \"kvm\" }, \"several\": { \"engine\": \"xen\" },"
		" \"several_private\": { \"engine\": \"bt\" } } }",
	};
	struct cc_refusal no;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct cc_wish wish = { CC_ENGINE_KVM, CC_FAULTS_AUTO, CC_SPAN_ONE };
		struct cc_host h;

		cc_host_read(&h, bad[i], "");
		cr_expect_gt(strlen(h.facts.unknown), 0, "%s", bad[i]);
		cr_expect_not(cc_kvm_possible(&wish, &h.facts, &no), "%s", bad[i]);
		cr_expect_str_eq(no.word, "unknown");
		cr_expect_str_eq(h.facts.features, "");
		cc_host_clear(&h);
	}
}

Test(facts, a_reason_is_passed_on)
{
	struct cc_host h;

	cc_host_read(&h, "", "the slice program took too long");
	cr_expect_not_null(strstr(h.facts.unknown, "took too long"));
	cc_host_clear(&h);
}

/* What a host says of its kernel and its rights may have any type: nothing is believed that is not as it must be. */
Test(facts, types_are_checked)
{
	struct cc_host h;
	char text[sizeof(told)];
	char *at;

	strcpy(text, told);
	cr_assert_not_null(strstr(text, "\"private_tables\": true"));
	at = strstr(text, "\"private_tables\": true") + strlen("\"private_tables\": ");
	memcpy(at, "1   ", 4);
	at = strstr(text, "2400000");
	memcpy(at, "\"24000\"", 7);
	cc_host_read(&h, text, "");
	cr_expect_str_eq(h.facts.unknown, "");
	cr_expect_not(h.facts.private_tables);
	cr_expect_eq(h.facts.tsc_khz, 0);
	cc_host_clear(&h);
}
