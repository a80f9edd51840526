/* SPDX-License-Identifier: Apache-2.0
 * The text of blocks with marks where ids are not what the tokenizer makes of their text (model/canon.h). What the next
 * block must be judged with is kept for the last block of each event, in a table in which newer ones displace older
 * ones; a block behind one that has left it is judged from the next place on over which nothing is joined.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/rand.h"
#include "events/events_int.h"

#define TAILS 4096

struct tail {
	uint64_t key; /* 0: free */
	struct canon_tail tail;
};

/* One for all pods of a vocabulary: it has 4 MB. */
struct canonical {
	struct list link;
	struct vocab *v;
	struct canon *c;
	unsigned refs;
};

struct canonical *canonical_get(struct events *e, struct vocab *v)
{
	struct canonical *k;

	if (!v || vocab_no_encoder(v))
		return NULL;
	list_for_each (it, &e->canonicals) {
		k = container_of(it, struct canonical, link);
		if (k->v == v) {
			k->refs++;
			return k;
		}
	}
	if (!e->tails)
		e->tails = calloc(TAILS, sizeof(*e->tails));
	k = e->tails ? calloc(1, sizeof(*k)) : NULL;
	if (!k)
		return NULL;
	k->c = canon_new(v);
	if (!k->c) {
		free(k);
		return NULL;
	}
	k->v = v;
	k->refs = 1;
	list_add_tail(&e->canonicals, &k->link);
	return k;
}

void canonical_put(struct canonical *k)
{
	if (!k || --k->refs)
		return;
	list_del(&k->link);
	canon_free(k->c);
	free(k);
}

static uint64_t key_of(const struct stream *s, uint64_t hash)
{
	return mix64(hash + s->holder * UINT64_C(0x9e3779b97f4a7c15)) | 1;
}

void canonical_begin(struct stream *s, bool has_parent, uint64_t parent, struct canon_tail *ret)
{
	const struct tail *t;
	uint64_t key;

	ret->n = 0;
	ret->unknown = has_parent;
	if (!s->f->canonical || !has_parent)
		return;
	key = key_of(s, parent);
	t = &s->f->e->tails[key >> 52];
	if (t->key == key)
		*ret = t->tail;
}

int canonical_text(struct stream *s, struct canon_tail *tail, const uint32_t *ids, size_t n, struct buf *text)
{
	int r;

	if (!s->f->canonical)
		return vocab_text(s->f->vocab, ids, n, text);
	r = canon_text(s->f->canonical->c, tail, ids, n, text);
	if (r > 0)
		stats_inc(s->f->e->st, STATS_EVENT_OTHER_TOKENS);
	return r < 0 ? r : 0;
}

void canonical_end(struct stream *s, uint64_t hash, const struct canon_tail *tail)
{
	uint64_t key = key_of(s, hash);

	if (s->f->canonical)
		s->f->e->tails[key >> 52] = (struct tail){ key, *tail };
}
