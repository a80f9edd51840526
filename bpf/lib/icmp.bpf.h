/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * What routers say of packets that went to a client. An ICMP error quotes the packet's beginning, with the number that
 * it had on the wire: C's socket would take that for somebody else's, so it is told its own. Of what was diverted the
 * socket knows nothing. "Packet too big" is then the pod's matter: it gets the error as if the packet had failed on the
 * way to us, and sends smaller ones. With IPv4 no router has a reason to say that, since diverted packets may be
 * fragmented.
 *
 * A quoted number that is not under way is nobody's: as in TCP itself, that keeps forgers out.
 */
#ifndef KVS_LIB_ICMP_BPF_H
#define KVS_LIB_ICMP_BPF_H

#include "lib/client.bpf.h"
#include "lib/packet.bpf.h"

#define IPPROTO_ICMP	 1
#define IPPROTO_ICMPV6	 58
#define ICMP_TOO_BIG	 2 /* ICMPv6 */
#define ICMP_HLEN	 8
#define ICMP_SUM	 2 /* offset of its checksum */
#define IPV6_ADDRS	 8 /* offset of the addresses */
#define IPV6_ADDRS_BYTES 32

struct quote {
	__u32 icmp, tcp; /* where they begin, from the network header; the quoted IPv6 header is in between */
	__be32 old[2];	 /* ports and number */
	__u32 seq;
	bool too_big;
};

static __always_inline bool icmp4_read(struct __sk_buff *skb, struct scratch *sc, struct quote *q)
{
	struct iphdr ip;
	__u8 type;

	if (net_load(skb, 0, &ip, sizeof(ip)) || ip.protocol != IPPROTO_ICMP ||
	    (ip.frag_off & bpf_htons(IP_FRAGMENT_BITS)))
		return false;
	q->icmp = ip.ihl * 4;
	/* unreachable, time exceeded, parameter problem */
	if (net_load(skb, q->icmp, &type, 1) || (type != 3 && type != 11 && type != 12) ||
	    net_load(skb, q->icmp + ICMP_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP ||
	    (ip.frag_off & bpf_htons(IP_OFFSET_BITS)))
		return false;
	addr_from_v4(&sc->t.laddr, ip.saddr);
	addr_from_v4(&sc->t.raddr, ip.daddr);
	q->tcp = q->icmp + ICMP_HLEN + ip.ihl * 4;
	return true;
}

static __always_inline bool icmp6_read(struct __sk_buff *skb, struct scratch *sc, struct quote *q)
{
	struct ipv6hdr ip;
	__u8 type;

	if (net_load(skb, 0, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_ICMPV6)
		return false;
	q->icmp = sizeof(ip);
	/* unreachable, too big, time exceeded, parameter problem */
	if (net_load(skb, q->icmp, &type, 1) || type < 1 || type > 4 ||
	    net_load(skb, q->icmp + ICMP_HLEN, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_TCP)
		return false;
	__builtin_memcpy(sc->t.laddr.b, ip.saddr, sizeof(ip.saddr));
	__builtin_memcpy(sc->t.raddr.b, ip.daddr, sizeof(ip.daddr));
	q->tcp = q->icmp + ICMP_HLEN + sizeof(ip);
	q->too_big = type == ICMP_TOO_BIG;
	return true;
}

/* An error about a segment of ours. The numbers are there, since eight bytes are always quoted. */
static __always_inline bool quote_read(struct __sk_buff *skb, struct scratch *sc, struct quote *q)
{
	__be32 there[2];

	if (!(sc->s.v6 ? icmp6_read(skb, sc, q) : icmp4_read(skb, sc, q)) || net_load(skb, q->tcp, q->old, 8) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + q->tcp, there, 8) || there[0] != q->old[0] || there[1] != q->old[1])
		return false;
	sc->t.lport = bpf_ntohl(q->old[0]) >> 16;
	sc->t.rport = bpf_ntohl(q->old[0]) & 0xffff;
	q->seq = bpf_ntohl(q->old[1]);
	return true;
}

/* Under the lock, in ACTIVE and later. */
static __always_inline void icmp_spliced(struct kvs_splice *sp, struct scratch *sc, const struct quote *q)
{
	struct action *a = &sc->a;
	struct seqmap *m = &a->socket_map;

	m->off = sp->c.off;
	m->lo = sp->c_split;
	m->hi = client_end(sp);
	a->socket.seq = map_socket(m, q->seq);
	if (D(q->seq, m->lo) < 0 || D(q->seq, m->hi) >= 0)
		return;
	a->row = KVS_ROW_CI_ERROR_STRAY;
	if (D(q->seq, sp->c.snd_una) < 0 || D(q->seq, client_sent_end(sp)) >= 0)
		return;
	a->row = KVS_ROW_CI_ERROR;
	if (!q->too_big)
		return;
	a->row = KVS_ROW_CI_TOO_BIG;
	a->peer.seq = q->seq - (sp->c_split - sp->u_split);
	a->to = sp->u_tuple;
	a->ifindex = sp->u.ifindex;
}

/* The error's row; OTHER: none of ours. */
static __always_inline void icmp_decide(struct scratch *sc, const struct quote *q)
{
	struct kvs_conn *conn = bpf_map_lookup_elem(&kvs_conns, &sc->t);
	struct action *a = &sc->a;
	struct kvs_splice *sp = NULL;
	__u32 off, id;
	bool spliced = false;

	a->row = KVS_ROW_OTHER;
	if (!conn || conn->side != KVS_SIDE_C)
		return;
	a->row = KVS_ROW_CI_ERROR;
	off = conn->half.off;
	id = conn->splice;
	if (id)
		sp = bpf_map_lookup_elem(&kvs_splices, &id);
	if (sp) {
		bpf_spin_lock(&sp->lock);
		if (sp->gen == conn->gen && sp->state != KVS_FREE) {
			off = sp->c.off;
			spliced = sp->state >= KVS_ACTIVE;
			if (spliced)
				icmp_spliced(sp, sc, q);
		}
		bpf_spin_unlock(&sp->lock);
	}
	if (!spliced)
		a->socket.seq = q->seq - off;
}

static __always_inline int icmp_sum(struct __sk_buff *skb, const struct quote *q, __s64 diff)
{
	return bpf_l4_csum_replace(skb, ETH_HLEN + q->icmp + ICMP_SUM, 0, diff, 0);
}

static __always_inline int icmp_to_socket(struct __sk_buff *skb, struct scratch *sc, struct quote *q)
{
	__be32 seq = bpf_htonl(sc->a.socket.seq);

	if (seq == q->old[1])
		return 0;
	if (bpf_skb_store_bytes(skb, ETH_HLEN + q->tcp + 4, &seq, sizeof(seq), 0))
		return -1;
	return icmp_sum(skb, q, bpf_csum_diff(&q->old[1], 4, &seq, 4, 0));
}

/* Two addresses of an IPv6 header become <from> and <to>. The sum of what changed, seeded by <diff>. */
static __always_inline __s64 icmp_addrs_put(struct __sk_buff *skb, struct scratch *sc, __u32 at,
					    const struct kvs_addr *from, const struct kvs_addr *to, __s64 diff)
{
	if (bpf_skb_load_bytes(skb, at + IPV6_ADDRS, sc->ip_old, IPV6_ADDRS_BYTES))
		return -EINVAL;
	__builtin_memcpy(sc->ip_new, from->b, 16);
	__builtin_memcpy(sc->ip_new + 16, to->b, 16);
	if (bpf_skb_store_bytes(skb, at + IPV6_ADDRS, sc->ip_new, IPV6_ADDRS_BYTES, 0))
		return -EINVAL;
	return bpf_csum_diff((void *)sc->ip_old, IPV6_ADDRS_BYTES, (void *)sc->ip_new, IPV6_ADDRS_BYTES, (__u32)diff);
}

/* From us to the pod, about a segment from the pod to us. The quoted checksum is left: nobody can check it. */
static __always_inline int icmp_to_pod(struct __sk_buff *skb, struct scratch *sc, struct quote *q)
{
	const struct kvs_tuple *t = &sc->a.to;
	__be32 tcp[2] = { bpf_htonl((__u32)t->rport << 16 | t->lport), bpf_htonl(sc->a.peer.seq) };
	__s64 diff = icmp_addrs_put(skb, sc, ETH_HLEN, &t->laddr, &t->raddr, 0);

	if (diff < 0)
		return -1;
	diff = icmp_addrs_put(skb, sc, ETH_HLEN + q->icmp + ICMP_HLEN, &t->raddr, &t->laddr, diff);
	if (diff < 0 || bpf_skb_store_bytes(skb, ETH_HLEN + q->tcp, tcp, sizeof(tcp), 0))
		return -1;
	return icmp_sum(skb, q, bpf_csum_diff(q->old, sizeof(tcp), tcp, sizeof(tcp), (__u32)diff));
}

/* An ingress packet that is not TCP: sc->a.row, OTHER for none of ours; and it is changed as the row says. */
__noinline int icmp_error(struct __sk_buff *skb)
{
	struct scratch *sc = scratch_get();
	struct quote q = {};

	if (!sc)
		return 0;
	sc->a.row = KVS_ROW_OTHER;
	if (!quote_read(skb, sc, &q))
		return 0;
	icmp_decide(sc, &q);
	if ((sc->a.row == KVS_ROW_CI_ERROR && icmp_to_socket(skb, sc, &q)) ||
	    (sc->a.row == KVS_ROW_CI_TOO_BIG && icmp_to_pod(skb, sc, &q)))
		sc->a.row = KVS_ROW_FAILED;
	return 0;
}

#endif
