/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bt/fake_dsm.c - see fake_dsm.h.
 *
 * Threads   As dsm.h says.
 * Limits    Only what the bt engine calls.
 */
#include "fake_dsm.h"

#include "base/assert.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#define READERS_MAX 16
#define POSTS_MAX 64

struct dsm_reader {
	struct dsm *d;
	_Atomic uint32_t *kick;
	bool active;
	struct {
		gfn_t gfn;
		enum dsm_right right;
	} post[POSTS_MAX];
	unsigned nposts;
	uint64_t polls; /* that emptied the list */
};

struct dsm {
	uint8_t *ram;
	uint64_t bytes;
	pthread_mutex_t lock;
	struct dsm_reader *readers[READERS_MAX];
};

struct dsm *fake_dsm_open(uint64_t ram_bytes)
{
	struct dsm *d = calloc(1, sizeof(*d));

	ASSERT(d);
	d->bytes = ram_bytes;
	d->ram = mmap(NULL, ram_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT(d->ram != MAP_FAILED);
	pthread_mutex_init(&d->lock, NULL);
	return d;
}

void fake_dsm_close(struct dsm *d)
{
	munmap(d->ram, d->bytes);
	free(d);
}

uint8_t *dsm_alias(struct dsm *d) { return d->ram; }
bool dsm_is_ram(const struct dsm *d, gfn_t gfn) { return gfn < d->bytes >> PAGE_SHIFT; }

enum dsm_right dsm_reader_right(struct dsm_reader *r, gfn_t gfn)
{
	return dsm_is_ram(r->d, gfn) ? DSM_WRITE : DSM_NONE;
}

int dsm_acquire(struct dsm *d, gfn_t gfn, enum dsm_right right, uint64_t deadline_ns)
{
	(void)d;
	(void)gfn;
	(void)right;
	(void)deadline_ns;
	return 0;
}

int dsm_reader_open(struct dsm *d, _Atomic uint32_t *kick, struct dsm_reader **out)
{
	struct dsm_reader *r = calloc(1, sizeof(*r));

	ASSERT(r);
	r->d = d;
	r->kick = kick;
	for (unsigned k = 0; k < READERS_MAX; k++)
		if (!d->readers[k]) {
			d->readers[k] = r;
			*out = r;
			return 0;
		}
	free(r);
	return -EMFILE;
}

void dsm_reader_close(struct dsm_reader *r)
{
	for (unsigned k = 0; k < READERS_MAX; k++)
		if (r->d->readers[k] == r)
			r->d->readers[k] = NULL;
	free(r);
}

void dsm_reader_poll(struct dsm_reader *r, dsm_drop_fn drop, void *arg)
{
	pthread_mutex_lock(&r->d->lock);
	if (r->nposts > POSTS_MAX)
		drop(arg, DSM_ALL, DSM_NONE);
	for (unsigned k = 0; k < r->nposts && r->nposts <= POSTS_MAX; k++)
		drop(arg, r->post[k].gfn, r->post[k].right);
	r->nposts = 0;
	r->polls++;
	pthread_mutex_unlock(&r->d->lock);
}

void dsm_reader_enter(struct dsm_reader *r, dsm_drop_fn drop, void *arg)
{
	pthread_mutex_lock(&r->d->lock);
	r->active = true;
	pthread_mutex_unlock(&r->d->lock);
	dsm_reader_poll(r, drop, arg);
}

void dsm_reader_leave(struct dsm_reader *r)
{
	pthread_mutex_lock(&r->d->lock);
	r->active = false;
	pthread_mutex_unlock(&r->d->lock);
}

void fake_dsm_drop(struct dsm *d, gfn_t gfn, enum dsm_right right)
{
	pthread_mutex_lock(&d->lock);
	for (unsigned k = 0; k < READERS_MAX; k++) {
		struct dsm_reader *r = d->readers[k];

		if (!r)
			continue;
		if (r->nposts < POSTS_MAX) {
			r->post[r->nposts].gfn = gfn;
			r->post[r->nposts].right = right;
		}
		r->nposts++;
		atomic_store(r->kick, 1);
	}
	pthread_mutex_unlock(&d->lock);
}

void dsm_readers_sync(struct dsm *d, gfn_t gfn, enum dsm_right right)
{
	fake_dsm_drop(d, gfn, right);
	for (unsigned k = 0; k < READERS_MAX; k++)
		for (;;) {
			bool done;

			pthread_mutex_lock(&d->lock);
			done = !d->readers[k] || !d->readers[k]->active || d->readers[k]->nposts == 0;
			pthread_mutex_unlock(&d->lock);
			if (done)
				break;
			sched_yield();
		}
}
