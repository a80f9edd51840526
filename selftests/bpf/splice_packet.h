/* SPDX-License-Identifier: Apache-2.0
 * One TCP segment at a time through the splice's programs with PROG_TEST_RUN: building it, running it, reading what
 * came out, and a splice in any state that the maps can hold. For the table of rows and the fuzzer.
 */
#ifndef KVS_SELFTESTS_SPLICE_PACKET_H
#define KVS_SELFTESTS_SPLICE_PACKET_H

#include "splice_rows.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <netinet/in.h>

#include "bpf/splice_tc.skel.h"

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define PSH 0x08
#define ACK 0x10
#define URG 0x20
#define ECE 0x40

#define MARK_POD       (0x6b000000 | KVS_ABI << 20)
#define MARK_TO_CLIENT (MARK_POD | 0x40000)
#define MARK_TO_POD    (MARK_POD | 0x80000)

/* Numbers of the splice under test. Both split near a wrap. */
#define CS  0xfffffe00U /* c_split */
#define US  0x7ffffe00U /* u_split */
#define FWD 1000U	/* diverted so far */
#define UNA 400U	/* acknowledged by the client beyond the split */
#define OFC 0x11110U	/* offsets */
#define OFU 0x22220U
#define CR  0x50000U /* C.rcv_nxt: what the client's next byte has */
#define UE  0x60000U /* U.snd_end: what our next byte to the pod has */
#define END 3000U    /* u_end − u_split, where it is known */

enum hook_under_test { CI, PI, CE, PE };

struct sack {
	uint32_t from, to;
};

struct packet {
	uint8_t flags;
	uint32_t seq, ack;
	uint16_t win;
	unsigned payload;
	const char *data; /* payload; NULL: letters by their number */
	unsigned sacks;
	struct sack sack[4];
	bool other_options; /* 12 bytes of what is no SACK */
	unsigned noptions;  /* or these, a multiple of 4 */
	uint8_t raw_options[40];
	uint8_t tos;
	unsigned padding;
	bool jumbo;
	uint32_t mark;
};

struct result {
	int verdict;
	bool to_client, to_pod;	  /* addressed to that peer */
	uint8_t flags, tos, from; /* from: Ethernet source, one byte of it */
	uint32_t seq, ack, mark;
	uint16_t win, frag;
	unsigned payload, sacks, options;
	struct sack sack[4];
	bool sum_ok, nops, sack_only, data_ok, same; /* options: only NOPs, or a SACK first and then NOPs */
	unsigned len;
};

static struct splice_tc *skel;
static struct ring_buffer *ring;
static const uint8_t addr4[4][4] = { { 10, 9, 1, 2 }, { 10, 9, 1, 1 }, { 10, 9, 2, 1 }, { 10, 9, 2, 2 } };
static const uint16_t ports[4] = { 40000, 8080, 50000, 8000 }; /* client, C here, U here, pod */

static inline void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t sum_add(uint32_t sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Over TCP's pseudo header and <n> bytes; <addrs>: source and destination of <alen> bytes each. */
static inline uint32_t tcp_sum(const uint8_t *addrs, unsigned alen, const uint8_t *tcp, unsigned n)
{
	uint8_t rest[8] = { [7] = IPPROTO_TCP };

	put32(rest, n);
	return sum_add(sum_add(sum_add(0, addrs, 2 * alen), rest, 8), tcp, n);
}

/* Ends: 0 client, 1 and 2 this host, 3 pod. */
static inline void addr_of(struct kvs_addr *a, int family, int end)
{
	memset(a, 0, sizeof(*a));
	if (family == AF_INET) {
		a->b[10] = a->b[11] = 0xff;
		memcpy(a->b + 12, addr4[end], 4);
	} else {
		a->b[0] = 0xfd;
		a->b[7] = addr4[end][2];
		a->b[15] = addr4[end][3];
	}
}

static inline struct kvs_tuple tuple_of(int family, enum kvs_side side)
{
	struct kvs_tuple t = { .rport = ports[side == KVS_SIDE_C ? 0 : 3], .lport = ports[side == KVS_SIDE_C ? 1 : 2] };

	addr_of(&t.raddr, family, side == KVS_SIDE_C ? 0 : 3);
	addr_of(&t.laddr, family, side == KVS_SIDE_C ? 1 : 2);
	return t;
}

/* The byte that a body has at this number of U. */
static inline uint8_t letter(uint32_t number)
{
	return (uint8_t)('a' + (number - US) % 23);
}

static inline unsigned options_build(uint8_t *o, const struct packet *p)
{
	if (p->noptions) {
		memcpy(o, p->raw_options, p->noptions);
		return p->noptions;
	}
	if (p->other_options) {
		memset(o, 1, 12);
		o[2] = 8;
		o[3] = 10;
		return 12;
	}
	if (!p->sacks)
		return 0;
	o[0] = o[1] = 1;
	o[2] = 5;
	o[3] = (uint8_t)(2 + 8 * p->sacks);
	for (unsigned i = 0; i < p->sacks; i++) {
		put32(o + 4 + 8 * i, p->sack[i].from);
		put32(o + 8 + 8 * i, p->sack[i].to);
	}
	return 4 + 8 * p->sacks;
}

static inline unsigned packet_build(uint8_t *b, int family, enum hook_under_test h, const struct packet *p)
{
	static const int from[] = { [CI] = 0, [PI] = 3, [CE] = 1, [PE] = 2 },
			 to[] = { [CI] = 1, [PI] = 2, [CE] = 0, [PE] = 3 };
	unsigned l3 = family == AF_INET ? 20 : p->jumbo ? 48 : 40, n;
	uint8_t *ip = b + ETH_HLEN, *tcp = ip + l3;
	struct kvs_addr end[2];

	memset(b, 0, ETH_HLEN + l3 + 60);
	memset(b + 6, 0x10 + (int)h, 6); /* it was sent by */
	put16(b + 12, family == AF_INET ? ETH_P_IP : ETH_P_IPV6);
	addr_of(&end[0], family, from[h]);
	addr_of(&end[1], family, to[h]);
	put16(tcp, ports[from[h]]);
	put16(tcp + 2, ports[to[h]]);
	put32(tcp + 4, p->seq);
	put32(tcp + 8, p->ack);
	n = 20 + options_build(tcp + 20, p);
	tcp[12] = (uint8_t)(n / 4 << 4);
	tcp[13] = p->flags;
	put16(tcp + 14, p->win);
	if (p->flags & URG)
		put16(tcp + 18, 7);
	for (unsigned i = 0; i < p->payload; i++)
		tcp[n + i] = p->data ? (uint8_t)p->data[i] : letter(p->seq + i);
	n += p->payload;
	put16(tcp + 16, ~tcp_sum(end[0].b, 16, tcp, n) & 0xffff);
	if (family == AF_INET) {
		ip[0] = 0x45;
		ip[1] = p->tos;
		put16(ip + 2, 20 + n);
		put16(ip + 4, 0x1234);
		ip[6] = 0x40;
		ip[8] = 64;
		ip[9] = IPPROTO_TCP;
		memcpy(ip + 12, end[0].b + 12, 4);
		memcpy(ip + 16, end[1].b + 12, 4);
		put16(ip + 10, ~sum_add(0, ip, 20) & 0xffff);
	} else {
		ip[0] = (uint8_t)(0x60 | p->tos >> 4);
		ip[1] = (uint8_t)(p->tos << 4);
		ip[6] = p->jumbo ? IPPROTO_HOPOPTS : IPPROTO_TCP;
		ip[7] = 64;
		memcpy(ip + 8, end, 32);
		if (p->jumbo) {
			ip[40] = IPPROTO_TCP;
			ip[42] = 0xc2;
			ip[43] = 4;
			put32(ip + 44, 8 + n);
		} else {
			put16(ip + 4, n);
		}
	}
	memset(tcp + n, 0xee, p->padding);
	return ETH_HLEN + l3 + n + p->padding;
}

static inline bool at_end(int family, const uint8_t *addr, const uint8_t *port, int end)
{
	struct kvs_addr a;

	addr_of(&a, family, end);
	return memcmp(addr, family == AF_INET ? a.b + 12 : a.b, family == AF_INET ? 4 : 16) == 0 &&
	       get16(port) == ports[end];
}

/* Read back what a program left. */
static inline void packet_read(struct result *r, int family, const uint8_t *b, unsigned len)
{
	unsigned l3 = family == AF_INET		       ? 20
		      : b[ETH_HLEN + 6] == IPPROTO_TCP ? 40
						       : 48,
		 n, doff, alen = family == AF_INET ? 4 : 16;
	const uint8_t *ip = b + ETH_HLEN, *tcp = ip + l3, *src = ip + (family == AF_INET ? 12 : 8);

	n = family == AF_INET ? get16(ip + 2) - 20U : get16(ip + 4) ? get16(ip + 4) - (l3 - 40) : get32(ip + 44) - 8;
	doff = (tcp[12] >> 4) * 4U;
	if (n > len || n < doff || doff < 20 || ETH_HLEN + l3 + n > len) {
		r->sum_ok = false;
		return;
	}
	r->len = len;
	r->from = b[6];
	r->seq = get32(tcp + 4);
	r->ack = get32(tcp + 8);
	r->flags = tcp[13];
	r->win = get16(tcp + 14);
	r->tos = family == AF_INET ? ip[1] : (uint8_t)(ip[0] << 4 | ip[1] >> 4);
	r->frag = family == AF_INET ? get16(ip + 6) : 0;
	r->payload = n - doff;
	r->options = doff - 20;
	r->to_client = at_end(family, src, tcp, 1) && at_end(family, src + alen, tcp + 2, 0);
	r->to_pod = at_end(family, src, tcp, 2) && at_end(family, src + alen, tcp + 2, 3);
	r->nops = true;
	for (unsigned i = 20; i < doff; i++)
		r->nops &= tcp[i] == 1;
	r->sack_only = doff >= 32 && get32(tcp + 20) >> 8 == 0x010105 && tcp[23] >= 10 && tcp[23] % 8 == 2 &&
		       22U + tcp[23] <= doff;
	for (unsigned i = 22U + tcp[23]; r->sack_only && i < doff; i++)
		r->sack_only = tcp[i] == 1;
	if (doff >= 32 && tcp[23] <= 34 && tcp[20] == 1 && tcp[21] == 1 && tcp[22] == 5)
		r->sacks = (tcp[23] - 2) / 8;
	for (unsigned i = 0; i < r->sacks && i < 4; i++)
		r->sack[i] = (struct sack){ get32(tcp + 24 + 8 * i), get32(tcp + 28 + 8 * i) };
	r->sum_ok = tcp_sum(src, alen, tcp, n) == 0xffff && (family != AF_INET || sum_add(0, ip, 20) == 0xffff) &&
		    !((tcp[18] || tcp[19]) && !(tcp[13] & URG));
}

static inline void raw_run(uint8_t *in, unsigned len, enum hook_under_test h, uint32_t mark, int family,
			   struct result *r)
{
	static uint8_t out[70000];
	struct __sk_buff ctx = { .mark = mark };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in, .data_size_in = len, .data_out = out,
		    .data_size_out = sizeof(out), .ctx_in = &ctx, .ctx_size_in = sizeof(ctx), .ctx_out = &ctx,
		    .ctx_size_out = sizeof(ctx));
	int prog = bpf_program__fd(h == CI || h == PI ? skel->progs.kvs_ingress : skel->progs.kvs_egress);

	memset(r, 0, sizeof(*r));
	if (bpf_prog_test_run_opts(prog, &o) < 0) {
		r->verdict = -1000 - errno;
		return;
	}
	r->verdict = (int)o.retval;
	r->mark = ctx.mark;
	packet_read(r, family, out, o.data_size_out);
	r->same = o.data_size_out == len && memcmp(out, in, len) == 0;
	r->data_ok =
		r->payload == 0 || memcmp(out + o.data_size_out - r->payload, in + len - r->payload, r->payload) == 0;
}

static inline void packet_run(int family, enum hook_under_test h, const struct packet *p, struct result *r)
{
	static uint8_t in[70000];
	unsigned len = packet_build(in, family, h, p);

	raw_run(in, len, h, p->mark, family, r);
}

/* A splice between CS and US in <state>; <sp> may be changed by <tweak> before it is written. */
static inline void splice_put(int family, enum kvs_state state, enum kvs_framing framing, uint32_t flags,
			      void (*tweak)(struct kvs_splice *))
{
	struct kvs_conn c = { .splice = 1, .gen = 7, .side = KVS_SIDE_C },
			u = { .splice = 1, .gen = 7, .side = KVS_SIDE_U };
	struct kvs_splice sp = {
		.gen = 7, .flags = flags, .state = (uint8_t)state, .framing = (uint8_t)framing, .cookie = 77
	};
	bool begun = state >= KVS_ACTIVE, end = flags & KVS_F_END;
	uint32_t id = 1;

	sp.c_tuple = tuple_of(family, KVS_SIDE_C);
	sp.u_tuple = tuple_of(family, KVS_SIDE_U);
	sp.c = (struct kvs_half){ .off = OFC,
				  .snd_end = CS,
				  .snd_una = begun ? CS + UNA : CS,
				  .rcv_nxt = CR,
				  .ifindex = 1,
				  .win = 501,
				  .ws_rem = 7,
				  .ws_loc = 8,
				  .seen = 1 };
	sp.u = (struct kvs_half){ .off = OFU,
				  .snd_end = UE,
				  .snd_una = UE,
				  .rcv_nxt = US,
				  .del = US,
				  .ifindex = 1,
				  .win = 400,
				  .ws_rem = 6,
				  .ws_loc = 9,
				  .seen = 1 };
	sp.y0 = sp.u_split = US;
	sp.c_split = CS;
	sp.fwd_end = sp.wpos = US + (begun ? state == KVS_ACTIVE ? FWD : END : 0);
	sp.u_una = US + (begun ? UNA : 0);
	sp.pod_win = 300;
	sp.bytes = sp.fwd_end - US;
	sp.last_at = 1;
	if (end)
		sp.u_end = US + END;
	sp.left = framing == KVS_LENGTH ? END - sp.bytes : framing == KVS_CHUNKED ? 100000 : 0;
	sp.walk = framing == KVS_CHUNKED ? KVS_WALK_DATA : 0;
	if (tweak)
		tweak(&sp);
	c.half = sp.c;
	u.half = sp.u;
	if (state == KVS_FREE)
		c.splice = u.splice = 0;
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_conns), &sp.c_tuple, &c, BPF_ANY), 0);
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_conns), &sp.u_tuple, &u, BPF_ANY), 0);
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_splices), &id, &sp, BPF_ANY), 0);
}

static inline struct kvs_splice splice_get(uint32_t id)
{
	struct kvs_splice sp;

	assert_int_equal(bpf_map_lookup_elem_flags(bpf_map__fd(skel->maps.kvs_splices), &id, &sp, BPF_F_LOCK), 0);
	return sp;
}

/* Slots of the out-of-order store. */
static inline unsigned stores_in_use(void)
{
	unsigned n = 0;
	uint32_t zero = 0, fresh, slot, slots[KVS_STORES];
	int q = bpf_map__fd(skel->maps.kvs_store_free);

	bpf_map_lookup_elem(bpf_map__fd(skel->maps.kvs_store_new), &zero, &fresh);
	while (n < KVS_STORES && bpf_map_lookup_and_delete_elem(q, NULL, &slot) == 0)
		slots[n++] = slot;
	for (unsigned i = 0; i < n; i++)
		bpf_map_update_elem(q, NULL, &slots[i], BPF_ANY);
	return fresh - n;
}

/* The programs on no device, and what they say. Nothing is done where tests cannot run. */
static inline int splice_setup(ring_buffer_sample_fn on_event)
{
	env_enter();
	if (env_missing)
		return 0;
	sh("ip link set lo up");
	skel = splice_tc__open_and_load();
	if (!skel)
		return -1;
	ring = ring_buffer__new(bpf_map__fd(skel->maps.kvs_events), on_event, NULL, NULL);
	return ring ? 0 : -1;
}

static inline int splice_teardown(void **state)
{
	ring_buffer__free(ring);
	splice_tc__destroy(skel);
	return 0;
}

#endif
