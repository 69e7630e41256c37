/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/handoff_end.c - see handoff.h: from here on nothing goes wrong any more; where does it end?
 *
 * Owns nothing; one thread; no I/O.
 */
#include "tests/check/handoff.h"

/* Everything that is under way goes on, once: true if there was something. */
static bool ending_round(struct hw *w, bool refuse, bool fail)
{
	unsigned nodes = w->cfg->nodes;
	bool any = false;

	for (unsigned i = 0; i < nodes * nodes && !w->broken; i++) {
		struct hw_move m = { .node = (uint8_t)(i % nodes), .arg = (uint8_t)(i / nodes) };

		m.opt = refuse;
		while (w->link[m.arg][m.node].count && !w->broken) {
			hw_move(w, m);
			any = true;
		}
		m.kind = HW_LOSE;
		if (m.arg != m.node && !w->node[m.node].dead && !(w->node[m.node].lost >> m.arg & 1) &&
		    (w->node[m.arg].dead || w->node[m.arg].lost >> m.node & 1) && !w->broken) {
			hw_move(w, m);
			any = true;
		}
	}
	for (unsigned n = 0; n < nodes && !w->broken; n++) {
		struct hw_move m = { .node = (uint8_t)n };

		m.kind = HW_TAKE;
		if (w->node[n].mail && ho_may_run(&w->node[n].h)) {
			hw_move(w, m);
			any = true;
		}
		m.kind = HW_CAPTURED;
		if (w->node[n].stop_due && !w->broken) {
			hw_move(w, m);
			any = true;
		}
		m.kind = HW_INSTALLED;
		m.opt = fail;
		if (w->node[n].install_due && !w->broken) {
			hw_move(w, m);
			any = true;
		}
	}
	return any;
}

/* H7: what is found at rest. */
static const char *rest(const struct hw *w)
{
	unsigned here = 0, alive = 0;

	for (unsigned n = 0; n < w->cfg->nodes; n++) {
		const struct hw_node *node = &w->node[n];

		if (node->dead)
			continue;
		alive++;
		here += node->h.phase == HO_HERE;
		if (node->h.phase != HO_HERE && node->h.phase != HO_AWAY)
			return "H7: a move never ends";
		if (!w->kills && !w->cfg->cuts && !hw_leads(w, n))
			return "H7: a node does not find the vCPU";
	}
	if (w->open)
		return "H7: an order is never answered";
	if (here > 1 || (here == 0 && alive && !w->told && !w->doomed))
		return "H7: not exactly one node has the vCPU";
	if (!w->kills && !w->cfg->cuts && w->seen != (1u << w->ipis) - 1)
		return "H8: an interrupt is lost";
	return NULL;
}

static const char *ending(struct hw *w, bool refuse, bool fail)
{
	for (unsigned round = 0; round < 64 && !w->broken; round++) {
		if (ending_round(w, refuse, fail) || w->broken)
			continue;
		/* On a network that keeps its promise nothing has to be said twice. */
		for (unsigned n = 0; w->cfg->wild && n < w->cfg->nodes && !w->broken; n++) {
			if (w->node[n].h.phase != HO_OFFERED && w->node[n].h.phase != HO_SENT)
				continue;
			hw_move(w, (struct hw_move){ .kind = HW_TICK, .node = (uint8_t)n });
		}
		if (w->broken || !ending_round(w, refuse, fail))
			break;
	}
	return w->broken ? w->broken : rest(w);
}

const char *hw_ending(const struct hw *w)
{
	const char *wrong = NULL;

	/* wild: everything that was sent so far is lost. */
	for (unsigned how = 0; how < 3 && !wrong; how++) {
		struct hw end = *w;

		if ((how == 1 && !w->cfg->fail) || (how == 2 && !w->cfg->refuse))
			continue;
		end.wild = false;
		wrong = ending(&end, how == 2, how == 1);
	}
	return wrong;
}
