/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * Handshakes of connections that may be spliced: to a listener of ours, or from a socket that user space has announced.
 * A splice cannot map timestamps, so they are overwritten in the SYN, and neither side uses them; the numbers, window
 * scales and MSS are noted on the way (kvs_syns), from which kvs_conn_add makes the connection's entry.
 */
#ifndef KVS_LIB_SYN_BPF_H
#define KVS_LIB_SYN_BPF_H

#include "lib/packet.bpf.h"

#define NO_SCALE  0xff
#define MAX_SCALE 14

struct options {
	struct scratch *sc;
	__u32 at, n;
	__u32 ts; /* where timestamps are, + 1 */
	__u16 mss;
	__u8 scale;
};

static __always_inline __u8 option_byte(const struct scratch *sc, __u32 at)
{
	return ((const __u8 *)sc->opt_old)[at % sizeof(sc->opt_old)];
}

static long option_step(__u32 i, struct options *o)
{
	__u8 kind = option_byte(o->sc, o->at), len = option_byte(o->sc, o->at + 1);

	if (o->at >= o->n || kind == 0)
		return 1;
	if (kind == 1) {
		o->at++;
		return 0;
	}
	if (len < 2 || o->at + len > o->n)
		return 1;
	if (kind == 2 && len == 4)
		o->mss = (__u16)(option_byte(o->sc, o->at + 2) << 8 | option_byte(o->sc, o->at + 3));
	else if (kind == 3 && len == 3)
		o->scale = option_byte(o->sc, o->at + 2);
	else if (kind == 8 && len == 10)
		o->ts = o->at + 1;
	o->at += len;
	return 0;
}

static __always_inline void options_read(struct __sk_buff *skb, struct scratch *sc, struct options *o)
{
	o->sc = sc;
	o->scale = NO_SCALE;
	o->n = options_load(skb, sc);
	bpf_loop(OPTIONS_MAX, option_step, o, 0);
	if (o->scale != NO_SCALE && o->scale > MAX_SCALE)
		o->scale = MAX_SCALE;
}

static __always_inline int timestamps_strip(struct __sk_buff *skb, struct scratch *sc, const struct options *o)
{
	if (!o->ts)
		return 0;
	for (__u32 i = 0; i < 10; i++)
		((__u8 *)sc->opt_new)[(o->ts - 1 + i) % sizeof(sc->opt_new)] = 1;
	return options_store(skb, sc, o->n);
}

static __always_inline bool is_listener(const struct kvs_pod_key *dst)
{
	struct kvs_pod_key any = { .port = dst->port };

	return bpf_map_lookup_elem(&kvs_listeners, dst) || bpf_map_lookup_elem(&kvs_listeners, &any);
}

static __always_inline bool conn_is_bound(const struct kvs_conn *c)
{
	struct kvs_splice *sp = c->splice ? bpf_map_lookup_elem(&kvs_splices, &c->splice) : NULL;

	return sp && sp->gen == c->gen && sp->state != KVS_FREE;
}

/* A SYN that was sent again tells nothing new, and what the other half has told must not be lost by it. */
static __always_inline void syn_note(struct scratch *sc, const struct kvs_syn *syn)
{
	struct kvs_syn *known = bpf_map_lookup_elem(&kvs_syns, &sc->t);

	if (known && known->side == syn->side &&
	    (syn->side == KVS_SIDE_C ? known->peer && known->irs == syn->irs : known->local && known->iss == syn->iss))
		return;
	bpf_map_update_elem(&kvs_syns, &sc->t, syn, BPF_ANY);
}

/* Left as it is, but user space is to learn why. */
static __always_inline enum kvs_row syn_without_ethernet(struct scratch *sc, struct kvs_syn *syn)
{
	syn->local = syn->peer = 1;
	syn->odd = KVS_SYN_NO_ETHERNET;
	bpf_map_update_elem(&kvs_syns, &sc->t, syn, BPF_ANY);
	return KVS_ROW_OTHER;
}

/* Is there still a socket behind a client's connection? After a reset there is none, before user space knows of it. */
static __always_inline bool has_socket(struct __sk_buff *skb, const struct kvs_tuple *t)
{
	struct bpf_sock_tuple st = {};
	struct bpf_sock *sk;
	__u32 size, state;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__builtin_memcpy(&st.ipv4.saddr, t->raddr.b + 12, 4);
		__builtin_memcpy(&st.ipv4.daddr, t->laddr.b + 12, 4);
		st.ipv4.sport = bpf_htons(t->rport);
		st.ipv4.dport = bpf_htons(t->lport);
		size = sizeof(st.ipv4);
	} else {
		__builtin_memcpy(st.ipv6.saddr, t->raddr.b, 16);
		__builtin_memcpy(st.ipv6.daddr, t->laddr.b, 16);
		st.ipv6.sport = bpf_htons(t->rport);
		st.ipv6.dport = bpf_htons(t->lport);
		size = sizeof(st.ipv6);
	}
	sk = (struct bpf_sock *)bpf_skc_lookup_tcp(skb, &st, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	state = sk->state;
	bpf_sk_release(sk);
	return state != BPF_TCP_LISTEN && state != BPF_TCP_TIME_WAIT;
}

/* A client that has reset (or closed) is here anew: nothing more of the old response may reach it. The old splice ends
 * when user space has read the reset. False: it has said nothing of the kind, and may be somebody else. */
static __always_inline bool splice_abandon(const struct kvs_conn *c)
{
	struct kvs_splice *sp = c->splice ? bpf_map_lookup_elem(&kvs_splices, &c->splice) : NULL;
	bool gone = true;

	if (!sp)
		return true;
	bpf_spin_lock(&sp->lock);
	if (sp->gen == c->gen && sp->state != KVS_FREE) {
		gone = sp->flags & KVS_F_CLIENT;
		if (gone)
			sp->flags |= KVS_F_BROKEN;
	}
	bpf_spin_unlock(&sp->lock);
	return gone;
}

/* From a client. */
static __always_inline enum kvs_row syn_of_client(struct __sk_buff *skb, struct scratch *sc)
{
	struct kvs_conn *conn;
	struct options o = {};
	struct kvs_syn syn = { .peer = 1, .side = KVS_SIDE_C, .ws_loc = NO_SCALE };

	if (!is_listener(&sc->s.dst))
		return KVS_ROW_OTHER;
	conn = bpf_map_lookup_elem(&kvs_conns, &sc->t);
	if (conn) {
		if (has_socket(skb, &sc->t) || !splice_abandon(conn))
			return KVS_ROW_SYN_KNOWN;
		bpf_map_delete_elem(&kvs_conns, &sc->t);
	}
	if (!tcp_is_there(skb, sc))
		return syn_without_ethernet(sc, &syn);
	options_read(skb, sc, &o);
	if (timestamps_strip(skb, sc, &o))
		return KVS_ROW_FAILED;
	syn.irs = sc->seq;
	syn.mss = o.mss;
	syn.ws_rem = o.scale;
	syn_note(sc, &syn);
	return KVS_ROW_SYN;
}

/* From a socket of ours to a pod. */
static __always_inline enum kvs_row syn_to_pod(struct __sk_buff *skb, struct scratch *sc)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct kvs_conn *conn = bpf_map_lookup_elem(&kvs_conns, &sc->t);
	struct options o = {};
	struct kvs_syn syn = { .local = 1, .side = KVS_SIDE_U, .ws_rem = NO_SCALE };

	if (conn) {
		if (conn_is_bound(conn))
			return KVS_ROW_SYN_REUSE;
		bpf_map_delete_elem(&kvs_conns, &sc->t);
	}
	if (!cookie || !bpf_map_lookup_elem(&kvs_dials, &cookie))
		return KVS_ROW_OTHER;
	if (!tcp_is_there(skb, sc))
		return syn_without_ethernet(sc, &syn);
	options_read(skb, sc, &o);
	if (timestamps_strip(skb, sc, &o))
		return KVS_ROW_FAILED;
	syn.iss = sc->seq;
	syn.ws_loc = o.scale;
	syn.ifindex = skb->ifindex;
	syn_note(sc, &syn);
	return KVS_ROW_SYN;
}

/* The second half of a handshake, in either direction. */
static __always_inline enum kvs_row syn_ack(struct __sk_buff *skb, struct scratch *sc)
{
	struct kvs_syn *syn = bpf_map_lookup_elem(&kvs_syns, &sc->t);
	struct options o = {};

	if (!syn || syn->side != (sc->egress ? KVS_SIDE_C : KVS_SIDE_U) || !tcp_is_there(skb, sc))
		return KVS_ROW_OTHER;
	options_read(skb, sc, &o);
	syn->odd = o.ts ? KVS_SYN_TIMESTAMPS : KVS_SYN_FINE;
	if (sc->egress) {
		syn->iss = sc->seq;
		syn->ws_loc = o.scale;
		syn->ifindex = skb->ifindex;
		syn->local = 1;
	} else {
		syn->irs = sc->seq;
		syn->ws_rem = o.scale;
		syn->mss = o.mss;
		syn->peer = 1;
	}
	return KVS_ROW_SYN;
}

__noinline int syn_decide(struct __sk_buff *skb)
{
	struct scratch *sc = scratch_get();

	if (!sc)
		return 0;
	if (sc->s.flags & TCP_FLAG_ACK)
		sc->a.row = syn_ack(skb, sc);
	else
		sc->a.row = sc->egress ? syn_to_pod(skb, sc) : syn_of_client(skb, sc);
	return 0;
}

#endif
