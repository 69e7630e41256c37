/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/bare_ofi.c - two endpoints of libfabric's reliable datagrams (FI_EP_RDM), and nothing else.
 *
 * Sources   fi_endpoint(3), fi_cq(3), fi_msg(3) of libfabric 1.17.
 */
#include "tests/bench/bare.h"

#include "base/assert.h"
#include "base/err.h"

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <string.h>

static struct {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_av *av;
	struct fid_cq *cq;
	struct fid_ep *ep;
	fi_addr_t to;
	void *desc;
	unsigned under_way, received, receives;
	bool waits;
	struct fi_context context[2 * BARE_DEPTH];
	uint8_t tx[BARE_DEPTH][BARE_MESSAGE_MAX], rx[BARE_DEPTH][BARE_MESSAGE_MAX];
	unsigned tx_next;
} b;

static void receive_into(unsigned i)
{
	ssize_t ret;

	do
		ret = fi_recv(b.ep, b.rx[i], sizeof(b.rx[i]), b.desc, FI_ADDR_UNSPEC, &b.context[i]);
	while (ret == -FI_EAGAIN);
	ASSERT(!ret);
}

static int ofi_open(const char *device, unsigned node, void *shared, uint8_t *address, unsigned *len)
{
	struct fi_av_attr av = { .type = FI_AV_TABLE, .count = 2 };
	struct fi_cq_attr cq = { .format = FI_CQ_FORMAT_MSG, .wait_obj = FI_WAIT_UNSPEC };
	struct fi_info *hints = fi_allocinfo();
	size_t room = *len;
	struct fid_mr *mr;

	(void)node;
	(void)shared;
	ASSERT(hints);
	hints->caps = FI_MSG;
	hints->mode = FI_CONTEXT;
	hints->ep_attr->type = FI_EP_RDM;
	hints->tx_attr->msg_order = hints->rx_attr->msg_order = FI_ORDER_SAS;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	if (*device)
		hints->fabric_attr->prov_name = strdup(device);
	if (fi_getinfo(FI_VERSION(1, 15), NULL, NULL, 0, hints, &b.info))
		return -ENODEV;
	fi_freeinfo(hints);
	ASSERT(!fi_fabric(b.info->fabric_attr, &b.fabric, NULL) && !fi_domain(b.fabric, b.info, &b.domain, NULL) &&
	       !fi_av_open(b.domain, &av, &b.av, NULL));
	b.waits = !fi_cq_open(b.domain, &cq, &b.cq, NULL);
	cq.wait_obj = FI_WAIT_NONE;
	ASSERT(b.waits || !fi_cq_open(b.domain, &cq, &b.cq, NULL));
	ASSERT(!fi_endpoint(b.domain, b.info, &b.ep, NULL) && !fi_ep_bind(b.ep, &b.av->fid, 0) &&
	       !fi_ep_bind(b.ep, &b.cq->fid, FI_TRANSMIT | FI_RECV) && !fi_enable(b.ep));
	if (b.info->domain_attr->mr_mode & FI_MR_LOCAL) {
		ASSERT(!fi_mr_reg(b.domain, &b, sizeof(b), FI_SEND | FI_RECV, 0, 0, 0, &mr, NULL));
		b.desc = fi_mr_desc(mr);
	}
	b.receives = b.info->rx_attr->size < BARE_DEPTH ? (unsigned)b.info->rx_attr->size : BARE_DEPTH;
	for (unsigned i = 0; i < b.receives; i++)
		receive_into(i);
	ASSERT(!fi_getname(&b.ep->fid, address, &room));
	*len = (unsigned)room;
	return 0;
}

static void ofi_connect(const uint8_t *address, unsigned len)
{
	(void)len;
	ASSERT(fi_av_insert(b.av, address, 1, &b.to, 0, NULL) == 1);
}

static void completions(const struct fi_cq_msg_entry *done, ssize_t n)
{
	ASSERT(n > 0 || n == -FI_EAGAIN);
	for (ssize_t i = 0; i < n; i++) {
		if (done[i].flags & FI_RECV) {
			b.received++;
			receive_into((unsigned)((struct fi_context *)done[i].op_context - b.context));
		} else {
			b.under_way--;
		}
	}
}

static void progress(void)
{
	struct fi_cq_msg_entry done[16];

	completions(done, fi_cq_read(b.cq, done, 16));
}

static bool ofi_send(const void *at, unsigned len)
{
	uint8_t *tx = b.tx[b.tx_next];
	ssize_t ret;

	if (b.under_way == BARE_DEPTH) {
		progress();
		return false;
	}
	if (len <= b.info->tx_attr->inject_size) {
		ret = fi_inject(b.ep, at, len, b.to);
	} else {
		ret = fi_send(b.ep, tx, len, b.desc, b.to, &b.context[BARE_DEPTH + b.tx_next]);
		if (!ret) {
			b.under_way++;
			b.tx_next = (b.tx_next + 1) % BARE_DEPTH;
		}
	}
	ASSERT(!ret || ret == -FI_EAGAIN);
	if (ret)
		progress();
	return !ret;
}

static bool ofi_recv(unsigned len)
{
	(void)len;
	if (!b.received)
		progress();
	if (!b.received)
		return false;
	b.received--;
	return true;
}

static void ofi_sleep(void)
{
	struct fi_cq_msg_entry done[16];

	if (b.waits)
		completions(done, fi_cq_sread(b.cq, done, 16, NULL, 1000));
	else
		progress();
}

extern const struct bare_ops bare_ofi;
const struct bare_ops bare_ofi = { ofi_open, ofi_connect, ofi_send, ofi_recv, ofi_sleep };
