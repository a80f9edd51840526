/* SPDX-License-Identifier: Apache-2.0
 * Guesses of long prompts, where they are kept at some chunks only: told, refreshed in part, undone, expired, driven
 * out by others, beside real blocks that come and go, under a ceiling or not; and look-ups, against a model in which
 * every holder has a plain array for each text.
 *
 * What is left of a guess behind a gap (its beginning was dropped and not said again) may be found or not, as the
 * prompt did go there; everything else must agree. Under a ceiling the model does not know what had to go: there the
 * index may have less, never more. KVS_SEED=N replays a failure, KVS_SECONDS=N goes on for longer.
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
#include "base/time.h"
#include "kvindex/kvindex_int.h"

#define HOLDERS 4
#define TEXTS	6
#define CHUNKS	3000
#define LEN	(CHUNKS * INDEX_CHUNK)
#define BLOCKS	(LEN / 64)
#define LRU	1500
#define CALLS	8

struct mguess {
	uint64_t until, seq; /* until 0: in the LRU */
	uint32_t refs;	     /* 0: there is none */
};

struct call {
	unsigned holder, text;
	uint32_t from, n;
};

static const uint32_t block_bytes[HOLDERS] = { 64, 64, 320, 1024 };

static struct {
	char text[TEXTS][LEN];
	uint32_t common[TEXTS][TEXTS];
	uint64_t at[TEXTS][CHUNKS + 1];
	struct index_text hash[TEXTS];
	struct mguess guess[HOLDERS][TEXTS][CHUNKS + 1];
	uint16_t block[HOLDERS][TEXTS][BLOCKS + 1]; /* references */
	uint64_t seq;
	struct call call[CALLS];
} m;

static struct qsbr qsbr;
static struct rng rng;
static struct kvindex *x;
static uint64_t now;
static bool lossy;
static unsigned closed, gaps, evicted;

static unsigned below(unsigned n)
{
	return (unsigned)rng_below(&rng, n);
}

/* So that a guess with an end has it. */
static void all_live(void)
{
	for (unsigned h = 0; x && h < HOLDERS; h++)
		index_live(x, h, true, 0);
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* --- the model --- */

static uint32_t step_at(uint32_t c)
{
	return c <= 128 ? 4 : c <= 512 ? 8 : c <= 2048 ? 32 : 128;
}

static bool is_place(uint32_t c)
{
	return c && c % step_at(c) == 0;
}

/* Texts that are equal up to there have one name there. */
static unsigned name_of(unsigned text, uint32_t bytes)
{
	unsigned i = 0;

	while (m.common[text][i] < bytes)
		i++;
	return i;
}

static struct mguess *guess_at(unsigned holder, unsigned text, uint32_t c)
{
	return &m.guess[holder][name_of(text, c * INDEX_CHUNK)][c];
}

static uint16_t *block_at(unsigned holder, unsigned text, uint32_t b)
{
	return &m.block[holder][name_of(text, (b + 1) * block_bytes[holder])][b];
}

static uint64_t block_hash(unsigned holder, unsigned text, uint32_t b)
{
	uint32_t end = (b + 1) * block_bytes[holder];

	return mix64((uint64_t)name_of(text, end) << 40 | (uint64_t)block_bytes[holder] << 28 | b) | 1;
}

static void model_lru(unsigned holder)
{
	for (;;) {
		struct mguess *oldest = NULL;
		uint32_t n = 0;

		for (unsigned t = 0; t < TEXTS; t++)
			for (uint32_t c = step_at(1); c <= CHUNKS; c += step_at(c + 1)) {
				struct mguess *g = &m.guess[holder][t][c];

				if (!g->refs || g->until)
					continue;
				n += step_at(c);
				if (!oldest || g->seq < oldest->seq)
					oldest = g;
			}
		if (n <= LRU)
			return;
		oldest->refs = 0;
	}
}

static void model_say(const struct call *k, uint64_t until)
{
	for (uint32_t i = 0; i < k->n - k->from; i++) {
		uint32_t c = until ? k->from + 1 + i : k->n - i;
		struct mguess *g = guess_at(k->holder, k->text, c);

		if (!is_place(c))
			continue;
		if (!g->refs)
			g->until = until;
		else
			g->until = !until || !g->until ? 0 : until > g->until ? until : g->until;
		g->refs++;
		g->seq = ++m.seq;
	}
	if (!until && !lossy)
		model_lru(k->holder);
}

static void model_unsay(const struct call *k)
{
	for (uint32_t c = k->from + 1; c <= k->n; c++) {
		struct mguess *g = guess_at(k->holder, k->text, c);

		g->refs -= g->refs > 0;
	}
}

static void model_tick(void)
{
	for (unsigned h = 0; h < HOLDERS; h++)
		for (unsigned t = 0; t < TEXTS; t++)
			for (uint32_t c = 1; c <= CHUNKS; c++) {
				struct mguess *g = &m.guess[h][t][c];

				if (g->refs && g->until && g->until <= now)
					g->refs = 0;
			}
}

/* --- look-ups --- */

struct want {
	uint32_t least, most; /* bytes; equal where the index must agree */
	uint32_t real;	      /* of them, in blocks */
	uint32_t any;	      /* bytes, if any part of it may have gone */
};

/* The last block, the last chunk are computed anew. */
static uint32_t not_all(uint32_t bytes, uint32_t len, uint32_t unit)
{
	return bytes && bytes == len ? bytes - unit : bytes;
}

static struct want model_match(unsigned holder, unsigned text, uint32_t len)
{
	uint32_t unit = block_bytes[holder], real = 0, far = 0, prefix = 0;
	bool whole = true;
	struct want w;

	while (real + unit <= len && *block_at(holder, text, real / unit))
		real += unit;
	for (uint32_t c = 1; c <= len / INDEX_CHUNK; c++) {
		if (!is_place(c))
			continue;
		if (guess_at(holder, text, c)->refs)
			far = c * INDEX_CHUNK;
		else if (c * INDEX_CHUNK > real)
			whole = false;
		if (whole && far == c * INDEX_CHUNK)
			prefix = far;
	}
	w.any = real > far ? real : far;
	w.real = not_all(real, len, unit);
	w.most = far > real ? not_all(far, len, INDEX_CHUNK) : 0;
	w.least = prefix > real ? not_all(prefix, len, INDEX_CHUNK) : 0;
	w.most = w.most > w.real ? w.most : w.real;
	w.least = w.least > w.real ? w.least : w.real;
	return w;
}

static unsigned lookup(unsigned text, uint32_t len, struct index_hit *hits)
{
	struct index_text t = m.hash[text];
	unsigned n;

	t.n = len / INDEX_CHUNK;
	t.bytes = len;
	qsbr_enter(&qsbr, 0);
	n = index_match(x, 7, &t, m.text[text], len, hits, HOLDERS);
	qsbr_leave(&qsbr, 0);
	return n;
}

static struct index_hit hit_of(unsigned holder, unsigned text, uint32_t len)
{
	struct index_hit hits[HOLDERS], none = { .exact = true };
	unsigned n = lookup(text, len, hits);

	for (unsigned i = 0; i < n; i++)
		if (hits[i].holder == holder)
			return hits[i];
	return none;
}

static void check(unsigned holder, unsigned text, uint32_t len)
{
	struct want w = model_match(holder, text, len);
	struct index_hit hit = hit_of(holder, text, len);

	if (hit.bytes > (lossy ? w.any : w.most) || (!lossy && hit.bytes < w.least))
		fail_msg("holder %u, text %u, %u bytes: %u matched; model %u to %u, %u real", holder, text, len,
			 (unsigned)hit.bytes, w.least, w.most, w.real);
	if (lossy)
		return;
	w.least == w.most ? closed++ : gaps++;
	if (hit.exact != (hit.bytes == w.real))
		fail_msg("holder %u, text %u, %u bytes: exact %d", holder, text, len, hit.exact);
	assert_in_range(hit.tokens, hit.bytes / 4 - (hit.bytes > 3), hit.bytes / 4);
}

static void step_match(void)
{
	unsigned text = below(TEXTS);
	uint32_t len = 1 + below(LEN);

	switch (below(4)) {
	case 0:
		len = len / INDEX_CHUNK * INDEX_CHUNK;
		break;
	case 1:
		len = len / 320 * 320;
		break;
	case 2:
		len = LEN;
		break;
	}
	for (unsigned holder = 0; holder < HOLDERS; holder++)
		check(holder, text, len);
}

/* --- steps --- */

static void say(const struct call *k, uint32_t age, uint64_t until, bool drop)
{
	uint64_t places[CHUNKS];
	struct index_guess g = { .holder = (uint16_t)k->holder,
				 .ns = 7,
				 .at = places,
				 .from = k->from,
				 .n = k->n,
				 .age = age,
				 .tokens_per_chunk_q8 = 14 * 256,
				 .until_ns = until,
				 .lru_chunks = lossy ? 1000000 : LRU };
	int r;

	index_thin(m.at[k->text], k->from, k->n, places);
	if (drop) {
		index_unspeculate(x, &g);
		model_unsay(k);
		return;
	}
	r = index_speculate(x, &g);
	if (!lossy || r != -ENOMEM)
		assert_int_equal(r, 0);
	model_say(k, until);
}

/* As requests do it, or with any beginning. */
static void step_say(void)
{
	unsigned holder = below(HOLDERS), text = below(TEXTS);
	struct call *k = &m.call[below(CALLS)];
	bool lru = below(12) ? holder % 2 : below(2);
	uint32_t n = below(3) ? below(CHUNKS + 1) : below(300), from = 0, age = 0;

	if (below(5)) {
		struct index_hit hit = hit_of(holder, text, least(n * INDEX_CHUNK + below(56), LEN));

		age = hit.age;
		from = lru && age > LRU / 8 ? 0 : (uint32_t)(hit.bytes / INDEX_CHUNK);
	} else if (!below(4)) {
		from = below(n + 1);
	}
	*k = (struct call){ .holder = holder, .text = text, .from = least(from, n), .n = n };
	say(k, from ? age : 0, lru ? 0 : now + 1 + (uint64_t)below(6000) * NS_PER_MS, false);
}

static void step_unsay(void)
{
	struct call *k = &m.call[below(CALLS)];

	if (k->n)
		say(k, 0, 0, true);
	k->n = 0;
}

static void step_put(void)
{
	unsigned holder = below(HOLDERS), text = below(TEXTS);
	uint32_t unit = block_bytes[holder], all = LEN / unit, first = below(3) ? 0 : below(all), n, ends[300];
	uint64_t hash[300];
	int r;

	while (first && !*block_at(holder, text, first - 1))
		first--;
	n = least(1 + below(300), all - first);
	for (uint32_t i = 0; i < n; i++) {
		ends[i] = (i + 1) * unit;
		hash[i] = block_hash(holder, text, first + i);
	}
	r = index_put(x, holder, 7, first > 0, first ? block_hash(holder, text, first - 1) : 0, hash, ends, n,
		      m.text[text] + (size_t)first * unit, unit / 4, TIER_GPU, now);
	if (!lossy)
		assert_int_equal(r, 0);
	for (uint32_t i = 0; i < n && r != -ENOENT; i++)
		++*block_at(holder, text, first + i);
}

/* Mostly from the end, as engines do. */
static void step_remove(void)
{
	unsigned holder = below(HOLDERS), text = below(TEXTS);
	uint32_t b = LEN / block_bytes[holder], n = 1 + below(200);

	if (below(4) == 0)
		b = 1 + below(b);
	for (; b && n; b--) {
		uint16_t *refs = block_at(holder, text, b - 1);
		uint64_t hash = block_hash(holder, text, b - 1);
		unsigned known;

		if (!*refs)
			continue;
		known = index_remove(x, holder, &hash, 1, TIER_GPU);
		if (!lossy)
			assert_int_equal(known, 1);
		--*refs;
		n--;
	}
}

static void step_clear(void)
{
	unsigned holder = below(HOLDERS);

	index_clear(x, holder);
	memset(m.guess[holder], 0, sizeof(m.guess[holder]));
	memset(m.block[holder], 0, sizeof(m.block[holder]));
}

static void step_tick(void)
{
	now += (uint64_t)below(1500) * NS_PER_MS;
	index_tick(x, now);
	model_tick();
}

static void make_texts(void)
{
	for (unsigned i = 0; i < TEXTS; i++) {
		uint32_t same = i ? below(LEN) : 0;

		if (below(3) == 0)
			same = least(same, below(8000));
		if (i)
			memcpy(m.text[i], m.text[below(i)], same);
		for (uint32_t k = same; k < LEN; k++)
			m.text[i][k] = (char)rng_next(&rng);
		index_text_init(&m.hash[i], m.at[i], CHUNKS + 1);
		assert_int_equal(index_text_feed(x, &m.hash[i], m.text[i], LEN), 0);
		for (unsigned j = 0; j <= i; j++) {
			uint32_t n = 0;

			while (n < LEN && m.text[i][n] == m.text[j][n])
				n++;
			m.common[i][j] = m.common[j][i] = n;
		}
	}
}

static void check_counts(void)
{
	for (unsigned h = 0; h < HOLDERS; h++) {
		uint64_t blocks, guesses, nb = 0, ng = 0;

		for (unsigned t = 0; t < TEXTS; t++) {
			for (uint32_t b = 0; b < BLOCKS; b++)
				nb += m.block[h][t][b] > 0;
			for (uint32_t c = 1; c <= CHUNKS; c++)
				ng += m.guess[h][t][c].refs > 0;
		}
		index_holder_stats(x, h, &blocks, &guesses);
		assert_int_equal(blocks, nb);
		assert_int_equal(guesses, ng);
	}
}

static void run(uint64_t seed, unsigned steps)
{
	size_t max = lossy ? 400000 : (size_t)256 << 20;
	struct index_stats st;

	rng = (struct rng){ seed };
	qsbr_init(&qsbr, 1);
	x = index_new(&qsbr, max, HOLDERS);
	assert_non_null(x);
	all_live();
	memset(m.guess, 0, sizeof(m.guess));
	memset(m.block, 0, sizeof(m.block));
	memset(m.call, 0, sizeof(m.call));
	make_texts();
	now = NS_PER_S;
	for (unsigned i = 0; i < steps; i++) {
		unsigned dice = below(100);

		if (dice < 25)
			step_say();
		else if (dice < 32)
			step_unsay();
		else if (dice < 45)
			step_put();
		else if (dice < 53)
			step_remove();
		else if (dice < 54)
			step_clear();
		else if (dice < 63)
			step_tick();
		else
			step_match();
		index_tick(x, now); /* nobody reads: nothing stays in limbo */
		index_tick(x, now);
		index_stats(x, &st);
		assert_in_range(st.bytes, 0, max);
	}
	if (!lossy)
		check_counts();
	evicted += (unsigned)st.evicted;
	for (unsigned h = 0; h < HOLDERS; h++)
		index_clear(x, h);
	index_stats(x, &st);
	assert_int_equal(st.nodes, 0);
	assert_int_equal(st.keys, 0);
	index_free(x);
}

static void runs(bool low)
{
	const char *given = getenv("KVS_SEED"), *longer = getenv("KVS_SECONDS");
	uint64_t seed = given ? strtoull(given, NULL, 0) : rand_secret() >> 20, n = 0;
	uint64_t end = time_mono() + (longer ? strtoull(longer, NULL, 0) : 1) * NS_PER_S;

	lossy = low;
	closed = gaps = evicted = 0;
	do {
		fprintf(stderr, "\rseed %llu ", (unsigned long long)seed + n);
		run(seed + n++, 200);
	} while (!given && time_mono() < end);
	fprintf(stderr, "\r\033[K%llu seeds, %u look-ups told, %u behind gaps, %u evicted\n", (unsigned long long)n,
		closed, gaps, evicted);
}

static void guesses_of_long_prompts_agree_with_the_model(void **state)
{
	(void)state;
	runs(false);
	assert_true(closed > 4 * gaps);
}

static void under_a_ceiling_there_is_no_more_than_in_the_model(void **state)
{
	(void)state;
	runs(true);
	assert_true(evicted > 100);
}

/* --- stories --- */

static int begin(void **state)
{
	(void)state;
	lossy = false;
	rng = (struct rng){ 1 };
	now = NS_PER_S;
	qsbr_init(&qsbr, 1);
	x = index_new(&qsbr, (size_t)64 << 20, HOLDERS);
	all_live();
	memset(m.guess, 0, sizeof(m.guess));
	memset(m.block, 0, sizeof(m.block));
	make_texts();
	return x ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	index_free(x);
	return 0;
}

static void tell(unsigned text, uint32_t from, uint32_t n, uint32_t age, uint64_t until)
{
	say(&(struct call){ .text = text, .from = from, .n = n }, age, until, false);
}

/* Else a conversation that goes on would lose its beginning, which is not said again with every turn. */
static void a_prompt_is_as_old_as_its_oldest_part(void **state)
{
	struct index_hit hit;

	(void)state;
	tell(0, 0, 100, 0, 0);
	for (uint32_t n = 100; n < 500; n += 40) {
		hit = hit_of(0, 0, n * INDEX_CHUNK + 1);
		assert_int_equal(hit.bytes / INDEX_CHUNK, n / step_at(n) * step_at(n));
		assert_in_range(hit.age, n - 100, n);
		tell(0, (uint32_t)(hit.bytes / INDEX_CHUNK), n + 40, hit.age, 0);
	}
	tell(0, 0, 500, 0, 0);
	assert_in_range(hit_of(0, 0, 500 * INDEX_CHUNK + 1).age, 0, 500);
}

static void where_room_is_needed_a_prompt_goes_from_its_end(void **state)
{
	(void)state;
	for (unsigned text = 0; text < 2; text++) {
		tell(text, 0, 100, 0, text ? 0 : 2 * NS_PER_S);
		assert_int_equal(guess_evict(x, 8), 8);
		assert_int_equal(hit_of(0, text, 100 * INDEX_CHUNK + 1).bytes, (100 - 8 * 4) * INDEX_CHUNK);
		index_clear(x, 0);
	}
}

/* As many guesses as the LRU has chunks: eight stand for one there. */
static void guesses_with_an_end_end_beside_an_lru(void **state)
{
	uint64_t blocks, guesses;

	(void)state;
	tell(0, 128, 136, 0, 0);
	tell(0, 0, 7 * 4, 0, 2 * NS_PER_S);
	index_holder_stats(x, 0, &blocks, &guesses);
	assert_int_equal(guesses, 8);
	index_tick(x, 2 * NS_PER_S);
	index_holder_stats(x, 0, &blocks, &guesses);
	assert_int_equal(guesses, 1);
}

static void thinned_hashes_are_those_of_the_places(void **state)
{
	static const uint32_t ends[] = { 0, 1, 127, 128, 129, 136, 300, 512, 543, 544, 2047, 2048, 2175, 2176, CHUNKS };
	uint64_t places[CHUNKS];

	(void)state;
	for (size_t a = 0; a < sizeof(ends) / sizeof(ends[0]); a++)
		for (size_t b = 0; b < sizeof(ends) / sizeof(ends[0]); b++) {
			uint32_t n = 0;

			index_thin(m.at[0], ends[a], ends[b], places);
			for (uint32_t c = ends[a] + 1; c <= ends[b]; c++)
				if (is_place(c))
					assert_int_equal(places[n++], m.at[0][c - 1]);
			assert_int_equal(index_places(ends[a], ends[b]), n);
		}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(thinned_hashes_are_those_of_the_places, begin, end),
		cmocka_unit_test_setup_teardown(a_prompt_is_as_old_as_its_oldest_part, begin, end),
		cmocka_unit_test_setup_teardown(where_room_is_needed_a_prompt_goes_from_its_end, begin, end),
		cmocka_unit_test_setup_teardown(guesses_with_an_end_end_beside_an_lru, begin, end),
		cmocka_unit_test(guesses_of_long_prompts_agree_with_the_model),
		cmocka_unit_test(under_a_ceiling_there_is_no_more_than_in_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
