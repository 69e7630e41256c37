/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/bare_ucx.c - two workers of UCP that send each other active messages, and nothing else.
 *
 * Sources   ucp.h of UCX 1.13.
 */
#include "tests/bench/bare.h"

#include "base/assert.h"
#include "base/err.h"

#include <string.h>
#include <ucp/api/ucp.h>

static struct {
	ucp_context_h context;
	ucp_worker_h worker;
	ucp_ep_h ep;
	unsigned under_way, received;
} b;

static ucs_status_t on_message(void *arg, const void *header, size_t header_len, void *data, size_t len,
			       const ucp_am_recv_param_t *param)
{
	(void)arg;
	(void)header;
	(void)header_len;
	(void)data;
	(void)len;
	ASSERT(!(param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV));
	b.received++;
	return UCS_OK;
}

static int ucx_open(const char *device, unsigned node, void *shared, uint8_t *address, unsigned *len)
{
	ucp_params_t params = { .field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP };
	ucp_worker_params_t worker = { .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
				       .thread_mode = UCS_THREAD_MODE_SINGLE };
	ucp_am_handler_param_t handler = { .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB,
					   .cb = on_message };
	ucp_address_t *own;
	size_t own_len;

	(void)device; /* the same environment decides for both */
	(void)node;
	(void)shared;
	if (ucp_init(&params, NULL, &b.context) != UCS_OK ||
	    ucp_worker_create(b.context, &worker, &b.worker) != UCS_OK)
		return -ENODEV;
	ASSERT(ucp_worker_set_am_recv_handler(b.worker, &handler) == UCS_OK &&
	       ucp_worker_get_address(b.worker, &own, &own_len) == UCS_OK && own_len <= *len);
	memcpy(address, own, own_len);
	*len = (unsigned)own_len;
	ucp_worker_release_address(b.worker, own);
	return 0;
}

static void ucx_connect(const uint8_t *address, unsigned len)
{
	ucp_ep_params_t params = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
				   .address = (const ucp_address_t *)(const void *)address };

	(void)len;
	ASSERT(ucp_ep_create(b.worker, &params, &b.ep) == UCS_OK);
}

static void on_sent(void *request, ucs_status_t status, void *arg)
{
	(void)arg;
	ASSERT(status == UCS_OK);
	b.under_way--;
	ucp_request_free(request);
}

static bool ucx_send(const void *at, unsigned len)
{
	ucp_request_param_t param = { .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_FLAGS,
				      .flags = UCP_AM_SEND_FLAG_EAGER,
				      .cb.send = on_sent };
	void *request;

	if (b.under_way == BARE_DEPTH) {
		ucp_worker_progress(b.worker);
		return false;
	}
	b.under_way++;
	request = ucp_am_send_nbx(b.ep, 0, NULL, 0, at, len, &param);
	ASSERT(!UCS_PTR_IS_ERR(request));
	b.under_way -= !request;
	return true;
}

static bool ucx_recv(unsigned len)
{
	(void)len;
	if (!b.received)
		ucp_worker_progress(b.worker);
	if (!b.received)
		return false;
	b.received--;
	return true;
}

static void ucx_sleep(void)
{
	ASSERT(ucp_worker_wait(b.worker) == UCS_OK);
}

extern const struct bare_ops bare_ucx;
const struct bare_ops bare_ucx = { ucx_open, ucx_connect, ucx_send, ucx_recv, ucx_sleep };
