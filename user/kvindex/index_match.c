/* SPDX-License-Identifier: Apache-2.0
 * The look-up: how deep does each holder go?
 *
 * What a holder has of a text is closed towards its beginning, so its depth can be bisected over multiples of
 * INDEX_SPAN. All holders do so together: a *group* is a set of holders whose depth is known to lie in the same
 * interval; a round probes the middle of each group's interval and splits the group. Probes of one round do not depend
 * on each other, so their cache misses overlap. Cost: about log2(n) rounds, each with as many probes as there are
 * groups.
 *
 * Two depths are looked for: REAL, by nodes of the tree (engine blocks), and ANY, by these or guesses; a guess counts
 * from where real blocks end. Where a REAL end needs a slower tier, two more: how far it goes within GPU and CPU.
 *
 * Behind the last multiple that a group has, blocks are followed one by one: from the node named there to children
 * whose end agrees with the text (refine). Work there is bounded by FOLLOW_MAX steps; a node with many children is not
 * searched child by child, but by the keys of the few lengths at which one could end.
 */
#include "kvindex/node_set.h"

#define FOLLOW_MAX   4096 /* children looked at in one call */
#define CHILDREN_MAX 24	  /* in one list, before keys are tried */
#define ENTRIES_MAX  16	  /* of one key */
#define STACK_MAX    64
#define GUESS_MAX                                                                                                    \
	(GUESS_GRID + 32) /* chunks looked at from the end; a block that goes on over a multiple may begin before it \
			   */

enum { REAL, ANY, WITHIN }; /* WITHIN + tier */

struct group {
	uint16_t start, n; /* items[start …] */
	uint8_t kind;
	uint8_t step;	 /* chunks: lo and hi are multiples of it */
	uint32_t lo, hi; /* has the multiple lo (0: the empty text), has not hi */
};

struct best {
	uint64_t real_end, guess_end;
	uint32_t real_node; /* 0: none */
	uint32_t guess_tokens;
	uint32_t guess_said;
	uint32_t level; /* of the real end */
};

#define TIER_ANY (TIER_N - 1) /* within it is whatever is reached */

struct match {
	const struct kvindex *x;
	const struct table *table;
	const struct index_text *t;
	const char *text;
	size_t len;
	uint64_t ns;
	uint32_t root;
	unsigned words; /* of a set of holders */
	unsigned tier;	/* blocks that need a slower one are not followed */
	int follow;	/* steps left */
	uint64_t active[SET_WORDS];
	uint64_t real[SET_WORDS]; /* of these, those that have blocks */
	uint8_t items[2 * INDEX_HOLDERS];
	struct group group[2 * INDEX_HOLDERS];
	struct best *to; /* <best>, or one of <within>: what is being looked for */
	struct best best[INDEX_HOLDERS];
	struct best within[TIER_ANY][INDEX_HOLDERS]; /* real ends only, and only where the level makes them matter */
};

/* Who has the text up to one length: by blocks, by guesses. */
struct probe {
	uint64_t real[SET_WORDS], guess[SET_WORDS];
};

static bool set_has(const uint64_t *set, unsigned holder)
{
	return set[holder / 64] >> (holder % 64) & 1;
}

static bool set_and(const struct match *m, uint64_t *to, const uint64_t *with)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < m->words; i++)
		any |= to[i] &= with[i];
	return any;
}

static void set_add(uint64_t *set, unsigned holder)
{
	set[holder / 64] |= UINT64_C(1) << (holder % 64);
}

/* Each holder in a set. */
#define set_each(h, m, set)                             \
	for (unsigned w_ = 0, h; w_ < (m)->words; w_++) \
		for (uint64_t b_ = (set)[w_]; b_ && (h = w_ * 64 + (unsigned)__builtin_ctzll(b_), true); b_ &= b_ - 1)

static uint64_t hash_at(const struct match *m, uint64_t chunks)
{
	return chunks ? m->t->at[chunks - 1] : 0;
}

static uint64_t chunk_key(const struct match *m, uint64_t chunks)
{
	return index_key(m->x, hash_at(m, chunks), 0, chunks * INDEX_CHUNK, m->ns);
}

/* The text's hash at any length ≤ len; no further than two spans behind what was hashed. */
static bool state_at(const struct match *m, uint64_t bytes, struct state *s)
{
	uint64_t chunks = bytes / INDEX_CHUNK;

	if (chunks > m->t->n)
		chunks = m->t->n;
	*s = (struct state){ .h = hash_at(m, chunks), .bytes = chunks * INDEX_CHUNK };
	if (bytes > m->len || bytes - s->bytes > 2 * INDEX_SPAN)
		return false;
	state_feed(m->x, s, m->text + s->bytes, bytes - s->bytes);
	return true;
}

static bool ends_in_text(const struct match *m, const struct node *n)
{
	struct state s;

	return state_at(m, n->byte_end, &s) && s.h == n->h && s.acc == n->acc;
}

static bool entry_fits(const struct match *m, const struct node *n, uint64_t chunks)
{
	uint64_t bytes = chunks * INDEX_CHUNK;

	if (n->root != m->root)
		return false;
	return n->spec ? n->byte_end == bytes && n->h == hash_at(m, chunks) : n->byte_end <= bytes;
}

/* Who reaches it by way of <tier> and faster ones. */
static void reach_within(const struct match *m, const struct node *n, unsigned tier, uint64_t *ret)
{
	node_reach(m->x, n, ret, m->words);
	if (tier < TIER_ANY)
		node_within(m->x, n, ret, m->words, tier);
}

static void probe_at(const struct match *m, uint64_t chunks, uint64_t key, unsigned tier, struct probe *ret)
{
	uint64_t at = table_home(m->table, key), set[SET_WORDS];
	uint32_t id;

	memset(ret, 0, sizeof(*ret));
	for (int left = ENTRIES_MAX; left && (id = table_next(m->table, key, &at)); left--) {
		const struct node *n = node_at(m->x, id);

		if (!entry_fits(m, n, chunks))
			continue;
		reach_within(m, n, tier, set);
		for (unsigned i = 0; i < m->words; i++)
			*(n->spec ? &ret->guess[i] : &ret->real[i]) |= set[i];
	}
}

static unsigned tier_of_kind(unsigned kind)
{
	return kind >= WITHIN ? kind - WITHIN : TIER_ANY;
}

/* The same for one holder. */
static bool probe_one(const struct match *m, uint64_t chunks, uint64_t key, unsigned holder, int kind)
{
	uint64_t at = table_home(m->table, key);
	uint32_t id;

	for (int left = ENTRIES_MAX; left && (id = table_next(m->table, key, &at)); left--) {
		const struct node *n = node_at(m->x, id);

		if ((kind == ANY || !n->spec) && entry_fits(m, n, chunks) && node_reached(m->x, n, holder) &&
		    (kind < WITHIN || node_level(m->x, n, holder) <= tier_of_kind((unsigned)kind)))
			return true;
	}
	return false;
}

/* --- bisection --- */

static void prefetch_set(const struct kvindex *x, uint32_t id)
{
	uint64_t v = atomic_load_explicit(&node_at(x, id)->set, memory_order_relaxed);

	if (v & SET_EXT)
		__builtin_prefetch(set_at(x, v));
}

/* Items that have it to the front; returns how many. */
static unsigned partition(struct match *m, const struct group *g, uint64_t chunks, uint64_t key)
{
	unsigned lo = g->start, hi = (unsigned)g->start + g->n;
	struct probe p;

	if (g->n == 1)
		return probe_one(m, chunks, key, m->items[lo], g->kind);
	probe_at(m, chunks, key, tier_of_kind(g->kind), &p);
	while (lo < hi) {
		uint8_t h = m->items[lo];

		if (set_has(p.real, h) || (g->kind == ANY && set_has(p.guess, h))) {
			lo++;
		} else {
			m->items[lo] = m->items[--hi];
			m->items[hi] = h;
		}
	}
	return lo - g->start;
}

/* Returns the number of groups, each with hi = lo + 1. */
static unsigned bisect(struct match *m, unsigned ngroups)
{
	uint64_t key[2 * INDEX_HOLDERS];
	uint32_t id[2 * INDEX_HOLDERS];

	for (bool more = true; more;) {
		unsigned had = ngroups;

		more = false;
		for (unsigned i = 0; i < had; i++) {
			const struct group *g = &m->group[i];

			if (g->hi - g->lo <= 1)
				continue;
			key[i] = chunk_key(m, (g->lo + (uint64_t)(g->hi - g->lo) / 2) * g->step);
			__builtin_prefetch((const void *)&m->table->slot[table_home(m->table, key[i])]);
		}
		for (unsigned i = 0; i < had; i++) {
			const struct group *g = &m->group[i];
			uint64_t at;

			if (g->hi - g->lo <= 1)
				continue;
			at = table_home(m->table, key[i]);
			id[i] = table_next(m->table, key[i], &at);
			__builtin_prefetch(node_at(m->x, id[i]));
		}
		for (unsigned i = 0; i < had; i++)
			if (m->group[i].hi - m->group[i].lo > 1)
				prefetch_set(m->x, id[i]);
		for (unsigned i = 0; i < had; i++) {
			struct group *g = &m->group[i];
			uint32_t mid = g->lo + (g->hi - g->lo) / 2;
			unsigned have;

			if (g->hi - g->lo <= 1)
				continue;
			have = partition(m, g, (uint64_t)mid * g->step, key[i]);
			if (have && have < g->n) {
				m->group[ngroups++] = (struct group){ .start = (uint16_t)(g->start + have),
								      .n = (uint16_t)(g->n - have),
								      .kind = g->kind,
								      .step = g->step,
								      .lo = g->lo,
								      .hi = mid };
				g->n = (uint16_t)have;
			}
			if (have)
				g->lo = mid;
			else
				g->hi = mid;
			more = true;
		}
	}
	return ngroups;
}

/* --- what lies behind the last multiple --- */

struct place {
	uint32_t node;
	uint64_t set[SET_WORDS];
};

struct walk {
	uint64_t from, limit; /* children of interest end at from … limit - 1 */
	unsigned n;
	struct place stack[STACK_MAX];
};

static void walk_push(struct match *m, struct walk *w, uint32_t id, const uint64_t *set)
{
	const struct node *n = node_at(m->x, id);

	if (w->n == STACK_MAX)
		return;
	w->stack[w->n].node = id;
	memcpy(w->stack[w->n++].set, set, m->words * sizeof(*set));
	set_each(h, m, set)
	{
		struct best *b = &m->to[h];

		if (!b->real_node || n->byte_end > b->real_end ||
		    (n->byte_end == b->real_end && n->depth > node_at(m->x, b->real_node)->depth)) {
			b->real_end = n->byte_end;
			b->real_node = id;
		}
	}
}

static void try_child(struct match *m, struct walk *w, const struct place *at, uint32_t id)
{
	const struct node *n = node_at(m->x, id);
	uint64_t set[SET_WORDS];

	if (n->byte_end >= w->limit || n->byte_end > m->len)
		return;
	reach_within(m, n, m->tier, set);
	if (set_and(m, set, at->set) && ends_in_text(m, n))
		walk_push(m, w, id, set);
}

/* Children of a node that has many of them. */
static void try_lengths(struct match *m, struct walk *w, const struct place *at)
{
	uint64_t bytes = node_at(m->x, at->node)->byte_end;
	struct state s;

	if (bytes < w->from)
		bytes = w->from;
	if (!state_at(m, bytes, &s))
		return;
	while (s.bytes < m->len && s.bytes + 1 < w->limit) {
		uint64_t key, pos;
		uint32_t id;

		state_feed(m->x, &s, m->text + s.bytes, 1);
		key = index_key(m->x, s.h, s.acc, s.bytes, m->ns);
		pos = table_home(m->table, key);
		for (int left = ENTRIES_MAX; left && (id = table_next(m->table, key, &pos)); left--) {
			const struct node *n = node_at(m->x, id);

			if (!n->spec && n->parent == at->node && n->byte_end == s.bytes)
				try_child(m, w, at, id);
		}
	}
}

static void refine(struct match *m, struct walk *w)
{
	while (w->n) {
		struct place at = w->stack[--w->n];
		uint32_t id = atomic_load_explicit(&node_at(m->x, at.node)->child, memory_order_acquire);
		int left = CHILDREN_MAX;

		for (; id && left && m->follow; left--, m->follow--) {
			try_child(m, w, &at, id);
			id = atomic_load_explicit(&node_at(m->x, id)->next, memory_order_acquire);
		}
		if (id && m->follow)
			try_lengths(m, w, &at);
	}
}

static void group_set(const struct match *m, const struct group *g, uint64_t set[SET_WORDS])
{
	memset(set, 0, SET_WORDS * sizeof(*set));
	for (unsigned i = 0; i < g->n; i++)
		set_add(set, m->items[g->start + i]);
}

static void real_end(struct match *m, const struct group *g, bool last)
{
	uint64_t key = chunk_key(m, (uint64_t)g->lo * 2), at = table_home(m->table, key);
	uint64_t set[SET_WORDS], reach[SET_WORDS];
	struct walk w; /* its stack is not worth clearing */
	uint32_t id;

	w.from = (uint64_t)g->lo * INDEX_SPAN;
	w.limit = w.from + (last ? 2 : 1) * INDEX_SPAN;
	w.n = 0;
	group_set(m, g, set);
	for (int left = ENTRIES_MAX; left && (id = table_next(m->table, key, &at)); left--) {
		const struct node *n = node_at(m->x, id);

		if (n->spec || !entry_fits(m, n, (uint64_t)g->lo * 2))
			continue;
		reach_within(m, n, m->tier, reach);
		if (!set_and(m, reach, set) || !ends_in_text(m, n))
			continue;
		walk_push(m, &w, id, reach);
		refine(m, &w);
	}
}

/* What real_end will touch, for all groups at once: text behind the multiple, first children and who has them. */
static void prefetch_ends(const struct match *m, unsigned ngroups)
{
	uint32_t child[2 * INDEX_HOLDERS];

	for (unsigned i = 0; i < ngroups; i++) {
		uint64_t bytes = (uint64_t)m->group[i].lo * m->group[i].step * INDEX_CHUNK;
		uint64_t key = chunk_key(m, (uint64_t)m->group[i].lo * m->group[i].step),
			 at = table_home(m->table, key);
		const struct node *n = node_at(m->x, table_next(m->table, key, &at));

		child[i] = atomic_load_explicit(&n->child, memory_order_relaxed);
		__builtin_prefetch(node_at(m->x, child[i]));
		for (uint64_t b = bytes > INDEX_CHUNK ? bytes - INDEX_CHUNK : 0; b < bytes + INDEX_SPAN && b < m->len;
		     b += 64)
			__builtin_prefetch(m->text + b);
	}
	for (unsigned i = 0; i < ngroups; i++)
		prefetch_set(m->x, child[i]);
}

/* Guesses end at chunks: at one behind the multiple, at the multiple, or before it, where the holder's blocks end
 * in front of it (they count at a multiple when another holder's block goes on over it). */
static void guess_end(struct match *m, const struct group *g)
{
	uint32_t from = g->lo * g->step, last = m->t->n - from < g->step ? m->t->n : from + g->step - 1;
	uint64_t set[SET_WORDS], reach[SET_WORDS];
	bool wanted = true;

	group_set(m, g, set);
	for (uint32_t c = guess_floor(last); c > from; c = guess_floor(c - 1))
		__builtin_prefetch((const void *)&m->table->slot[table_home(m->table, chunk_key(m, c))]);
	for (uint32_t chunks = guess_floor(last); wanted && chunks && last - chunks < GUESS_MAX;
	     chunks = guess_floor(chunks - 1)) {
		uint64_t key = chunk_key(m, chunks), at = table_home(m->table, key);
		uint32_t id;

		for (int left = ENTRIES_MAX; left && (id = table_next(m->table, key, &at)); left--) {
			const struct node *n = node_at(m->x, id);

			if (!n->spec || !entry_fits(m, n, chunks))
				continue;
			node_reach(m->x, n, reach, m->words);
			set_and(m, reach, set);
			set_each(h, m, reach)
			{
				m->best[h].guess_end = (uint64_t)chunks * INDEX_CHUNK;
				m->best[h].guess_tokens = atomic_load_explicit(&n->tok_end, memory_order_relaxed);
				m->best[h].guess_said = __atomic_load_n(&n->depth, __ATOMIC_RELAXED);
				set[h / 64] &= ~(UINT64_C(1) << (h % 64));
			}
		}
		wanted = false;
		for (unsigned i = 0; i < g->n && !wanted; i++) {
			unsigned h = m->items[g->start + i];

			wanted = set_has(set, h) && m->best[h].real_end < (uint64_t)(chunks - 1) * INDEX_CHUNK;
		}
	}
}

/* --- tiers --- */

/* One group of those holders whose real end is not <tier>'s; how far they go within it is not known yet. */
static unsigned tier_group(struct match *m, unsigned tier, unsigned ngroups, unsigned *nitems)
{
	struct group *g = &m->group[ngroups];

	*g = (struct group){
		.start = (uint16_t)*nitems, .kind = (uint8_t)(WITHIN + tier), .step = 2, .hi = m->t->n / 2 + 1
	};
	set_each(h, m, m->active)
	{
		if (m->best[h].level <= tier)
			continue;
		m->items[(*nitems)++] = (uint8_t)h;
		m->within[tier][h] = (struct best){ 0 };
	}
	g->n = (uint16_t)(*nitems - g->start);
	return ngroups + (g->n > 0);
}

static __attribute__((noinline, cold)) void tiers_find(struct match *m)
{
	unsigned ngroups = 0, nitems = 0, last = m->t->n / 2;

	set_each(h, m, m->active)
	{
		uint32_t id = m->best[h].real_node;
		unsigned level = id ? node_level(m->x, node_at(m->x, id), h) : TIER_GPU;

		m->best[h].level = level == UNREACHED ? TIER_GPU : level; /* just lost */
	}
	for (unsigned tier = 0; tier < TIER_ANY; tier++)
		ngroups = tier_group(m, tier, ngroups, &nitems);
	if (!ngroups)
		return;
	ngroups = bisect(m, ngroups);
	prefetch_ends(m, ngroups);
	for (unsigned i = 0; i < ngroups; i++) {
		m->tier = tier_of_kind(m->group[i].kind);
		m->to = m->within[m->tier];
		real_end(m, &m->group[i], m->group[i].lo == last);
	}
}

/* --- result --- */

static uint32_t tokens_of(const struct match *m, uint32_t node)
{
	return node ? atomic_load_explicit(&node_at(m->x, node)->tok_end, memory_order_relaxed) : 0;
}

/* <tokens> of real blocks, <guessed> behind them. */
static void tiers_fill(const struct match *m, unsigned holder, uint32_t tokens, uint32_t guessed, struct index_hit *hit)
{
	uint32_t done = 0;

	for (unsigned tier = 0; tier < TIER_N; tier++) {
		uint32_t to = tokens;

		if (tier < m->best[holder].level)
			to = tokens_of(m, m->within[tier][holder].real_node);
		to = to > tokens ? tokens : to < done ? done : to;
		hit->in_tier[tier] = to - done;
		done = to;
	}
	hit->in_tier[TIER_GPU] += guessed;
}

static void hit_fill(const struct match *m, unsigned holder, struct index_hit *hit)
{
	const struct best *b = &m->best[holder];
	const struct node *n = node_at(m->x, b->real_node ? b->real_node : m->root);
	uint64_t guess = b->guess_end > n->byte_end ? b->guess_end : 0;
	uint32_t tokens;

	/* The engine computes the last token anew, and with it the last block. */
	if (n->byte_end == m->len && !node_is_root(m->x, n))
		n = node_at(m->x, n->parent);
	if (guess && guess == m->len)
		guess -= INDEX_CHUNK;
	tokens = atomic_load_explicit(&n->tok_end, memory_order_relaxed);
	hit->holder = (uint16_t)holder;
	hit->exact = true;
	hit->age = 0;
	hit->bytes = n->byte_end;
	hit->tokens = hit->sure = tokens;
	hit->blocks = n->depth;
	hit->node = node_id(m->x, n);
	if (guess > hit->bytes) {
		hit->exact = false;
		hit->age = atomic_load_explicit(&m->x->said, memory_order_relaxed) - b->guess_said;
		hit->tokens += (uint32_t)((guess - hit->bytes) * b->guess_tokens / b->guess_end);
		hit->blocks += (uint32_t)((guess - hit->bytes + INDEX_CHUNK - 1) / INDEX_CHUNK);
		hit->bytes = guess;
	}
	tiers_fill(m, holder, tokens, hit->tokens - tokens, hit);
}

void index_hit_shorten(const struct kvindex *x, struct index_hit *hit)
{
	const struct node *n = node_at(x, hit->node);
	uint32_t tokens, more;

	if (!hit->exact || node_is_root(x, n))
		return;
	n = node_at(x, n->parent);
	tokens = atomic_load_explicit(&n->tok_end, memory_order_relaxed);
	for (unsigned tier = TIER_N; tier-- && hit->tokens > tokens; hit->tokens -= more) {
		more = hit->tokens - tokens < hit->in_tier[tier] ? hit->tokens - tokens : hit->in_tier[tier];
		hit->in_tier[tier] -= more;
	}
	hit->tokens = tokens;
	hit->bytes = n->byte_end;
	hit->blocks = n->depth;
	hit->node = node_id(x, n);
}

/* All holders that have anything of that kind in one group: they go somewhere between nothing and the text's end. */
static unsigned start_group(struct match *m, unsigned kind, unsigned ngroups, unsigned *nitems)
{
	struct group *g = &m->group[ngroups];
	uint8_t step = kind == REAL ? 2 : GUESS_GRID;

	*g = (struct group){
		.start = (uint16_t)*nitems, .kind = (uint8_t)kind, .step = step, .hi = m->t->n / step + 1
	};
	set_each(h, m, kind == REAL ? m->real : m->active) m->items[(*nitems)++] = (uint8_t)h;
	g->n = (uint16_t)(*nitems - g->start);
	return ngroups + (g->n > 0);
}

/* Between a holder's bisection and its end the writer may have taken out what both stood on. Nothing was found of it
 * then, although it still has the beginning: once more for those. */
static __attribute__((noinline, cold)) void real_again(struct match *m, const uint64_t *lost, unsigned last)
{
	unsigned ngroups, nitems = 0;

	m->group[0] = (struct group){ .kind = REAL, .step = 2, .hi = m->t->n / 2 + 1 };
	set_each(h, m, lost) m->items[nitems++] = (uint8_t)h;
	m->group[0].n = (uint16_t)nitems;
	ngroups = bisect(m, 1);
	for (unsigned i = 0; i < ngroups; i++)
		real_end(m, &m->group[i], m->group[i].lo == last);
}

static bool real_lost(const struct match *m, const struct group *g, uint64_t *lost)
{
	bool any = false;

	for (unsigned i = 0; g->lo && i < g->n; i++) {
		unsigned h = m->items[g->start + i];

		if (m->best[h].real_node)
			continue;
		set_add(lost, h);
		any = true;
	}
	return any;
}

unsigned index_match(const struct kvindex *x, uint64_t ns, const struct index_text *t, const char *text, size_t len,
		     struct index_hit *hits, unsigned cap)
{
	struct match m;
	unsigned ngroups = 0, nitems = 0, n = 0, last = t->n / 2;
	unsigned kinds = atomic_load_explicit(&x->nspec, memory_order_acquire) ? 2 : 1;
	uint64_t lost[SET_WORDS] = { 0 };
	bool again = false;

	m.x = x;
	m.table = atomic_load_explicit(&x->table, memory_order_acquire);
	m.t = t;
	m.text = text;
	m.len = len;
	m.ns = ns;
	m.words = (x->nholders + 63) / 64;
	m.follow = FOLLOW_MAX;
	m.tier = TIER_ANY;
	m.to = m.best;
	m.root = root_find(x, ns);
	if (!m.root)
		return 0;
	for (unsigned word = 0; word < m.words; word++) {
		m.active[word] = atomic_load_explicit(&x->active[word], memory_order_acquire);
		m.real[word] = m.active[word] & atomic_load_explicit(&x->real[word], memory_order_acquire);
	}
	set_each(h, &m, m.active)
	{
		m.best[h] = (struct best){ .level = TIER_GPU };
	}
	for (unsigned kind = 0; kind < kinds; kind++)
		ngroups = start_group(&m, kind, ngroups, &nitems);
	ngroups = bisect(&m, ngroups);
	prefetch_ends(&m, ngroups);
	for (unsigned i = 0; i < ngroups; i++)
		if (m.group[i].kind == REAL) {
			real_end(&m, &m.group[i], m.group[i].lo == last);
			again |= real_lost(&m, &m.group[i], lost);
		}
	for (unsigned i = 0; i < ngroups; i++)
		if (m.group[i].kind == ANY)
			guess_end(&m, &m.group[i]);
	if (again)
		real_again(&m, lost, last);
	if (atomic_load_explicit(&x->nslow, memory_order_acquire))
		tiers_find(&m);
	set_each(h, &m, m.active)
	{
		if (n == cap)
			break;
		hit_fill(&m, h, &hits[n]);
		n += hits[n].tokens || hits[n].bytes;
	}
	return n;
}
