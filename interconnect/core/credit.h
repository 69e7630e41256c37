/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/core/credit.h - flow control between two peers that post a known number of receive slots.
 *
 * What      A sender may have CREDIT_WINDOW frames that the receiver has not said it is done with; every frame tells how
 *           many frames of the other direction were consumed so far, and where there is no such traffic, a
 *           message without a frame does.  So a receiver that posts IC_CREDIT_SLOTS slots for a peer never lacks one.
 * Why the slots are enough  WINDOW frames, and the messages without a frame: one is sent for every WINDOW / 2 frames
 *           consumed, and those frames needed credit which only arrives after the message before was read: at most
 *           three are under way.
 * Owns      Nothing; pure.  Counters are of 32 bits and wrap.
 */
#ifndef INTERCONNECT_CORE_CREDIT_H
#define INTERCONNECT_CORE_CREDIT_H

#include "base/types.h"

#define IC_CREDIT_WINDOW 64u
#define IC_CREDIT_SLOTS (IC_CREDIT_WINDOW + 4u)

struct ic_credit {
	uint32_t sent;  /* frames sent */
	uint32_t freed; /* of them, those that the other side has consumed, as it said last */
	uint32_t got;   /* frames consumed here */
	uint32_t told;  /* as said last */
};

static inline bool ic_credit_may_send(const struct ic_credit *c)
{
	return c->sent - c->freed < IC_CREDIT_WINDOW;
}

/* A frame leaves, and with it the number to tell. */
static inline uint32_t ic_credit_send(struct ic_credit *c)
{
	c->sent++;
	return c->told = c->got;
}

/* The other side says that it has consumed so many.  False: it cannot have. */
static inline bool ic_credit_told(struct ic_credit *c, uint32_t consumed)
{
	if (consumed - c->freed > c->sent - c->freed)
		return false;
	c->freed = consumed;
	return true;
}

/* A frame was consumed.  True: a message without a frame is due. */
static inline bool ic_credit_got(struct ic_credit *c)
{
	c->got++;
	return c->got - c->told >= IC_CREDIT_WINDOW / 2;
}

#endif
