/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/fabric_tell.c - the words of `unum fabric`; see fabric_tell.h. */
#include "cluster-config/fabric_tell.h"

#include "cluster-config/survey.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define OFFERS_SHOWN 8u

/* --- a host --------------------------------------------------------------------------------------- */

static void backend_print(const json_t *b)
{
	const json_t *offers = json_object_get(b, "offers"), *o;
	bool ok = json_is_true(json_object_get(b, "ok"));
	size_t i;

	printf("  %-8s %s: %s", ok ? "ok" : "note", cc_json_text(b, "name"), ok ? "works" : cc_json_text(b, "why"));
	json_array_foreach(offers, i, o)
	{
		if (i < OFFERS_SHOWN)
			printf("%s%s", i ? ", " : "; it has ", json_string_value(o) ? json_string_value(o) : "?");
	}
	printf("%s\n", json_array_size(offers) > OFFERS_SHOWN ? ", ..." : "");
	if (*cc_json_text(b, "fix"))
		printf("           fix: %s\n", cc_json_text(b, "fix"));
}

void cc_fabric_host_print(const json_t *host)
{
	const char *node = cc_json_text(host, "node");
	const json_t *tried = json_object_get(host, "tried"), *b;
	size_t i;

	printf("%s%s: %s (Linux %s)\n", *node ? "node " : "this host", node, cc_json_text(host, "host"),
	       cc_json_text(host, "release"));
	if (*cc_json_text(host, "unknown"))
		printf("  problem  %s\n", cc_json_text(host, "unknown"));
	cc_findings_print(json_object_get(host, "findings"));
	json_array_foreach(tried, i, b)
		backend_print(b);
	putchar('\n');
}

/* --- a pair ---------------------------------------------------------------------------------------- */

static double number(const json_t *m, const char *key)
{
	return (double)json_integer_value(json_object_get(m, key));
}

void cc_fabric_pair_print(const json_t *pair)
{
	const json_t *m;
	size_t i;

	printf("%s - %s: fabric %s (%s)\n", cc_json_text(pair, "from"), cc_json_text(pair, "to"),
	       cc_json_text(pair, "backend"), cc_json_text(pair, "why"));
	json_array_foreach(json_object_get(pair, "measured"), i, m)
	{
		if (*cc_json_text(m, "trouble"))
			printf("  problem  %s: %s\n", cc_json_text(m, "backend"), cc_json_text(m, "trouble"));
		else
			printf("  %-8s 64 bytes there, 4 KiB back: p50 %.1f us, p99 %.1f us; pages one way: %.0f MB/s\n",
			       cc_json_text(m, "backend"), number(m, "p50_ns") / 1e3, number(m, "p99_ns") / 1e3,
			       number(m, "bytes_per_s") / 1e6);
	}
}

void cc_fabric_together_print(const json_t *together)
{
	printf("\na VM on all of these nodes: fabric %s (%s)\n", cc_json_text(together, "backend"),
	       cc_json_text(together, "why"));
	cc_findings_print(json_object_get(together, "findings"));
}

/* --- two hosts side by side -------------------------------------------------------------------------- */

__attribute__((format(printf, 4, 5))) static void finding_add(json_t *list, const char *level, const char *fix,
							      const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "level", level, "text", text, "fix", fix));
}

/* The interface that has the node's address; NULL: none, or the address is a name or loopback. */
static const json_t *interface_of(const struct cc_node *node, const json_t *host)
{
	const json_t *fabric = json_object_get(host, "fabric"), *nic, *a;
	size_t len = strlen(node->address), i, k;

	json_array_foreach(json_object_get(fabric, "interfaces"), i, nic)
		json_array_foreach(json_object_get(nic, "addresses"), k, a)
		{
			const char *text = json_string_value(a);

			if (text && !strncmp(text, node->address, len) && text[len] == '/')
				return nic;
		}
	return NULL;
}

static void mtu_compare(const struct cc_node *a, const json_t *ja, const struct cc_node *b, const json_t *jb, json_t *list)
{
	const json_t *na = interface_of(a, ja), *nb = interface_of(b, jb);
	int ma = (int)json_integer_value(json_object_get(na, "mtu")), mb = (int)json_integer_value(json_object_get(nb, "mtu"));
	char fix[128];

	if (!na || !nb || ma == mb)
		return;
	snprintf(fix, sizeof(fix), "ip link set %.40s mtu %d, on node %.40s", cc_json_text(ma > mb ? na : nb, "name"),
		 ma > mb ? mb : ma, (ma > mb ? a : b)->name);
	finding_add(list, "problem", fix,
		    "MTU: node %s has %d on %s, node %s has %d on %s: what fits one frame of the one may be lost on its way",
		    a->name, ma, cc_json_text(na, "name"), b->name, mb, cc_json_text(nb, "name"));
}

/* The first port on that network; NULL: none. */
static const json_t *port_on(const json_t *host, const char *network)
{
	const json_t *p;
	size_t i;

	json_array_foreach(json_object_get(json_object_get(host, "fabric"), "ports"), i, p)
	{
		if (*network && !strcmp(cc_json_text(p, "network"), network))
			return p;
	}
	return NULL;
}

static void rdma_compare(const struct cc_node *a, const json_t *ja, const struct cc_node *b, const json_t *jb, json_t *list)
{
	const json_t *pa, *pb;
	size_t i;

	json_array_foreach(json_object_get(json_object_get(ja, "fabric"), "ports"), i, pa)
	{
		int ma, mb;

		pb = port_on(jb, cc_json_text(pa, "network"));
		ma = (int)json_integer_value(json_object_get(pa, "mtu"));
		mb = (int)json_integer_value(json_object_get(pb, "mtu"));
		if (pb && ma && mb && ma != mb)
			finding_add(list, "note", "",
				    "RDMA: packets of %d bytes at node %s (%s) and %d at node %s (%s): verbs uses the smaller; give "
				    "both interfaces the same MTU",
				    ma, a->name, cc_json_text(pa, "device"), mb, b->name, cc_json_text(pb, "device"));
	}
}

void cc_fabric_compare(const struct cc_node *a, const json_t *ja, const struct cc_node *b, const json_t *jb,
		       json_t *findings)
{
	mtu_compare(a, ja, b, jb, findings);
	rdma_compare(a, ja, b, jb, findings);
}
