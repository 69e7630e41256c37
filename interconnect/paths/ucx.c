/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/paths/ucx.c - the path of the backend "ucx": active messages of UCP.
 *
 * What      One worker per fabric, one endpoint per peer, all messages eager, so that they are copied once and arrive in
 *           the order in which they were sent (frames are numbered: anything else would end the link).  `device`: a
 *           list for UCX_NET_DEVICES, else UCX chooses: shared memory between processes of a host, RDMA, TCP.
 * Owns      Everything of UCX.
 * Threads   slots.h.  The worker is shared by senders and poller: UCS_THREAD_MODE_MULTI.
 * I/O       UCX's.
 * Sources   ucp.h of UCX 1.13.
 */
#include "interconnect/paths/slots.h"

#include "base/clock.h"
#include "base/log.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#define AM_ID 0
#define LEAVE_NS (200 * NS_PER_MS) /* how long closing waits for endpoints that are still connecting */
#define RDMA_DEVICES "/sys/class/infiniband"
#define GIDS 16
#define GID_NONE "0000:0000:0000:0000:0000:0000:0000:0000"
#define GID_IPV4 "0000:0000:0000:0000:0000:ffff:"

struct port {
	struct ic_path *slots;
	ucp_context_h context;
	ucp_worker_h worker;
	int fd;
	/* Only the thread inside poll: slots that are free, and what has come and is not yet given on, in order. */
	struct slots_rx **free;
	struct arrived {
		struct slots_rx *slot;
		size_t len;
	} *arrived; /* a ring of slots_max */
	unsigned slots_max, free_count, arrived_first;
	_Atomic unsigned arrived_count;
	_Atomic bool armed;
	struct port_link *failed;  /* links whose endpoint is broken */
	struct port_link *leaving; /* closed by us, and not yet by UCX: see ucx_link_close */
};

struct port_link {
	struct port *p;
	struct ic_path_link *slots;
	ucp_ep_h ep;
	bool broken, leaving;
	_Atomic bool wired; /* something has left: the two workers have met */
	struct port_link *next; /* in port.failed or port.leaving */
};
STATIC_ASSERT(sizeof(struct port_link *) <= SLOT_CONTEXT, "a slot that is being sent names its link");

static int failed(const char *what, ucs_status_t status)
{
	log_error("ucx: %s: %s", what, ucs_status_string(status));
	switch (status) {
	case UCS_ERR_NO_DEVICE:
		return -ENODEV;
	case UCS_ERR_NO_MEMORY:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

/* Inside ucp_worker_progress, which holds the lock that senders want: only kept here, given on after. */
static ucs_status_t on_message(void *arg, const void *header, size_t header_len, void *data, size_t len,
			       const ucp_am_recv_param_t *param)
{
	struct port *p = arg;
	struct slots_rx *slot;

	(void)header;
	/* We never send anything but eager messages without a header, nor more than there are slots. */
	if (header_len || (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) || len > SLOT_BYTES || !p->free_count)
		return UCS_OK;
	slot = p->free[--p->free_count];
	memcpy(slot->bytes, data, len);
	p->arrived[(p->arrived_first + p->arrived_count) % p->slots_max] = (struct arrived){ slot, len };
	p->arrived_count++;
	return UCS_OK;
}

static void port_free(struct port *p)
{
	if (p->worker)
		ucp_worker_destroy(p->worker);
	if (p->context)
		ucp_cleanup(p->context);
	free(p->free);
	free(p->arrived);
	free(p);
}

/* The number of an address of soft-RoCE's only port that is not IPv4; -1: it has none. */
static int gid_find(const char *name)
{
	char path[PATH_MAX], gid[64];
	int found = -1;

	for (int i = 0; i < GIDS && found < 0; i++) {
		FILE *f;

		snprintf(path, sizeof(path), RDMA_DEVICES "/%s/ports/1/gids/%d", name, i);
		f = fopen(path, "re");
		if (f && fgets(gid, sizeof(gid), f) && strncmp(gid, GID_NONE, strlen(GID_NONE)) &&
		    strncmp(gid, GID_IPV4, strlen(GID_IPV4)))
			found = i;
		if (f)
			fclose(f);
	}
	return found;
}

/*
 * UCX takes a RoCE port's IPv4 address first, but 1.13 drops soft-RoCE's IPv4 packets while it connects, and never gets to an end.
 * Another address then, where all RDMA devices that may be used are soft (these have a file `parent`) and the user
 * has not chosen one.
 */
static ucs_status_t gid_choose(ucp_config_t *config, const char *devices)
{
	DIR *dir = getenv("UCX_IB_GID_INDEX") ? NULL : opendir(RDMA_DEVICES);
	char path[PATH_MAX], number[12];
	int index = -1;

	for (struct dirent *e; dir && (e = readdir(dir));) {
		const char *listed = strstr(devices, e->d_name);

		if (e->d_name[0] == '.' || (*devices && (!listed || listed[strlen(e->d_name)] != ':')))
			continue;
		snprintf(path, sizeof(path), RDMA_DEVICES "/%s/parent", e->d_name);
		index = access(path, F_OK) ? -1 : gid_find(e->d_name);
		if (index < 0)
			break;
	}
	if (dir)
		closedir(dir);
	snprintf(number, sizeof(number), "%d", index);
	return index < 0 ? UCS_OK : ucp_config_modify(config, "GID_INDEX", number);
}

static int context_open(struct port *p, const char *device)
{
	ucp_params_t params = { .field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED,
				.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
				.mt_workers_shared = 1 };
	ucp_config_t *config;
	ucs_status_t status = ucp_config_read(NULL, NULL, &config);

	if (status != UCS_OK)
		return failed("configuration", status);
	if (*device)
		status = ucp_config_modify(config, "NET_DEVICES", device);
	if (status == UCS_OK)
		status = gid_choose(config, device);
	if (status == UCS_OK)
		status = ucp_init(&params, config, &p->context);
	ucp_config_release(config);
	return status == UCS_OK ? 0 : failed(*device ? device : "context", status);
}

static int worker_open(struct port *p)
{
	ucp_worker_params_t params = { .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
				       .thread_mode = UCS_THREAD_MODE_MULTI };
	ucp_am_handler_param_t handler = { .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
							 UCP_AM_HANDLER_PARAM_FIELD_ARG,
					   .id = AM_ID,
					   .cb = on_message,
					   .arg = p };
	ucs_status_t status = ucp_worker_create(p->context, &params, &p->worker);

	if (status == UCS_OK)
		status = ucp_worker_set_am_recv_handler(p->worker, &handler);
	if (status == UCS_OK)
		status = ucp_worker_get_efd(p->worker, &p->fd);
	return status == UCS_OK ? 0 : failed("worker", status);
}

static int ucx_open(const char *device, struct ic_path *slots, void *block, size_t bytes, struct port **out)
{
	struct port *p = calloc(1, sizeof(*p));
	int err;

	(void)block;
	if (!p)
		return -ENOMEM;
	p->slots = slots;
	p->slots_max = (unsigned)(bytes / SLOT_BYTES);
	p->free = calloc(p->slots_max, sizeof(struct slots_rx *));
	p->arrived = calloc(p->slots_max, sizeof(*p->arrived));
	err = p->free && p->arrived ? context_open(p, device) : -ENOMEM;
	if (!err)
		err = worker_open(p);
	if (err) {
		port_free(p);
		return err;
	}
	*out = p;
	return 0;
}

/* --- links -------------------------------------------------------------------------------------------------------- */

static int ucx_link_open(struct port *p, struct ic_path_link *slots, node_id peer, struct port_link **out,
			 uint8_t *offer, uint16_t *len, uint16_t room)
{
	struct port_link *l;
	ucp_address_t *address;
	size_t bytes;
	ucs_status_t status = ucp_worker_get_address(p->worker, &address, &bytes);

	(void)peer;
	if (status != UCS_OK)
		return failed("own address", status);
	if (bytes > room)
		log_error("ucx: own address has %zu bytes; name fewer devices in the topology (fabric: device)", bytes);
	else
		memcpy(offer, address, bytes);
	ucp_worker_release_address(p->worker, address);
	if (bytes > room)
		return -E2BIG;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->p = p;
	l->slots = slots;
	*len = (uint16_t)bytes;
	*out = l;
	return 0;
}

/* Inside ucp_worker_progress. */
static void on_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
	struct port_link *l = arg;

	(void)ep;
	log_debug("ucx: link: %s", ucs_status_string(status));
	if (l->broken)
		return;
	l->broken = true;
	if (l->leaving)
		return;
	l->next = l->p->failed;
	l->p->failed = l;
}

/* The bytes come from a proven peer of this VM, but UCX trusts them: a wrong address is a connection that fails. */
static int ucx_link_connect(struct port_link *l, const uint8_t *offer, uint16_t len)
{
	ucp_ep_params_t params = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
						 UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
						 UCP_EP_PARAM_FIELD_ERR_HANDLER,
				   .address = (const ucp_address_t *)(const void *)offer,
				   .err_mode = UCP_ERR_HANDLING_MODE_PEER,
				   .err_handler = { on_error, l } };
	ucs_status_t status;

	if (!len)
		return -EPROTO;
	status = ucp_ep_create(l->p->worker, &params, &l->ep);
	return status == UCS_OK ? 0 : failed("endpoint", status);
}

static void link_end(struct port_link *l)
{
	ucp_request_param_t param = { .op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE };
	void *request;

	l->broken = true; /* on_error has nothing to add */
	request = l->ep ? ucp_ep_close_nbx(l->ep, &param) : NULL;
	/* Forced: ends without the other side, and with it every send that was under way. */
	if (UCS_PTR_IS_PTR(request)) {
		while (ucp_request_check_status(request) == UCS_INPROGRESS)
			ucp_worker_progress(l->p->worker);
		ucp_request_free(request);
	}
	free(l);
}

/* UCX 1.13 may abort when an endpoint is closed by force before the two workers have met: such a one stays until they have,
 * or until UCX gives up by itself.  What it sends in the end is not heard: its nonce is that of no link. */
static void ucx_link_close(struct port_link *l)
{
	struct port *p = l->p;

	for (struct port_link **at = &p->failed; *at; at = &(*at)->next)
		if (*at == l) {
			*at = l->next;
			break;
		}
	if (!l->ep || l->wired || l->broken) {
		link_end(l);
		return;
	}
	l->leaving = true;
	l->next = p->leaving;
	p->leaving = l;
}

static void leaving_end(struct port *p)
{
	for (struct port_link **at = &p->leaving; *at;) {
		struct port_link *l = *at;

		if (!l->wired && !l->broken) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		link_end(l);
	}
}

static void ucx_close(struct port *p)
{
	uint64_t until = clock_now_ns() + LEAVE_NS;

	while (p->leaving && clock_now_ns() < until) {
		ucp_worker_progress(p->worker);
		leaving_end(p);
	}
	if (p->leaving) {
		log_warn("ucx: a worker that was still connecting stays until the process ends");
		return;
	}
	port_free(p);
}

/* --- data --------------------------------------------------------------------------------------------------------- */

static void on_sent(void *request, ucs_status_t status, void *arg)
{
	struct slots_tx *slot = arg;
	struct port_link *l;

	/* That it failed, on_error tells. */
	memcpy(&l, slot->context, sizeof(l));
	if (status == UCS_OK)
		l->wired = true;
	slots_sent(slot);
	ucp_request_free(request);
}

static int ucx_post_send(struct port_link *l, struct slots_tx *slot, size_t len)
{
	ucp_request_param_t param = { .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
						      UCP_OP_ATTR_FIELD_FLAGS,
				      .flags = UCP_AM_SEND_FLAG_EAGER,
				      .cb.send = on_sent,
				      .user_data = slot };
	void *request;

	memcpy(slot->context, &l, sizeof(l));
	request = ucp_am_send_nbx(l->ep, AM_ID, NULL, 0, slot->bytes, len, &param);
	if (UCS_PTR_IS_ERR(request))
		return UCS_PTR_STATUS(request) == UCS_ERR_NO_RESOURCE ? -EAGAIN : -EPROTO;
	if (!request) { /* done at once */
		l->wired = true;
		slots_sent(slot);
	}
	return 0;
}

static int ucx_post_recv(struct port *p, struct slots_rx *slot)
{
	p->free[p->free_count++] = slot;
	return 0;
}

static int ucx_poll(struct port *p, unsigned budget)
{
	unsigned rounds = 0, count = 0;

	/* Not until nothing is left: over sockets each look costs system calls, and what is left keeps the descriptor
	 * readable. */
	while (!p->arrived_count && rounds++ < budget && ucp_worker_progress(p->worker))
		;
	for (; p->arrived_count && count < budget; count++) {
		struct arrived a = p->arrived[p->arrived_first];

		p->arrived_first = (p->arrived_first + 1) % p->slots_max;
		p->arrived_count--;
		slots_received(p->slots, a.slot, a.len);
	}
	while (p->failed) {
		struct port_link *l = p->failed;

		p->failed = l->next;
		slots_broken(l->slots);
	}
	leaving_end(p);
	return (int)count;
}

/* What comes between the last poll and arming tells nobody on some devices (verbs promise no event for it, and soft-RoCE
 * gives none): so who has armed is busy, polls once more, and sleeps the next time. */
static bool ucx_sleep(struct port *p, bool on)
{
	if (!on)
		return false;
	if (p->arrived_count)
		return true;
	if (atomic_exchange(&p->armed, false))
		return false;
	atomic_store(&p->armed, ucp_worker_arm(p->worker) == UCS_OK);
	return true;
}

static int ucx_fd(struct port *p)
{
	return p->fd;
}

static const struct port_ops ucx_ops = {
	.lazy = true,
	.open = ucx_open,
	.close = ucx_close,
	.link_open = ucx_link_open,
	.link_connect = ucx_link_connect,
	.link_close = ucx_link_close,
	.post_send = ucx_post_send,
	.post_recv = ucx_post_recv,
	.poll = ucx_poll,
	.sleep = ucx_sleep,
	.fd = ucx_fd,
};

static int path_open(const char *device, const struct ic_path_host *host, unsigned nodes, struct ic_path **out)
{
	return slots_open(&ucx_ops, device, host, nodes, out);
}

const struct ic_path_ops ic_path_ucx = SLOTS_PATH_OPS(path_open);

/* UCP tells its resources only in print: "# resource 2 : md 1 dev 2 flags -- tcp/eth0". */
void ic_offers_ucx(char *text, size_t size)
{
	struct port p = { 0 };
	char *print = NULL, *line, *rest = NULL;
	size_t len = 0, used = 0;
	FILE *f = open_memstream(&print, &len);

	text[0] = 0;
	if (f && !context_open(&p, ""))
		ucp_context_print_info(p.context, f);
	if (f)
		fclose(f);
	for (line = strtok_r(print, "\n", &rest); line && used < size; line = strtok_r(NULL, "\n", &rest)) {
		const char *name = strrchr(line, ' ');

		if (strstr(line, "resource ") && name && strchr(name, '/'))
			used += (size_t)snprintf(text + used, size - used, "%s\n", name + 1);
	}
	if (p.context)
		ucp_cleanup(p.context);
	free(print);
}
