/* SPDX-License-Identifier: Apache-2.0
 * One writer that never rests, two readers. What does not change must be found at every look, whatever is stored,
 * evicted and cleared around it; the thread sanitizer watches the rest.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rand.h"
#include "base/time.h"
#include "guess.h"
#include "kvindex/kvindex.h"

#define READERS 2
#define TOKENS	16
#define BYTES	60
#define STABLE	40
#define LONG	400
#define RUN_NS	(2 * NS_PER_S)

static struct qsbr qsbr;
static struct kvindex *x;
static atomic_bool stop;
static char text[LONG * BYTES];

struct reader {
	pthread_t thread;
	unsigned id;
	uint64_t looks, wrong;
};

static int put(unsigned holder, const char *t, unsigned from, unsigned n)
{
	uint64_t hash[LONG];
	uint32_t ends[LONG];

	for (unsigned i = 0; i < n; i++) {
		hash[i] = hash_bytes(t, (from + i + 1) * (size_t)BYTES, 1);
		ends[i] = (i + 1) * BYTES;
	}
	return index_put(x, holder, 5, from > 0, from ? hash_bytes(t, from * (size_t)BYTES, 1) : 0, hash, ends, n,
			 t + from * (size_t)BYTES, TOKENS, TIER_GPU, 0);
}

static bool is_wrong(const struct index_hit *hit, unsigned n)
{
	bool stable = false;

	for (unsigned i = 0; i < n; i++) {
		if (hit[i].bytes >= LONG * BYTES || hit[i].holder > 6)
			return true;
		if (hit[i].exact && (hit[i].tokens != hit[i].blocks * TOKENS || hit[i].bytes != hit[i].blocks * BYTES))
			return true;
		stable |= hit[i].holder == 0 && hit[i].exact && hit[i].blocks == STABLE;
	}
	return !stable;
}

static void *read_on(void *arg)
{
	struct reader *r = arg;
	uint64_t at[LONG * BYTES / INDEX_CHUNK];
	struct index_hit hit[16];
	struct index_text t;

	index_text_init(&t, at, LONG * BYTES / INDEX_CHUNK);
	index_text_feed(x, &t, text, sizeof(text));
	while (!atomic_load(&stop)) {
		unsigned n;

		qsbr_enter(&qsbr, r->id);
		n = index_match(x, 5, &t, text, sizeof(text), hit, 16);
		qsbr_leave(&qsbr, r->id);
		r->wrong += is_wrong(hit, n);
		r->looks++;
	}
	return NULL;
}

static void churn(struct rng *rng, unsigned round)
{
	static char other[LONG * BYTES];
	unsigned holder = 1 + (unsigned)rng_below(rng, 6), cut = (unsigned)rng_below(rng, sizeof(text));
	uint64_t hash, at[LONG * BYTES / INDEX_CHUNK];
	struct index_text t;

	memcpy(other, text, sizeof(text));
	for (unsigned i = cut; i < sizeof(other); i++)
		other[i] = (char)('0' + round % 10);
	if (put(holder, other, 0, 1 + (unsigned)rng_below(rng, LONG)))
		abort();
	for (unsigned i = 0; i < 30; i++) {
		hash = hash_bytes(text, (1 + rng_below(rng, LONG)) * BYTES, 1);
		index_remove(x, holder, &hash, 1, TIER_GPU);
	}
	index_text_init(&t, at, LONG * BYTES / INDEX_CHUNK);
	index_text_feed(x, &t, other, sizeof(other));
	speculate(x, holder, 5, at, 0, (uint32_t)rng_below(rng, t.n), 3584, holder == 1 ? 0 : round + 20, 200);
	if (round % 64 == 0)
		index_clear(x, holder);
	/* The stable chain is stored again, so that it is never among the oldest. */
	if (put(0, text, 0, STABLE))
		abort();
	index_tick(x, round);
}

static void readers_see_what_is_always_there(void **state)
{
	struct reader reader[READERS];
	struct rng rng = { 5 };
	struct index_stats st = { 0 };
	uint64_t end;
	unsigned rounds = 0;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + (i * i / 7 + i) % 26);
	qsbr_init(&qsbr, READERS);
	x = index_new(&qsbr, (size_t)1 << 20, 7);
	assert_non_null(x);
	assert_int_equal(put(0, text, 0, STABLE), 0);
	for (unsigned i = 0; i < READERS; i++) {
		reader[i] = (struct reader){ .id = i };
		assert_int_equal(pthread_create(&reader[i].thread, NULL, read_on, &reader[i]), 0);
	}
	/* Sanitizers are slow: longer, until enough was evicted under the readers' eyes. */
	for (end = time_mono() + RUN_NS;
	     time_mono() < end || (st.evicted <= 1000 && time_mono() < end + 20 * RUN_NS);) {
		churn(&rng, ++rounds);
		if (time_mono() >= end)
			index_stats(x, &st);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(reader[i].thread, NULL);
		assert_true(reader[i].looks > 10);
		assert_int_equal(reader[i].wrong, 0);
	}
	index_stats(x, &st);
	assert_true(st.evicted > 1000);
	index_free(x);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(readers_see_what_is_always_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
