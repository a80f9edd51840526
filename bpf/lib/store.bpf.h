/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * What came beyond a gap of a chunked response is kept until the gap closes: a slot of 64 KB for a splice that needs
 * one, payload at its number modulo that, and the ranges that are there.
 */
#ifndef KVS_LIB_STORE_BPF_H
#define KVS_LIB_STORE_BPF_H

#include "lib/scratch.bpf.h"

/* A slot for the store, + 1; 0: none is free. */
static __always_inline __u32 store_pop(void)
{
	__u32 zero = 0, slot, *fresh;

	if (!bpf_map_pop_elem(&kvs_store_free, &slot))
		return slot + 1;
	fresh = bpf_map_lookup_elem(&kvs_store_new, &zero);
	if (!fresh)
		return 0;
	slot = *(volatile __u32 *)fresh;
	if (!bpf_map_lookup_elem(&kvs_stores, &slot) || __sync_val_compare_and_swap(fresh, slot, slot + 1) != slot)
		return 0;
	return slot + 1;
}

static __always_inline void store_push(__u32 slot1)
{
	__u32 slot = slot1 - 1;

	if (slot1)
		bpf_map_push_elem(&kvs_store_free, &slot, BPF_ANY);
}

struct store_copy {
	struct __sk_buff *skb;
	struct store *store;
	__u32 from, to, at;
};

static long store_step(__u32 i, struct store_copy *c)
{
	__u32 index = c->from % KVS_STORE_BYTES, n = c->to - c->from;

	if (!n || D(c->to, c->from) < 0)
		return 1;
	if (n > KVS_STORE_BYTES - index)
		n = KVS_STORE_BYTES - index;
	if (n > KVS_STORE_SLACK)
		n = KVS_STORE_SLACK;
	OPAQUE(n);
	if (n < 1 || n > KVS_STORE_SLACK || index >= KVS_STORE_BYTES ||
	    bpf_skb_load_bytes(c->skb, c->at, c->store->b + index, n))
		return 1;
	c->from += n;
	c->at += n;
	return 0;
}

/* Note [seq, end) beside the ranges that there are. False: there are too many, or it is too far away. */
static __always_inline bool range_add(struct walk *w, __u32 seq, __u32 end)
{
	if (D(end, w->wpos) > KVS_STORE_BYTES)
		return false;
	for (__u32 i = 0; i < KVS_STORE_RANGES; i++) {
		struct kvs_range *r = &w->ranges[i];

		if (i >= w->ranges_n)
			break;
		if (D(seq, r->to) <= 0 && D(end, r->from) >= 0) {
			if (D(seq, r->from) < 0)
				r->from = seq;
			if (D(end, r->to) > 0)
				r->to = end;
			return true;
		}
	}
	if (w->ranges_n >= KVS_STORE_RANGES)
		return false;
	w->ranges[w->ranges_n % KVS_STORE_RANGES] = (struct kvs_range){ seq, end };
	w->ranges_n++;
	return true;
}

/* The payload beyond a gap into the store. */
__noinline int walk_keep(struct __sk_buff *skb)
{
	struct scratch *sc = scratch_get();
	struct store_copy c = { .skb = skb };
	struct walk *w;
	__u32 slot;

	if (!sc)
		return 0;
	w = &sc->w;
	w->verdict = WALK_NO_ROOM;
	if (!range_add(w, sc->seq, sc->end))
		return 0;
	if (!w->store && !w->fresh)
		w->fresh = store_pop();
	if (!w->store)
		w->store = w->fresh;
	slot = w->store - 1;
	c.store = bpf_map_lookup_elem(&kvs_stores, &slot);
	if (!c.store)
		return 0;
	c.from = sc->seq;
	c.to = sc->end;
	c.at = sc->data;
	bpf_loop(KVS_STORE_BYTES / KVS_STORE_SLACK + 2, store_step, &c, 0);
	w->verdict = WALK_STORED;
	return 0;
}

#endif
