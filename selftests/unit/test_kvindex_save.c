/* SPDX-License-Identifier: Apache-2.0
 * An index and another one that has taken in what it saved must answer alike, now and after the same events, under
 * other holder numbers. Random chains that part, lose blocks in the middle, lie in several tiers. KVS_SEED=N replays.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rand.h"
#include "kvindex/kvindex.h"

#define HOLDERS 6
#define CHAINS	8
#define BLOCKS	60
#define TEXT	(BLOCKS * 130)

static struct qsbr qsbr;
static struct rng rng;
static char text[CHAINS][TEXT];
static uint32_t ends[CHAINS][BLOCKS];
static uint64_t hashes[CHAINS][BLOCKS];
static unsigned nblocks[CHAINS];

static unsigned below(unsigned n)
{
	return (unsigned)rng_below(&rng, n);
}

/* Chains that have a beginning in common, cut alike there. */
static void make_chains(void)
{
	for (unsigned c = 0; c < CHAINS; c++) {
		unsigned of = c % 3, from = c > of ? below(BLOCKS / 2) : 0;
		uint32_t at = 0;

		for (unsigned i = 0; i < BLOCKS; i++) {
			if (i < from) {
				ends[c][i] = ends[of][i];
				hashes[c][i] = hashes[of][i];
				memcpy(text[c] + at, text[of] + at, ends[c][i] - at);
			} else {
				ends[c][i] = at + below(8) * 16; /* also none */
				hashes[c][i] = rng_next(&rng);
				for (uint32_t k = at; k < ends[c][i]; k++)
					text[c][k] = (char)('a' + below(26));
			}
			at = ends[c][i];
		}
		nblocks[c] = BLOCKS;
	}
}

static void step(struct kvindex *const *x, const unsigned (*holder)[HOLDERS], unsigned nx)
{
	unsigned c = below(CHAINS), from = below(3) ? 0 : below(BLOCKS), n = 1 + below(BLOCKS - from),
		 h = below(HOLDERS);
	unsigned what = below(10), i = below(BLOCKS);
	uint32_t base = from ? ends[c][from - 1] : 0, rel[BLOCKS];
	enum index_tier tier = below(3) ? TIER_GPU : (enum index_tier)below(TIER_N);
	int first = 0;

	for (unsigned k = 0; k < n; k++)
		rel[k] = ends[c][from + k] - base;
	for (unsigned k = 0; k < nx; k++) {
		unsigned to = holder[k][h];
		int r = 0;

		if (what < 4)
			r = index_put(x[k], to, c % 3, from > 0, from ? hashes[c][from - 1] : 0, hashes[c] + from, rel,
				      n, text[c] + base, 16, tier, 0);
		else if (what < 9)
			r = (int)index_remove(x[k], to, &hashes[c][i], 1, tier);
		else
			r = (int)index_put_tier(x[k], to, &hashes[c][i], 1, tier);
		/* What could not be reached was not saved, so it is known to the first only. */
		if (k && r != first && first >= 0)
			assert_true(r <= first);
		first = k ? first : r;
	}
}

static unsigned look(const struct kvindex *x, unsigned c, uint32_t len, struct index_hit *hits)
{
	uint64_t at[TEXT / INDEX_CHUNK + 1];
	struct index_text t;
	unsigned n;

	index_text_init(&t, at, TEXT / INDEX_CHUNK + 1);
	assert_int_equal(index_text_feed(x, &t, text[c], len), 0);
	qsbr_enter(&qsbr, 0);
	n = index_match(x, c % 3, &t, text[c], len, hits, HOLDERS);
	qsbr_leave(&qsbr, 0);
	return n;
}

static const struct index_hit *hit_of(const struct index_hit *hits, unsigned n, unsigned holder)
{
	static const struct index_hit none;

	for (unsigned i = 0; i < n; i++)
		if (hits[i].holder == holder)
			return &hits[i];
	return &none;
}

static void must_agree(struct kvindex *const *x, const unsigned (*holder)[HOLDERS])
{
	struct index_hit a[HOLDERS], b[HOLDERS];

	for (unsigned c = 0; c < CHAINS; c++)
		for (unsigned k = 0; k < 4; k++) {
			uint32_t len = k ? below(ends[c][BLOCKS - 1] + 1) : ends[c][BLOCKS - 1];
			unsigned na = look(x[0], c, len, a), nb = look(x[1], c, len, b);

			for (unsigned h = 0; h < HOLDERS; h++) {
				const struct index_hit *p = hit_of(a, na, holder[0][h]),
						       *q = hit_of(b, nb, holder[1][h]);

				if (p->tokens != q->tokens || p->bytes != q->bytes || p->blocks != q->blocks ||
				    memcmp(p->in_tier, q->in_tier, sizeof(p->in_tier)) != 0)
					fail_msg("chain %u, %u bytes, holder %u: %u tokens, then %u", c, len, h,
						 p->tokens, q->tokens);
			}
		}
}

static struct kvindex *copy_of(const struct kvindex *x, const unsigned (*holder)[HOLDERS], size_t max, int want)
{
	struct index_secrets s;
	struct kvindex *y;

	index_secrets_of(x, &s);
	y = index_new_with(&qsbr, max, 2 * HOLDERS, &s);
	assert_non_null(y);
	for (unsigned h = 0; h < HOLDERS; h++) {
		struct buf b = { 0 };
		int r;

		assert_int_equal(index_save(x, holder[0][h], &b), 0);
		r = index_load(y, holder[1][h], buf_data(&b), buf_len(&b));
		assert_true(r == 0 || r == want);
		buf_free(&b);
	}
	return y;
}

static uint64_t seed_of(void)
{
	const char *given = getenv("KVS_SEED");

	return given ? strtoull(given, NULL, 0) : rand_secret();
}

static void what_was_saved_answers_alike_and_goes_on(void **state)
{
	static const unsigned holder[2][HOLDERS] = { { 0, 1, 2, 3, 4, 5 }, { 11, 3, 0, 7, 5, 2 } };
	uint64_t seed = seed_of();

	for (unsigned round = 0; round < 60; round++) {
		struct kvindex *x[2];

		fprintf(stderr, "\rseed %llu ", (unsigned long long)seed + round);
		rng = (struct rng){ seed + round };
		qsbr_init(&qsbr, 1);
		x[0] = index_new(&qsbr, (size_t)64 << 20, HOLDERS);
		assert_non_null(x[0]);
		make_chains();
		for (unsigned i = 20 + below(60); i; i--)
			step(x, holder, 1);
		x[1] = copy_of(x[0], holder, (size_t)64 << 20, 0);
		must_agree(x, holder);
		/* Only of what is reached: what waits behind a gap is known to the first alone. */
		for (unsigned h = 0; h < HOLDERS; h++) {
			uint64_t a, b, guesses;

			index_holder_stats(x[0], holder[0][h], &a, &guesses);
			index_holder_stats(x[1], holder[1][h], &b, &guesses);
			assert_true(b <= a);
		}
		index_free(x[0]);
		index_free(x[1]);
	}
	fprintf(stderr, "\r\033[K");
}

/* Without gaps all of it is saved, and the two go on alike, reference by reference. */
static void references_go_on_where_they_were(void **state)
{
	static const unsigned holder[2][HOLDERS] = { { 0, 1, 2, 3, 4, 5 }, { 5, 4, 3, 2, 1, 0 } };
	struct kvindex *x[2];

	rng = (struct rng){ 77 };
	qsbr_init(&qsbr, 1);
	x[0] = index_new(&qsbr, (size_t)64 << 20, HOLDERS);
	make_chains();
	for (unsigned h = 0; h < HOLDERS; h++)
		for (unsigned c = 0; c < CHAINS; c++)
			for (unsigned times = below(3); times; times--)
				assert_int_equal(index_put(x[0], h, c % 3, false, 0, hashes[c], ends[c], BLOCKS,
							   text[c], 16, (enum index_tier)below(TIER_N), 0),
						 0);
	x[1] = copy_of(x[0], holder, (size_t)64 << 20, 0);
	for (unsigned i = 0; i < 600; i++) {
		if (i % 20 == 0)
			must_agree(x, holder);
		step(x, holder, 2);
	}
	index_free(x[0]);
	index_free(x[1]);
}

static void at_the_ceiling_it_takes_in_what_fits(void **state)
{
	static const unsigned holder[2][HOLDERS] = { { 0, 1, 2, 3, 4, 5 }, { 0, 1, 2, 3, 4, 5 } };
	struct kvindex *x, *y;
	struct index_stats st;

	rng = (struct rng){ 78 };
	qsbr_init(&qsbr, 1);
	x = index_new(&qsbr, (size_t)64 << 20, HOLDERS);
	make_chains();
	for (unsigned c = 0; c < CHAINS; c++)
		assert_int_equal(index_put(x, c % HOLDERS, c % 3, false, 0, hashes[c], ends[c], BLOCKS, text[c], 16,
					   TIER_GPU, 0),
				 0);
	y = copy_of(x, holder, 80000, -ENOMEM);
	index_stats(y, &st);
	assert_true(st.nodes > 10 && st.bytes <= 80000 && st.evicted == 0);
	index_free(x);
	index_free(y);
}

/* The file's sum keeps damage away from here; who can write the file may have made the sum, too. */
static void what_is_nothing_saved_is_refused_whole(void **state)
{
	static const unsigned holder[2][HOLDERS] = { { 0, 1, 2, 3, 4, 5 }, { 0, 1, 2, 3, 4, 5 } };
	struct kvindex *x, *y;
	struct index_stats st;
	struct buf b = { 0 }, twice = { 0 };
	unsigned refused = 0;

	rng = (struct rng){ 79 };
	qsbr_init(&qsbr, 1);
	x = index_new(&qsbr, (size_t)64 << 20, HOLDERS);
	make_chains();
	assert_int_equal(index_put(x, 0, 1, false, 0, hashes[0], ends[0], BLOCKS, text[0], 16, TIER_CPU, 0), 0);
	y = copy_of(x, holder, (size_t)64 << 20, 0);
	index_clear(y, 0);
	assert_int_equal(index_save(x, 0, &b), 0);
	for (unsigned i = 0; i < 3000; i++) {
		size_t at = rng_below(&rng, buf_len(&b)), n = below(4) ? buf_len(&b) : rng_below(&rng, buf_len(&b));
		char was = b.mem[at];

		b.mem[at] = (char)(was ^ 1 << below(8));
		if (index_load(y, 0, buf_data(&b), n) == -EBADMSG) {
			index_stats(y, &st);
			assert_int_equal(st.nodes, 0);
			refused++;
		}
		b.mem[at] = was;
		index_clear(y, 0);
	}
	assert_true(refused > 500);
	/* References of no tier; all hashes twice. */
	b.mem[43] ^= 0x40;
	assert_int_equal(index_load(y, 0, buf_data(&b), buf_len(&b)), -EBADMSG);
	b.mem[43] ^= 0x40;
	assert_int_equal(buf_put(&twice, buf_data(&b), buf_len(&b)), 0);
	assert_int_equal(buf_put(&twice, buf_data(&b), buf_len(&b)), 0);
	assert_int_equal(index_load(y, 0, buf_data(&twice), buf_len(&twice)), -EBADMSG);
	buf_free(&twice);
	index_stats(y, &st);
	assert_int_equal(st.keys, 0);
	assert_int_equal(index_load(y, 0, "", 0), 0);
	assert_int_equal(index_load(y, 2 * HOLDERS, "", 0), -EINVAL);
	assert_null(index_new_with(&qsbr, 1 << 20, 1, &(struct index_secrets){ 5, 5 }));
	buf_free(&b);
	index_free(x);
	index_free(y);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_saved_answers_alike_and_goes_on),
		cmocka_unit_test(references_go_on_where_they_were),
		cmocka_unit_test(at_the_ceiling_it_takes_in_what_fits),
		cmocka_unit_test(what_is_nothing_saved_is_refused_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
