/* SPDX-License-Identifier: Apache-2.0
 * One word → tokens. Symbols are bytes or characters; of all adjacent pairs that may merge, the one of the lowest rank
 * merges, the leftmost of equals, until none may. Short words look through all pairs each time; long ones (a megabyte
 * of one letter is one word) keep them in a heap, so that the work is n log n.
 *
 * Before that, a word is looked up in the thread's cache, then among the tokens that merging arrives at (found when the
 * vocabulary is compiled: not every token is what its own text merges to).
 */
#include <errno.h>
#include <string.h>
#include <sys/types.h>

#include "model/encoder_int.h"
#include "model/unicode.h"

#define SHORT 96 /* symbols */

static inline const struct merge_slot *merge_find(const struct vocab *v, uint32_t left, uint32_t right)
{
	for (uint32_t i = merge_hash(left, right);; i++) {
		const struct merge_slot *s = &v->merges[i & v->merges_mask];

		if (s->id == NO_ID)
			return NULL;
		if (s->left == left && s->right == right)
			return s;
	}
}

static uint32_t char_symbol(const struct vocab *v, uint32_t c)
{
	for (uint32_t i = char_hash(c);; i++) {
		const struct char_slot *s = &v->chars[i & v->chars_mask];

		if (s->id == NO_ID || s->c == c)
			return s->id;
	}
}

/* At most one symbol for each byte. Returns how many, or -EILSEQ. */
static ssize_t symbols(const struct vocab *v, const char *text, size_t n, uint32_t *id)
{
	const unsigned char *p = (const unsigned char *)text, *end = p + n;
	size_t at = 0;
	unsigned len = 1;

	for (; p < end; p += len) {
		uint32_t s = NO_ID;

		if (v->img->rules.characters) {
			s = char_symbol(v, utf8_char(p, &len));
			if (s != NO_ID) {
				id[at++] = s;
				continue;
			}
		}
		for (unsigned i = 0; i < len; i++) {
			s = v->bytes[p[i]];
			if (s == NO_ID)
				return -EILSEQ;
			id[at++] = s;
		}
	}
	return (ssize_t)at;
}

static size_t merge_short(const struct vocab *v, uint32_t *id, size_t n)
{
	uint32_t rank[SHORT], made[SHORT];

#define LOOK(i)                                                                    \
	do {                                                                       \
		const struct merge_slot *look = merge_find(v, id[i], id[(i) + 1]); \
		rank[i] = look ? look->rank : UINT32_MAX;                          \
		made[i] = look ? look->id : 0;                                     \
	} while (0)

	for (size_t i = 0; i + 1 < n; i++)
		LOOK(i);
	while (n > 1) {
		size_t best = 0;
		uint32_t low = rank[0];

		for (size_t i = 1; i + 1 < n; i++)
			if (rank[i] < low) {
				low = rank[i];
				best = i;
			}
		if (low == UINT32_MAX)
			break;
		id[best] = made[best];
		n--;
		memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof(*id));
		if (best + 1 < n) {
			memmove(rank + best, rank + best + 1, (n - best - 1) * sizeof(*rank));
			memmove(made + best, made + best + 1, (n - best - 1) * sizeof(*made));
			LOOK(best);
		}
		if (best)
			LOOK(best - 1);
	}
	return n;
#undef LOOK
}

/* The heap's entries are rank << 32 | place; one is stale when what stands at its place does not merge at that rank. */
static void sift_up(uint64_t *heap, size_t i)
{
	uint64_t x = heap[i];

	for (; i && heap[(i - 1) / 2] > x; i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = x;
}

static void sift_down(uint64_t *heap, size_t n)
{
	uint64_t x = heap[0];
	size_t i = 0, k;

	while ((k = 2 * i + 1) < n) {
		if (k + 1 < n && heap[k + 1] < heap[k])
			k++;
		if (heap[k] >= x)
			break;
		heap[i] = heap[k];
		i = k;
	}
	heap[i] = x;
}

struct chain {
	uint32_t *id, *next, *prev;
	uint64_t *heap;
	size_t nheap;
};

#define CHAIN_END UINT32_MAX

static void chain_look(const struct vocab *v, struct chain *c, uint32_t at)
{
	const struct merge_slot *s;

	if (at == CHAIN_END || c->next[at] == CHAIN_END)
		return;
	s = merge_find(v, c->id[at], c->id[c->next[at]]);
	if (!s)
		return;
	c->heap[c->nheap] = (uint64_t)s->rank << 32 | at;
	sift_up(c->heap, c->nheap++);
}

/* <c> has room for 3 n entries in its heap: each merge takes one and adds two at most. */
static size_t merge_long(const struct vocab *v, struct chain *c, size_t n)
{
	size_t out = 0;

	for (uint32_t i = 0; i < n; i++) {
		c->prev[i] = i ? i - 1 : CHAIN_END;
		c->next[i] = i + 1 < n ? i + 1 : CHAIN_END;
	}
	for (uint32_t i = 0; i < n; i++)
		chain_look(v, c, i);
	while (c->nheap) {
		uint32_t at = (uint32_t)c->heap[0], rank = (uint32_t)(c->heap[0] >> 32), right;
		const struct merge_slot *s;

		c->heap[0] = c->heap[--c->nheap];
		if (c->nheap)
			sift_down(c->heap, c->nheap);
		right = c->next[at];
		if (c->id[at] == NO_ID || right == CHAIN_END)
			continue;
		s = merge_find(v, c->id[at], c->id[right]);
		if (!s || s->rank != rank)
			continue;
		c->id[at] = s->id;
		c->id[right] = NO_ID;
		c->next[at] = c->next[right];
		if (c->next[at] != CHAIN_END)
			c->prev[c->next[at]] = at;
		chain_look(v, c, c->prev[at]);
		chain_look(v, c, at);
	}
	for (uint32_t i = 0; i < n; i++)
		if (c->id[i] != NO_ID)
			c->id[out++] = c->id[i];
	return out;
}

int bpe_merge(const struct vocab *v, struct buf *work, const char *p, size_t n, struct buf *ids)
{
	uint32_t *id = (uint32_t *)(void *)buf_room(ids, n * sizeof(*id));
	ssize_t got;

	if (!id)
		return -ENOMEM;
	got = symbols(v, p, n, id);
	if (got < 0)
		return (int)got;
	if (got <= SHORT) {
		got = (ssize_t)merge_short(v, id, (size_t)got);
	} else {
		struct chain c = { .id = id };

		buf_consume(work, buf_len(work));
		c.heap = (uint64_t *)(void *)buf_room(work, (size_t)got * (3 * sizeof(*c.heap) + 2 * sizeof(*c.next)));
		if (!c.heap)
			return -ENOMEM;
		c.next = (uint32_t *)(c.heap + 3 * got);
		c.prev = c.next + got;
		got = (ssize_t)merge_long(v, &c, (size_t)got);
	}
	buf_commit(ids, (size_t)got * sizeof(*id));
	return 0;
}

uint32_t bpe_word(const struct vocab *v, const char *p, size_t n, uint64_t hash)
{
	uint32_t tag = (uint32_t)(hash >> 32);

	for (uint32_t i = (uint32_t)hash;; i++) {
		const struct word_slot *s = &v->words[i & v->words_mask];

		if (s->id == NO_ID)
			return NO_ID;
		if (s->tag == tag) {
			struct str t = vocab_token(v, s->id);

			if (t.n == n && memcmp(t.p, p, n) == 0)
				return s->id;
		}
	}
}

void bpe_put(struct encoder *e, const char *p, size_t n)
{
	uint64_t hash = word_hash(p, n);
	struct cached *c = &e->cache[hash >> e->cache_shift];
	size_t before = buf_len(e->out), got;
	uint32_t id;

	if (c->len == n && memcmp(c->text, p, n) == 0) {
		char *to = buf_room(e->out, CACHED_IDS * sizeof(*c->id));

		if (!to) {
			e->err = -ENOMEM;
			return;
		}
		memcpy(to, c->id, 4 * sizeof(*c->id));
		if (c->n > 4)
			memcpy(to, c->id, sizeof(c->id));
		buf_commit(e->out, c->n * sizeof(*c->id));
		return;
	}
	if (n == 0 || e->err)
		return;
	id = bpe_word(e->v, p, n, hash);
	e->err = id == NO_ID ? bpe_merge(e->v, &e->work, p, n, e->out) : buf_put(e->out, &id, sizeof(id));
	got = (buf_len(e->out) - before) / sizeof(id);
	if (n > CACHED_TEXT || got > CACHED_IDS || e->err)
		return;
	c->len = (uint8_t)n;
	c->n = (uint8_t)got;
	memcpy(c->text, p, n);
	memcpy(c->id, buf_data(e->out) + before, got * sizeof(id));
}
