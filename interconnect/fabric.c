/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/fabric.c - one fabric: picks a backend, guards progress, hands messages to their port.
 *
 * Owns      struct ic_fabric.
 * Threads   As fabric.h.  progress_lock (rank: outermost, only ever tried) is held around the backend's
 *           progress, hence around every handler.
 * I/O       None; the backend's.
 */
#include "interconnect/fabric_priv.h"

#include "base/assert.h"
#include "base/log.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Those with a `plugin` are shared objects of their own, so that only who uses a library needs to have it. */
static const struct backend_entry {
	struct ic_backend backend;
	const char *plugin;
} backends[] = {
	{ { "tcp", &ic_transport_stream, NULL, NULL }, NULL },
	{ { "shm", &ic_transport_stream, &ic_path_shm, NULL }, NULL },
	{ { "verbs", &ic_transport_stream, NULL, NULL }, "unum-path-verbs.so" },
	{ { "ofi", &ic_transport_stream, NULL, NULL }, "unum-path-ofi.so" },
	{ { "ucx", &ic_transport_stream, NULL, NULL }, "unum-path-ucx.so" },
};

/* UCX and libfabric's PSM providers take SIGBUS and SIGSEGV for their own, and UCX patches the C library's mmap, as soon as
 * they are loaded: the engines need both as they are.  libfabric makes queues for as many peers as it is
 * told to, and soft-RoCE has none for its 256; without a shared receive queue it uses closed ones there.  Its shm provider would let the other side
 * read our memory (process_vm_readv) for each page: its own copy is faster, and needs no right to do so. */
static const char *const plugin_env[][2] = { { "FI_UNIVERSE_SIZE", "64" },
					     { "FI_OFI_RXM_USE_SRX", "1" },
					     { "FI_SHM_DISABLE_CMA", "1" },
					     { "IPATH_NO_BACKTRACE", "1" },
					     { "HFI_NO_BACKTRACE", "1" },
					     { "UCX_ERROR_SIGNALS", "" },
					     { "UCX_HANDLE_ERRORS", "none" },
					     { "UCX_MEM_EVENTS", "no" },
					     { "UCX_WARN_UNUSED_ENV_VARS", "no" } };

static const char *const backend_names[] = { "tcp", "shm", "verbs", "ofi", "ucx", NULL };
STATIC_ASSERT(ARRAY_LEN(backend_names) == ARRAY_LEN(backends) + 1, "a name for every backend");

const char *const *ic_backend_names(void)
{
	return backend_names;
}

/* The shared object stays loaded: some of these libraries cannot be unloaded.  `why` of size `room`: when it cannot be. */
static int plugin_load(const struct backend_entry *e, struct ic_backend *out, char *why, size_t room)
{
	char symbol[64];
	void *so;

	for (size_t i = 0; i < ARRAY_LEN(plugin_env); i++)
		setenv(plugin_env[i][0], plugin_env[i][1], 0);
	so = dlopen(e->plugin, RTLD_NOW | RTLD_LOCAL);
	snprintf(symbol, sizeof(symbol), "ic_path_%s", e->backend.name);
	out->path = so ? dlsym(so, symbol) : NULL;
	if (!out->path) {
		snprintf(why, room, "%s", dlerror());
		return -ELIBACC;
	}
	snprintf(symbol, sizeof(symbol), "ic_offers_%s", e->backend.name);
	out->offers = (ic_offers_fn *)dlsym(so, symbol);
	return 0;
}

static int backend_find(const char *name, struct ic_backend *out, char *why, size_t room)
{
	*why = 0;
	for (size_t i = 0; i < ARRAY_LEN(backends); i++) {
		const struct backend_entry *e = &backends[i];

		if (strcmp(e->backend.name, name))
			continue;
		*out = e->backend;
		return e->plugin ? plugin_load(e, out, why, room) : 0;
	}
	return -EINVAL;
}

int ic_backend_try(const char *name, const char *device, char *text, size_t size)
{
	static const struct ic_path_host nobody; /* nothing arrives: no link is made */
	struct ic_backend backend;
	struct ic_path *path;
	int err = backend_find(name, &backend, text, size);

	if (err || !backend.path)
		return err;
	err = backend.path->open(device, &nobody, 2, &path);
	if (err)
		return err;
	backend.path->close(path);
	if (backend.offers)
		backend.offers(text, size);
	return 0;
}

int ic_open(const struct ic_config *cfg, struct ic_fabric **out)
{
	struct ic_backend backend;
	struct ic_fabric *f;
	char why[256] = "";
	int err = 0;

	if (cfg->sim) /* has no name: nobody's configuration can ask for it */
		backend = (struct ic_backend){ "sim", &ic_transport_sim, NULL, NULL };
	else
		err = cfg->backend ? backend_find(cfg->backend, &backend, why, sizeof(why)) : -EINVAL;
	if (err == -ELIBACC) {
		log_error("fabric: backend %s: %s", cfg->backend, why);
		return err;
	}
	if (err || !cfg->nodes || cfg->nodes > NODES_MAX || cfg->self >= cfg->nodes ||
	    !cfg->listen) {
		log_error("fabric: bad configuration backend %s node %u of %u",
			  cfg->backend ? cfg->backend : "-", cfg->self, cfg->nodes);
		return -EINVAL;
	}
	f = aligned_alloc(_Alignof(struct ic_fabric), sizeof(*f));
	if (!f)
		return -ENOMEM;
	memset(f, 0, sizeof(*f));
	f->cfg = *cfg;
	if (!f->cfg.dead_after_ms)
		f->cfg.dead_after_ms = IC_DEAD_AFTER_MS;
	f->backend = backend;
	f->ops = cfg->chaos.seed ? &ic_transport_chaos : backend.transport;
	pthread_mutex_init(&f->progress_lock, NULL);
	err = f->ops->open(f, &f->priv);
	if (err) {
		pthread_mutex_destroy(&f->progress_lock);
		free(f);
		return err;
	}
	f->cfg.listen = f->cfg.backend = f->cfg.device = NULL; /* the caller's, gone after this call */
	*out = f;
	return 0;
}

void ic_close(struct ic_fabric *f)
{
	f->ops->close(f->priv);
	pthread_mutex_destroy(&f->progress_lock);
	explicit_bzero(f->cfg.key, sizeof(f->cfg.key));
	free(f);
}

void ic_set_handler(struct ic_fabric *f, enum ic_port port, struct ic_handler handler)
{
	ASSERT(port < IC_PORTS);
	f->handlers[port] = handler;
}

void ic_address(struct ic_fabric *f, char out[static IC_ADDR_MAX])
{
	f->ops->address(f->priv, out);
}

int ic_join(struct ic_fabric *f, node_id peer, const char *address)
{
	if (peer >= f->cfg.nodes || peer == f->cfg.self)
		return -EINVAL;
	return f->ops->join(f->priv, peer, address);
}

int ic_send(struct ic_fabric *f, node_id to, const struct ic_msg *msg)
{
	ASSERT(to < f->cfg.nodes && to != f->cfg.self);
	ASSERT(msg->port < IC_PORTS && msg->body_len <= IC_BODY_MAX &&
	       msg->data_len <= IC_DATA_MAX);
	return f->ops->send(f->priv, to, msg);
}

int ic_progress(struct ic_fabric *f, unsigned budget)
{
	int n;

	if (pthread_mutex_trylock(&f->progress_lock))
		return -EBUSY;
	n = f->ops->progress(f->priv, budget);
	pthread_mutex_unlock(&f->progress_lock);
	return n;
}

void ic_wait(struct ic_fabric *f, uint64_t timeout_ns)
{
	f->ops->wait(f->priv, timeout_ns);
}

void ic_wake(struct ic_fabric *f)
{
	f->ops->wake(f->priv);
}

void ic_hush(struct ic_fabric *f, bool on)
{
	f->ops->hush(f->priv, on);
}

void ic_stats(struct ic_fabric *f, struct ic_stats *out)
{
	*out = (struct ic_stats){ 0 };
	for (unsigned i = 0; i < f->cfg.nodes; i++) {
		out->msgs_sent += f->sent[i].msgs;
		out->pages_sent += f->sent[i].pages;
		out->bytes_sent += f->sent[i].bytes;
	}
	out->msgs_received = f->count.msgs_received;
	out->pages_received = f->count.pages_received;
	out->bytes_received = f->count.bytes_received;
	out->refused = f->count.refused;
}

void ic_deliver(struct ic_fabric *f, node_id from, const struct ic_msg *msg)
{
	const struct ic_handler *h = &f->handlers[msg->port];

	ic_count_alone(&f->count.msgs_received, 1);
	ic_count_alone(&f->count.bytes_received, (uint64_t)msg->body_len + msg->data_len);
	ic_count_alone(&f->count.pages_received, msg->data_len == IC_DATA_MAX);
	if (h->on_message)
		h->on_message(h->arg, from, msg);
	else
		ic_refused(f, IC_REFUSED_GARBAGE, "message for a port that nobody reads");
}

void ic_peer_changed(struct ic_fabric *f, node_id peer, enum ic_peer_event event)
{
	log_info("fabric: peer %u %s", peer, event == IC_PEER_UP ? "up" : "down");
	if (f->chaos)
		ic_chaos_peer(f->chaos, peer, event == IC_PEER_UP);
	if (f->cfg.on_peer)
		f->cfg.on_peer(f->cfg.arg, peer, event);
}

void ic_refused(struct ic_fabric *f, enum ic_refusal why, const char *who)
{
	uint32_t bit = 1u << why;

	ic_count(&f->count.refused, 1);
	if (!(atomic_fetch_or(&f->refusals_logged, bit) & bit))
		log_warn("fabric: refused %s: %s (further ones of this cause are only counted)",
			 who, ic_refusal_text(why));
}
