// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The splice: from a byte of a response on, what the pod sends goes to the client without a socket of this host, while
 * both TCP connections stay as they are. C is the client's connection, U the pod's.
 *
 *        client ◀── C ──▶ socket │ daemon │ socket ◀── U ──▶ pod
 *                  wire numbers  │ socket numbers │  wire numbers
 *
 * Numbers. Bytes that were spliced past a socket are missing in its numbers: wire = socket + off, for what C sends and
 * for what U receives. While a splice is active, pod data from u_split on is diverted: its numbers move by
 * c_split − u_split, its ends become C's, and it leaves by the client's device. Acknowledgements of the client, SACK
 * blocks included, go through two monotone maps: to C's socket (which never hears of bytes that it did not send) and to
 * the pod (clamped to what was spliced), together with the window.
 *
 * State of a splice, all of it under one lock:
 *
 *   FREE    nobody's; a packet that finds its connection's splice free takes the connection as unbound
 *   RELAY   bound, when the answer is worth it. Packets are shifted by the offsets; TC keeps watermarks, as it does of
 *           connections that are not bound: they are handed over under the connection's lock
 *   ARMED   user space has said which byte comes next (kvs_arm), and the watermarks agreed with its counts
 *   ACTIVE  a data segment began at that very byte, and nothing was let through beyond it. Anything else that goes
 *           beyond it refuses: back to RELAY, bytes to the socket
 *   ENDED   the last byte was diverted: Content-Length is used up, the walker has seen the end, or FIN has come.
 *           The daemon may write to C again, behind the end
 *   DONE    the client has acknowledged the end. User space unbinds; only now may U be used again
 *
 * Flags: END, the end is known (with Content-Length long before ENDED). CLOSING, the daemon closes both. ORPHAN, a
 * socket sent FIN or RST without CLOSING, armed or later: the daemon is dead. Then those are stolen, the stream goes on
 * by itself, and at its end TC puts the FINs on the last segment and on the last acknowledgement, with the very numbers
 * that the orphaned sockets have outstanding. BROKEN, bad framing or bytes across the end: the rest is dropped and both
 * are reset. POD_FIN, POD_RST, CLIENT: who has closed.
 *
 * Rules. A packet is read, its connection looked up, its row found under the lock, the packet changed without it. Where
 * a row's packet goes is the row's third column in KVS_ROWS; the rows' conditions are in lib/client.bpf.h and
 * lib/pod.bpf.h:
 *
 *   ingress of C   client_in   acknowledgements: to the pod, to the socket, or to both (a copy that passes ingress once
 *                              more, marked)
 *   ingress of U   pod_in      data: to the socket before the split, to the client behind it; lib/walk.bpf.h for chunks
 *   egress of C    client_out  C's numbers, the orphan's FIN
 *   egress of U    pod_out     U's acknowledgements, the orphan's FIN
 *   SYN            lib/syn.bpf.h
 *   ICMP errors    lib/icmp.bpf.h
 *
 * The way to a peer, route and neighbour, is looked up once a second (bpf_redirect_neigh); at egress it is noted how
 * that packet was addressed on its link, and the packets between are sent the same way. Looking up each cost more than
 * the rules do.
 *
 * A packet of ours that cannot be read is dropped: unmapped numbers would reach a socket. What is not ours goes on with
 * TC_ACT_UNSPEC, which leaves the verdict to others. What is stolen at egress vanishes without the stack's
 * noticing (steal), since SHOT would look like congestion to it, and it would give its orphans up early.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#include "kvsteer/abi_splice.h"
#include "lib/control.bpf.h"
#include "lib/count.bpf.h"
#include "lib/icmp.bpf.h"

static const __u8 row_goes[KVS_ROWS_N] = {
#define X(NAME, name, goes) KVS_GOES_##goes,
	KVS_ROWS(X)
#undef X
};

/* Our view of the packet's connection, and an action that changes nothing. */
static __always_inline void packet_begin(struct __sk_buff *skb, struct scratch *sc, bool egress)
{
	struct segment *s = &sc->s;
	struct action *a = &sc->a;

	sc->egress = egress;
	sc->t.raddr = egress ? s->dst.addr : s->src.addr;
	sc->t.laddr = egress ? s->src.addr : s->dst.addr;
	sc->t.rport = egress ? s->dst.port : s->src.port;
	sc->t.lport = egress ? s->src.port : s->dst.port;
	sc->seq = bpf_ntohl(s->tcp.seq);
	sc->end = sc->seq + s->payload;
	sc->data = tcp_at(sc) + s->tcp.doff * 4;
	sc->now = bpf_ktime_get_ns();
	__builtin_memset(a, 0, sizeof(*a));
	OPAQUE(skb); /* else clang keeps the address of a member, which the verifier refuses */
	a->row = KVS_ROW_OTHER;
	a->ifindex = skb->ifindex;
	a->socket.seq = sc->seq;
	a->socket.ack = bpf_ntohl(s->tcp.ack_seq);
	a->socket.win = bpf_ntohs(s->tcp.window);
	a->socket.flags = s->flags;
	a->peer = a->socket;
}

static __always_inline void unbound(struct kvs_conn *conn, struct scratch *sc)
{
	struct kvs_half *h = &conn->half;

	if (sc->egress)
		h->ifindex = sc->a.ifindex;
	if (sc->second)
		sc->a.row = KVS_ROW_CI_COPY_LATE;
	else if (conn->side == KVS_SIDE_C)
		sc->egress ? client_out_plain(h, sc) : client_in_plain(h, sc);
	else
		sc->egress ? pod_out_plain(h, sc) : pod_in_plain(h, sc);
}

static __always_inline void bound(struct kvs_splice *sp, bool client, struct scratch *sc, bool egress)
{
	if (client)
		egress ? client_out(sp, sc) : client_in(sp, sc);
	else
		egress ? pod_out(sp, sc) : pod_in(sp, sc);
	event_fill(sp, sc);
}

/* The packet's row, and what it is to say. */
static __always_inline int decide(bool egress)
{
	struct scratch *sc = scratch_get();
	struct kvs_splice *sp = NULL;
	struct kvs_conn *conn;
	bool is_bound = false;
	__u32 gen;

	if (!sc)
		return 0;
	conn = bpf_map_lookup_elem(&kvs_conns, &sc->t);
	if (!conn)
		return 0;
	sc->a.client = conn->side == KVS_SIDE_C;
	bpf_spin_lock(&conn->lock);
	sc->a.splice = conn->splice;
	gen = conn->gen;
	if (!conn->splice)
		unbound(conn, sc);
	bpf_spin_unlock(&conn->lock);
	if (!sc->a.splice)
		return 0;
	sp = bpf_map_lookup_elem(&kvs_splices, &sc->a.splice);
	if (sp) {
		bpf_spin_lock(&sp->lock);
		is_bound = sp->state != KVS_FREE && sp->gen == gen;
		if (is_bound)
			bound(sp, sc->a.client, sc, egress);
		bpf_spin_unlock(&sp->lock);
	}
	if (!is_bound) { /* not any more */
		bpf_spin_lock(&conn->lock);
		unbound(conn, sc);
		bpf_spin_unlock(&conn->lock);
	}
	return 0;
}

/* Functions of their own, each verified by itself. */
__noinline int ingress_decide(void)
{
	return decide(false);
}

__noinline int egress_decide(void)
{
	return decide(true);
}

__noinline int to_socket(struct __sk_buff *skb)
{
	struct scratch *sc = scratch_get();

	return sc ? packet_to_socket(skb, sc) : -1;
}

__noinline int to_peer(struct __sk_buff *skb)
{
	struct scratch *sc = scratch_get();

	return sc ? packet_to_peer(skb, sc) : -1;
}

/* The pod's copy enters this device once more; its mark tells what is left to do. */
static __always_inline void copy_send(struct __sk_buff *skb)
{
	__u32 mark = skb->mark;

	skb->mark = MARK_POD;
	if (bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS))
		row_count(KVS_ROW_COPY_LOST);
	skb->mark = mark;
}

/* Away with it, without the sender's stack noticing. SHOT is reported to it as congestion, and tcx knows no STOLEN: it
 * takes any verdict but its own four for "next". A redirect to a device that does not exist frees the packet and counts
 * as sent, under clsact and tcx alike. */
static __always_inline int steal(void)
{
	return (int)bpf_redirect(0x7fffffff, 0);
}

static __always_inline int peer_send(struct __sk_buff *skb, struct scratch *sc)
{
	struct action *a = &sc->a;

	skb->mark = a->client ? MARK_TO_POD : MARK_TO_CLIENT;
	if (a->linked && !bpf_skb_store_bytes(skb, 0, a->link, sizeof(a->link), 0))
		return bpf_redirect(a->ifindex, 0);
	skb->mark |= a->splice & MARK_ID;
	return bpf_redirect_neigh(a->ifindex, NULL, 0, 0);
}

static __always_inline bool tuple_is(const struct kvs_tuple *a, const struct kvs_tuple *b)
{
	const __u32 *x = (const void *)a, *y = (const void *)b;
	__u32 diff = 0;

	for (unsigned int i = 0; i < sizeof(*a) / sizeof(*x); i++)
		diff |= x[i] ^ y[i];
	return !diff;
}

/* At egress, of a packet whose way was looked up: note how it was addressed. It may have waited for its neighbour, so
 * the splice may be another's by now. */
__noinline int link_learn(struct __sk_buff *skb)
{
	struct scratch *sc = scratch_get();
	bool to_pod = (skb->mark & ~MARK_ID) == MARK_TO_POD;
	__u32 id = skb->mark & MARK_ID;
	struct kvs_splice *sp = bpf_map_lookup_elem(&kvs_splices, &id);
	struct kvs_link *l;

	if (!sc || !sp || segment_read(skb, &sc->s) != KVS_COUNTED)
		return 0;
	packet_begin(skb, sc, true);
	if (bpf_skb_load_bytes(skb, 0, sc->a.link, sizeof(sc->a.link)))
		return 0;
	bpf_spin_lock(&sp->lock);
	if (tuple_is(to_pod ? &sp->u_tuple : &sp->c_tuple, &sc->t)) {
		l = to_pod ? &sp->u_link : &sp->c_link;
		__builtin_memcpy(l->addrs, sc->a.link, sizeof(l->addrs));
		l->ifindex = sc->a.ifindex;
		l->at = sc->now;
	}
	bpf_spin_unlock(&sp->lock);
	return 0;
}

/* Do what the row says; the program's verdict. */
static __always_inline int carry_out(struct __sk_buff *skb, struct scratch *sc)
{
	__u32 row = sc->a.row, goes = row < KVS_ROWS_N ? row_goes[row] : KVS_GOES_NOWHERE;

	row_count(row);
	if (row == KVS_ROW_OTHER)
		return TC_ACT_UNSPEC;
	if (goes == KVS_GOES_NOWHERE)
		return sc->egress ? steal() : TC_ACT_SHOT;
	if (goes == KVS_GOES_BOTH)
		copy_send(skb);
	if (goes != KVS_GOES_PEER) {
		if (!to_socket(skb))
			return TC_ACT_UNSPEC;
	} else if (!to_peer(skb)) {
		if (sc->a.client)
			count_ack_to_pod(&sc->a.pod);
		return peer_send(skb, sc);
	}
	row_count(KVS_ROW_FAILED);
	return TC_ACT_SHOT;
}

/* Not TCP: perhaps an error about a segment of ours, changed already. */
static __always_inline int icmp_carry_out(struct __sk_buff *skb, struct scratch *sc)
{
	icmp_error(skb);
	if (sc->a.row == KVS_ROW_OTHER)
		return TC_ACT_UNSPEC;
	row_count(sc->a.row);
	if (sc->a.row == KVS_ROW_CI_ERROR)
		return TC_ACT_UNSPEC;
	if (sc->a.row != KVS_ROW_CI_TOO_BIG)
		return TC_ACT_SHOT;
	skb->mark = MARK_TO_POD;
	return bpf_redirect_neigh(sc->a.ifindex, NULL, 0, 0);
}

/* Neither a whole segment nor somebody else's, as far as one can see. */
static __always_inline int unreadable(struct scratch *sc)
{
	if (!sc->s.has_ports || !bpf_map_lookup_elem(&kvs_conns, &sc->t))
		return TC_ACT_UNSPEC;
	row_count(KVS_ROW_UNREADABLE);
	return sc->egress ? steal() : TC_ACT_SHOT;
}

SEC("tc")
int kvs_ingress(struct __sk_buff *skb)
{
	struct scratch *sc = scratch_get();
	enum kvs_verdict v;
	bool plain;

	if (!sc)
		return TC_ACT_UNSPEC;
	v = segment_read(skb, &sc->s);
	sc->second = skb->mark == MARK_POD;
	if (sc->second)
		skb->mark = 0;
	packet_begin(skb, sc, false);
	plain = v == KVS_COUNTED && !skb->vlan_present && !(sc->s.flags & TCP_FLAG_SYN);
	if (plain)
		ingress_decide();
	if (!sc->second)
		count_ingress(skb, &sc->s, sc->a.client ? KVS_NOT_POD : v);
	if (v == KVS_NOT_IP || skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (v == KVS_NOT_TCP)
		return icmp_carry_out(skb, sc);
	if (v != KVS_COUNTED)
		return unreadable(sc);
	if (!plain)
		syn_decide(skb);
	if (sc->a.walk)
		walk_segment(skb);
	if (sc->a.notes | sc->a.events | sc->a.keep | sc->a.hold || sc->a.ttft || sc->a.gap)
		settle(skb);
	return carry_out(skb, sc);
}

SEC("tc")
int kvs_egress(struct __sk_buff *skb)
{
	struct scratch *sc = scratch_get();
	enum kvs_verdict v;
	__u32 kind;

	if (!sc)
		return TC_ACT_UNSPEC;
	kind = skb->mark & ~MARK_ID;
	if (kind == MARK_TO_CLIENT || kind == MARK_TO_POD) {
		count_device_egress(skb, kind == MARK_TO_POD ? KVS_COUNTED : KVS_NOT_POD);
		row_count(KVS_ROW_MARKED);
		if (skb->mark & MARK_ID)
			link_learn(skb);
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	v = segment_read(skb, &sc->s);
	count_egress(skb, &sc->s, v);
	if (v == KVS_NOT_TCP || v == KVS_NOT_IP || skb->vlan_present)
		return TC_ACT_UNSPEC;
	sc->second = 0;
	packet_begin(skb, sc, true);
	if (v != KVS_COUNTED)
		return unreadable(sc);
	if (sc->s.flags & TCP_FLAG_SYN) {
		syn_decide(skb);
		return carry_out(skb, sc);
	}
	egress_decide();
	if (sc->a.notes | sc->a.events)
		settle(skb);
	return carry_out(skb, sc);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
