/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slice_agent.c - drives a slice by the messages of its agent (cluster-config/control.h).
 *
 * Threads   The main thread reads the channel all the time, so that STOP and the agent's death are seen at once;
 *           what blocks (joining the other nodes) runs in a thread of its own.
 */
#include "hv/slice.h"
#include "hv/slice_front.h"

#include "base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct front {
	struct cc_chan *chan;
	struct cc_msg prepare; /* the spec lives as long as the slice */
	struct hv_slice *slice;
	struct cc_msg connect;
	pthread_t joiner;
	bool joining;
	_Atomic bool joined; /* READY was sent */
};

static void send_text(struct front *f, enum cc_msg_type type, const char *text)
{
	struct cc_msg m = { .type = type };

	if (type == CC_MSG_FAILED)
		m.failed.text = text;
	else
		m.progress.text = text;
	if (cc_chan_send(f->chan, &m))
		log_debug("agent: %s not sent", cc_msg_name(type));
}

static void sink_console(void *arg, const uint8_t *data, size_t len)
{
	struct front *f = arg;
	struct cc_msg m = { .type = CC_MSG_CONSOLE, .console = { data, len } };

	if (cc_chan_send(f->chan, &m))
		log_debug("agent: console output lost");
}

static void sink_progress(void *arg, const char *text)
{
	send_text(arg, CC_MSG_PROGRESS, text);
}

static void sink_ended(void *arg, const struct cc_ended *ended)
{
	struct front *f = arg;
	struct cc_msg m = { .type = CC_MSG_ENDED, .ended = *ended };

	if (cc_chan_send(f->chan, &m))
		log_debug("agent: end not told");
}

static void sink_answer(void *arg, const struct cc_answer *answer)
{
	struct front *f = arg;
	struct cc_msg m = { .type = CC_MSG_ANSWER, .answer = *answer };

	if (cc_chan_send(f->chan, &m))
		log_debug("agent: answer not told");
}

static void *join(void *arg)
{
	struct front *f = arg;
	char text[HV_TEXT_MAX] = "";
	struct cc_msg ready = { .type = CC_MSG_READY };

	log_set_thread("join");
	if (hv_slice_connect(f->slice, &f->connect.connect, text)) {
		send_text(f, CC_MSG_FAILED, text);
		return NULL;
	}
	atomic_store(&f->joined, true);
	if (cc_chan_send(f->chan, &ready))
		hv_slice_stop(f->slice);
	return NULL;
}

static int on_prepare(struct front *f, struct cc_msg *m)
{
	struct hv_slice_sink sink = { sink_console, sink_progress, sink_ended, f, sink_answer };
	struct cc_msg up = { .type = CC_MSG_PREPARED };
	char text[HV_TEXT_MAX] = "", address[IC_ADDR_MAX];

	f->prepare = *m;
	log_set_ident(m->prepare.node_name[m->prepare.self]);
	if (m->prepare.probe)
		return hv_fabric_probe(f->chan, &f->prepare.prepare);
	if (hv_slice_prepare(&f->prepare.prepare, &sink, &f->slice, text)) {
		send_text(f, CC_MSG_FAILED, text);
		return -EINVAL;
	}
	hv_slice_address(f->slice, address);
	up.prepared.address = address;
	return cc_chan_send(f->chan, &up);
}

static int on_connect(struct front *f, struct cc_msg *m)
{
	int err;

	f->connect = *m;
	err = -pthread_create(&f->joiner, NULL, join, f);
	f->joining = !err;
	return err;
}

static void on_stop(struct front *f)
{
	struct cc_msg m = { .type = CC_MSG_STATS };

	hv_slice_stats(f->slice, &m.stats);
	if (cc_chan_send(f->chan, &m))
		log_debug("agent: statistics not sent");
	hv_slice_stop(f->slice); /* ENDED follows from the slice, if it was not told before */
}

/* One message.  0: go on; 1: orderly end; -errno.  Keeps the storage of PREPARE and CONNECT. */
static int on_message(struct front *f, struct cc_msg *m)
{
	if (!f->slice)
		return m->type == CC_MSG_PREPARE ? on_prepare(f, m)
		       : m->type == CC_MSG_STOP  ? 1
						 : -EPROTO;
	switch (m->type) {
	case CC_MSG_CONNECT:
		return f->joining ? -EPROTO : on_connect(f, m);
	case CC_MSG_RUN:
		if (!atomic_load(&f->joined))
			return -EPROTO;
		hv_slice_run(f->slice);
		break;
	case CC_MSG_CONSOLE:
		hv_slice_console_in(f->slice, m->console.data, m->console.len);
		break;
	case CC_MSG_ORDER:
		hv_slice_order(f->slice, &m->order);
		break;
	case CC_MSG_STOP:
		on_stop(f);
		return 1;
	default:
		return -EPROTO;
	}
	cc_msg_clear(m);
	return 0;
}

int hv_slice_main_agent(void)
{
	struct front f = { 0 };
	int err = cc_chan_open(CC_SLICE_FD, &f.chan);

	if (err) {
		log_error("agent: descriptor %d is not a channel: %s", CC_SLICE_FD, strerror(-err));
		return 1;
	}
	while (!err) {
		struct cc_msg m = { 0 };

		err = cc_chan_recv(f.chan, &m, UINT64_MAX);
		if (!err)
			err = on_message(&f, &m);
		if (err < 0)
			log_debug("agent: channel ends: %s", strerror(-err));
	}
	if (f.slice)
		hv_slice_stop(f.slice);
	if (f.joining)
		pthread_join(f.joiner, NULL);
	if (f.slice)
		hv_slice_close(f.slice);
	cc_chan_close(f.chan);
	cc_msg_clear(&f.prepare);
	cc_msg_clear(&f.connect);
	return err == 1 ? 0 : 1;
}
