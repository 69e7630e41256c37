/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/paths/ofi.c - the path of the backend "ofi": reliable datagrams of libfabric (FI_EP_RDM).
 *
 * What      One endpoint per fabric; peers are entries of its address vector.  Whatever provider offers reliable, ordered
 *           messages will do: tcp, verbs;ofi_rxm, shm, ...; `device` picks one ("shm", "tcp", "verbs;ofi_rxm"; a
 *           domain name after a slash), else libfabric's first choice.
 * Owns      Everything of libfabric.
 * Threads   slots.h.  The endpoint is shared by senders and poller: FI_THREAD_SAFE is asked for.
 * I/O       The provider's.
 * Sources   fi_endpoint(3), fi_cq(3), fi_msg(3) of libfabric 1.17.
 * Limits    A provider that cannot hold a receive for every slot gets fewer: it keeps what comes beyond them
 *           (FI_RM_ENABLED).  One without a wait descriptor (shm) cannot wake a sleeper: then nobody sleeps long.
 */
#include "interconnect/paths/slots.h"

#include "base/log.h"

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct port {
	struct ic_path *slots;
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_av *av;
	struct fid_cq *cq;
	struct fid_ep *ep;
	struct fid_mr *mr;
	void *desc;
	size_t posted; /* receives, at most rx_attr->size */
	int fd;
};

struct port_link {
	struct port *p;
	fi_addr_t addr;
};

/* What libfabric says, as -errno; it logs once, here. */
static int failed(const char *what, int ret)
{
	log_error("ofi: %s: %s", what, fi_strerror(-ret));
	return ret == -FI_ENODATA || ret == -FI_ENOSYS ? -ENODEV : ret < -255 || ret >= 0 ? -EIO : ret;
}

/* "provider/domain", both may be absent. */
static int info_get(const char *device, struct fi_info **out)
{
	struct fi_info *hints = fi_allocinfo();
	const char *slash = strchr(device, '/');
	size_t len = slash ? (size_t)(slash - device) : strlen(device);
	int ret;

	if (!hints)
		return -ENOMEM;
	hints->caps = FI_MSG;
	hints->mode = FI_CONTEXT;
	hints->ep_attr->type = FI_EP_RDM;
	hints->tx_attr->msg_order = hints->rx_attr->msg_order = FI_ORDER_SAS;
	hints->domain_attr->threading = FI_THREAD_SAFE;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
	if (len)
		hints->fabric_attr->prov_name = strndup(device, len);
	if (slash && slash[1])
		hints->domain_attr->name = strdup(slash + 1);
	ret = fi_getinfo(FI_VERSION(1, 15), NULL, NULL, 0, hints, out);
	fi_freeinfo(hints);
	return ret ? failed(len ? device : "no provider of reliable messages", ret) : 0;
}

static void ofi_close(struct port *p)
{
	struct fid *const all[] = { p->ep ? &p->ep->fid : NULL, p->mr ? &p->mr->fid : NULL,
				    p->cq ? &p->cq->fid : NULL, p->av ? &p->av->fid : NULL,
				    p->domain ? &p->domain->fid : NULL, p->fabric ? &p->fabric->fid : NULL };

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (all[i] && fi_close(all[i]))
			log_debug("ofi: close %zu", i);
	if (p->info)
		fi_freeinfo(p->info);
	free(p);
}

static int cq_open(struct port *p)
{
	struct fi_cq_attr attr = { .format = FI_CQ_FORMAT_MSG, .wait_obj = FI_WAIT_FD };

	p->fd = -1;
	if (fi_cq_open(p->domain, &attr, &p->cq, NULL) || fi_control(&p->cq->fid, FI_GETWAIT, &p->fd)) {
		if (p->cq)
			fi_close(&p->cq->fid);
		p->cq = NULL;
		p->fd = -1;
		attr.wait_obj = FI_WAIT_NONE;
		return fi_cq_open(p->domain, &attr, &p->cq, NULL);
	}
	return 0;
}

static int endpoint_open(struct port *p, void *block, size_t bytes)
{
	struct fi_av_attr av = { .type = FI_AV_TABLE, .count = NODES_MAX };
	int ret = fi_fabric(p->info->fabric_attr, &p->fabric, NULL);

	if (ret)
		return failed("fabric", ret);
	ret = fi_domain(p->fabric, p->info, &p->domain, NULL);
	if (ret)
		return failed("domain", ret);
	ret = fi_av_open(p->domain, &av, &p->av, NULL);
	if (!ret)
		ret = cq_open(p);
	if (!ret)
		ret = fi_endpoint(p->domain, p->info, &p->ep, NULL);
	if (!ret)
		ret = fi_ep_bind(p->ep, &p->av->fid, 0);
	if (!ret)
		ret = fi_ep_bind(p->ep, &p->cq->fid, FI_TRANSMIT | FI_RECV);
	if (!ret)
		ret = fi_enable(p->ep);
	if (ret)
		return failed("endpoint", ret);
	if (p->info->domain_attr->mr_mode & FI_MR_LOCAL) {
		ret = fi_mr_reg(p->domain, block, bytes, FI_SEND | FI_RECV, 0, 0, 0, &p->mr, NULL);
		if (ret)
			return failed("cannot register memory (ulimit -l?)", ret);
		p->desc = fi_mr_desc(p->mr);
	}
	return 0;
}

static int ofi_open(const char *device, struct ic_path *slots, void *block, size_t bytes, struct port **out)
{
	struct port *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->slots = slots;
	err = info_get(device, &p->info);
	if (!err)
		err = endpoint_open(p, block, bytes);
	if (err) {
		ofi_close(p);
		return err;
	}
	log_info("ofi: provider %s domain %s%s", p->info->fabric_attr->prov_name, p->info->domain_attr->name,
		 p->fd < 0 ? ", no wait descriptor" : "");
	*out = p;
	return 0;
}

/* --- links -------------------------------------------------------------------------------------------------------- */

static int ofi_link_open(struct port *p, struct ic_path_link *slots, node_id peer, struct port_link **out,
			 uint8_t *offer, uint16_t *len, uint16_t room)
{
	struct port_link *l = calloc(1, sizeof(*l));
	size_t bytes = room;
	int ret;

	(void)slots;
	(void)peer;
	if (!l)
		return -ENOMEM;
	l->p = p;
	l->addr = FI_ADDR_UNSPEC;
	ret = fi_getname(&p->ep->fid, offer, &bytes);
	if (ret) {
		free(l);
		return failed("own address", ret);
	}
	*len = (uint16_t)bytes;
	*out = l;
	return 0;
}

static int ofi_link_connect(struct port_link *l, const uint8_t *offer, uint16_t len)
{
	uint8_t name[IC_OFFER_MAX] = { 0 };

	/* libfabric believes the length that the address format implies. */
	if (!len)
		return -EPROTO;
	memcpy(name, offer, len);
	return fi_av_insert(l->p->av, name, 1, &l->addr, 0, NULL) == 1 ? 0 : -EPROTO;
}

static void ofi_link_close(struct port_link *l)
{
	if (l->addr != FI_ADDR_UNSPEC && fi_av_remove(l->p->av, &l->addr, 1, 0))
		log_debug("ofi: address not removed");
	free(l);
}

/* --- data --------------------------------------------------------------------------------------------------------- */

static int ofi_post_send(struct port_link *l, struct slots_tx *slot, size_t len)
{
	struct port *p = l->p;
	ssize_t ret;

	if (len <= p->info->tx_attr->inject_size) {
		ret = fi_inject(p->ep, slot->bytes, len, l->addr);
		if (!ret)
			slots_sent(slot);
	} else {
		ret = fi_send(p->ep, slot->bytes, len, p->desc, l->addr, slot->context);
	}
	return !ret ? 0 : ret == -FI_EAGAIN ? -EAGAIN : -EPROTO;
}

static int ofi_post_recv(struct port *p, struct slots_rx *slot)
{
	ssize_t ret;

	if (p->posted >= p->info->rx_attr->size)
		return 0;
	do /* manual progress: the provider may want to work first, but there is always room for what was here */
		ret = fi_recv(p->ep, slot->bytes, SLOT_BYTES, p->desc, FI_ADDR_UNSPEC, slot->context);
	while (ret == -FI_EAGAIN);
	p->posted += !ret;
	return ret ? failed("receive", (int)ret) : 0;
}

static void received(struct port *p, void *context, size_t len)
{
	p->posted--;
	slots_received(p->slots, slots_rx_of(context), len);
}

/* False: there was none. */
static bool completion_error(struct port *p)
{
	struct fi_cq_err_entry e = { 0 };

	if (fi_cq_readerr(p->cq, &e, 0) != 1)
		return false;
	log_debug("ofi: completion: %s", fi_strerror(e.err));
	if (!e.op_context)
		return true;
	if (e.flags & FI_RECV)
		received(p, e.op_context, 0);
	else
		slots_failed(p->slots, slots_tx_of(e.op_context));
	return true;
}

static int ofi_poll(struct port *p, unsigned budget)
{
	struct fi_cq_msg_entry done[SLOTS_BATCH];
	ssize_t n = fi_cq_read(p->cq, done, budget);

	if (n == -FI_EAGAIN)
		return 0;
	if (n == -FI_EAVAIL)
		return completion_error(p) ? (int)budget : 0; /* there may be more */
	if (n < 0)
		return failed("completions", (int)n);
	for (ssize_t i = 0; i < n; i++) {
		if (done[i].flags & FI_RECV)
			received(p, done[i].op_context, done[i].len);
		else
			slots_sent(slots_tx_of(done[i].op_context));
	}
	return (int)n;
}

static bool ofi_sleep(struct port *p, bool on)
{
	struct fid *const fids[] = { &p->cq->fid };

	/* -FI_EAGAIN: something is there that the descriptor will not tell. */
	return on && p->fd >= 0 && fi_trywait(p->fabric, (struct fid **)(uintptr_t)fids, 1) != FI_SUCCESS;
}

static int ofi_fd(struct port *p)
{
	return p->fd;
}

static const struct port_ops ofi_ops = {
	.lazy = true,
	.open = ofi_open,
	.close = ofi_close,
	.link_open = ofi_link_open,
	.link_connect = ofi_link_connect,
	.link_close = ofi_link_close,
	.post_send = ofi_post_send,
	.post_recv = ofi_post_recv,
	.poll = ofi_poll,
	.sleep = ofi_sleep,
	.fd = ofi_fd,
};

static int path_open(const char *device, const struct ic_path_host *host, unsigned nodes, struct ic_path **out)
{
	return slots_open(&ofi_ops, device, host, nodes, out);
}

const struct ic_path_ops ic_path_ofi = SLOTS_PATH_OPS(path_open);

/* A line for each provider and domain that would do. */
void ic_offers_ofi(char *text, size_t size)
{
	struct fi_info *list = NULL;
	size_t used = 0;

	text[0] = 0;
	if (info_get("", &list))
		return;
	for (struct fi_info *i = list; i && used < size; i = i->next) {
		char line[160];

		snprintf(line, sizeof(line), "%s/%s\n", i->fabric_attr->prov_name, i->domain_attr->name);
		if (!strstr(text, line)) /* one for each address of the same */
			used += (size_t)snprintf(text + used, size - used, "%s", line);
	}
	fi_freeinfo(list);
}
