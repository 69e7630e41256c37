/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/paths/slots.c - bounce slots, credits, and who may send: see slots.h.
 *
 * Owns      The block of slots, the links.
 * Threads   slots.h.  link.lock (rank: innermost but for the port's own) guards credits and the search for a free
 *           transmit slot.
 * I/O       The port's.
 * Limits    A link that is closed leaves its receive slots posted: they belong to all.
 */
#include "interconnect/paths/slots.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/log.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct ic_path_link {
	struct ic_path *path;
	void *owner;
	node_id peer;
	struct port_link *port;
	uint32_t nonce, their_token, their_nonce; /* ours is told in the offer, theirs goes into each message */
	bool connected;
	_Atomic bool broken;
	pthread_mutex_t lock;
	struct ic_credit credit;
	bool due;     /* a message without a frame could not be sent */
	bool reached; /* the first of them was */
	unsigned next; /* where to look for a free slot */
	struct slots_tx *tx; /* [SLOTS_TX] */
};

struct ic_path {
	const struct port_ops *ops;
	const struct ic_path_host *host;
	struct port *port;
	unsigned nodes;
	void *block;
	size_t bytes;
	struct slots_rx *rx; /* [nodes * IC_CREDIT_SLOTS] */
	struct slots_tx *tx; /* [nodes * SLOTS_TX] */
	struct ic_path_link *links[NODES_MAX];
	unsigned delivered; /* in this poll */
	bool any_due;
	bool dead; /* the port is broken */
};

#define OFFER_HEAD 8u /* token, nonce */

/* --- sending ------------------------------------------------------------------------------------------------------ */

void slots_sent(struct slots_tx *slot)
{
	/* Release: the device has read the slot before a sender writes it again. */
	atomic_store_explicit(&slot->busy, false, memory_order_release);
}

struct slots_tx *slots_tx_at(struct ic_path *p, uint32_t index)
{
	ASSERT(index < p->nodes * SLOTS_TX);
	return &p->tx[index];
}

struct slots_rx *slots_rx_at(struct ic_path *p, uint32_t index)
{
	ASSERT(index < p->nodes * IC_CREDIT_SLOTS);
	return &p->rx[index];
}

static struct slots_tx *tx_find(struct ic_path_link *l)
{
	for (unsigned i = 0; i < SLOTS_TX; i++) {
		struct slots_tx *slot = &l->tx[(l->next + i) % SLOTS_TX];

		if (!atomic_load_explicit(&slot->busy, memory_order_acquire)) {
			l->next = (l->next + i + 1) % SLOTS_TX;
			return slot;
		}
	}
	return NULL;
}

/* Lock held.  A frame, or none (count 0).  A message without a frame needs no credit. */
static int tx_post(struct ic_path_link *l, const struct iovec *iov, unsigned count)
{
	struct slots_tx *slot;
	size_t len = SLOT_PREFIX;
	struct ic_credit before = l->credit;
	int err;

	if (l->broken || !l->connected)
		return -EPROTO;
	if (count && !ic_credit_may_send(&l->credit))
		return -EAGAIN;
	slot = tx_find(l);
	if (!slot)
		return -EAGAIN;
	put_le32(slot->bytes, l->their_token);
	put_le32(slot->bytes + 4, l->their_nonce);
	for (unsigned i = 0; i < count; i++) {
		if (iov[i].iov_len)
			memcpy(slot->bytes + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	if (count)
		put_le32(slot->bytes + 8, ic_credit_send(&l->credit));
	else
		put_le32(slot->bytes + 8, l->credit.told = l->credit.got);
	slot->nonce = l->nonce;
	atomic_store_explicit(&slot->busy, true, memory_order_relaxed);
	err = l->path->ops->post_send(l->port, slot, len);
	if (err) {
		l->credit = before;
		slots_sent(slot);
	} else {
		l->due = false;
	}
	return err;
}

int slots_send(struct ic_path_link *l, const struct iovec *iov, unsigned count, bool *bell)
{
	int err;

	*bell = false;
	pthread_mutex_lock(&l->lock);
	err = tx_post(l, iov, count);
	pthread_mutex_unlock(&l->lock);
	return err;
}

static void broken(struct ic_path_link *l, int err)
{
	if (!atomic_exchange(&l->broken, true))
		l->path->host->broken(l->owner, err);
}

/* Inside poll, or while the link is connected. */
static int credit_tell(struct ic_path_link *l)
{
	int err;

	pthread_mutex_lock(&l->lock);
	l->due = true;
	err = tx_post(l, NULL, 0);
	pthread_mutex_unlock(&l->lock);
	if (err == -EAGAIN)
		l->path->any_due = true;
	else if (err)
		broken(l, -EIO);
	return err;
}

/* --- receiving ---------------------------------------------------------------------------------------------------- */

void slots_broken(struct ic_path_link *l)
{
	broken(l, -EIO);
}

void slots_failed(struct ic_path *p, struct slots_tx *slot)
{
	struct ic_path_link *l = p->links[slot->peer];

	if (l && l->nonce == slot->nonce)
		slots_broken(l);
	slots_sent(slot);
}

static struct ic_path_link *link_of(const struct ic_path *p, const uint8_t *prefix)
{
	uint32_t token = get_le32(prefix);
	struct ic_path_link *l = token < p->nodes ? p->links[token] : NULL;

	return l && l->nonce == get_le32(prefix + 4) && !l->broken ? l : NULL;
}

/* False: the link is over. */
static bool frame_take(struct ic_path_link *l, const uint8_t *bytes, size_t len)
{
	bool told;

	pthread_mutex_lock(&l->lock);
	told = ic_credit_told(&l->credit, get_le32(bytes + 8));
	pthread_mutex_unlock(&l->lock);
	if (!told)
		return false;
	if (len == SLOT_PREFIX)
		return true;
	if (l->path->host->frame(l->owner, bytes + SLOT_PREFIX, NULL, len - SLOT_PREFIX) !=
	    (int)(len - SLOT_PREFIX))
		return false;
	l->path->delivered++;
	pthread_mutex_lock(&l->lock);
	told = ic_credit_got(&l->credit);
	pthread_mutex_unlock(&l->lock);
	if (told)
		credit_tell(l);
	return true;
}

void slots_received(struct ic_path *p, struct slots_rx *slot, size_t len)
{
	/* Whoever cannot say the nonce, or belongs to a link that is gone, is not heard. */
	struct ic_path_link *l = len >= SLOT_PREFIX && len <= SLOT_BYTES ? link_of(p, slot->bytes) : NULL;

	if (l && !frame_take(l, slot->bytes, len))
		broken(l, -EPROTO);
	/* The other side counts on every slot. */
	if (p->ops->post_recv(p->port, slot) && l)
		slots_broken(l);
}

static bool tell_is_due(struct ic_path_link *l)
{
	bool due;

	pthread_mutex_lock(&l->lock);
	due = l->due || !l->reached; /* a sender may have told meanwhile, but not that we have reached the other side */
	pthread_mutex_unlock(&l->lock);
	return due && l->connected;
}

static void dues_try(struct ic_path *p)
{
	p->any_due = false;
	for (unsigned i = 0; i < p->nodes; i++) {
		struct ic_path_link *l = p->links[i];

		if (!l || l->broken || !tell_is_due(l) || credit_tell(l) || l->reached)
			continue;
		l->reached = true;
		p->host->reached(l->owner);
	}
}

unsigned slots_poll(struct ic_path *p, unsigned budget)
{
	int batch = (int)(budget < SLOTS_BATCH ? budget : SLOTS_BATCH), n;

	p->delivered = 0;
	if (p->dead)
		return 0;
	do
		n = p->ops->poll(p->port, (unsigned)batch);
	while (n >= batch && p->delivered < budget);
	p->dead = n < 0;
	for (unsigned i = 0; p->dead && i < p->nodes; i++)
		if (p->links[i])
			slots_broken(p->links[i]);
	if (p->any_due) /* after completions, which make room: nothing else may come to wake us */
		dues_try(p);
	return p->delivered;
}

bool slots_sleep(struct ic_path *p, bool on)
{
	return !p->dead && p->ops->sleep(p->port, on);
}

int slots_fd(struct ic_path *p)
{
	return p->ops->fd(p->port);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

/* Slot i of a peer: first those that receive, then those that send. */
static uint8_t *slot_at(const struct ic_path *p, node_id peer, unsigned i)
{
	return (uint8_t *)p->block + peer * SLOTS_PEER_BYTES + (size_t)i * SLOT_BYTES;
}

void slots_close(struct ic_path *p)
{
	for (unsigned i = 0; i < p->nodes; i++)
		ASSERT(!p->links[i]);
	if (p->port)
		p->ops->close(p->port);
	if (p->block)
		munmap(p->block, p->bytes);
	free(p->rx);
	free(p->tx);
	free(p);
}

static int recv_all(struct ic_path *p, node_id peer)
{
	int err = 0;

	for (unsigned i = 0; !err && i < IC_CREDIT_SLOTS; i++)
		err = p->ops->post_recv(p->port, &p->rx[peer * IC_CREDIT_SLOTS + i]);
	return err;
}

static void slots_place(struct ic_path *p)
{
	for (unsigned n = 0; n < p->nodes; n++) {
		for (unsigned i = 0; i < IC_CREDIT_SLOTS; i++) {
			p->rx[n * IC_CREDIT_SLOTS + i].bytes = slot_at(p, (node_id)n, i);
			p->rx[n * IC_CREDIT_SLOTS + i].peer = (node_id)n;
			p->rx[n * IC_CREDIT_SLOTS + i].index = n * IC_CREDIT_SLOTS + i;
		}
		for (unsigned i = 0; i < SLOTS_TX; i++) {
			p->tx[n * SLOTS_TX + i].bytes = slot_at(p, (node_id)n, IC_CREDIT_SLOTS + i);
			p->tx[n * SLOTS_TX + i].peer = (node_id)n;
			p->tx[n * SLOTS_TX + i].index = n * SLOTS_TX + i;
		}
	}
}

int slots_open(const struct port_ops *ops, const char *device, const struct ic_path_host *host, unsigned nodes,
	       struct ic_path **out)
{
	struct ic_path *p = calloc(1, sizeof(*p));
	int err = -ENOMEM;

	if (!p)
		return -ENOMEM;
	p->ops = ops;
	p->host = host;
	p->nodes = nodes;
	p->bytes = nodes * SLOTS_PEER_BYTES;
	p->rx = calloc((size_t)nodes * IC_CREDIT_SLOTS, sizeof(*p->rx));
	p->tx = calloc((size_t)nodes * SLOTS_TX, sizeof(*p->tx));
	p->block = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->block == MAP_FAILED)
		p->block = NULL;
	if (p->rx && p->tx && p->block) {
		slots_place(p);
		err = ops->open(device, p, p->block, p->bytes, &p->port);
	}
	for (unsigned n = 0; !err && !ops->per_link && n < nodes; n++)
		err = recv_all(p, (node_id)n);
	if (err) {
		slots_close(p);
		return err;
	}
	*out = p;
	return 0;
}

int slots_link_open(struct ic_path *p, void *owner, node_id peer, bool acceptor, struct ic_path_link **out,
		    struct ic_path_offer *offer)
{
	struct ic_path_link *l;
	uint16_t len = 0;
	int err;

	(void)acceptor;
	if (p->links[peer])
		return -EBUSY;
	if (p->dead)
		return -ENODEV;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->path = p;
	l->owner = owner;
	l->peer = peer;
	pthread_mutex_init(&l->lock, NULL);
	l->tx = &p->tx[peer * SLOTS_TX];
	err = RAND_bytes((uint8_t *)&l->nonce, sizeof(l->nonce)) == 1 ? 0 : -EIO;
	if (!err)
		err = p->ops->link_open(p->port, l, peer, &l->port, offer->bytes + OFFER_HEAD, &len,
					IC_OFFER_MAX - OFFER_HEAD);
	if (!err && p->ops->per_link) {
		err = recv_all(p, peer);
		if (err)
			p->ops->link_close(l->port);
	}
	if (err) {
		pthread_mutex_destroy(&l->lock);
		free(l);
		return err;
	}
	put_le32(offer->bytes, peer);
	put_le32(offer->bytes + 4, l->nonce);
	offer->len = (uint16_t)(OFFER_HEAD + len);
	offer->fd = -1;
	p->links[peer] = l;
	*out = l;
	return 0;
}

int slots_link_connect(struct ic_path_link *l, const struct ic_path_offer *theirs)
{
	int err;

	if (theirs->len < OFFER_HEAD || theirs->fd >= 0 || l->connected)
		return -EPROTO;
	l->their_token = get_le32(theirs->bytes);
	l->their_nonce = get_le32(theirs->bytes + 4);
	err = l->path->ops->link_connect(l->port, theirs->bytes + OFFER_HEAD, (uint16_t)(theirs->len - OFFER_HEAD));
	if (err)
		return err;
	l->connected = true;
	err = l->path->ops->lazy ? credit_tell(l) : 0;
	l->reached = !err;
	return err == -EAGAIN ? -EINPROGRESS : err;
}

void slots_link_close(struct ic_path_link *l)
{
	struct ic_path *p = l->path;

	p->ops->link_close(l->port);
	for (unsigned i = 0; p->ops->per_link && i < SLOTS_TX; i++)
		slots_sent(&l->tx[i]);
	p->links[l->peer] = NULL;
	pthread_mutex_destroy(&l->lock);
	free(l);
}
