/* SPDX-License-Identifier: Apache-2.0
 * One writer that never rests, four readers without locks, and what each of them may see.
 *
 * The reference is plain: for each holder and text the writer counts itself how many whole blocks from the text's start
 * the holder has. It publishes two numbers around each step, the least and the most that any moment of the step may
 * show, with the step's number (a sequence lock). A reader looks up between two reads of them: what it finds lies
 * within all that was published meanwhile. Texts share beginnings, so nodes are shared, split and freed under the
 * readers; a low ceiling evicts all the time, so there less may be found, but for the text that is stored again in each
 * round.
 *
 * KVS_SEED=N replays the writer's steps; KVS_SECONDS=N for longer. The thread sanitizer watches the rest.
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

#define READERS 4
#define HOLDERS 6
#define TEXTS	6
#define BLOCKS	120
#define TOKENS	16
#define BYTES	61 /* no multiple of a chunk */
#define STABLE	40 /* blocks that holder 0 always has of text 0 */
#define LEN	(BLOCKS * BYTES)
#define NS	5

static struct qsbr qsbr;
static struct kvindex *x;
static atomic_bool stop;
static char text[TEXTS][LEN];
static uint64_t hash[TEXTS][BLOCKS];
static uint32_t ends[BLOCKS];

/* The plain reference, the writer's: has[h][i] is how often holder h has stored block i, node_of[t][i] is text t's
 * block i. Equal beginnings are the same blocks. */
static unsigned node_of[TEXTS][BLOCKS];
static uint16_t has[HOLDERS][TEXTS * BLOCKS];

/* What is published of it. */
static _Atomic uint64_t steps; /* odd: in a step */
static _Atomic uint32_t least[HOLDERS][TEXTS], most[HOLDERS][TEXTS];

static bool lossy; /* a low ceiling */

struct reader {
	pthread_t thread;
	unsigned id;
	uint64_t looks, sure, wrong;
	char why[160];
};

static void make_texts(void)
{
	for (unsigned t = 0; t < TEXTS; t++) {
		unsigned of = t / 2, cut = t ? (t * 29 % BLOCKS) * BYTES + t * 7 : 0;

		for (unsigned i = 0; i < LEN; i++)
			text[t][i] = i < cut ? text[of][i] : (char)('a' + (i * i / 7 + i + t * 11) % 26);
		for (unsigned i = 0; i < BLOCKS; i++) {
			hash[t][i] = hash_bytes(text[t], (i + 1) * (size_t)BYTES, 1);
			node_of[t][i] = t * BLOCKS + i;
			for (unsigned u = 0; u < t; u++)
				if (hash[u][i] == hash[t][i])
					node_of[t][i] = node_of[u][i];
		}
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		ends[i] = (i + 1) * BYTES;
}

/* --- the writer --- */

static uint32_t depth_of(unsigned h, unsigned t)
{
	uint32_t n = 0;

	while (n < BLOCKS && has[h][node_of[t][n]])
		n++;
	return n;
}

/* Before a step the bounds are widened to what it may lead to, behind it they are what it led to. */
static void publish(unsigned h, bool widen)
{
	for (unsigned t = 0; t < TEXTS; t++) {
		uint32_t n = depth_of(h, t), lo = atomic_load(&least[h][t]), hi = atomic_load(&most[h][t]);

		atomic_store(&least[h][t], widen && lo < n ? lo : n);
		atomic_store(&most[h][t], widen && hi > n ? hi : n);
	}
}

static void step_begin(unsigned h, void (*change)(unsigned h, unsigned t, unsigned i), unsigned t, unsigned from,
		       unsigned n)
{
	for (unsigned i = from; i < from + n; i++)
		change(h, t, i);
	publish(h, true); /* wider is never wrong: so first, then the number */
	atomic_fetch_add(&steps, 1);
}

static void step_end(unsigned h)
{
	publish(h, false);
	atomic_fetch_add(&steps, 1);
}

static void gain(unsigned h, unsigned t, unsigned i)
{
	has[h][node_of[t][i]]++;
}

static void lose(unsigned h, unsigned t, unsigned i)
{
	has[h][node_of[t][i]] -= has[h][node_of[t][i]] > 0;
}

static void put(unsigned h, unsigned t, unsigned n)
{
	step_begin(h, gain, t, 0, n);
	if (index_put(x, h, NS, false, 0, hash[t], ends, n, text[t], TOKENS, TIER_GPU, 0) && !lossy)
		abort();
	step_end(h);
}

static void take_out(unsigned h, unsigned t, unsigned i)
{
	step_begin(h, lose, t, i, 1);
	index_remove(x, h, &hash[t][i], 1, TIER_GPU);
	step_end(h);
}

static void clear(unsigned h)
{
	memset(has[h], 0, sizeof(has[h]));
	publish(h, true);
	atomic_fetch_add(&steps, 1);
	index_clear(x, h);
	step_end(h);
}

static void guess(unsigned h, unsigned t, struct rng *rng, unsigned round)
{
	uint64_t at[LEN / INDEX_CHUNK + 1];
	struct index_text it;

	index_text_init(&it, at, LEN / INDEX_CHUNK + 1);
	index_text_feed(x, &it, text[t], LEN);
	speculate(x, h, NS + 1, at, 0, (uint32_t)rng_below(rng, it.n), 3584, h == 1 ? 0 : round + 20, 200);
}

/* Texts that no reader looks for: they make the tables grow and the ceiling press. */
static void noise(unsigned h, struct rng *rng)
{
	static char other[LEN];
	uint64_t own[BLOCKS];
	unsigned n = 1 + (unsigned)rng_below(rng, BLOCKS);

	for (unsigned i = 0; i < n * BYTES; i++)
		other[i] = (char)rng_next(rng);
	for (unsigned i = 0; i < n; i++)
		own[i] = hash_bytes(other, (i + 1) * (size_t)BYTES, 2);
	(void)index_put(x, h, NS, false, 0, own, ends, n, other, TOKENS, TIER_GPU, 0);
	if (!lossy)
		index_remove(x, h, own, n, TIER_GPU);
}

/* Before a count comes to its end in the index. */
static bool often(unsigned h)
{
	for (unsigned i = 0; i < TEXTS * BLOCKS; i++)
		if (has[h][i] > 1000)
			return true;
	return false;
}

static void churn(struct rng *rng, unsigned round)
{
	unsigned h = 1 + (unsigned)rng_below(rng, HOLDERS - 1), t = (unsigned)rng_below(rng, TEXTS);

	switch (rng_below(rng, 8)) {
	case 0 ... 2:
		put(h, t, 1 + (unsigned)rng_below(rng, BLOCKS));
		break;
	case 3 ... 4:
		for (unsigned i = 0; i < 10; i++)
			take_out(h, t, (unsigned)rng_below(rng, BLOCKS));
		break;
	case 5:
		noise(h, rng);
		break;
	case 6:
		guess(h, t, rng, round);
		break;
	default:
		if (rng_below(rng, 8) == 0 || often(h))
			clear(h);
	}
	/* Stored again, so that it is never among the oldest. */
	if (index_put(x, 0, NS, false, 0, hash[0], ends, STABLE, text[0], TOKENS, TIER_GPU, 0))
		abort();
	if (round % 4 == 0)
		index_tick(x, round);
}

/* --- the readers --- */

struct bounds {
	uint32_t least[HOLDERS], most[HOLDERS];
};

/* The step; 0: it is all over. */
static uint64_t bounds_read(unsigned t, struct bounds *b)
{
	uint64_t before, after;

	do {
		before = atomic_load(&steps);
		for (unsigned h = 0; h < HOLDERS; h++) {
			b->least[h] = atomic_load(&least[h][t]);
			b->most[h] = atomic_load(&most[h][t]);
		}
		after = atomic_load(&steps);
	} while (before != after && !atomic_load(&stop));
	return before == after ? after + 1 : 0;
}

static void judge(struct reader *r, unsigned t, const struct index_hit *hit, unsigned n, const struct bounds *b,
		  bool still)
{
	uint32_t blocks[HOLDERS] = { 0 };
	uint64_t wrong = r->wrong;

	for (unsigned i = 0; i < n; i++) {
		if (hit[i].holder >= HOLDERS || !hit[i].exact) {
			r->wrong++;
			continue;
		}
		blocks[hit[i].holder] = hit[i].blocks;
		r->wrong += hit[i].tokens != hit[i].blocks * TOKENS || hit[i].bytes != hit[i].blocks * (uint64_t)BYTES;
	}
	/* Cached to its end counts one block less. */
	for (unsigned h = 1; h < HOLDERS && still; h++) {
		uint32_t lo = b->least[h] == BLOCKS ? BLOCKS - 1 : b->least[h];

		r->wrong += blocks[h] > b->most[h] || (blocks[h] < lo && !lossy);
		if (wrong != r->wrong && !r->why[0])
			snprintf(r->why, sizeof(r->why), "text %u, holder %u: %u blocks, %u to %u were right", t, h,
				 blocks[h], lo, b->most[h]);
	}
	r->wrong += t == 0 && blocks[0] != STABLE;
	if (wrong != r->wrong && !r->why[0])
		snprintf(r->why, sizeof(r->why), "text %u: holder 0 has %u blocks", t, blocks[0]);
	r->sure += still;
}

static void *read_on(void *arg)
{
	struct reader *r = arg;
	static const unsigned lens = 5;
	uint64_t at[LEN / INDEX_CHUNK + 1];
	struct index_hit hit[2 * HOLDERS];
	struct index_text it;

	for (unsigned t = r->id % TEXTS; !atomic_load(&stop); t = (t + 1) % TEXTS) {
		index_text_init(&it, at, LEN / INDEX_CHUNK + 1);
		index_text_feed(x, &it, text[t], LEN);
		for (unsigned k = 0; k < lens; k++) {
			struct bounds b, after;
			uint64_t step = bounds_read(t, &b);
			bool still;
			unsigned n;

			qsbr_enter(&qsbr, r->id);
			n = index_match(x, NS, &it, text[t], LEN, hit, 2 * HOLDERS);
			qsbr_leave(&qsbr, r->id);
			still = step && bounds_read(t, &after) == step;
			judge(r, t, hit, n, &b, still);
			r->looks++;
		}
	}
	return NULL;
}

static void run(uint64_t seed, uint64_t ns, size_t ceiling)
{
	struct reader reader[READERS];
	struct rng rng = { seed };
	struct index_stats st;
	unsigned rounds = 0;
	uint64_t end, sure = 0;

	memset(has, 0, sizeof(has));
	memset((void *)least, 0, sizeof(least));
	memset((void *)most, 0, sizeof(most));
	atomic_store(&stop, false);
	qsbr_init(&qsbr, READERS);
	x = index_new(&qsbr, ceiling, HOLDERS);
	assert_non_null(x);
	assert_int_equal(index_put(x, 0, NS, false, 0, hash[0], ends, STABLE, text[0], TOKENS, TIER_GPU, 0), 0);
	for (index_stats(x, &st); lossy && st.evicted < 100; index_stats(x, &st)) {
		noise(1, &rng);
		assert_int_equal(index_put(x, 0, NS, false, 0, hash[0], ends, STABLE, text[0], TOKENS, TIER_GPU, 0), 0);
	}
	for (unsigned i = 0; i < READERS; i++) {
		reader[i] = (struct reader){ .id = i };
		assert_int_equal(pthread_create(&reader[i].thread, NULL, read_on, &reader[i]), 0);
	}
	for (end = time_mono() + ns; time_mono() < end;)
		churn(&rng, ++rounds);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(reader[i].thread, NULL);
		if (reader[i].wrong)
			fail_msg("seed %llu: %llu of %llu look-ups are wrong: %s", (unsigned long long)seed,
				 (unsigned long long)reader[i].wrong, (unsigned long long)reader[i].looks,
				 reader[i].why);
		assert_true(reader[i].looks > 10);
		sure += reader[i].sure;
	}
	index_stats(x, &st);
	assert_true(sure > 10);
	assert_true(lossy ? st.evicted > 100 : st.evicted == 0);
	if (getenv("V"))
		fprintf(stderr, "%u steps, %llu look-ups with sure bounds, %llu evicted\n", rounds,
			(unsigned long long)sure, (unsigned long long)st.evicted);
	index_free(x);
}

static void runs(size_t ceiling)
{
	const char *seed = getenv("KVS_SEED"), *seconds = getenv("KVS_SECONDS");
	uint64_t s = seed ? strtoull(seed, NULL, 0) : rand_secret() >> 32;

	lossy = ceiling < (size_t)4 << 20;
	make_texts();
	fprintf(stderr, "\rseed %llu ", (unsigned long long)s);
	run(s, (seconds ? strtoull(seconds, NULL, 0) : 4) * NS_PER_S, ceiling);
	fprintf(stderr, "\r\033[K");
}

static void readers_see_what_the_plain_reference_has(void **state)
{
	runs((size_t)64 << 20);
}

static void under_a_low_ceiling_they_see_no_more_and_what_is_always_there(void **state)
{
	runs((size_t)1 << 20);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(readers_see_what_the_plain_reference_has),
		cmocka_unit_test(under_a_low_ceiling_they_see_no_more_and_what_is_always_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
