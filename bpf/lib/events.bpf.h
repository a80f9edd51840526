/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * Changes of state, noted under the lock; and what is done about them after it: events, tail, counts.
 *
 * Whoever works on a splice's store or tail without the lock counts as a user of it: the slot is not given away, nor
 * the splice unbound, while there is one.
 */
#ifndef KVS_LIB_EVENTS_BPF_H
#define KVS_LIB_EVENTS_BPF_H

#include "lib/scratch.bpf.h"

static __always_inline void event(struct kvs_splice *sp, struct scratch *sc, enum kvs_event_type type)
{
	sc->a.events |= 1U << type;
}

static __always_inline void link_take(const struct kvs_link *l, struct scratch *sc)
{
	sc->a.linked = l->ifindex == sc->a.ifindex && sc->now - l->at < LINK_NS;
	__builtin_memcpy(sc->a.link, l->addrs, sizeof(sc->a.link));
}

static __always_inline void splice_hold(struct kvs_splice *sp, struct scratch *sc)
{
	if (!sc->a.hold)
		sp->users++;
	sc->a.hold = 1;
}

/* Under the lock: begin to work on a copy. */
static __always_inline void walk_snapshot(struct kvs_splice *sp, struct scratch *sc)
{
	struct walk *w = &sc->w;

	splice_hold(sp, sc);
	w->pos = w->wpos = sp->wpos;
	w->state = sp->walk;
	w->left = sp->left;
	w->chunks = 0;
	w->version = sp->version;
	w->store = sp->store;
	w->ranges_n = sp->ranges_n;
	w->window_n = 0;
	w->verdict = WALK_RETRY;
	__builtin_memcpy(w->ranges, sp->ranges, sizeof(w->ranges));
	sc->a.top = seq_max(sp->fwd_end, sc->end);
}

static __always_inline void splice_ended(struct kvs_splice *sp, struct scratch *sc)
{
	sp->state = KVS_ENDED;
	sp->ended_at = sc->now;
	event(sp, sc, KVS_EV_ENDED);
	note(&sc->a, KVS_ROW_ENDS);
	if (sp->flags & KVS_F_HOLE)
		return;
	sc->a.tail = KVS_EV_ENDED + 1;
	splice_hold(sp, sc);
}

static __always_inline void splice_done(struct kvs_splice *sp, struct scratch *sc)
{
	sp->state = KVS_DONE;
	sp->done_at = sc->now;
	event(sp, sc, KVS_EV_DONE);
	note(&sc->a, KVS_ROW_DONES);
	if (!(sp->flags & KVS_F_HOLE))
		return;
	sc->a.tail = KVS_EV_DONE + 1;
	splice_hold(sp, sc);
}

static __always_inline void splice_orphan(struct kvs_splice *sp, struct scratch *sc)
{
	if (sp->flags & KVS_F_ORPHAN)
		return;
	sp->flags |= KVS_F_ORPHAN;
	event(sp, sc, KVS_EV_ORPHAN);
	note(&sc->a, KVS_ROW_ORPHANED);
}

/* Does this payload belong into the tail? Only with a length is it known before the end what does not. */
static __always_inline void pod_keep(struct kvs_splice *sp, struct scratch *sc)
{
	bool end = sp->flags & KVS_F_END;
	__u32 top = end ? sp->u_end : sp->fwd_end;

	if ((sp->framing == KVS_LENGTH && !end) || D(top, sc->end) >= KVS_TAIL_BYTES)
		return;
	sc->a.keep = 1;
	sc->a.top = top;
	splice_hold(sp, sc);
}

/* The last thing under the lock. */
static __always_inline void event_fill(const struct kvs_splice *sp, struct scratch *sc)
{
	struct kvs_event *e = &sc->a.event;

	e->splice = sc->a.splice;
	e->gen = sp->gen;
	e->cookie = sp->cookie;
	e->at = sc->now;
	e->flags = sp->flags;
	e->bytes = sp->bytes;
	e->state = sp->state;
	e->len = 0;
	e->tail_at = 0;
	if (sp->flags & KVS_F_END)
		sc->a.top = sp->u_end;
	sc->a.pod.addr = sp->u_tuple.raddr;
	sc->a.pod.port = sp->u_tuple.rport;
	sc->a.pod.pad = 0;
}

struct tail_copy {
	struct __sk_buff *skb;
	struct tail *tail;
	__u32 from, to, at;
};

static long tail_step(__u32 i, struct tail_copy *c)
{
	__u32 index = c->from % KVS_TAIL_BYTES, n = c->to - c->from;

	if (!n || D(c->to, c->from) < 0)
		return 1;
	if (n > KVS_TAIL_BYTES - index)
		n = KVS_TAIL_BYTES - index;
	if (n > KVS_TAIL_SLACK)
		n = KVS_TAIL_SLACK;
	OPAQUE(n);
	if (n < 1 || n > KVS_TAIL_SLACK || index >= KVS_TAIL_BYTES ||
	    bpf_skb_load_bytes(c->skb, c->at, c->tail->b + index, n))
		return 1;
	c->from += n;
	c->at += n;
	return 0;
}

/* The payload's part of the last KVS_TAIL_BYTES before sc->a.top, to its place in the ring. */
__noinline int tail_keep(struct __sk_buff *skb)
{
	struct scratch *sc = scratch_get();
	struct tail_copy c = { .skb = skb };

	if (!sc)
		return 0;
	c.tail = bpf_map_lookup_elem(&kvs_tails, &sc->a.splice);
	if (!c.tail)
		return 0;
	c.from = seq_max(sc->seq, sc->a.top - KVS_TAIL_BYTES);
	c.to = sc->end;
	c.at = sc->data + (c.from - sc->seq);
	bpf_loop(KVS_TAIL_BYTES / KVS_TAIL_SLACK + 2, tail_step, &c, 0);
	return 0;
}

/* The data that says that the client has all wakes the owner, who looks: no need to wake the ring's reader before it.
 * Any other event wakes the reader even if it is behind, since it may have slept over such a one. */
static __always_inline __u64 wake_of(const struct scratch *sc, __u32 type)
{
	return type == KVS_EV_DONE && sc->a.client && sc->s.payload ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP;
}

/* An event with the tail; where there is none, with what the last segment has of it. */
static __always_inline long event_with_tail(struct __sk_buff *skb, struct scratch *sc)
{
	struct tail *t = bpf_map_lookup_elem(&kvs_tails, &sc->a.splice);
	struct kvs_event *e = &sc->a.event;
	__u32 n = e->bytes < KVS_TAIL_BYTES ? e->bytes : KVS_TAIL_BYTES;

	if (t) {
		e->len = n;
		e->tail_at = (sc->a.top - n) % KVS_TAIL_BYTES;
		t->event = *e;
		return bpf_ringbuf_output(&kvs_events, t, sizeof(*e) + KVS_TAIL_BYTES, wake_of(sc, e->type));
	}
	if (n > sc->s.payload)
		n = sc->s.payload;
	OPAQUE(n);
	if (sc->a.tail != KVS_EV_ENDED + 1 || n < 1 || n > KVS_TAIL_BYTES)
		n = 0;
	else if (bpf_skb_load_bytes(skb, sc->data + sc->s.payload - n, sc->last.b, n))
		n = 0;
	e->len = n;
	sc->last.event = *e;
	return bpf_ringbuf_output(&kvs_events, &sc->last, sizeof(*e) + n, wake_of(sc, e->type));
}

static __always_inline void times_add(struct kvs_times *t, __u64 ns)
{
	__u64 us = ns / 1000;
	__u32 bucket = 0;

	if (us >> 32)
		us = 0xffffffff;
	for (int bit = 16; bit; bit /= 2)
		if (us >> bit) {
			us >>= bit;
			bucket += bit;
		}
	if (us)
		bucket++;
	if (bucket >= KVS_TIME_BUCKETS)
		bucket = KVS_TIME_BUCKETS - 1;
	t->sum_ns += ns;
	t->count[bucket]++;
}

/* After the decision: tail, events, times, counts; then the splice is free for others to unbind. */
__noinline int settle(struct __sk_buff *skb)
{
	struct scratch *sc = scratch_get();
	struct kvs_pod_times *times;
	struct kvs_splice *sp;
	struct action *a;

	if (!sc)
		return 0;
	a = &sc->a;
	for (__u32 i = 0; a->notes && i < KVS_ROWS_N - KVS_ROW_ACTIVATED; i++)
		if (a->notes & (1U << i))
			row_count(KVS_ROW_ACTIVATED + i);
	if (a->keep)
		tail_keep(skb);
	for (__u32 type = 0; a->events && type < KVS_EVENTS_N; type++) {
		if (!(a->events & (1U << type)))
			continue;
		a->event.type = type;
		if (a->tail == type + 1
			    ? event_with_tail(skb, sc)
			    : bpf_ringbuf_output(&kvs_events, &a->event, sizeof(a->event), wake_of(sc, type)))
			row_count(KVS_ROW_RING_FULL);
		a->event.len = 0;
	}
	if (a->ttft || a->gap) {
		times = bpf_map_lookup_elem(&kvs_pod_times, &a->pod);
		if (times && a->ttft)
			times_add(&times->ttft, a->ttft);
		if (times && a->gap)
			times_add(&times->gap, a->gap);
	}
	sp = a->hold ? bpf_map_lookup_elem(&kvs_splices, &a->splice) : NULL;
	if (!sp)
		return 0;
	bpf_spin_lock(&sp->lock);
	sp->users--;
	bpf_spin_unlock(&sp->lock);
	return 0;
}

#endif
