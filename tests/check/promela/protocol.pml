/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/promela/protocol.pml - the coherence protocol of docs/protocol.md once more, written from its tables and
 * not from the C code, for spin.
 *
 * World     N nodes and one page, homed on node 0; a thread per node and right, which asks for it whenever it lacks it;
 *           nodes that evict at any time (EVICTS); holds that are over or not at any event (HOLDS); MIG_E and MIG_P as
 *           mig_evidence and mig_probe.  Links deliver in order, any link at any time.  One step of the C core is one
 *           d_step here: what a node tells itself is handled within it.
 * Value     What a page's bytes are worth is one bit: those of the latest write, or older ones.  Whoever can write does.
 * Checks    assert: I1 to I4, I6, no message of an honest peer refused.  Invalid end states: with threads that always ask
 *           again, a state without moves is a deadlock (I8).  -DFAIR: the never claim at the end, to be run with weak
 *           fairness: each thread that waits is served.  -DOBSERVE: hands each state to ../observe.c.
 * Left out  Lengths of holds, retry counts, pools that run out (BUSY, ROOM), loss of a peer, pages that share a node's pool.
 */
#ifndef N
#define N 3
#endif
#ifndef MIG_E
#define MIG_E 0
#define MIG_P 0
#endif

#define HOME 0
#define LEN 6 /* messages in a link */
#define INBOX 6

/* Rights, kinds of messages and bytes have the numbers of proto.h, so that both models' states can be compared. */
#define NONE 0
#define READ 1
#define WRITE 2

#define REQ_READ 1
#define REQ_WRITE 2
#define EVICT 3
#define FWD_READ 4
#define FWD_WRITE 5
#define RECALL 6
#define INV 7
#define GRANT 8
#define ACK 9
#define DONE 10
#define RETURN 11

#define KEEP 1
#define ZERO 2
#define PAGE 3

#define MSG(kind, right, bytes, who, acks, copy) \
	((kind) | ((right) << 4) | ((bytes) << 6) | ((who) << 8) | ((acks) << 10) | ((copy) << 12))
#define FRESH (1 << 13)
#define KIND(m) ((m) & 15)
#define RIGHT(m) (((m) >> 4) & 3)
#define BYTES(m) (((m) >> 6) & 3)
#define WHO(m) (((m) >> 8) & 3)
#define ACKS(m) (((m) >> 10) & 3)
#define COPY(m) (((m) >> 12) & 1)

/* Node.revoke, Node.evict */
#define HELD 1
#define UNMAPPING 2
#define ASKED 1
#define DROPPING 2

typedef Node {
	unsigned right : 2;	/* as the protocol has it */
	unsigned mapped : 2;	/* what threads can really use */
	unsigned target : 2;	/* of the UNMAP in flight */
	bool unmapping;
	bool own;
	bool fresh;		/* the frame holds the latest bytes */
	unsigned waiting : 3;	/* bit READ, bit WRITE: a thread waits */
	unsigned want : 2;	/* asking; `next` a stronger wish */
	unsigned next : 2;
	unsigned granted : 2;	/* GRANT has come, of `from`, and needs `need` ACKs */
	unsigned need : 2;
	unsigned got : 2;
	unsigned from : 2;
	unsigned evict : 2;
	unsigned revoke : 2;
	unsigned cause : 4;	/* of the revocation, and what to answer to whom */
	unsigned to : 2;
	unsigned acks : 2;
	unsigned bytes : 2
}

typedef Link {
	byte used;
	short m[LEN]
}

Node nd[N];
Link link[N * N];

/* The home's entry. */
bool ever;		/* somebody could write once */
bool written;
unsigned owner : 2;
unsigned mig : 5;
unsigned copies : 4;
byte qlen;
byte qnode[2 * N];
byte qkind[2 * N];
bool qcopy[2 * N];

/* Within one step only: not part of a state. */
hidden byte late, over, begin, keep; /* booleans */
hidden byte heads, tails, i, j, k, head, kind, sender, inv, count, old, was, right, who, cause, acks, bytes;
hidden short out, cur;
hidden short inbox[INBOX];
hidden byte insender[INBOX];

#define L(a, b) link[(a) * N + (b)]

#ifdef OBSERVE
c_decl {
\#include "tests/check/promela/observe_pan.h"
}
#define SEEN c_code { OBSERVE_STATE(now); }
#else
#define SEEN skip
#endif

/* --- messages --------------------------------------------------------------------------------------------------- */

inline arrive(f, msg)
{
	assert(tails < INBOX);
	inbox[tails] = msg;
	insender[tails] = f;
	tails++
}

inline emit(me, to, msg)
{
	if
	:: (to) == (me) -> arrive(me, msg)
	:: else ->
		out = msg;
		if
		:: BYTES(out) == PAGE && nd[me].fresh -> out = out | FRESH
		:: else
		fi;
		/* I3 */
		assert(!(KIND(out) == ACK || KIND(out) == RETURN) || nd[me].mapped == NONE);
		assert(KIND(out) != GRANT || BYTES(out) == KEEP || nd[me].mapped + RIGHT(out) <= 2);
		assert(L(me, to).used < LEN);
		L(me, to).m[L(me, to).used] = out;
		L(me, to).used++
	fi
}

/* --- a node: section 4 ------------------------------------------------------------------------------------------- */

inline ask(me, r)
{
	nd[me].want = r;
	if
	:: (r) == READ -> emit(me, HOME, MSG(REQ_READ, 0, 0, 0, 0, 0))
	:: else -> emit(me, HOME, MSG(REQ_WRITE, 0, 0, 0, 0, (nd[me].right != NONE)))
	fi
}

/* Whoever can write does: all else is old. */
inline writes(me)
{
	ever = true;
	for (j : 0 .. N - 1) {
		nd[j].fresh = (j == me);
		for (k : 0 .. N - 1) {
			i = 0;
			do
			:: i < L(j, k).used -> L(j, k).m[i] = L(j, k).m[i] & ~FRESH; i++
			:: else -> break
			od
		}
	}
}

inline complete(me)
{
	assert(nd[me].revoke == 0);
	right = nd[me].granted;
	assert(!nd[me].unmapping && nd[me].mapped < right);	/* I6 */
	assert(nd[me].fresh);					/* I2 */
	nd[me].right = right;
	nd[me].own = (right == WRITE);
	nd[me].mapped = right;
	if
	:: right == WRITE -> nd[me].waiting = 0; writes(me)
	:: else -> nd[me].waiting = nd[me].waiting & (1 << WRITE)
	fi;
	if
	:: nd[me].from != HOME || nd[me].need > 0 -> emit(me, HOME, MSG(DONE, 0, 0, 0, 0, 0))
	:: else
	fi;
	nd[me].want = 0;
	nd[me].granted = 0;
	nd[me].need = 0;
	nd[me].got = 0;
	nd[me].from = 0;
	was = nd[me].next;
	nd[me].next = 0;
	if
	:: was > right -> ask(me, was)
	:: else
	fi
}

/* Of `cause`: the right is gone here. */
inline answer(me)
{
	if
	:: cause == FWD_READ -> emit(me, who, MSG(GRANT, READ, bytes, 0, acks, 0))
	:: cause == FWD_WRITE -> emit(me, who, MSG(GRANT, WRITE, bytes, 0, acks, 0))
	:: cause == RECALL -> emit(me, HOME, MSG(RETURN, 0, PAGE, 0, 0, 0))
	:: cause == INV -> emit(me, who, MSG(ACK, 0, 0, 0, 0, 0))
	:: else /* dropped by own will */
	fi;
	if
	:: cause != FWD_READ && me != HOME -> assert(nd[me].mapped == NONE); nd[me].fresh = false
	:: else
	fi;
	/* What the home grants alone is over when it is sent. */
	if
	:: (cause == FWD_READ || cause == FWD_WRITE) && me == HOME && acks == 0 -> over = true
	:: else
	fi
}

inline unmap(me)
{
	nd[me].revoke = UNMAPPING;
	nd[me].right = (nd[me].cause == FWD_READ -> READ : NONE);
	nd[me].own = nd[me].own && nd[me].right != NONE;
	assert(!nd[me].unmapping && nd[me].mapped > nd[me].right);
	nd[me].unmapping = true;
	nd[me].target = nd[me].right
}

/* By cause, for who, acks, bytes. */
inline revoke_start(me)
{
	if
	:: nd[me].right <= (cause == FWD_READ -> READ : NONE) -> answer(me)
	:: else ->
		nd[me].cause = cause;
		nd[me].to = who;
		nd[me].acks = acks;
		nd[me].bytes = bytes;
		if
		:: late -> unmap(me)
		:: else -> nd[me].revoke = HELD
		fi
	fi
}

inline unmapped(me)
{
	nd[me].unmapping = false;
	nd[me].mapped = nd[me].target;
	nd[me].target = NONE;
	cause = nd[me].cause;
	who = nd[me].to;
	acks = nd[me].acks;
	bytes = nd[me].bytes;
	nd[me].revoke = 0;
	nd[me].cause = 0;
	nd[me].to = 0;
	nd[me].acks = 0;
	nd[me].bytes = 0;
	if
	:: cause != FWD_READ -> nd[me].evict = 0
	:: else
	fi;
	answer(me);
	if
	:: nd[me].next && !nd[me].want -> was = nd[me].next; nd[me].next = 0; ask(me, was)
	:: else
	fi
}

/* --- the home: section 5 ------------------------------------------------------------------------------------------ */

inline queue_remove(at)
{
	j = at;
	do
	:: j + 1 < qlen ->
		qnode[j] = qnode[j + 1];
		qkind[j] = qkind[j + 1];
		qcopy[j] = qcopy[j + 1];
		j++
	:: else -> break
	od;
	qlen--;
	qnode[qlen] = 0;
	qkind[qlen] = 0;
	qcopy[qlen] = false
}

inline bits(set)
{
	count = (((set) >> 0) & 1) + (((set) >> 1) & 1) + (((set) >> 2) & 1) + (((set) >> 3) & 1)
}

/* An EVICT of a node that is the owner no more. */
inline evict_forget(node)
{
	i = 0;
	do
	:: i < qlen && (qkind[i] != EVICT || qnode[i] != node) -> i++
	:: else -> break
	od;
	if
	:: i < qlen -> queue_remove(i)
	:: else
	fi
}

inline serve_write()
{
	keep = (head == owner || (qcopy[0] && ((copies >> head) & 1)));
	inv = copies & ~(1 << head);
	if
	:: qkind[0] == REQ_WRITE && keep && copies != 0 ->
		if
		:: head == owner || inv != 0 -> mig = 0
		:: mig < MIG_E -> mig++
		:: else
		fi
	:: else
	fi;
	if
	:: keep && head != owner -> inv = inv | (1 << owner)
	:: else
	fi;
	bits(inv);
	acks = count;
	old = owner;
	was = written;
	copies = 0;
	written = true;
	owner = head;
	if
	:: old != head -> evict_forget(old)
	:: else
	fi;
	for (k : 0 .. N - 1) {
		if
		:: (inv >> k) & 1 -> emit(HOME, k, MSG(INV, 0, 0, head, 0, 0))
		:: else
		fi
	}
	if
	:: keep ->
		emit(HOME, head, MSG(GRANT, WRITE, KEEP, 0, acks, 0));
		over = (acks == 0)
	:: else ->
		emit(HOME, old, MSG(FWD_WRITE, 0, (old != HOME -> 0 : (was -> PAGE : ZERO)), head, acks, 0))
	fi
}

inline serve_read()
{
	/* A migratory page is granted for writing; now and then not, to see if it still migrates. */
	keep = false;
	if
	:: (copies & ~(1 << head)) != 0 -> mig = 0
	:: else ->
		if
		:: written && MIG_E > 0 && mig >= MIG_E ->
			if
			:: mig < MIG_E + MIG_P -> mig++; keep = true
			:: else -> mig = MIG_E - 1
			fi
		:: else
		fi
	fi;
	if
	:: keep -> serve_write()
	:: else ->
		copies = copies | (1 << head);
		emit(HOME, owner, MSG(FWD_READ, 0, (owner != HOME -> 0 : (written -> PAGE : ZERO)), head, 0, 0))
	fi
}

inline serve()
{
	head = qnode[0];
	if
	:: qkind[0] == EVICT ->
		assert(owner == head);
		owner = HOME;
		copies = copies & ~(1 << HOME);
		emit(HOME, head, MSG(RECALL, 0, 0, 0, 0, 0))
	:: qkind[0] == REQ_WRITE -> serve_write()
	:: else ->
		if
		:: head == owner ->
			emit(HOME, head, MSG(GRANT, (written && copies == 0 -> WRITE : READ), KEEP, 0, 0, 0));
			over = true
		:: else -> serve_read()
		fi
	fi
}

inline enqueue(f)
{
	i = 0;
	do
	:: i < qlen -> assert(qnode[i] != f || (qkind[i] == EVICT) != (kind == EVICT)); i++ /* I6 */
	:: else -> break
	od;
	qnode[qlen] = f;
	qkind[qlen] = kind;
	qcopy[qlen] = COPY(cur);
	qlen++;
	begin = (qlen == 1)
}

/* --- one step ----------------------------------------------------------------------------------------------------- */

inline handle(me)
{
	kind = KIND(cur);
	if
	:: kind == EVICT && owner != sender /* void: it crossed the loss of the page */
	:: kind <= EVICT && !(kind == EVICT && owner != sender) ->
		assert(me == HOME && (kind == EVICT || owner != sender || COPY(cur) || sender == HOME));
		enqueue(sender)
	:: kind == DONE ->
		assert(qlen > 0 && qnode[0] == sender && qkind[0] != EVICT && nd[HOME].revoke == 0);
		over = true
	:: kind == RETURN ->
		assert(qlen > 0 && qnode[0] == sender && qkind[0] == EVICT && nd[HOME].revoke == 0);
		if
		:: nd[HOME].right == NONE -> assert(nd[HOME].mapped == NONE); nd[HOME].fresh = ((cur & FRESH) != 0)
		:: else
		fi;
		over = true
	:: kind == FWD_READ || kind == FWD_WRITE || kind == RECALL ->
		assert(sender == HOME && nd[me].revoke == 0 && !nd[me].granted);
		assert(me == HOME || (nd[me].own && nd[me].right != NONE));
		cause = kind;
		who = WHO(cur);
		acks = ACKS(cur);
		bytes = (me == HOME -> BYTES(cur) : PAGE);
		revoke_start(me)
	:: kind == INV ->
		assert(sender == HOME && !nd[me].granted && nd[me].right != WRITE);
		if
		:: nd[me].revoke ->
			assert(nd[me].evict == DROPPING && nd[me].cause == 0);
			nd[me].cause = INV;
			nd[me].to = WHO(cur)
		:: else ->
			cause = INV;
			who = WHO(cur);
			acks = 0;
			bytes = 0;
			revoke_start(me)
		fi
	:: kind == GRANT ->
		assert(nd[me].want && !nd[me].granted && nd[me].revoke == 0 && RIGHT(cur) >= nd[me].want);
		assert(ACKS(cur) >= nd[me].got && (BYTES(cur) == KEEP || nd[me].right == NONE));
		assert(BYTES(cur) == PAGE || sender == HOME);
		nd[me].granted = RIGHT(cur);
		nd[me].need = ACKS(cur);
		nd[me].from = sender;
		if
		:: BYTES(cur) == PAGE -> assert(nd[me].mapped == NONE); nd[me].fresh = ((cur & FRESH) != 0)
		:: BYTES(cur) == ZERO -> assert(nd[me].mapped == NONE); nd[me].fresh = !ever
		:: else
		fi;
		if
		:: nd[me].got == nd[me].need -> complete(me)
		:: else
		fi
	:: kind == ACK ->
		assert(nd[me].want == WRITE);
		nd[me].got = nd[me].got + 1;
		if
		:: nd[me].granted && nd[me].got == nd[me].need -> complete(me)
		:: else
		fi
	fi
}

/* I1, I2, I4, after every step. */
inline check()
{
	assert(((copies >> owner) & 1) == 0);
	for (i : 0 .. N - 1) {
		assert(nd[i].mapped == NONE || nd[i].fresh);
		assert(qlen > 0 || nd[i].mapped == NONE || owner == i || ((copies >> i) & 1));
		assert(qlen > 0 || nd[i].mapped != WRITE || (owner == i && copies == 0));
		for (j : 0 .. N - 1) {
			assert(i == j || nd[i].mapped != WRITE || nd[j].mapped == NONE)
		}
	}
}

/* What follows within the step: transactions that end and begin, messages to itself. */
inline settle(me)
{
	do
	:: begin -> begin = false; serve()
	:: !begin && over ->
		over = false;
		queue_remove(0);
		begin = (qlen > 0)
	:: !begin && !over && heads < tails ->
		cur = inbox[heads];
		sender = insender[heads];
		heads++;
		handle(me)
	:: else -> break
	od;
	heads = 0;
	tails = 0;
	check();
	SEEN
}

/* --- who moves: a process each, so that fairness is for each of them ------------------------------------------------ */

#define WIRE 0	  /* from `arg` to `me` */
#define SHELL 1	  /* completes the UNMAP of `me` */
#define TIMER 2
#define THREAD 3  /* wants the right `arg` */
#define EVICTOR 4

inline deliver(f, me)
{
	arrive(f, L(f, me).m[0]);
	i = 1;
	do
	:: i < L(f, me).used -> L(f, me).m[i - 1] = L(f, me).m[i]; i++
	:: else -> break
	od;
	L(f, me).used--;
	L(f, me).m[L(f, me).used] = 0
}

inline request(me, r)
{
	nd[me].waiting = nd[me].waiting | (1 << r);
	if
	:: nd[me].want >= r || nd[me].next >= r /* the grant will wake this one, too */
	:: else ->
		if
		:: nd[me].want || nd[me].revoke == UNMAPPING -> nd[me].next = r
		:: else -> ask(me, r)
		fi
	fi
}

inline give_back(me)
{
	if
	:: nd[me].own -> nd[me].evict = ASKED; emit(me, HOME, MSG(EVICT, 0, 0, 0, 0, 0))
	:: else -> nd[me].evict = DROPPING; unmap(me)
	fi
}

#define IDLE(n) (!nd[n].want && !nd[n].next && !nd[n].evict && !nd[n].revoke)

proctype Mover(byte what, arg, me)
{
	do
	:: atomic {
		(what == WIRE && L(arg, me).used > 0) || (what == SHELL && nd[me].unmapping) ||
		(what == TIMER && nd[me].revoke == HELD) ||
		(what == THREAD && nd[me].right < arg && !((nd[me].waiting >> arg) & 1)) ||
		(what == EVICTOR && nd[me].right != NONE && IDLE(me)) ->
#ifdef HOLDS
		if
		:: late = true
		:: late = false
		fi;
#else
		late = true;
#endif
		d_step {
			if
			:: what == WIRE -> deliver(arg, me)
			:: what == SHELL -> unmapped(me)
			:: what == TIMER -> unmap(me)
			:: what == THREAD -> request(me, arg)
			:: what == EVICTOR -> give_back(me)
			fi;
			settle(me)
		}
	   }
	od
}

init
{
	byte a, b;

	atomic {
		nd[HOME].fresh = true;
		for (a : 0 .. N - 1) {
			run Mover(SHELL, 0, a);
			run Mover(THREAD, READ, a);
			run Mover(THREAD, WRITE, a);
			for (b : 0 .. N - 1) {
				if
				:: a != b -> run Mover(WIRE, a, b)
				:: else
				fi
			}
#ifdef HOLDS
			run Mover(TIMER, 0, a);
#endif
#ifdef EVICTS
			if
			:: a != HOME -> run Mover(EVICTOR, 0, a)
			:: else
			fi
#endif
		}
		a = 0;
		b = 0;
		SEEN
	}
}

#ifdef FAIR
/* Some thread waits for ever: a cycle through one of the accept states, fair to every process, is a violation of I8. */
#define W(n, r) ((nd[n].waiting >> r) & 1)
never {
	do
	:: true
	:: W(0, READ) -> goto accept_0r
	:: W(0, WRITE) -> goto accept_0w
	:: W(1, READ) -> goto accept_1r
	:: W(1, WRITE) -> goto accept_1w
	od;
accept_0r:
	do
	:: W(0, READ)
	od;
accept_0w:
	do
	:: W(0, WRITE)
	od;
accept_1r:
	do
	:: W(1, READ)
	od;
accept_1w:
	do
	:: W(1, WRITE)
	od
}
#endif
