/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * Changing packets: TCP header, options, addresses, length, and the checksums with them.
 *
 * A header is changed with one store and one difference, which is right for complete checksums and for those that the
 * device is to complete (CHECKSUM_PARTIAL: the field holds the pseudo header's sum, which ports and numbers are no part
 * of). For an skb with CHECKSUM_COMPLETE header and field cancel out.
 */
#ifndef KVS_LIB_PACKET_BPF_H
#define KVS_LIB_PACKET_BPF_H

#include "lib/scratch.bpf.h"

#define EINVAL 22

#define IP_DF	     0x4000
#define CHECK_OFFSET 16 /* in the TCP header */

static __always_inline __u32 tcp_at(const struct scratch *sc)
{
	return ETH_HLEN + sc->s.off;
}

/* Devices without an Ethernet header are not ours: what was read from the network header lies elsewhere there. */
static __always_inline int tcp_is_there(struct __sk_buff *skb, const struct scratch *sc)
{
	__be32 there[2];

	return !bpf_skb_load_bytes(skb, tcp_at(sc), there, sizeof(there)) &&
	       there[0] == ((__be32)sc->s.tcp.dest << 16 | sc->s.tcp.source) && there[1] == sc->s.tcp.seq;
}

/* Replace the TCP header; ports as well if <to> is given. */
static __always_inline int header_put(struct __sk_buff *skb, struct scratch *sc, const struct header *h,
				      const struct kvs_tuple *to)
{
	struct tcphdr *old = &sc->s.tcp, *new = &sc->tcp;

	*new = *old;
	new->seq = bpf_htonl(h->seq);
	new->ack_seq = bpf_htonl(h->ack);
	new->window = bpf_htons(h->win);
	new->flags = h->flags;
	if (!(h->flags & TCP_FLAG_URG))
		new->urg_ptr = 0;
	if (to) {
		new->source = bpf_htons(to->lport);
		new->dest = bpf_htons(to->rport);
	} else if (new->seq == old->seq &&new->ack_seq == old->ack_seq &&new->window == old->window &&new->flags ==
		   old->flags) {
		return 0;
	}
	if (!tcp_is_there(skb, sc))
		return -1;
	if (bpf_skb_store_bytes(skb, tcp_at(sc), new, sizeof(*new), 0))
		return -1;
	return bpf_l4_csum_replace(skb, tcp_at(sc) + CHECK_OFFSET, 0,
				   bpf_csum_diff((void *)old, sizeof(*old), (void *)new, sizeof(*new), 0), 0);
}

/* Options: old ones into both buffers, zero behind them. Their length, 0 if there are none. */
static __always_inline __u32 options_load(struct __sk_buff *skb, struct scratch *sc)
{
	__u32 n = sc->s.tcp.doff * 4 - sizeof(struct tcphdr);

	OPAQUE(n);
	if (n < 4 || n > OPTIONS_MAX)
		return 0;
	__builtin_memset(sc->opt_old, 0, sizeof(sc->opt_old));
	if (bpf_skb_load_bytes(skb, tcp_at(sc) + sizeof(struct tcphdr), sc->opt_old, n))
		return 0;
	__builtin_memcpy(sc->opt_new, sc->opt_old, sizeof(sc->opt_new));
	return n;
}

static __always_inline int options_store(struct __sk_buff *skb, struct scratch *sc, __u32 n)
{
	__s64 diff;

	OPAQUE(n);
	if (n < 4 || n > OPTIONS_MAX)
		return -1;
	diff = bpf_csum_diff(sc->opt_old, OPTIONS_MAX, sc->opt_new, OPTIONS_MAX, 0);
	if (bpf_skb_store_bytes(skb, tcp_at(sc) + sizeof(struct tcphdr), sc->opt_new, n, 0))
		return -1;
	return bpf_l4_csum_replace(skb, tcp_at(sc) + CHECK_OFFSET, 0, diff, 0);
}

#define NOP4	  0x01010101
#define SACK_HEAD 0x01010500 /* NOP NOP SACK length */

static __always_inline __u32 sack_map(const struct seqmap *m, __u8 how, __be32 be)
{
	__u32 w = bpf_ntohl(be);

	if (how == OPTIONS_SHIFT)
		return w + m->off;
	return how == OPTIONS_POD ? map_pod(m, w) : map_socket(m, w);
}

/*
 * Without timestamps the only option of a segment is SACK, always at [NOP NOP SACK]. Both edges of each block are
 * mapped; blocks that become empty go. Anything else is overwritten with NOPs.
 */
static __always_inline int sack_put(struct __sk_buff *skb, struct scratch *sc, const struct seqmap *m, __u8 how)
{
	__u32 n = options_load(skb, sc), blocks, out = 0;
	__u32 head;

	if (!n)
		return sc->s.tcp.doff > 5 ? -1 : 0;
	head = bpf_ntohl(sc->opt_old[0]);
	blocks = (n - 4) / 8;
	for (int i = 0; i < OPTIONS_MAX / 4; i++)
		if (i * 4U < n)
			sc->opt_new[i] = NOP4;
	if (how != OPTIONS_NONE && head == SACK_HEAD + 2 + blocks * 8 && blocks * 8 + 4 == n) {
		for (__u32 i = 0; i < 4; i++) {
			__u32 from, to;

			if (i >= blocks)
				break;
			from = sack_map(m, how, sc->opt_old[1 + 2 * i]);
			to = sack_map(m, how, sc->opt_old[2 + 2 * i]);
			if (D(to, from) <= 0 || out > 3)
				continue;
			sc->opt_new[1 + 2 * out] = bpf_htonl(from);
			sc->opt_new[2 + 2 * out] = bpf_htonl(to);
			out++;
		}
		if (out)
			sc->opt_new[0] = bpf_htonl(SACK_HEAD + 2 + out * 8);
	}
	return options_store(skb, sc, n);
}

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)((sum & 0xffff) + (sum >> 16));
}

static __always_inline int ipv4_put(struct __sk_buff *skb, struct scratch *sc, const struct action *a, __u16 len)
{
	struct iphdr *old = (void *)sc->ip_old, *new = (void *)sc->ip_new;
	__s64 diff;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, old, sizeof(*old)))
		return -1;
	*new = *old;
	if (len)
		new->tot_len = bpf_htons(len - ETH_HLEN);
	new->tos &= ~3;
	if (a->fragment)
		new->frag_off &= bpf_htons(~IP_DF);
	__builtin_memcpy(new->saddr, a->to.laddr.b + 12, 4);
	__builtin_memcpy(new->daddr, a->to.raddr.b + 12, 4);
	/* The header and its checksum add up to what they did before. */
	diff = bpf_csum_diff((void *)old, sizeof(*old), (void *)new, sizeof(*new), (__u16)~old->check);
	new->check = ~csum_fold(diff);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, new, sizeof(*new), 0))
		return -1;
	diff = bpf_csum_diff((void *)old->saddr, 8, (void *)new->saddr, 8, 0);
	return bpf_l4_csum_replace(skb, tcp_at(sc) + CHECK_OFFSET, 0, diff, BPF_F_PSEUDO_HDR);
}

static __always_inline int ipv6_put(struct __sk_buff *skb, struct scratch *sc, const struct action *a, __u16 len)
{
	const __u32 addrs = ETH_HLEN + __builtin_offsetof(struct ipv6hdr, saddr);
	const __u8 pad_option[6] = { 1, 4 };
	struct ipv6hdr *ip = (void *)sc->pseudo;
	__s64 diff;
	int r;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, ip, sizeof(*ip)))
		return -1;
	ip->first[1] &= ~0x30; /* ECN */
	if (len)
		ip->payload_len = bpf_htons(len - ETH_HLEN - sizeof(*ip));
	if (bpf_skb_store_bytes(skb, ETH_HLEN, ip, 6, BPF_F_RECOMPUTE_CSUM))
		return -1;
	if (len && sc->s.jumbo &&
	    bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(*ip) + 2, pad_option, sizeof(pad_option), BPF_F_RECOMPUTE_CSUM))
		return -1;
	__builtin_memcpy(sc->ip_new, a->to.laddr.b, 16);
	__builtin_memcpy(sc->ip_new + 16, a->to.raddr.b, 16);
	diff = bpf_csum_diff((void *)ip->saddr, 32, (void *)sc->ip_new, 32, 0);
	if (bpf_skb_store_bytes(skb, addrs, sc->ip_new, 32, 0))
		return -1;
	r = bpf_l4_csum_replace(skb, tcp_at(sc) + CHECK_OFFSET, 0, diff, BPF_F_PSEUDO_HDR | BPF_F_IPV6);
	if (r == -EINVAL) /* before 6.16, where CHECKSUM_COMPLETE came out wrong */
		r = bpf_l4_csum_replace(skb, tcp_at(sc) + CHECK_OFFSET, 0, diff, BPF_F_PSEUDO_HDR);
	return r;
}

/*
 * The checksum of a packet that has lost its payload, computed anew. A helper tells whether the field holds a complete
 * checksum or the pseudo header's sum: in the latter case it ignores differences of what is not in that header.
 * The prefix of mapped IPv4 addresses adds 0xffff, which is nothing, so both families have one pseudo header.
 */
static __always_inline int trimmed_csum(struct __sk_buff *skb, struct scratch *sc, const struct action *a)
{
	__u32 at = tcp_at(sc);
	__u16 before, after;
	__u64 sum;

	if (bpf_skb_load_bytes(skb, at + CHECK_OFFSET, &before, 2) ||
	    bpf_l4_csum_replace(skb, at + CHECK_OFFSET, 0, bpf_htonl(1), 0) ||
	    bpf_skb_load_bytes(skb, at, &sc->tcp, sizeof(sc->tcp)))
		return -1;
	after = sc->tcp.check;
	__builtin_memcpy(sc->pseudo, a->to.laddr.b, 16);
	__builtin_memcpy(sc->pseudo + 4, a->to.raddr.b, 16);
	sc->pseudo[8] = bpf_htonl(sizeof(struct tcphdr));
	sc->pseudo[9] = bpf_htonl(IPPROTO_TCP);
	sum = (__u32)bpf_csum_diff(0, 0, sc->pseudo, sizeof(sc->pseudo), 0);
	if (before == after) {
		after = csum_fold(sum);
	} else {
		sc->tcp.check = 0;
		sum += (__u32)bpf_csum_diff(0, 0, (void *)&sc->tcp, sizeof(sc->tcp), 0);
		after = ~csum_fold(sum);
	}
	return bpf_skb_store_bytes(skb, at + CHECK_OFFSET, &after, 2, 0);
}

/* On to the socket, or at egress to the network. */
static __always_inline int packet_to_socket(struct __sk_buff *skb, struct scratch *sc)
{
	const struct header *h = &sc->a.socket;
	bool options = h->options != OPTIONS_KEEP && sc->s.tcp.doff > 5;

	if (options && !tcp_is_there(skb, sc))
		return -1;
	/* The header first: it is stored with the checksum that the packet came with. */
	if (header_put(skb, sc, h, NULL))
		return -1;
	return options ? sack_put(skb, sc, &sc->a.socket_map, h->options) : 0;
}

/* To the other connection's peer. A trimmed one has no options either. */
static __always_inline int packet_to_peer(struct __sk_buff *skb, struct scratch *sc)
{
	struct action *a = &sc->a;
	__u16 len = 0;

	if (!tcp_is_there(skb, sc))
		return -1;
	if (a->trim && (sc->s.payload || skb->len > tcp_at(sc) + sc->s.tcp.doff * 4)) {
		len = tcp_at(sc) + sizeof(struct tcphdr);
		if (bpf_skb_change_tail(skb, len, 0))
			return -1;
	}
	if (header_put(skb, sc, &a->peer, &a->to))
		return -1;
	if (len) {
		struct tcphdr *tcp = &sc->tcp;

		tcp->doff = 5;
		if (bpf_skb_store_bytes(skb, tcp_at(sc) + 12, (__u8 *)tcp + 12, 1, 0))
			return -1;
	} else if (sc->s.tcp.doff > 5 && sack_put(skb, sc, &a->peer_map, a->peer.options)) {
		return -1;
	}
	if (sc->s.v6 ? ipv6_put(skb, sc, a, len) : ipv4_put(skb, sc, a, len))
		return -1;
	return len ? trimmed_csum(skb, sc, a) : 0;
}

#endif
