/* SPDX-License-Identifier: Apache-2.0
 * Stories about one index: hashing, blocks that come and go, tiers, the ceiling.
 */
#include "kvindex_scene.h"

#include <errno.h>

#include "base/rand.h"

/* --- hashing --- */

static void hashes_do_not_depend_on_how_text_is_fed(void **state)
{
	struct kvindex *x = fresh();
	uint64_t whole[64], parts[64];
	struct rng r = { 7 };
	char text[3000];

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)rng_next(&r);
	chunks_of(x, text, sizeof(text), whole, 64);
	for (int round = 0; round < 200; round++) {
		struct index_text t;

		index_text_init(&t, parts, 64);
		for (size_t at = 0, n; at < sizeof(text); at += n) {
			n = rng_below(&r, 150);
			if (n > sizeof(text) - at)
				n = sizeof(text) - at;
			assert_int_equal(index_text_feed(x, &t, text + at, n), 0);
		}
		assert_int_equal(t.n, 53);
		assert_int_equal(t.bytes, 3000);
		assert_memory_equal(parts, whole, 53 * sizeof(*whole));
	}
	index_free(x);
}

static void a_full_hash_array_keeps_what_it_has(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 8 * BLOCK);
	struct index_hit hit;
	struct index_text t;
	uint64_t at[4];

	put(x, 1, 100, text, 8);
	index_text_init(&t, at, 4);
	assert_int_equal(index_text_feed(x, &t, text, 30), 0);
	assert_int_equal(index_text_feed(x, &t, text + 30, 8 * BBYTES - 30), -ENOSPC);
	assert_int_equal(t.n, 4);
	assert_int_equal(index_match(x, 0, &t, text, 8 * BBYTES, &hit, 1), 1);
	assert_in_range(hit.bytes, 3 * BBYTES, 7 * BBYTES);
	assert_int_equal(hit.tokens, hit.bytes / 4);
	index_free(x);
}

static void zero_bytes_and_lengths_are_told_apart(void **state)
{
	static const char zeros[400];
	struct kvindex *x = fresh();
	struct str a[2] = { STR("ab"), STR("c") }, b[2] = { STR("a"), STR("bc") }, c[1] = { STR("abc") };

	put(x, 1, 100, zeros, 2);
	assert_int_equal(look(x, 1, 0, zeros, 63).bytes, 0);
	assert_int_equal(look(x, 1, 0, zeros, 64).bytes, 0);
	assert_int_equal(look(x, 1, 0, zeros, 65).bytes, 64);
	assert_int_equal(look(x, 1, 0, zeros, 300).bytes, 128);
	assert_int_not_equal(index_namespace(x, a, 2), index_namespace(x, b, 2));
	assert_int_not_equal(index_namespace(x, a, 2), index_namespace(x, c, 1));
	assert_int_equal(index_namespace(x, a, 2), index_namespace(x, a, 2));
	index_free(x);
}

/* --- matching --- */

static void a_prompt_matches_in_whole_blocks(void **state)
{
	static const struct {
		unsigned tokens, want; /* of a prompt; of its 6 stored blocks */
	} rows[] = { { 0, 0 },	 { 1, 0 },   { 15, 0 },	 { 16, 0 },  { 17, 16 }, { 31, 16 },
		     { 32, 16 }, { 33, 32 }, { 95, 80 }, { 96, 80 }, { 97, 96 }, { 500, 96 } };
	struct kvindex *x = fresh();
	const char *text = text_of(0, 500);

	put(x, 3, 100, text, 6);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct index_hit hit = look(x, 3, 0, text, (size_t)rows[i].tokens * 4);

		assert_int_equal(hit.tokens, rows[i].want);
		assert_int_equal(hit.blocks, rows[i].want / BLOCK);
		assert_int_equal(hit.bytes, rows[i].want * 4);
		assert_int_equal(hit.exact, rows[i].want > 0);
	}
	index_free(x);
}

static void text_that_differs_ends_the_match_in_its_block(void **state)
{
	struct kvindex *x = fresh();
	char *text = text_of(0, 40 * BLOCK);

	put(x, 0, 100, text, 40);
	for (unsigned at = 0; at < 40 * BBYTES; at += 37) {
		text[at] ^= 1;
		assert_int_equal(tokens(x, 0, text, 40 * BLOCK), at / BBYTES * BLOCK);
		text[at] ^= 1;
	}
	index_free(x);
}

static void a_prompt_cached_to_its_end_computes_its_last_block(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 33);

	put(x, 2, 100, text, 2);
	assert_int_equal(tokens(x, 2, text, 32), 16);
	assert_int_equal(tokens(x, 2, text, 33), 32);
	index_free(x);
}

static void holders_differ_in_depth(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 200 * BLOCK);

	for (unsigned h = 0; h < 8; h++)
		put(x, h, 1000 * h, text, 1 + 27 * h);
	for (unsigned h = 0; h < 8; h++)
		assert_int_equal(tokens(x, h, text, 200 * BLOCK), (1 + 27 * h) * BLOCK);
	/* Shared blocks are one node: 190 of the deepest and the root. */
	assert_int_equal(stats(x).nodes, 191);
	index_free(x);
}

static void namespaces_do_not_match_each_other(void **state)
{
	struct str a = STR("base"), b = STR("lora");
	struct kvindex *x = fresh();
	const char *text = text_of(0, 100);
	uint64_t na = index_namespace(x, &a, 1), nb = index_namespace(x, &b, 1);

	assert_int_equal(put_from(x, 0, na, false, 0, 1, text, 4, BLOCK, TIER_GPU), 0);
	assert_int_equal(put_from(x, 1, nb, false, 0, 1, text, 2, BLOCK, TIER_GPU), 0);
	assert_int_equal(look(x, 0, na, text, 400).tokens, 64);
	assert_int_equal(look(x, 0, nb, text, 400).tokens, 0);
	assert_int_equal(look(x, 1, nb, text, 400).tokens, 32);
	/* With a parent the chain's own namespace goes on, whatever is given. */
	assert_int_equal(put_from(x, 1, 0, true, 2, 3, text + 128, 2, BLOCK, TIER_GPU), 0);
	assert_int_equal(look(x, 1, nb, text, 400).tokens, 64);
	assert_int_equal(look(x, 1, 0, text, 400).tokens, 0);
	index_free(x);
}

/* Field case T6: a prompt with a BOS of its own is another chain than one without. */
static void one_bos_and_two_are_different_chains(void **state)
{
	struct kvindex *x = fresh();
	char one[300], two[300], rest[64 * 4 + 1];

	snprintf(rest, sizeof(rest), "%.256s", text_of(0, 64));
	snprintf(one, sizeof(one), "<|begin_of_text|>%s", rest);
	snprintf(two, sizeof(two), "<|begin_of_text|><|begin_of_text|>%.200s", rest);
	put(x, 0, 1, two, 3);
	put(x, 1, 1, one, 3);
	assert_int_equal(look(x, 0, 0, two, 230).tokens, 48);
	assert_int_equal(look(x, 1, 0, two, 230).tokens, 0);
	assert_int_equal(look(x, 0, 0, one, 230).tokens, 0);
	assert_int_equal(look(x, 1, 0, one, 230).tokens, 48);
	index_free(x);
}

/* Field case K4. */
static void blocks_of_one_token_are_counted_one_by_one(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 301);

	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(put_from(x, 5, 0, i > 0, i, i + 1, text + (size_t)i * 4, 1, 1, TIER_GPU), 0);
	assert_int_equal(tokens(x, 5, text, 300), 299);
	assert_int_equal(tokens(x, 5, text, 301), 300);
	for (unsigned n = 1; n < 300; n += 13)
		assert_int_equal(tokens(x, 5, text, n), n - 1);
	assert_int_equal(remove_one(x, 5, 150), 1);
	assert_int_equal(tokens(x, 5, text, 300), 149);
	assert_int_equal(stats(x).unreachable, 150);
	index_free(x);
}

static void holders_with_other_block_sizes_share_a_text(void **state)
{
	static const unsigned size[] = { 1, 2, 8, 16, 64, 128 };
	struct kvindex *x = fresh();
	const char *text = text_of(0, 1000);

	for (unsigned h = 0; h < 6; h++)
		assert_int_equal(put_from(x, h, 0, false, 0, 1, text, 512 / size[h], size[h], TIER_GPU), 0);
	for (unsigned n = 1; n < 1000; n += 9)
		for (unsigned h = 0; h < 6; h++) {
			unsigned full = (n - 1) / size[h] * size[h];

			assert_int_equal(tokens(x, h, text, n), full < 512 ? full : 512);
		}
	index_free(x);
}

static void many_siblings_are_told_apart(void **state)
{
	enum { N = 10000, SHARED = 40 };
	struct kvindex *x = fresh();
	char *text = text_of(0, 64);
	uint64_t before, us;

	put(x, 0, 1, text, 2);
	for (unsigned i = 0; i < N; i++) {
		snprintf(text + 128 + SHARED, 25, "%024u", i);
		assert_int_equal(put_from(x, i % 8, 0, false, 0, 1, text, 2, BLOCK, TIER_GPU), 0);
		assert_int_equal(put_from(x, i % 8, 0, true, 2, 100 + i, text + 128, 1, BLOCK, TIER_GPU), 0);
	}
	assert_true(stats(x).keys < 2 * N);
	before = time_ns_of(CLOCK_THREAD_CPUTIME_ID);
	for (unsigned i = 0; i < N; i += 97) {
		snprintf(text + 128 + SHARED, 30, "%024uabcde", i);
		assert_int_equal(tokens(x, i % 8, text, 49), 48);
		assert_int_equal(tokens(x, (i + 1) % 8, text, 49), 32);
	}
	us = (time_ns_of(CLOCK_THREAD_CPUTIME_ID) - before) / 1000 / (2 * (N / 97 + 1));
	assert_true(us < 1000);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(remove_one(x, i % 8, 100 + i), 1);
	assert_int_equal(tokens(x, 1, text, 49), 32);
	index_free(x);
}

/* --- what holders lose and get back --- */

static void a_block_is_removed_as_often_as_it_was_stored(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 100);
	uint64_t h[] = { 100, 101 };

	put(x, 0, 100, text, 2);
	put(x, 0, 100, text, 2);
	assert_int_equal(index_remove(x, 0, h, 2, TIER_GPU), 2);
	assert_int_equal(tokens(x, 0, text, 100), 32);
	assert_int_equal(index_remove(x, 0, h, 2, TIER_GPU), 2);
	assert_int_equal(tokens(x, 0, text, 100), 0);
	assert_int_equal(index_remove(x, 0, h, 2, TIER_GPU), 0);
	assert_int_equal(stats(x).nodes, 0);
	assert_int_equal(stats(x).keys, 0);
	index_free(x);
}

static void tiers_are_counted_apart(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 100);
	uint64_t h[] = { 100, 101, 999 };

	put(x, 0, 100, text, 2);
	assert_int_equal(index_put_tier(x, 0, h, 3, TIER_CPU), 2);
	assert_int_equal(index_remove(x, 0, h, 3, TIER_DISK), 0);
	assert_int_equal(index_remove(x, 0, h, 3, TIER_GPU), 2);
	assert_int_equal(tokens(x, 0, text, 100), 32);
	assert_int_equal(index_put_tier(x, 0, h, 1, TIER_DISK), 1);
	index_clear_tier(x, 0, TIER_CPU);
	assert_int_equal(tokens(x, 0, text, 100), 16);
	index_clear_tier(x, 0, TIER_GPU);
	assert_int_equal(tokens(x, 0, text, 100), 16);
	index_clear_tier(x, 0, TIER_DISK);
	assert_int_equal(stats(x).nodes, 0);
	index_free(x);
}

static void tiers_are(struct kvindex *x, unsigned holder, const char *text, unsigned ntokens, uint32_t gpu,
		      uint32_t cpu, uint32_t disk)
{
	struct index_hit hit = look(x, holder, 0, text, (size_t)ntokens * 4);

	assert_int_equal(hit.in_tier[TIER_GPU], gpu);
	assert_int_equal(hit.in_tier[TIER_CPU], cpu);
	assert_int_equal(hit.in_tier[TIER_DISK], disk);
	assert_int_equal(hit.tokens, gpu + cpu + disk);
}

/* Six holders: the sets of popular nodes are kept in another form. */
static void a_hit_tells_which_tiers_it_needs(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 640);
	uint64_t h[40];

	for (unsigned i = 0; i < 40; i++)
		h[i] = 100 + i;
	for (unsigned nholders = 1; nholders <= 6; nholders++) {
		unsigned holder = nholders - 1;

		put(x, holder, 100, text, 40);
		tiers_are(x, holder, text, 641, 640, 0, 0);
		index_put_tier(x, holder, h + 10, 30, TIER_CPU);
		index_put_tier(x, holder, h + 30, 10, TIER_DISK);
		tiers_are(x, holder, text, 641, 640, 0, 0);
		index_remove(x, holder, h + 20, 20, TIER_GPU);
		tiers_are(x, holder, text, 641, 320, 320, 0);
		index_remove(x, holder, h + 30, 10, TIER_CPU);
		tiers_are(x, holder, text, 641, 320, 160, 160);
		tiers_are(x, holder, text, 330, 320, 0, 0);
		/* A block in the GPU behind one that is not there is of no use to it. */
		index_put_tier(x, holder, h + 12, 1, TIER_CPU);
		index_remove(x, holder, h + 12, 1, TIER_GPU);
		tiers_are(x, holder, text, 641, 192, 288, 160);
	}
	for (unsigned holder = 0; holder < 5; holder++) {
		index_put_tier(x, holder, h + 12, 1, TIER_GPU);
		index_put_tier(x, holder, h + 20, 20, TIER_GPU);
		tiers_are(x, holder, text, 641, 640, 0, 0);
	}
	tiers_are(x, 5, text, 641, 192, 288, 160);
	index_clear_tier(x, 5, TIER_GPU);
	tiers_are(x, 5, text, 641, 0, 0, 0); /* the first ten were nowhere else */
	index_clear(x, 5);
	put(x, 5, 100, text, 40);
	tiers_are(x, 5, text, 641, 640, 0, 0);
	index_free(x);
}

static void an_evicted_block_hides_its_descendants_until_it_is_back(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 20 * BLOCK);

	put(x, 0, 100, text, 20);
	put(x, 1, 100, text, 20);
	assert_int_equal(remove_one(x, 0, 107), 1);
	assert_int_equal(tokens(x, 0, text, 20 * BLOCK), 7 * BLOCK);
	assert_int_equal(tokens(x, 1, text, 20 * BLOCK), 19 * BLOCK);
	assert_int_equal(stats(x).unreachable, 12);
	assert_int_equal(remove_one(x, 0, 112), 1);
	assert_int_equal(put_from(x, 0, 0, true, 106, 107, text + 7 * BBYTES, 1, BLOCK, TIER_GPU), 0);
	assert_int_equal(tokens(x, 0, text, 20 * BLOCK), 12 * BLOCK);
	assert_int_equal(put_from(x, 0, 0, true, 111, 112, text + 12 * BBYTES, 1, BLOCK, TIER_GPU), 0);
	assert_int_equal(tokens(x, 0, text, 20 * BLOCK), 19 * BLOCK);
	assert_int_equal(stats(x).unreachable, 0);
	/* Another hash for the first block: the chain is the text's, not the hash's. */
	assert_int_equal(remove_one(x, 0, 100), 1);
	assert_int_equal(tokens(x, 0, text, 20 * BLOCK), 0);
	put(x, 0, 5000, text, 1);
	assert_int_equal(tokens(x, 0, text, 20 * BLOCK), 19 * BLOCK);
	index_free(x);
}

static void a_block_may_have_several_hashes(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 100);

	put(x, 0, 100, text, 3);
	put(x, 0, 200, text, 3);
	put(x, 0, 300, text, 3);
	assert_int_equal(remove_one(x, 0, 200), 1);
	assert_int_equal(remove_one(x, 0, 100), 1);
	assert_int_equal(tokens(x, 0, text, 100), 48);
	assert_int_equal(remove_one(x, 0, 300), 1);
	assert_int_equal(tokens(x, 0, text, 100), 0);
	index_clear(x, 0);
	assert_int_equal(stats(x).nodes, 0);
	assert_int_equal(stats(x).unreachable, 0);
	index_free(x);
}

static void a_hash_that_comes_with_another_text_has_moved(void **state)
{
	struct kvindex *x = fresh();
	char other[400];

	memcpy(other, text_of(1, 100), sizeof(other));
	put(x, 0, 100, other, 2);
	put(x, 0, 100, text_of(0, 100), 2);
	assert_int_equal(tokens(x, 0, other, 100), 0);
	assert_int_equal(tokens(x, 0, text_of(0, 100), 100), 32);
	index_free(x);
}

static void an_unknown_parent_is_refused(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 100);

	assert_int_equal(put_from(x, 0, 0, true, 99, 100, text, 2, BLOCK, TIER_GPU), -ENOENT);
	put(x, 1, 99, text, 1);
	assert_int_equal(put_from(x, 0, 0, true, 99, 100, text, 2, BLOCK, TIER_GPU), -ENOENT);
	assert_int_equal(stats(x).unknown_parent, 2);
	index_free(x);
}

/* Field cases K1, K2, K3 as the index sees them: recovery stores again what is known; a restart or an idle clear is
 * index_clear, and what is stored afterwards stays. */
static void recovery_and_restart_leave_what_is_true(void **state)
{
	struct kvindex *x = fresh();
	char a[400];
	const char *b;
	uint64_t blocks, guesses;

	memcpy(a, text_of(0, 100), sizeof(a));
	b = text_of(1, 100);
	put(x, 0, 100, a, 5);
	put(x, 1, 100, a, 5);
	put(x, 0, 100, a, 3);
	assert_int_equal(tokens(x, 0, a, 100), 80);
	index_clear(x, 0);
	put(x, 0, 200, b, 2);
	assert_int_equal(tokens(x, 0, a, 100), 0);
	assert_int_equal(tokens(x, 1, a, 100), 80);
	assert_int_equal(tokens(x, 0, b, 100), 32);
	assert_int_equal(remove_one(x, 0, 100), 0);
	index_holder_stats(x, 0, &blocks, &guesses);
	assert_int_equal(blocks, 2);
	assert_int_equal(guesses, 0);
	index_clear(x, 0);
	index_clear(x, 1);
	index_tick(x, 1);
	index_tick(x, 2);
	assert_int_equal(stats(x).nodes, 0);
	assert_int_equal(stats(x).keys, 0);
	index_free(x);
}

/* --- the ceiling --- */

static void at_the_ceiling_guesses_go_first_then_old_blocks(void **state)
{
	size_t max = (size_t)2 << 20;
	struct kvindex *x;
	uint64_t at[200];
	char *text;

	qsbr_init(&qsbr, 1);
	x = index_new(&qsbr, max, 8);
	text = text_of(0, 3000);
	chunks_of(x, text, 11200, at, 200);
	assert_int_equal(speculate(x, 0, 0, at, 0, 200, 3584, NS_PER_S, 0), 0);
	for (unsigned doc = 0; doc < 2000; doc++) {
		snprintf(text, 11, "%010u", doc);
		assert_int_equal(put_from(x, doc % 8, 0, false, 0, 100 * doc, text, 100, BLOCK, TIER_GPU), 0);
		assert_int_equal(tokens(x, doc % 8, text, 100 * BLOCK + 1), 100 * BLOCK);
		assert_in_range(stats(x).bytes, 0, max);
		if (doc < 10)
			continue;
		/* One that is asked for again and again stays. */
		snprintf(text, 11, "%010u", 5);
		assert_int_equal(put_from(x, 5, 0, false, 0, 500, text, 100, BLOCK, TIER_GPU), 0);
	}
	assert_true(stats(x).evicted > 100000);
	assert_true(stats(x).nodes > max / 200);
	snprintf(text, 11, "%010u", 5);
	assert_int_equal(tokens(x, 5, text, 100 * BLOCK + 1), 100 * BLOCK);
	snprintf(text, 11, "%010u", 1);
	assert_int_equal(tokens(x, 1, text, 100 * BLOCK + 1), 0);
	for (unsigned h = 0; h < 8; h++)
		index_clear(x, h);
	assert_int_equal(stats(x).nodes, 0);
	assert_int_equal(stats(x).unreachable, 0);
	index_free(x);
}

/* Whatever has to grow for a block: one holder's map, keys inside of a long block, a second hash, a guess. */
static void nothing_grows_through_the_ceiling(void **state)
{
	static const struct {
		unsigned holders, blocks, block; /* block: tokens */
		bool twice, guess;
	} rows[] = { { 1, 10, 16, false, false },
		     { 1, 4, 2000, false, false },
		     { 3, 20, 16, true, false },
		     { 2, 1, 16, false, true },
		     { 1, 300, 1, true, true } };
	static char text[4 * 8000];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t max = ((size_t)1 << 20) + i * 77777;
		struct kvindex *x;
		uint64_t at[100];

		qsbr_init(&qsbr, 1);
		x = index_new(&qsbr, max, 8);
		memcpy(text, text_of(0, 8000), sizeof(text));
		for (unsigned doc = 0; doc < 2000; doc++) {
			unsigned h = doc % rows[i].holders;

			snprintf(text, 11, "%010u", doc);
			for (unsigned n = 0; n <= rows[i].twice; n++)
				assert_int_equal(put_from(x, h, 0, false, 0, 1000 * (2 * doc + n), text, rows[i].blocks,
							  rows[i].block, TIER_GPU),
						 0);
			chunks_of(x, text, sizeof(at) / 8 * INDEX_CHUNK, at, 100);
			if (rows[i].guess)
				assert_int_equal(speculate(x, h, 0, at, 0, 100, 3584, NS_PER_S, 0), 0);
			assert_in_range(stats(x).bytes, 0, max);
		}
		assert_true(stats(x).evicted > 1000);
		index_free(x);
	}
}

/* What is retired while a reader is inside stays as long as he does. */
static void a_reader_inside_holds_the_ceiling_up_no_longer_than_he_stays(void **state)
{
	size_t max = (size_t)2 << 20;
	struct kvindex *x;
	char *text;

	qsbr_init(&qsbr, 1);
	x = index_new(&qsbr, max, 8);
	text = text_of(0, 1000);
	for (unsigned doc = 0; doc < 1000; doc++) {
		if (doc % 100 == 50)
			qsbr_enter(&qsbr, 0);
		snprintf(text, 11, "%010u", doc);
		put_from(x, doc % 8, 0, false, 0, 100 * doc, text, 50, BLOCK, TIER_GPU);
		assert_in_range(stats(x).bytes, 0, max * 2);
		if (doc % 100 == 60)
			qsbr_leave(&qsbr, 0);
		index_tick(x, 1);
		index_tick(x, 1);
		if (doc % 100 < 50 || doc % 100 >= 60)
			assert_in_range(stats(x).bytes, 0, max);
	}
	index_free(x);
}

static void a_ceiling_too_low_for_one_chain_is_an_error(void **state)
{
	struct kvindex *x;

	qsbr_init(&qsbr, 1);
	x = index_new(&qsbr, 1000, 8);
	assert_int_equal(put_from(x, 0, 0, false, 0, 1, text_of(0, 64), 4, BLOCK, TIER_GPU), -ENOMEM);
	assert_int_equal(stats(x).nodes, 0);
	index_free(x);
	assert_null(index_new(&qsbr, 1 << 20, 0));
	assert_null(index_new(&qsbr, 1 << 20, INDEX_HOLDERS + 1));
	index_free(NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(hashes_do_not_depend_on_how_text_is_fed),
		cmocka_unit_test(a_full_hash_array_keeps_what_it_has),
		cmocka_unit_test(zero_bytes_and_lengths_are_told_apart),
		cmocka_unit_test(a_prompt_matches_in_whole_blocks),
		cmocka_unit_test(text_that_differs_ends_the_match_in_its_block),
		cmocka_unit_test(a_prompt_cached_to_its_end_computes_its_last_block),
		cmocka_unit_test(holders_differ_in_depth),
		cmocka_unit_test(namespaces_do_not_match_each_other),
		cmocka_unit_test(one_bos_and_two_are_different_chains),
		cmocka_unit_test(blocks_of_one_token_are_counted_one_by_one),
		cmocka_unit_test(holders_with_other_block_sizes_share_a_text),
		cmocka_unit_test(many_siblings_are_told_apart),
		cmocka_unit_test(a_block_is_removed_as_often_as_it_was_stored),
		cmocka_unit_test(tiers_are_counted_apart),
		cmocka_unit_test(a_hit_tells_which_tiers_it_needs),
		cmocka_unit_test(an_evicted_block_hides_its_descendants_until_it_is_back),
		cmocka_unit_test(a_block_may_have_several_hashes),
		cmocka_unit_test(a_hash_that_comes_with_another_text_has_moved),
		cmocka_unit_test(an_unknown_parent_is_refused),
		cmocka_unit_test(recovery_and_restart_leave_what_is_true),
		cmocka_unit_test(at_the_ceiling_guesses_go_first_then_old_blocks),
		cmocka_unit_test(nothing_grows_through_the_ceiling),
		cmocka_unit_test(a_reader_inside_holds_the_ceiling_up_no_longer_than_he_stays),
		cmocka_unit_test(a_ceiling_too_low_for_one_chain_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
