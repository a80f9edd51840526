/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * Reading a TCP segment: both ends, payload length, flags.
 *
 * Bytes are loaded relative to the network header, so devices without an Ethernet header (lo has one, tun and wireguard
 * do not) and packets whose headers are not in the linear part are read alike. The length is what the IP header says,
 * since the packet may be padded; a super-packet beyond 64 KB says 0 there (IPv6: in a jumbo option, IPv4: nowhere).
 *
 * Of a first fragment or a segment with impossible lengths the ends may be known nevertheless: has_ports says so.
 */
#ifndef KVS_LIB_SEGMENT_BPF_H
#define KVS_LIB_SEGMENT_BPF_H

#include <bpf/bpf_endian.h>

#define TCP_FLAG_FIN 0x01
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define TCP_FLAG_PSH 0x08
#define TCP_FLAG_ACK 0x10
#define TCP_FLAG_URG 0x20

#define ETH_HLEN	  14
#define IP_FRAGMENT_BITS  0x3fff /* more fragments, or an offset */
#define IP_OFFSET_BITS	  0x1fff
#define IPV6_OFFSET_BITS  0xfff8
#define IPV6_EXT_MAX	  4
#define JUMBO_OPTION_TYPE 0xc2

struct segment {
	struct kvs_pod_key src, dst;
	struct tcphdr tcp; /* as it came */
	__u32 payload;
	__u32 off; /* of the TCP header, from the network header */
	__u8 flags;
	__u8 v6;
	__u8 has_ports;
	__u8 jumbo; /* IPv6 with a jumbo option right behind its header */
};

static __always_inline long net_load(struct __sk_buff *skb, __u32 off, void *to, __u32 len)
{
	return bpf_skb_load_bytes_relative(skb, off, to, len, BPF_HDR_START_NET);
}

static __always_inline void addr_from_v4(struct kvs_addr *a, const __u8 *v4)
{
	__builtin_memset(a->b, 0, 10);
	a->b[10] = a->b[11] = 0xff;
	__builtin_memcpy(a->b + 12, v4, 4);
}

/* On success *ret_off is where TCP begins, *ret_end where the packet ends. */
static __always_inline enum kvs_verdict ipv4_read(struct __sk_buff *skb, struct segment *s, __u32 *ret_off,
						  __u32 *ret_end)
{
	struct iphdr ip;

	if (net_load(skb, 0, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return KVS_MALFORMED;
	if (ip.protocol != IPPROTO_TCP)
		return KVS_NOT_TCP;
	addr_from_v4(&s->src.addr, ip.saddr);
	addr_from_v4(&s->dst.addr, ip.daddr);
	if (!(ip.frag_off & bpf_htons(IP_OFFSET_BITS)))
		*ret_off = ip.ihl * 4;
	if (ip.frag_off & bpf_htons(IP_FRAGMENT_BITS))
		return KVS_FRAGMENT;
	*ret_end = ip.tot_len ? bpf_ntohs(ip.tot_len) : skb->len - ETH_HLEN;
	return KVS_COUNTED;
}

static __always_inline enum kvs_verdict ipv6_read(struct __sk_buff *skb, struct segment *s, __u32 *ret_off,
						  __u32 *ret_end)
{
	struct ipv6hdr ip;
	struct ipv6_opt_hdr ext;
	struct {
		__u8 type, len;
		__be32 value;
	} __attribute__((packed)) jumbo;
	__u32 off = sizeof(ip);
	__be16 frag;
	__u8 next;

	if (net_load(skb, 0, &ip, sizeof(ip)) || ip.first[0] >> 4 != 6)
		return KVS_MALFORMED;
	__builtin_memcpy(s->src.addr.b, ip.saddr, sizeof(ip.saddr));
	__builtin_memcpy(s->dst.addr.b, ip.daddr, sizeof(ip.daddr));
	s->v6 = 1;
	*ret_end = sizeof(ip) + bpf_ntohs(ip.payload_len);
	next = ip.nexthdr;
	for (int i = 0; i < IPV6_EXT_MAX && next != IPPROTO_TCP; i++) {
		if (next == IPPROTO_FRAGMENT) {
			if (!net_load(skb, off, &ext, sizeof(ext)) && ext.nexthdr == IPPROTO_TCP &&
			    !net_load(skb, off + 2, &frag, sizeof(frag)) && !(frag & bpf_htons(IPV6_OFFSET_BITS)))
				*ret_off = off + 8;
			return KVS_FRAGMENT;
		}
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			return KVS_NOT_TCP;
		if (net_load(skb, off, &ext, sizeof(ext)))
			return KVS_MALFORMED;
		if (next == IPPROTO_HOPOPTS && !ip.payload_len && !net_load(skb, off + 2, &jumbo, sizeof(jumbo)) &&
		    jumbo.type == JUMBO_OPTION_TYPE) {
			*ret_end = sizeof(ip) + bpf_ntohl(jumbo.value);
			s->jumbo = 1;
		}
		off += (ext.hdrlen + 1) * 8;
		next = ext.nexthdr;
	}
	if (next != IPPROTO_TCP)
		return KVS_NOT_TCP;
	*ret_off = off;
	return KVS_COUNTED;
}

/* KVS_COUNTED and *s, or why this is no segment that can be read. */
static __always_inline enum kvs_verdict segment_read(struct __sk_buff *skb, struct segment *s)
{
	enum kvs_verdict v;
	__u32 off = 0, end = 0; /* clang spills undefined values, which the verifier refuses */

	s->v6 = s->has_ports = s->jumbo = s->flags = 0;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		v = ipv4_read(skb, s, &off, &end);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		v = ipv6_read(skb, s, &off, &end);
	else
		return KVS_NOT_IP;
	if ((v != KVS_COUNTED && v != KVS_FRAGMENT) || !off)
		return v;
	if (net_load(skb, off, &s->tcp, sizeof(s->tcp)))
		return v == KVS_FRAGMENT ? v : KVS_MALFORMED;
	s->src.port = bpf_ntohs(s->tcp.source);
	s->dst.port = bpf_ntohs(s->tcp.dest);
	s->src.pad = s->dst.pad = 0;
	s->has_ports = 1;
	if (v == KVS_FRAGMENT)
		return v;
	if (s->tcp.doff < 5 || off + s->tcp.doff * 4 > end)
		return KVS_MALFORMED;
	s->off = off;
	s->payload = end - off - s->tcp.doff * 4;
	s->flags = s->tcp.flags;
	return KVS_COUNTED;
}

#endif
