/* SPDX-License-Identifier: Apache-2.0
 * The index against a model that keeps whole texts in lists and searches them from end to end. Random stores, removals,
 * clears, guesses and look-ups over few texts that share beginnings; every look-up must agree for every holder.
 * Under a low ceiling the model does not know what was evicted: there the index may have less, never more.
 * KVS_SEED=N replays a failure.
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
#include "guess.h"
#include "kvindex/kvindex.h"

#define HOLDERS	 7
#define TEXT_MAX 1400
#define CONTENTS 6000
#define ENTRIES	 6000
#define GUESSES	 4000
#define CHAIN	 1500
#define PLACE	 4 /* chunks from one guess to the next; longer texts have others */
#define LRU	 60

struct content { /* a block, by all of its text */
	int parent;
	uint64_t ns;
	uint32_t len, tokens, depth;
	char text[TEXT_MAX];
};

struct mentry {
	unsigned holder;
	uint64_t hash;
	int content;
	unsigned refs[TIER_N];
};

struct mguess {
	unsigned holder, refs;
	uint64_t ns, until, seq;
	uint32_t chunks, tokens; /* the latest estimate is kept per text: see model_guess */
	char text[TEXT_MAX];
};

static struct {
	struct content content[CONTENTS];
	struct mentry entry[ENTRIES];
	struct mguess guess[GUESSES];
	unsigned ncontent, nentry, nguess;
	uint64_t seq;
} m;

static struct qsbr qsbr;
static struct rng rng;
static const unsigned block_of[HOLDERS] = { 1, 4, 4, 4, 16, 16, 40 };

static unsigned below(unsigned n)
{
	return (unsigned)rng_below(&rng, n);
}

/* --- the model --- */

static int content_get(uint64_t ns, int parent, const char *text, uint32_t len, uint32_t tokens)
{
	struct content *c;

	for (unsigned i = 0; i < m.ncontent; i++) {
		c = &m.content[i];
		if (c->ns == ns && c->parent == parent && c->len == len && c->tokens == tokens &&
		    memcmp(c->text, text, len) == 0)
			return (int)i;
	}
	assert_true(m.ncontent < CONTENTS);
	c = &m.content[m.ncontent];
	*c = (struct content){ .parent = parent, .ns = ns, .len = len, .tokens = tokens };
	c->depth = parent < 0 ? 1 : m.content[parent].depth + 1;
	memcpy(c->text, text, len);
	return (int)m.ncontent++;
}

static struct mentry *entry_of(unsigned holder, uint64_t hash)
{
	for (unsigned i = 0; i < m.nentry; i++)
		if (m.entry[i].holder == holder && m.entry[i].hash == hash)
			return &m.entry[i];
	return NULL;
}

static bool reaches(unsigned holder, int c)
{
	static bool has[CONTENTS];

	for (unsigned i = 0; i < m.ncontent; i++)
		has[i] = false;
	for (unsigned i = 0; i < m.nentry; i++)
		if (m.entry[i].holder == holder)
			has[m.entry[i].content] = true;
	for (; c >= 0; c = m.content[c].parent)
		if (!has[c])
			return false;
	return true;
}

/* The fastest tier of the holder's copies; TIER_N: none. */
static unsigned tier_at(unsigned holder, int c)
{
	unsigned best = TIER_N;

	for (unsigned i = 0; i < m.nentry; i++)
		for (unsigned t = 0; m.entry[i].holder == holder && m.entry[i].content == c && t < best; t++)
			if (m.entry[i].refs[t])
				best = t;
	return best;
}

/* Of what a holder reaches: GPU up to the first block that is not there, then CPU up to the first in neither. */
static void model_tiers(unsigned holder, int c, struct index_hit *hit)
{
	uint32_t within[TIER_N] = { 0 };

	for (; c >= 0; c = m.content[c].parent)
		for (unsigned t = 0, at = tier_at(holder, c); t < TIER_N; t++)
			if (at > t)
				within[t] = 0;
			else if (!within[t])
				within[t] = m.content[c].tokens;
	hit->in_tier[TIER_GPU] = within[TIER_GPU];
	hit->in_tier[TIER_CPU] = within[TIER_CPU] - within[TIER_GPU];
	hit->in_tier[TIER_DISK] = within[TIER_DISK] - within[TIER_CPU];
}

static bool starts_with(const char *text, size_t len, const char *head, size_t n)
{
	return n <= len && memcmp(text, head, n) == 0;
}

/* <ret_most>: the longest text that it could be a hit of. */
static struct index_hit model_match(unsigned holder, uint64_t ns, const char *text, size_t len, uint64_t *ret_most)
{
	struct index_hit hit = { .holder = (uint16_t)holder, .exact = true };
	const struct mguess *far = NULL;
	const struct content *best = NULL;
	uint64_t guess;

	for (unsigned i = 0; i < m.nentry; i++) {
		const struct content *c = &m.content[m.entry[i].content];

		if (m.entry[i].holder != holder || c->ns != ns || !starts_with(text, len, c->text, c->len))
			continue;
		if ((!best || c->len > best->len || (c->len == best->len && c->depth > best->depth)) &&
		    reaches(holder, m.entry[i].content))
			best = c;
	}
	for (unsigned i = 0; i < m.nguess; i++) {
		const struct mguess *g = &m.guess[i];

		if (g->holder == holder && g->ns == ns && (!far || g->chunks > far->chunks) &&
		    starts_with(text, len, g->text, g->chunks * INDEX_CHUNK))
			far = g;
	}
	*ret_most = best ? best->len : 0;
	if (far && far->chunks * INDEX_CHUNK > *ret_most)
		*ret_most = far->chunks * INDEX_CHUNK;
	guess = far && (!best || far->chunks * INDEX_CHUNK > best->len) ? far->chunks * INDEX_CHUNK : 0;
	if (best && best->len == len)
		best = best->parent < 0 ? NULL : &m.content[best->parent];
	if (guess == len && guess)
		guess -= INDEX_CHUNK;
	if (best) {
		model_tiers(holder, (int)(best - m.content), &hit);
		hit.bytes = best->len;
		hit.tokens = best->tokens;
		hit.blocks = best->depth;
	}
	if (guess > hit.bytes) {
		uint32_t guessed = (uint32_t)((guess - hit.bytes) * far->tokens / (far->chunks * INDEX_CHUNK));

		hit.exact = false;
		hit.tokens += guessed;
		hit.in_tier[TIER_GPU] += guessed;
		hit.blocks += (uint32_t)((guess - hit.bytes + INDEX_CHUNK - 1) / INDEX_CHUNK);
		hit.bytes = guess;
	}
	return hit;
}

/* --- texts --- */

/* A walk through few segments, so that texts share beginnings and part anywhere. */
static uint32_t make_text(char *text)
{
	uint32_t n = 0, want = 1 + below(TEXT_MAX - 1);

	memset(text, 0, TEXT_MAX);
	for (unsigned i = 0; n < want; i++) {
		unsigned pick = below(6) ? 0 : 1 + below(2);
		unsigned len = 20 + (i * 37 + pick * 11) % 90;

		for (unsigned k = 0; k < len && n < want; k++)
			text[n++] = (char)(k < len / 2 ? 'a' + i % 20 : 'a' + pick + k % 3);
	}
	return n;
}

/* Where a text is cut into blocks depends on the text up to there, the blocks so far, their size and <salt>. Some
 * blocks have no text. */
static uint32_t next_cut(const char *text, uint32_t at, unsigned n, unsigned block, uint64_t salt)
{
	uint64_t h = hash_bytes(text, at, block + ((uint64_t)n << 16) + (salt << 32));

	return h % 40 == 0 ? at : at + 1 + (uint32_t)(h >> 8) % (block * 6);
}

struct chain {
	unsigned n;
	uint32_t end[CHAIN];
	uint64_t hash[CHAIN];
	int content[CHAIN];
};

static void make_chain(struct chain *c, uint64_t ns, const char *text, uint32_t len, unsigned block, uint64_t salt,
		       uint64_t alias)
{
	uint64_t h = mix64(ns * 1000003 + block * 10007 + salt * 101 + alias);
	uint32_t at = 0, end;
	int parent = -1;

	for (c->n = 0; c->n < CHAIN; at = end) {
		end = next_cut(text, at, c->n, block, salt);
		if (end > len)
			break;
		h = mix64(h ^ hash_bytes(text + at, end - at, c->n));
		c->end[c->n] = end;
		c->hash[c->n] = h;
		c->content[c->n] = parent = content_get(ns, parent, text, end, (c->n + 1) * block);
		c->n++;
	}
}

/* --- steps --- */

static struct kvindex *x;
static bool mixed;   /* holders cut the same text in several ways */
static bool lossy;   /* there is a low ceiling */
static bool aliases; /* one block comes under several hashes */

static uint64_t some_ns(void)
{
	return below(5) ? 11 : 12;
}

static void model_store(unsigned holder, uint64_t hash, int content, enum index_tier tier)
{
	struct mentry *e = entry_of(holder, hash);

	if (!e) {
		assert_true(m.nentry < ENTRIES);
		e = &m.entry[m.nentry++];
		*e = (struct mentry){ .holder = holder, .hash = hash, .content = content };
	}
	assert_int_equal(e->content, content);
	e->refs[tier]++;
}

static void model_gone(unsigned i)
{
	m.entry[i] = m.entry[--m.nentry];
}

static void step_put(void)
{
	static struct chain c;
	static char text[TEXT_MAX];
	uint32_t ends[CHAIN], len = make_text(text), base;
	unsigned holder = below(HOLDERS), from, n;
	enum index_tier tier = below(4) ? TIER_GPU : TIER_CPU;
	uint64_t ns = some_ns();
	bool known;
	int r;

	make_chain(&c, ns, text, len, block_of[holder], mixed ? below(3) : 0, below(8) == 0 && aliases);
	if (!c.n)
		return;
	from = below(3) ? 0 : below(c.n);
	n = c.n - from;
	if (n > 60)
		n = 1 + below(60);
	base = from ? c.end[from - 1] : 0;
	for (unsigned i = 0; i < n; i++)
		ends[i] = c.end[from + i] - base;
	known = !from || entry_of(holder, c.hash[from - 1]);
	r = index_put(x, holder, ns, from > 0, from ? c.hash[from - 1] : 0, c.hash + from, ends, n, text + base,
		      block_of[holder], tier, 0);
	if (lossy && known && r == -ENOENT)
		known = false;
	assert_int_equal(r, known ? 0 : -ENOENT);
	for (unsigned i = 0; known && i < n; i++)
		model_store(holder, c.hash[from + i], c.content[from + i], tier);
}

static void step_remove(void)
{
	unsigned n = 1 + below(20);

	for (unsigned k = 0; k < n && m.nentry; k++) {
		unsigned i = below(m.nentry);
		struct mentry *e = &m.entry[i];
		enum index_tier tier = below(TIER_N);
		unsigned known;

		known = index_remove(x, e->holder, &e->hash, 1, tier);
		if (!lossy || known)
			assert_int_equal(known, e->refs[tier] > 0);
		e->refs[tier] -= e->refs[tier] > 0;
		if (!e->refs[0] && !e->refs[1] && !e->refs[2])
			model_gone(i);
	}
}

static void guesses_drop(bool (*gone)(const struct mguess *g, uint64_t arg), uint64_t arg)
{
	for (unsigned i = 0; i < m.nguess;)
		if (gone(&m.guess[i], arg))
			m.guess[i] = m.guess[--m.nguess];
		else
			i++;
}

static bool of_holder(const struct mguess *g, uint64_t holder)
{
	return g->holder == holder;
}

static bool is_due(const struct mguess *g, uint64_t now)
{
	return g->until && g->until <= now;
}

static void step_clear(void)
{
	unsigned holder = below(HOLDERS);
	int tier = below(3) ? (int)below(TIER_N) : -1;

	if (tier < 0) {
		index_clear(x, holder);
		guesses_drop(of_holder, holder);
	} else {
		index_clear_tier(x, holder, (enum index_tier)tier);
	}
	for (unsigned i = 0; i < m.nentry;) {
		struct mentry *e = &m.entry[i];

		if (e->holder == holder && tier >= 0)
			e->refs[tier] = 0;
		if (e->holder == holder && (tier < 0 || (!e->refs[0] && !e->refs[1] && !e->refs[2])))
			model_gone(i);
		else
			i++;
	}
}

static void step_tier(void)
{
	for (unsigned k = 0; k < 10 && m.nentry; k++) {
		struct mentry *e = &m.entry[below(m.nentry)];

		if (!index_put_tier(x, e->holder, &e->hash, 1, TIER_DISK)) {
			assert_true(lossy);
			continue;
		}
		e->refs[TIER_DISK]++;
	}
}

static struct mguess *guess_find(unsigned holder, uint64_t ns, const char *text, uint32_t chunks)
{
	for (unsigned i = 0; i < m.nguess; i++) {
		struct mguess *g = &m.guess[i];

		if (g->holder == holder && g->ns == ns && g->chunks == chunks &&
		    memcmp(g->text, text, chunks * INDEX_CHUNK) == 0)
			return g;
	}
	return NULL;
}

static void model_guess(unsigned holder, uint64_t ns, const char *text, uint32_t chunks, uint32_t q8, uint64_t until)
{
	struct mguess *g = guess_find(holder, ns, text, chunks);

	if (!g) {
		assert_true(m.nguess < GUESSES);
		g = &m.guess[m.nguess++];
		*g = (struct mguess){ .holder = holder, .ns = ns, .chunks = chunks, .until = until };
		memcpy(g->text, text, chunks * INDEX_CHUNK);
	} else {
		g->until = g->until && until ? (until > g->until ? until : g->until) : 0;
	}
	g->refs++;
	g->seq = ++m.seq;
	/* One text has one estimate, whoever holds it. */
	for (unsigned h = 0; h < HOLDERS; h++) {
		g = guess_find(h, ns, text, chunks);
		if (g)
			g->tokens = chunks * q8 >> 8;
	}
}

static void model_lru(unsigned holder, unsigned max)
{
	for (;;) {
		unsigned n = 0, oldest = 0;

		for (unsigned i = 0; i < m.nguess; i++) {
			if (m.guess[i].holder != holder || m.guess[i].until)
				continue;
			if (!n++ || m.guess[i].seq < m.guess[oldest].seq)
				oldest = i;
		}
		if (n <= max)
			return;
		m.guess[oldest] = m.guess[--m.nguess];
	}
}

static uint64_t clock_now = 1000;

static void step_guess(void)
{
	static char text[TEXT_MAX];
	uint32_t len = make_text(text), chunks = len / INDEX_CHUNK, q8 = 2000 + below(3000);
	unsigned holder = below(HOLDERS);
	uint64_t at[TEXT_MAX / INDEX_CHUNK + 1], ns = some_ns();
	uint64_t until = holder % 2 ? 0 : clock_now + 1 + ((uint64_t)below(1000) << 24);
	struct index_text t;

	index_text_init(&t, at, TEXT_MAX / INDEX_CHUNK + 1);
	assert_int_equal(index_text_feed(x, &t, text, len), 0);
	assert_int_equal(speculate(x, holder, ns, at, 0, t.n, q8, until, LRU), 0);
	for (uint32_t i = chunks / PLACE * PLACE; i > 0; i -= PLACE)
		model_guess(holder, ns, text, i, q8, until);
	if (!until && chunks)
		model_lru(holder, LRU / PLACE);
	if (below(3))
		return;
	unspeculate(x, holder, ns, at, 0, t.n);
	for (uint32_t i = chunks / PLACE * PLACE; i > 0; i -= PLACE) {
		struct mguess *g = guess_find(holder, ns, text, i);

		if (g && !--g->refs)
			*g = m.guess[--m.nguess];
	}
}

static void step_tick(void)
{
	clock_now += (uint64_t)below(300) << 24;
	index_tick(x, clock_now);
	guesses_drop(is_due, clock_now);
}

static void check_hit(const struct index_hit *got, unsigned holder, uint64_t ns, const char *text, uint32_t len)
{
	struct index_hit none = { .holder = (uint16_t)holder, .exact = true };
	uint64_t most;
	struct index_hit want = model_match(holder, ns, text, len, &most);

	if (!got)
		got = &none;
	if (lossy) {
		assert_in_range(got->bytes, 0, most);
		return;
	}
	assert_int_equal(got->in_tier[TIER_GPU] + got->in_tier[TIER_CPU] + got->in_tier[TIER_DISK], got->tokens);
	/* Where a holder has a text cut in several ways, the way found may be another than the deepest by a block. */
	if (mixed && got->bytes < want.bytes + 250 && want.bytes < got->bytes + 250)
		return;
	/* Copies under two engine hashes: the index may think that the faster one is still there. */
	if (!aliases && memcmp(got->in_tier, want.in_tier, sizeof(want.in_tier)) != 0)
		fail_msg("holder %u: %u GPU, %u CPU, %u disk; model %u, %u, %u (of %u)", holder, got->in_tier[0],
			 got->in_tier[1], got->in_tier[2], want.in_tier[0], want.in_tier[1], want.in_tier[2], len);
	if (got->bytes != want.bytes || got->tokens != want.tokens || got->blocks != want.blocks ||
	    got->exact != want.exact)
		fail_msg("holder %u: %u tokens, %u blocks, %u bytes, exact %d; model %u, %u, %u, %d (of %u)", holder,
			 got->tokens, got->blocks, (unsigned)got->bytes, got->exact, want.tokens, want.blocks,
			 (unsigned)want.bytes, want.exact, len);
}

static void step_match(void)
{
	static char text[TEXT_MAX];
	uint32_t len = make_text(text);
	uint64_t at[TEXT_MAX / INDEX_CHUNK + 1], ns = some_ns();
	struct index_hit hits[HOLDERS];
	struct index_text t;
	unsigned n;

	if (m.nentry && below(2)) { /* exactly a block's end */
		const struct content *c = &m.content[m.entry[below(m.nentry)].content];

		len = c->len;
		ns = c->ns;
		memcpy(text, c->text, len);
	}
	index_text_init(&t, at, TEXT_MAX / INDEX_CHUNK + 1);
	assert_int_equal(index_text_feed(x, &t, text, len), 0);
	qsbr_enter(&qsbr, 0);
	n = index_match(x, ns, &t, text, len, hits, HOLDERS);
	qsbr_leave(&qsbr, 0);
	for (unsigned holder = 0; holder < HOLDERS; holder++) {
		const struct index_hit *got = NULL;

		for (unsigned i = 0; i < n; i++)
			if (hits[i].holder == holder)
				got = &hits[i];
		check_hit(got, holder, ns, text, len);
	}
}

static void check_counts(void)
{
	uint64_t blocks, guesses, unreachable = 0;
	struct index_stats st;

	for (unsigned h = 0; h < HOLDERS; h++) {
		unsigned nb = 0, ng = 0;

		for (unsigned i = 0; i < m.nentry; i++)
			nb += m.entry[i].holder == h;
		for (unsigned i = 0; i < m.nguess; i++)
			ng += m.guess[i].holder == h;
		index_holder_stats(x, h, &blocks, &guesses);
		assert_int_equal(blocks, nb);
		assert_int_equal(guesses, ng);
		for (unsigned c = 0; c < m.ncontent; c++) {
			bool has = false;

			for (unsigned i = 0; i < m.nentry && !has; i++)
				has = m.entry[i].holder == h && m.entry[i].content == (int)c;
			unreachable += has && !reaches(h, (int)c);
		}
	}
	index_stats(x, &st);
	assert_int_equal(st.unreachable, unreachable);
}

static uint64_t evicted;

static void run(uint64_t seed, unsigned steps)
{
	struct index_stats st;

	rng = (struct rng){ seed };
	m.ncontent = m.nentry = m.nguess = 0;
	qsbr_init(&qsbr, 1);
	x = index_new(&qsbr, lossy ? 80000 : (size_t)64 << 20, HOLDERS);
	assert_non_null(x);
	for (unsigned i = 0; i < steps; i++) {
		unsigned dice = below(100);

		if (m.ncontent > CONTENTS - CHAIN || m.nentry > ENTRIES - 100 || m.nguess > GUESSES - 100)
			break;
		if (dice < 25)
			step_put();
		else if (dice < 45)
			step_remove();
		else if (dice < 47)
			step_clear();
		else if (dice < 50)
			step_tier();
		else if (dice < 58)
			step_guess();
		else if (dice < 62)
			step_tick();
		else
			step_match();
	}
	if (!lossy)
		check_counts();
	index_stats(x, &st);
	evicted += st.evicted;
	for (unsigned h = 0; h < HOLDERS; h++)
		index_clear(x, h);
	index_stats(x, &st);
	assert_int_equal(st.nodes, 0);
	assert_int_equal(st.keys, 0);
	assert_int_equal(st.unreachable, 0);
	index_free(x);
}

static void runs(bool mix, bool low, bool alias, unsigned n)
{
	const char *given = getenv("KVS_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : rand_secret();

	mixed = mix;
	lossy = low;
	aliases = alias;
	evicted = 0;
	for (unsigned i = 0; i < n; i++) {
		fprintf(stderr, "\rseed %llu ", (unsigned long long)seed + i);
		run(seed + i, 200);
	}
	fprintf(stderr, "\r\033[K");
}

static void it_agrees_with_the_model(void **state)
{
	runs(false, false, true, 60);
}

static void it_agrees_about_tiers(void **state)
{
	runs(false, false, false, 60);
}

static void it_agrees_where_a_text_is_cut_in_several_ways(void **state)
{
	runs(true, false, true, 30);
}

static void under_a_ceiling_it_has_no_more_than_the_model(void **state)
{
	runs(false, true, true, 60);
	assert_true(evicted > 100);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_agrees_with_the_model),
		cmocka_unit_test(it_agrees_about_tiers),
		cmocka_unit_test(it_agrees_where_a_text_is_cut_in_several_ways),
		cmocka_unit_test(under_a_ceiling_it_has_no_more_than_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
