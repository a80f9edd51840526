/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * Where does a chunked response end? A walker follows the framing (framing.bpf.h) over segments in order. A segment
 * beyond a gap is diverted all the same, so that the client's SACK makes the pod repeat what is missing; its payload is
 * kept (store.bpf.h), and walked when the gap closes.
 *
 * Walking and copying happen without the lock, on a copy of the state. Two CPUs do handle one flow at once, so the
 * result counts only if no other walk or store was committed meanwhile (version); else the state is looked at again,
 * three times at most, and then the segment is dropped: TCP repeats it.
 */
#ifndef KVS_LIB_WALK_BPF_H
#define KVS_LIB_WALK_BPF_H

#include "lib/framing.bpf.h"
#include "lib/pod.bpf.h"
#include "lib/store.bpf.h"

#define ATTEMPTS 3
#define WALK_MAX (1 << 20) /* bytes of one segment, more than any has */

struct walk_source {
	struct __sk_buff *skb;
	struct scratch *sc;
	struct store *store;
};

static long walk_skb_step(__u32 i, struct walk_source *c)
{
	struct scratch *sc = c->sc;
	struct walk *w = &sc->w;
	__u32 n = w->to - w->pos, at;

	if (D(w->to, w->pos) <= 0 || w->state >= WALK_STOP)
		return 1;
	if (walk_skip(w))
		return 0;
	at = w->pos - w->window_at;
	if (at >= w->window_n) {
		if (n > WINDOW)
			n = WINDOW;
		OPAQUE(n);
		if (n < 1 || n > WINDOW || bpf_skb_load_bytes(c->skb, sc->data + (w->pos - sc->seq), sc->window, n)) {
			w->state = KVS_WALK_BAD;
			return 1;
		}
		w->window_at = w->pos;
		w->window_n = n;
		at = 0;
	}
	walk_byte(w, sc->window[at % WINDOW]);
	return 0;
}

static long walk_store_step(__u32 i, struct walk_source *c)
{
	struct walk *w = &c->sc->w;

	if (D(w->to, w->pos) <= 0 || w->state >= WALK_STOP)
		return 1;
	if (!walk_skip(w))
		walk_byte(w, c->store->b[w->pos % KVS_STORE_BYTES]);
	return 0;
}

__noinline int walk_skb(struct __sk_buff *skb)
{
	struct walk_source c = { .skb = skb, .sc = scratch_get() };

	if (!c.sc)
		return 0;
	c.sc->w.to = c.sc->end;
	c.sc->w.window_n = 0;
	bpf_loop(WALK_MAX, walk_skb_step, &c, 0);
	return 0;
}

/* One of the stored ranges goes on where the walk stands: walk it. 1: none does. */
static long walk_range(__u32 i, struct walk_source *c)
{
	struct walk *w = &c->sc->w;
	bool found = false;

	for (__u32 k = 0; k < KVS_STORE_RANGES; k++)
		if (k < w->ranges_n && D(w->pos, w->ranges[k].from) >= 0 && D(w->ranges[k].to, w->pos) > 0) {
			w->to = w->ranges[k].to;
			found = true;
		}
	if (!found || w->state >= WALK_STOP)
		return 1;
	bpf_loop(KVS_STORE_BYTES, walk_store_step, c, 0);
	return 0;
}

/* Go on through what is stored, then forget what has been passed. */
__noinline int walk_ranges(void)
{
	struct walk_source c = { .sc = scratch_get() };
	__u32 slot, n = 0;
	struct walk *w;

	if (!c.sc)
		return 0;
	w = &c.sc->w;
	slot = w->store - 1;
	c.store = bpf_map_lookup_elem(&kvs_stores, &slot);
	if (!c.store)
		return 0;
	bpf_loop(KVS_STORE_RANGES, walk_range, &c, 0);
	for (__u32 i = 0; i < KVS_STORE_RANGES; i++) {
		struct kvs_range r = w->ranges[i];

		if (i >= w->ranges_n || D(r.to, w->pos) <= 0 || n >= KVS_STORE_RANGES)
			continue;
		w->ranges[n++] = r;
	}
	w->ranges_n = n;
	return 0;
}

/* Under the lock: the walked state becomes the splice's. */
static __always_inline void walk_apply(struct kvs_splice *sp, struct scratch *sc, __u32 *ret_free)
{
	struct walk *w = &sc->w;

	sp->version++;
	sp->wpos = w->pos;
	sp->walk = w->state;
	sp->left = w->left;
	sp->chunks += w->chunks;
	sp->ranges_n = w->ranges_n;
	__builtin_memcpy(sp->ranges, w->ranges, sizeof(sp->ranges));
	if (!sp->store && w->fresh && w->ranges_n) {
		sp->store = w->fresh;
		w->fresh = 0;
	}
	if (sp->store && !sp->ranges_n && sp->users == 1) {
		*ret_free = sp->store;
		sp->store = 0;
	}
	pod_count(sp, sc);
	sp->flags &= ~KVS_F_HOLE; /* a chunked response ends when all of it was seen */
	if ((sc->s.flags & TCP_FLAG_FIN) && !(sp->flags & KVS_F_POD_FIN)) {
		sp->flags |= KVS_F_POD_FIN;
		event(sp, sc, KVS_EV_POD_FIN);
	}
	if (w->state == KVS_WALK_END) {
		sp->flags |= KVS_F_END;
		sp->u_end = w->pos;
		if (sp->fwd_end == sp->u_end)
			splice_ended(sp, sc);
	}
}

/* Commit what was found; WALK_RETRY: somebody else was faster. */
__noinline int walk_commit(void)
{
	struct scratch *sc = scratch_get();
	struct kvs_splice *sp;
	struct action *a;
	struct walk *w;
	__u32 drop = 0;

	if (!sc)
		return 0;
	a = &sc->a;
	w = &sc->w;
	sp = bpf_map_lookup_elem(&kvs_splices, &a->splice);
	if (!sp)
		return 0;
	bpf_spin_lock(&sp->lock);
	if (sp->state < KVS_ACTIVE || sp->state > KVS_ENDED) {
		w->verdict = WALK_GONE;
	} else if (w->verdict == WALK_NO_ROOM) {
		sp->dropped++;
		a->row = KVS_ROW_PI_NO_ROOM;
	} else if (w->verdict == WALK_RETRY && (sp->flags & KVS_F_END) && D(sc->end, sp->u_end) <= 0) {
		w->verdict = WALK_DIVERT;
		pod_to_client_fin(sp, sc);
	} else if (sp->version != w->version || sp->state != KVS_ACTIVE) {
		walk_snapshot(sp, sc);
	} else if (w->state == KVS_WALK_BAD ||
		   (w->state == KVS_WALK_END && D(seq_max(sp->fwd_end, sc->end), w->pos) > 0)) {
		w->verdict = WALK_BROKEN;
		pod_broken(sp, sc);
	} else {
		if (w->verdict == WALK_STORED)
			a->row = KVS_ROW_PI_STORED;
		else
			w->verdict = WALK_DIVERT;
		walk_apply(sp, sc, &drop);
		pod_to_client_fin(sp, sc);
	}
	if (w->verdict != WALK_RETRY && !a->tail && a->hold) {
		sp->users--;
		a->hold = 0;
	}
	event_fill(sp, sc);
	bpf_spin_unlock(&sp->lock);
	store_push(drop);
	return 0;
}

static long walk_attempt(__u32 i, struct walk_source *c)
{
	struct scratch *sc = scratch_get();
	struct walk *w;

	if (!sc)
		return 1;
	w = &sc->w;
	if (D(sc->end, w->pos) > 0) {
		if (D(sc->seq, w->pos) <= 0) {
			walk_skb(c->skb);
			if (w->ranges_n)
				walk_ranges();
		} else {
			walk_keep(c->skb);
		}
		if (w->verdict != WALK_NO_ROOM)
			tail_keep(c->skb);
	}
	walk_commit();
	return w->verdict != WALK_RETRY;
}

/* A segment of a chunked response: its row, and the state of the splice behind it. */
__noinline int walk_segment(struct __sk_buff *skb)
{
	struct walk_source c = { .skb = skb };
	struct scratch *sc = scratch_get();

	if (!sc)
		return 0;
	sc->w.fresh = 0;
	bpf_loop(ATTEMPTS, walk_attempt, &c, 0);
	if (sc->w.verdict == WALK_RETRY || sc->w.verdict == WALK_GONE)
		sc->a.row = KVS_ROW_PI_RACE;
	store_push(sc->w.fresh);
	return 0;
}

#endif
