/* SPDX-License-Identifier: Apache-2.0
 * Hostile peers: packets near the numbers that matter, with any flags, options, windows and lengths, and with bytes
 * changed, against a splice in any state. After each of them must hold what the rules promise whatever comes. KVS_SEED
 * repeats a run, KVS_FUZZ_SECONDS makes it longer.
 */
#include "splice_packet.h"

#include <time.h>

static uint64_t rng, begun;	/* of this episode */
static struct kvs_splice other; /* splice 2, nobody's business */
static struct kvs_tuple other_tuples[2];

#define bad(...)                                                                         \
	do {                                                                             \
		print_message("KVS_SEED=%#llx repeats it. ", (unsigned long long)begun); \
		fail_msg(__VA_ARGS__);                                                   \
	} while (0)

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return n ? (uint32_t)(rng >> 32) % n : 0;
}

static bool chance(uint32_t percent)
{
	return rnd(100) < percent;
}

/* A number near one that matters. */
static uint32_t number(bool client, const struct kvs_splice *sp)
{
	const uint32_t c[] = {
		sp->c_split,	 CS - OFC, sp->c_split + (sp->fwd_end - sp->u_split), CR, sp->c.snd_una, CS + END,
		CS + 0x50000010, 0
	};
	const uint32_t u[] = { sp->u_split, US - OFU, sp->fwd_end, UE, sp->u_una, US + END, sp->wpos, 0x80000000 };
	uint32_t at = client ? c[rnd(8)] : u[rnd(8)];

	if (chance(50))
		return at;
	return chance(80) ? at + rnd(2200) - 1100 : chance(50) ? at + rnd(200000) - 100000 : (uint32_t)rng;
}

/* Options of every kind: in and out of place, with impossible lengths, cut. */
static unsigned options_make(uint8_t o[40])
{
	static const uint8_t kinds[][2] = { { 2, 4 },  { 3, 3 },   { 4, 2 },  { 5, 10 }, { 5, 18 },
					    { 8, 10 }, { 19, 18 }, { 30, 8 }, { 34, 6 }, { 254, 5 } };
	unsigned n = 4 + rnd(10) * 4, at = 0;

	for (unsigned i = 0; i < n; i++)
		o[i] = (uint8_t)rnd(256);
	while (at < n) {
		unsigned k = rnd(sizeof(kinds) / 2), len = chance(10) ? rnd(4) : chance(10) ? rnd(256) : kinds[k][1];

		if (chance(30)) {
			o[at++] = chance(90); /* NOP, or the end of all */
			continue;
		}
		o[at] = kinds[k][0];
		if (at + 1 < n)
			o[at + 1] = (uint8_t)len;
		at += len < 2 ? 2 : len;
	}
	return n;
}

static void packet_make(struct packet *p, enum hook_under_test *h, const struct kvs_splice *sp)
{
	static char text[3000];
	bool client;

	*h = rnd(4);
	client = *h == CI || *h == CE;
	memset(p, 0, sizeof(*p));
	p->flags = chance(70) ? ACK : chance(50) ? ACK | PSH : (uint8_t)rnd(256) & (uint8_t)~SYN;
	if (chance(3))
		p->flags |= SYN;
	p->seq = chance(30) ? (*h == CI ? CR : *h == PE ? UE : number(client, sp)) : number(client, sp);
	/* The stack of this host is not hostile: it numbers what it sends as it should. */
	if (*h == CE)
		p->seq = CS - OFC - rnd(200);
	if (*h == PE)
		p->seq = UE - rnd(200);
	p->ack = chance(20) ? UE : number(client, sp);
	p->win = chance(30) ? (uint16_t)rnd(3) : (uint16_t)rnd(65536);
	p->payload = chance(50) ? 0 : chance(80) ? rnd(60) : rnd(2900);
	if (*h == CE && sp->state < KVS_ENDED && p->payload > CS - OFC - p->seq)
		p->payload = CS - OFC - p->seq;
	if (chance(40)) {
		static const char bits[] = "0123456789abcdefF\r\n\r\n;x \r\n0\r\n\r\n";

		for (unsigned i = 0; i < p->payload; i++)
			text[i] = bits[rnd(sizeof(bits) - 1)];
		p->data = text;
	}
	p->sacks = chance(30) ? rnd(5) : 0;
	for (unsigned i = 0; i < p->sacks; i++)
		p->sack[i] = (struct sack){ number(client, sp), number(client, sp) };
	p->other_options = chance(5);
	p->noptions = chance(15) ? options_make(p->raw_options) : 0;
	p->tos = (uint8_t)rnd(4);
	p->padding = chance(5) ? rnd(10) : 0;
	p->mark = *h == CI && chance(15) ? MARK_POD : *h > PI && chance(5) ? MARK_TO_POD + (chance(50) ? 1 : 0) : 0;
}

static void random_splice(struct kvs_splice *sp)
{
	sp->walk = sp->framing == KVS_CHUNKED ? (uint8_t)rnd(KVS_WALK_END) : 0;
	if (sp->framing == KVS_CHUNKED)
		sp->left = 1 + rnd(3000);
	sp->cap = chance(50) ? 65536 : 0;
	sp->c.owe = (uint8_t)rnd(2);
	sp->c.ws_rem = (uint8_t)rnd(15);
	sp->u.ws_loc = (uint8_t)rnd(15);
	if (chance(10))
		sp->c.snd_una = CS - rnd(100);
}

/* What goes to a peer: flags, options, window, and how far it reaches. */
static void peers_check(const struct packet *p, enum hook_under_test h, const struct result *r,
			const struct kvs_splice *was, const struct kvs_splice *is)
{
	uint8_t may = ACK | (h == PI ? PSH : 0) | (is->flags & KVS_F_ORPHAN ? FIN : 0);
	uint32_t end = p->seq + p->payload;
	uint64_t win = (uint64_t)p->win << was->c.ws_rem, told = (uint64_t)r->win << was->u.ws_loc;

	if (h == CI ? p->flags & RST : is->flags & KVS_F_ORPHAN)
		may |= RST;
	if (r->flags & (uint8_t)~may)
		bad("flags %x to a peer, of %x", r->flags, p->flags);
	if (h == PI && r->flags & FIN && !(is->flags & KVS_F_END && end == is->u_end))
		bad("FIN at %x to the client, the end is %x", end, is->u_end);
	if (r->options && !r->nops && !(h == CI && r->sack_only))
		bad("options to a peer");
	if (r->flags & RST)
		return;
	if (h == CI && told > win)
		bad("the pod has window %llu, the client's is %llu", (unsigned long long)told, (unsigned long long)win);
	if (h == CI && was->cap && told > was->cap)
		bad("the pod has window %llu in spite of a cap", (unsigned long long)told);
	if (h == PI && r->win != is->c.win)
		bad("window %u to the client, not %u", r->win, is->c.win);
	if (h == PI && r->payload &&
	    ((int32_t)(end - was->u_una) > 1 << 29 || (int32_t)(p->seq - was->u_una) < -(1 << 29)))
		bad("data %x-%x far from %x", p->seq, end, was->u_una);
}

/* Who may have closed, by a packet that was well-formed. */
static void flags_check(const struct packet *p, enum hook_under_test h, const struct kvs_splice *was,
			const struct kvs_splice *is)
{
	uint32_t set = is->flags & ~was->flags;

	if (set & KVS_F_CLIENT && !(h == CI && (p->flags & FIN || (p->flags & RST && p->seq == was->c.rcv_nxt))))
		bad("the client has closed by flags %x, number %x", p->flags, p->seq);
	if (set & KVS_F_POD_FIN && !(h == PI && p->flags & FIN))
		bad("the pod has closed by flags %x", p->flags);
	if (set & KVS_F_POD_RST && was->state >= KVS_ACTIVE &&
	    !(h == PI && p->flags & RST && (int32_t)(p->seq - was->u_una) >= -1 &&
	      (int32_t)(p->seq - was->fwd_end) <= KVS_STORE_BYTES))
		bad("reset by the pod with %x", p->seq);
	if (set & KVS_F_ORPHAN && !((h == CE || h == PE) && p->flags & (FIN | RST) && !(was->flags & KVS_F_CLOSING)))
		bad("orphaned by flags %x", p->flags);
	if (is->state >= KVS_ACTIVE && (int32_t)(is->u_una - is->fwd_end) > 1)
		bad("u_una %x beyond %x", is->u_una, is->fwd_end);
}

/* What must hold of a packet that was well-formed when it came. */
static void output_check(const struct packet *p, enum hook_under_test h, const struct result *r,
			 const struct kvs_splice *was, const struct kvs_splice *is)
{
	uint32_t step = is->u_split - was->u_split;

	if (r->verdict != TC_ACT_REDIRECT && r->verdict != TC_ACT_UNSPEC)
		return;
	if (!r->sum_ok)
		bad("checksum or length");
	if (!p->padding && !r->data_ok)
		bad("payload was changed");
	if (r->payload && r->payload != p->payload)
		bad("payload was cut to %u", r->payload);
	if (r->verdict == TC_ACT_UNSPEC) {
		if (!(h == CI	? !r->to_client && !r->to_pod
		      : h == PI ? !r->to_client && !r->to_pod
		      : h == CE ? r->to_client
				: r->to_pod))
			bad("a socket's packet has other addresses");
		if (h == CI && was->state == KVS_ACTIVE && is->state == KVS_ACTIVE && (p->flags & (ACK | RST)) == ACK &&
		    (int32_t)(r->ack - (CS - OFC)) > 0)
			bad("C hears of bytes that it did not send: %x; ack %x flags %x, splice flags %x snd_end %x "
			    "fwd %x u_end %x c_split %x u_split %x framing %u",
			    r->ack, p->ack, p->flags, is->flags, is->c.snd_end, is->fwd_end, is->u_end, is->c_split,
			    is->u_split, is->framing);
		return;
	}
	if (h == CE || h == PE)
		return; /* to nowhere; its row is checked by the caller */
	if (was->state < KVS_ARMED || is->state < KVS_ACTIVE)
		bad("redirected in state %u", was->state);
	peers_check(p, h, r, was, is);
	if (h == CI) {
		if (!r->to_pod || r->payload)
			bad("not a bare ACK to the pod");
		if ((int32_t)(r->ack - step - was->u_split) < 0 || (int32_t)(r->ack - is->fwd_end) > 1)
			bad("the pod hears of bytes that it did not send: %x; state %u-%u, flags %x, was fwd %x una "
			    "%x, now fwd %x una %x, ack %x mark %x flags %x step %x",
			    r->ack, was->state, is->state, is->flags, was->fwd_end, was->u_una, is->fwd_end, is->u_una,
			    p->ack, p->mark, p->flags, step);
		if (r->seq != was->u.snd_end && !(is->flags & KVS_F_ORPHAN && r->seq == was->u.snd_end - 1))
			bad("number of the pod's side");
	} else {
		if (!r->to_client)
			bad("not to the client");
		if (r->payload && r->seq != p->seq + (is->c_split - is->u_split))
			bad("number of the client's side");
		if (r->ack != is->c.rcv_nxt)
			bad("acknowledgement to the client");
	}
}

static void splice_check(const struct kvs_splice *was, const struct kvs_splice *is)
{
	struct kvs_splice now = splice_get(2);

	if (memcmp(&now, &other, sizeof(now)) != 0)
		bad("another splice was touched");
	if (is->users)
		bad("%u users", is->users);
	if (is->state >= KVS_STATES_N || (was->state >= KVS_ACTIVE && is->state < was->state) || is->state == KVS_FREE)
		bad("state %u after %u", is->state, was->state);
	if (is->gen != was->gen || memcmp(&is->c_tuple, &was->c_tuple, 2 * sizeof(is->c_tuple)) != 0 ||
	    is->cookie != was->cookie)
		bad("identity");
	if (is->state >= KVS_ACTIVE && (uint32_t)is->bytes != is->fwd_end - is->y0)
		bad("%llu bytes up to %x", (unsigned long long)is->bytes, is->fwd_end);
	if ((is->flags & was->flags) != was->flags && !((was->flags & ~is->flags) & (KVS_F_FIRST | KVS_F_HOLE)))
		bad("flags %x after %x", is->flags, was->flags);
	if (is->state >= KVS_ENDED && !(is->flags & KVS_F_END))
		bad("ended without an end");
	if (is->state >= KVS_ENDED && is->fwd_end != is->u_end)
		bad("ended before the end");
	if (is->c_split - is->u_split != was->c_split - was->u_split && was->state >= KVS_ACTIVE)
		bad("split");
	for (unsigned i = 0; i < is->ranges_n; i++)
		if (is->ranges[i].to - is->wpos > KVS_STORE_BYTES ||
		    is->ranges[i].to - is->ranges[i].from > KVS_STORE_BYTES)
			bad("range %x-%x at %x", is->ranges[i].from, is->ranges[i].to, is->wpos);
}

/* A packet of somebody else: one end's address or port is another. */
static void forge(uint8_t *b, int family, enum hook_under_test h)
{
	uint8_t *ip = b + ETH_HLEN, *tcp = ip + (family == AF_INET ? 20 : 40), by = (uint8_t)(1 + rnd(255));

	switch (rnd(4)) {
	case 0:
		tcp[rnd(4)] ^= by; /* a port */
		break;
	case 1: /* each other's */
		put16(tcp, ports[h == CI ? 3 : 0]);
		break;
	default:
		ip[(family == AF_INET ? 12 : 8) + rnd(family == AF_INET ? 8 : 32)] ^= by;
	}
}

static bool is_there(int family)
{
	struct kvs_tuple t = tuple_of(family, KVS_SIDE_C);
	struct kvs_conn c;

	return bpf_map_lookup_elem(bpf_map__fd(skel->maps.kvs_conns), &t, &c) == 0;
}

static void listen_or_not(bool listens)
{
	const struct kvs_pod_key any = { .port = ports[1] };
	const uint32_t one = 1;
	int fd = bpf_map__fd(skel->maps.kvs_listeners);

	if (listens)
		bpf_map_update_elem(fd, &any, &one, BPF_ANY);
	else
		bpf_map_delete_elem(fd, &any);
}

static void episode(void)
{
	static uint8_t in[8192];
	enum kvs_state state = 1 + rnd(KVS_STATES_N - 1);
	enum kvs_framing framing = rnd(3);
	int family = chance(50) ? AF_INET : AF_INET6;
	uint32_t flags = (state >= KVS_ENDED || (framing == KVS_LENGTH && state == KVS_ACTIVE) ? KVS_F_END : 0) |
			 (chance(20) ? KVS_F_ORPHAN : 0) | (chance(10) ? KVS_F_CLOSING : 0) |
			 (chance(10) ? KVS_F_FIRST : 0);
	struct kvs_unbind_args u = { .splice = 1, .gen = 7, .force = KVS_UNBIND_FORCE };
	struct kvs_splice was, is;

	listen_or_not(chance(50));
	splice_put(family, state, framing, flags, random_splice);
	for (unsigned i = 0; i < 24; i++) {
		enum hook_under_test h;
		struct packet p;
		struct result r;
		unsigned len;
		bool mutated, forged;

		was = splice_get(1);
		packet_make(&p, &h, &was);
		mutated = h <= PI && chance(15);
		forged = h <= PI && !mutated && chance(8);
		len = packet_build(in, family, h, &p);
		if (forged)
			forge(in, family, h);
		for (unsigned k = mutated ? 1 + rnd(4) : 0; k; k--)
			in[ETH_HLEN + rnd(chance(80) ? 60 : len - ETH_HLEN)] = (uint8_t)rnd(256);
		if (mutated && chance(30) && len > 60)
			len -= rnd(20);
		raw_run(in, len, h, p.mark, family, &r);
		if (r.verdict != TC_ACT_UNSPEC && r.verdict != TC_ACT_REDIRECT &&
		    r.verdict != (h == CI || h == PI ? TC_ACT_SHOT : TC_ACT_REDIRECT) &&
		    !(mutated && (r.verdict <= -1000 || r.verdict == TC_ACT_SHOT)))
			bad("verdict %d", r.verdict);
		is = splice_get(1);
		splice_check(&was, &is);
		if (!is_there(family)) { /* a new client on the tuple of one that has left */
			if (!(was.flags & KVS_F_CLIENT) ||
			    (!mutated && (h != CI || forged || (p.flags & (SYN | ACK)) != SYN)))
				bad("forgotten by flags %x, splice flags %x", p.flags, was.flags);
			break;
		}
		if (mutated)
			continue;
		/* A stranger's own SYN may lose its timestamps. */
		if ((forged || (h <= PI && p.flags & SYN)) &&
		    (r.verdict != TC_ACT_UNSPEC || (!r.same && !(forged && p.flags & SYN)) ||
		     memcmp(&was, &is, sizeof(was)) != 0))
			bad("a %s changes something: verdict %d", forged ? "stranger" : "SYN", r.verdict);
		if (forged || p.flags & SYN)
			continue;
		flags_check(&p, h, &was, &is);
		output_check(&p, h, &r, &was, &is);
	}
	assert_int_equal(prog_call(bpf_program__fd(skel->progs.kvs_unbind), &u, sizeof(u)), 0);
	assert_int_equal(stores_in_use(), 0);
}

static int drop_event(void *ctx, void *data, size_t size)
{
	return 0;
}

static unsigned conns(void)
{
	struct kvs_tuple key, *prev = NULL;
	unsigned n = 0;

	for (; bpf_map_get_next_key(bpf_map__fd(skel->maps.kvs_conns), prev, &key) == 0; n++)
		prev = &key;
	return n;
}

static void the_rules_hold_whatever_comes(void **state)
{
	const char *seed = getenv("KVS_SEED"), *secs = getenv("KVS_FUZZ_SECONDS");
	time_t end = time(NULL) + (secs ? atoi(secs) : 3);
	unsigned long runs = 0;
	uint32_t two = 2;

	need_env();
	rng = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 2654435761U ^ (uint64_t)getpid() << 32;
	splice_put(AF_INET, KVS_ACTIVE, KVS_CHUNKED, 0, NULL);
	splice_put(AF_INET6, KVS_ACTIVE, KVS_CHUNKED, 0, NULL);
	other = splice_get(1);
	other.gen = 8;
	memset(other.c_tuple.raddr.b + 12, 0x77, 4); /* no mutation leads there */
	memset(other.u_tuple.raddr.b + 12, 0x77, 4);
	other.c_tuple.rport = other.u_tuple.lport = 0x1357;
	bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_splices), &two, &other, BPF_ANY);
	other = splice_get(2);
	other_tuples[0] = other.c_tuple;
	other_tuples[1] = other.u_tuple;
	for (unsigned i = 0; i < 2; i++) {
		struct kvs_conn c = { .splice = 2, .gen = 8, .side = (uint8_t)i };

		bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_conns), &other_tuples[i], &c, BPF_ANY);
	}
	do {
		begun = rng;
		episode();
		ring_buffer__consume(ring);
		runs++;
	} while (time(NULL) < end && !(seed && !secs && runs > 2000));
	splice_put(AF_INET, KVS_ACTIVE, KVS_CHUNKED, 0, NULL);
	splice_put(AF_INET6, KVS_ACTIVE, KVS_CHUNKED, 0, NULL);
	assert_int_equal(conns(), 6);
	print_message("NOTE: %lu episodes of 24 packets\n", runs);
}

static int setup(void **state)
{
	return splice_setup(drop_event);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_rules_hold_whatever_comes),
	};

	return cmocka_run_group_tests(tests, setup, splice_teardown);
}
