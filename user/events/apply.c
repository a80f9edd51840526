/* SPDX-License-Identifier: Apache-2.0
 * A batch into the index: which tier, which namespace, which text.
 *
 * Namespace. A chain lies in that of its LoRA adapter or else of the base model, and of the extra strings of its first
 * block (cache_salt); the index lets later blocks inherit it. A string that comes with a later block (media, whose
 * placeholder tokens look alike) goes into the text, between bytes that no UTF-8 text has: what lies behind it matches
 * nothing that does not name the same media at the same place.
 *
 * Cache groups. Models with several kinds of attention announce each block once per group, under hashes of their own
 * right. Only full attention is indexed. An engine may tell the kind once only, so it is learned.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "events/events_int.h"

struct applying {
	struct stream *s;
	unsigned orphans;
};

static int tier_of(struct str medium)
{
	static const struct {
		struct str name;
		enum index_tier tier;
	} rows[] = {
		{ { "GPU", 3 }, TIER_GPU },	    { { "DEVICE", 6 }, TIER_GPU },    { { "CPU", 3 }, TIER_CPU },
		{ { "CPU_PINNED", 10 }, TIER_CPU }, { { "CPU_TIER1", 9 }, TIER_CPU }, { { "CPU_TIER2", 9 }, TIER_DISK },
		{ { "DISK", 4 }, TIER_DISK },	    { { "NVME", 4 }, TIER_DISK },     { { "STORAGE", 7 }, TIER_DISK },
	};

	if (!medium.p)
		return TIER_GPU;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (str_ieq(medium, rows[i].name))
			return (int)rows[i].tier;
	return -ENOENT;
}

/* Full attention has the largest window. Until it is seen a smaller one passes for it, and is then taken back. */
static bool window_is_main(struct stream *s, const struct kv_event *e)
{
	if (e->window > s->window) {
		if (s->window)
			index_clear(s->f->e->x, s->holder);
		s->window = e->window;
		s->window_group = -1;
	}
	if (e->window < s->window)
		return false;
	if (e->has_group && s->window_group < 0)
		s->window_group = e->group;
	return !e->has_group || e->group == s->window_group;
}

/* Is the event about the group that is indexed? */
static bool group_is_main(struct stream *s, const struct kv_event *e)
{
	uint64_t bit;

	if (e->window)
		return window_is_main(s, e);
	if (!e->has_group)
		return !e->kind.p || kv_kind_is_main(e->kind);
	if (e->group < 0 || e->group > 63)
		return false;
	bit = UINT64_C(1) << e->group;
	if (e->kind.p && kv_kind_is_main(e->kind)) {
		s->group_main |= bit;
		s->group_other &= ~bit;
	} else if (e->kind.p) {
		s->group_other |= bit;
		s->group_main &= ~bit;
	}
	if (s->group_other & bit)
		return false;
	/* An engine that never tells kinds (TRT-LLM) has its main group first. */
	return s->group_main & bit || e->group == 0;
}

static uint64_t namespace_of_root(struct stream *s, const struct kv_event *e)
{
	struct str parts[KV_EXTRA_MAX + 2];
	char id[32];
	unsigned n = 0;

	if (e->lora_name.p) {
		parts[n++] = e->lora_name;
	} else if (e->lora_id) {
		/* An adapter without a name: nobody can ask for it, and it must not be taken for the base. */
		id[0] = '\0';
		snprintf(id + 1, sizeof(id) - 1, "lora %lld", (long long)e->lora_id);
		parts[n++] = (struct str){ id, 1 + strlen(id + 1) };
	} else {
		parts[n++] = str_of(s->f->base);
	}
	if (e->salt.p)
		parts[n++] = e->salt;
	for (unsigned i = 0; i < e->nextra && !e->extra_at[i]; i++)
		parts[n++] = e->extra[i];
	return index_namespace(s->f->e->x, parts, n);
}

static int put_media(struct buf *text, struct str key)
{
	int r = buf_put(text, "\xff", 1);

	if (!r)
		r = buf_put(text, key.p, key.n);
	return r ? r : buf_put(text, "\xff", 1);
}

/* The text of the event's blocks from <from> on, and where each of them ends in it. */
static int text_of(struct stream *s, const struct kv_event *e, unsigned from, struct canon_tail *tail)
{
	struct events *ev = s->f->e;
	unsigned x = 0;
	int r;

	if (e->nhashes > ev->cap_ends) {
		uint32_t *m = realloc(ev->ends, e->nhashes * sizeof(*m));

		if (!m)
			return -ENOMEM;
		ev->ends = m;
		ev->cap_ends = e->nhashes;
	}
	buf_consume(&ev->text, buf_len(&ev->text));
	while (x < e->nextra && (e->extra_at[x] < from || (!e->extra_at[x] && !e->has_parent)))
		x++;
	for (unsigned i = from; i < e->nhashes; i++) {
		for (; x < e->nextra && e->extra_at[x] == i; x++) {
			r = put_media(&ev->text, e->extra[x]);
			if (r)
				return r;
		}
		r = canonical_text(s, tail, e->tokens + (size_t)i * e->block_size, e->block_size, &ev->text);
		if (r)
			return r;
		if (buf_len(&ev->text) > UINT32_MAX)
			return -ENOMEM;
		ev->ends[i - from] = (uint32_t)buf_len(&ev->text);
	}
	return 0;
}

/* Blocks from <from> on. */
static int put(struct stream *s, const struct kv_event *e, unsigned from, enum index_tier tier)
{
	struct events *ev = s->f->e;
	bool has_parent = from || e->has_parent;
	uint64_t ns = has_parent ? 0 : namespace_of_root(s, e), parent = from ? e->hashes[from - 1] : e->parent;
	struct canon_tail tail;
	int r;

	canonical_begin(s, has_parent, parent, &tail);
	r = text_of(s, e, from, &tail);
	if (r)
		return r;
	r = index_put(ev->x, s->holder, ns, has_parent, parent, e->hashes + from, ev->ends, e->nhashes - from,
		      buf_data(&ev->text), e->block_size, tier, loop_now(ev->loop));
	if (!r)
		canonical_end(s, e->hashes[e->nhashes - 1], &tail);
	return r;
}

/* The tier of blocks that the index takes, or -1: they lie elsewhere or are of another group, counted. */
static int tier_indexed(struct stream *s, const struct kv_event *e)
{
	struct stats *st = s->f->e->st;
	int tier = tier_of(e->medium);

	if (tier < 0 || (e->locality.p && !str_ieq(e->locality, STR("LOCAL")))) {
		stats_inc(st, STATS_EVENT_MEDIUM);
		return -1;
	}
	if (!group_is_main(s, e)) {
		stats_inc(st, STATS_EVENT_GROUP);
		atomic_store_explicit(&s->f->pod->hybrid, true, memory_order_relaxed);
		return -1;
	}
	return tier;
}

static void stored(struct applying *a, const struct kv_event *e)
{
	struct stream *s = a->s;
	struct events *ev = s->f->e;
	int tier = tier_indexed(s, e), r;
	unsigned from = 0;

	if (tier < 0)
		return;
	if (!e->ntokens) {
		stats_inc(ev->st, STATS_EVENT_STORED);
		index_put_tier(ev->x, s->holder, e->hashes, e->nhashes, (enum index_tier)tier);
		return;
	}
	if (e->ntokens != (uint64_t)e->nhashes * e->block_size) {
		stats_inc(ev->st, STATS_EVENT_BAD);
		return;
	}
	/* Copies in slower tiers are announced in no order, children before parents, and without their salt. */
	while (tier != TIER_GPU && from < e->nhashes &&
	       index_put_tier(ev->x, s->holder, e->hashes + from, 1, (enum index_tier)tier))
		from++;
	atomic_store_explicit(&s->f->pod->event_block, e->block_size, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->f->pod->told, e->nhashes, memory_order_relaxed);
	r = from == e->nhashes ? 0 : put(s, e, from, (enum index_tier)tier);
	if (!r)
		stats_inc(ev->st, STATS_EVENT_STORED);
	else if (r == -ERANGE)
		stats_inc(ev->st, STATS_EVENT_TOKEN);
	else if (r == -ENOENT && tier == TIER_GPU)
		a->orphans++;
	else if (r == -ENOENT)
		stats_inc(ev->st, STATS_EVENT_ORPHAN);
}

static void removed(struct applying *a, const struct kv_event *e)
{
	struct stream *s = a->s;
	struct events *ev = s->f->e;
	int tier = tier_indexed(s, e);

	if (tier < 0)
		return;
	stats_inc(ev->st, STATS_EVENT_REMOVED);
	if (!e->everywhere)
		index_remove(ev->x, s->holder, e->hashes, e->nhashes, (enum index_tier)tier);
	for (tier = TIER_GPU; e->everywhere && tier < TIER_N; tier++)
		while (index_remove(ev->x, s->holder, e->hashes, e->nhashes, (enum index_tier)tier))
			;
}

static void cleared(struct applying *a, const struct kv_event *e)
{
	struct stream *s = a->s;
	int tier = tier_of(e->medium);

	stats_inc(s->f->e->st, STATS_EVENT_CLEARED);
	if (e->window)
		(void)window_is_main(s, e);
	if (e->medium.p && tier >= 0) {
		index_clear_tier(s->f->e->x, s->holder, (enum index_tier)tier);
		return;
	}
	index_clear(s->f->e->x, s->holder);
	s->stale = 0;
	s->warm = false;
}

static void event(void *arg, const struct kv_event *e)
{
	struct applying *a = arg;

	switch (e->type) {
	case KV_STORED:
		if (a->s->f->vocab)
			stored(a, e);
		break;
	case KV_REMOVED:
		removed(a, e);
		break;
	case KV_CLEARED:
		cleared(a, e);
		break;
	case KV_UNKNOWN:
		break;
	}
}

unsigned stream_apply(struct stream *s, const void *payload, size_t len)
{
	struct applying a = { .s = s };
	struct kv_batch_info info;
	struct stats *st = s->f->e->st;
	int r = s->f->http ? trt_decode(&s->trt, (struct str){ payload, len }, &info, event, &a)
			   : kv_decode(payload, len, &info, event, &a);

	if (r)
		stats_inc(st, STATS_EVENT_BAD_BATCH);
	stats_add(st, STATS_EVENT_PARTIAL, info.partial_blocks);
	stats_add(st, STATS_EVENT_BAD, info.bad_events);
	stats_add(st, STATS_EVENT_SKIPPED, info.unknown_events);
	s->f->e->active = true;
	return a.orphans;
}
