/* SPDX-License-Identifier: Apache-2.0
 * What takes more than one packet: handshakes, the control programs, a gap that closes, the tail, unreadable packets.
 */
#include "splice_packet.h"

static struct {
	struct kvs_event e;
	uint8_t tail[KVS_TAIL_BYTES];
	size_t size;
	unsigned types;
} got;

static int on_event(void *ctx, void *data, size_t size)
{
	const struct kvs_event *e = data;

	got.types |= 1U << e->type;
	if (!e->len)
		return 0;
	got.e = *e;
	got.size = size;
	memset(got.tail, 0, sizeof(got.tail));
	memcpy(got.tail, e + 1, size - sizeof(*e));
	return 0;
}

#define CALL(prog, args) prog_call(bpf_program__fd(skel->progs.prog), &(args), sizeof(args))

static void maps_clear(void)
{
	const struct bpf_map *maps[] = { skel->maps.kvs_conns, skel->maps.kvs_syns, skel->maps.kvs_listeners,
					 skel->maps.kvs_dials };
	uint8_t key[64];

	for (unsigned i = 0; i < 4; i++)
		while (bpf_map_get_next_key(bpf_map__fd(maps[i]), NULL, key) == 0)
			bpf_map_delete_elem(bpf_map__fd(maps[i]), key);
}

/* --- handshakes --- */

#define TS 10
static const uint8_t syn_options[] = { 2, 4, 1460 >> 8, 1460 & 255, 4, 2, 8, TS, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7 };
static const uint8_t synack_options[] = { 2, 4, 1400 >> 8, 1400 & 255, 1, 3, 3, 9 };
static const uint8_t odd_options[] = { 1, 8, TS, 1, 2, 3, 4, 0, 0, 0, 0, 3, 3, 5, 2, 4, 5, 0x78, 0, 0 };
static const uint8_t bad_options[] = { 2, 4, 1460 >> 8, 1460 & 255, 8, 0, 0, 0 };

/* A segment with SYN and these options; *ret as they came out. */
static int syn_run(int family, enum hook_under_test h, uint8_t flags, uint32_t seq, const uint8_t *options, unsigned n,
		   uint8_t *ret)
{
	static uint8_t in[2048], out[2048];
	const struct packet p = { .flags = flags, .seq = seq, .ack = flags & ACK ? 77 : 0, .win = 64240, .payload = n };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in, .data_out = out, .data_size_out = sizeof(out));
	unsigned alen = family == AF_INET ? 4 : 16, at = ETH_HLEN + (family == AF_INET ? 20 : 40) + 20;
	struct result r = { 0 };

	/* Options in the place of payload, so that lengths are right; then the header grows over them. */
	o.data_size_in = packet_build(in, family, h, &p);
	memcpy(in + at, options, n);
	in[at - 8] = (uint8_t)((20 + n) / 4 << 4);
	put16(in + at - 4, 0);
	put16(in + at - 4, ~tcp_sum(in + ETH_HLEN + (alen == 4 ? 12 : 8), alen, in + at - 20, 20 + n) & 0xffff);
	assert_int_equal(
		bpf_prog_test_run_opts(
			bpf_program__fd(h == CI || h == PI ? skel->progs.kvs_ingress : skel->progs.kvs_egress), &o),
		0);
	packet_read(&r, family, out, o.data_size_out);
	assert_true(r.sum_ok);
	memcpy(ret, out + at, n);
	return (int)o.retval;
}

static void listen_on(int family, bool any)
{
	struct kvs_pod_key k = { .port = ports[1] };
	uint32_t one = 1;

	if (!any)
		addr_of(&k.addr, family, 1);
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_listeners), &k, &one, BPF_ANY), 0);
}

static void a_handshake_makes_an_entry_without_timestamps(void **state)
{
	need_env();
	for (int k = 0; k < 2; k++) {
		int family = k ? AF_INET6 : AF_INET;
		struct kvs_conn_add_args a = { .tuple = tuple_of(family, KVS_SIDE_C), .side = KVS_SIDE_C };
		struct kvs_conn conn;
		uint8_t out[40];

		maps_clear();
		listen_on(family, k);
		assert_int_equal(CALL(kvs_conn_add, a), -ENOENT);
		assert_int_equal(syn_run(family, CI, SYN, 1000, syn_options, sizeof(syn_options), out), TC_ACT_UNSPEC);
		assert_memory_equal(out, syn_options, 6);
		assert_memory_equal(out + 6, "\1\1\1\1\1\1\1\1\1\1", TS);
		assert_memory_equal(out + 16, syn_options + 16, 4);
		assert_int_equal(CALL(kvs_conn_add, a), -ENOENT); /* half of it */
		assert_int_equal(syn_run(family, CE, SYN | ACK, 5000, synack_options, sizeof(synack_options), out),
				 TC_ACT_UNSPEC);
		assert_memory_equal(out, synack_options, sizeof(synack_options));
		/* Both cross on their way: the client sends its SYN again. */
		assert_int_equal(syn_run(family, CI, SYN, 1000, syn_options, sizeof(syn_options), out), TC_ACT_UNSPEC);
		assert_memory_equal(out + 6, "\1\1\1\1\1\1\1\1\1\1", TS);
		a.side = KVS_SIDE_U;
		assert_int_equal(CALL(kvs_conn_add, a), -EINVAL);
		a.side = KVS_SIDE_C;
		assert_int_equal(CALL(kvs_conn_add, a), 0);
		assert_int_equal(a.mss, 1460);
		assert_int_equal(a.ws_rem, 7);
		assert_int_equal(a.ws_loc, 9);
		assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(skel->maps.kvs_conns), &a.tuple, &conn), 0);
		assert_int_equal(conn.half.base, 5001);
		assert_int_equal(conn.half.snd_end, 5001);
		assert_int_equal(conn.half.rcv_nxt, 1001);
		assert_int_equal(CALL(kvs_conn_add, a), -ENOENT); /* the handshake is used up */
	}
}

static void only_announced_sockets_are_touched_on_the_way_to_a_pod(void **state)
{
	uint8_t out[40];

	need_env();
	maps_clear();
	assert_int_equal(syn_run(AF_INET, PE, SYN, 1000, syn_options, sizeof(syn_options), out), TC_ACT_UNSPEC);
	assert_memory_equal(out, syn_options, sizeof(syn_options));
	assert_int_equal(syn_run(AF_INET, CI, SYN, 1000, syn_options, sizeof(syn_options), out), TC_ACT_UNSPEC);
	assert_memory_equal(out, syn_options, sizeof(syn_options)); /* no listener of ours */
}

static void options_at_odd_places_and_broken_ones(void **state)
{
	struct kvs_tuple t = tuple_of(AF_INET, KVS_SIDE_C);
	struct kvs_syn syn;
	uint8_t out[40];

	need_env();
	maps_clear();
	listen_on(AF_INET, false);
	syn_run(AF_INET, CI, SYN, 1000, odd_options, sizeof(odd_options), out);
	assert_memory_equal(out, "\1\1\1\1\1\1\1\1\1\1\1", TS + 1);
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(skel->maps.kvs_syns), &t, &syn), 0);
	assert_int_equal(syn.ws_rem, 5);
	assert_int_equal(syn.mss, 0x578);
	syn_run(AF_INET, CI, SYN, 2000, bad_options, sizeof(bad_options), out);
	assert_memory_equal(out, bad_options, sizeof(bad_options));
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(skel->maps.kvs_syns), &t, &syn), 0);
	assert_int_equal(syn.ws_rem, 0xff);
}

static void a_syn_clears_a_dead_entry_and_no_other(void **state)
{
	struct kvs_tuple t = tuple_of(AF_INET, KVS_SIDE_C);
	struct kvs_conn conn, late;
	union kvs_row_counts before, after;
	uint8_t out[40];
	int fd;

	need_env();
	fd = bpf_map__fd(skel->maps.kvs_conns);
	maps_clear();
	listen_on(AF_INET, false);
	rows_read(skel->maps.kvs_rows, &before);
	splice_put(AF_INET, KVS_FREE, 0, 0, NULL); /* unbound, with an offset, and without a socket */
	assert_int_equal(bpf_map_lookup_elem(fd, &t, &conn), 0);
	syn_run(AF_INET, CI, SYN, 1000, syn_options, sizeof(syn_options), out);
	assert_int_equal(bpf_map_lookup_elem(fd, &t, &late), -ENOENT);
	conn.closed_at = 5;
	conn.splice = 1;
	splice_put(AF_INET, KVS_ACTIVE, 0, 0, NULL);
	conn.gen = 7;
	bpf_map_update_elem(fd, &t, &conn, BPF_ANY); /* closed but bound: an orphan */
	syn_run(AF_INET, CI, SYN, 1000, syn_options, sizeof(syn_options), out);
	assert_memory_equal(out, syn_options, sizeof(syn_options));
	assert_int_equal(bpf_map_lookup_elem(fd, &t, &late), 0);
	splice_put(AF_INET, KVS_ACTIVE, 0, KVS_F_CLIENT, NULL); /* and the client had reset it */
	bpf_map_update_elem(fd, &t, &conn, BPF_ANY);
	syn_run(AF_INET, CI, SYN, 1000, syn_options, sizeof(syn_options), out);
	assert_int_equal(bpf_map_lookup_elem(fd, &t, &late), -ENOENT);
	assert_true(splice_get(1).flags & KVS_F_BROKEN);
	conn.splice = 0;
	bpf_map_update_elem(fd, &t, &conn, BPF_ANY);
	syn_run(AF_INET, CI, SYN, 1000, syn_options, sizeof(syn_options), out);
	assert_int_equal(bpf_map_lookup_elem(fd, &t, &conn), -ENOENT);
	rows_read(skel->maps.kvs_rows, &after);
	assert_int_equal(after.syn_of_open - before.syn_of_open, 1);
	assert_int_equal(after.syn - before.syn, 3);
	/* ours, on the tuple of a stream that goes on */
	splice_put(AF_INET, KVS_ACTIVE, 0, KVS_F_ORPHAN, NULL);
	assert_int_equal(syn_run(AF_INET, PE, SYN, 1000, syn_options, sizeof(syn_options), out), TC_ACT_REDIRECT);
}

static void what_cannot_be_read_of_a_known_connection_is_dropped(void **state)
{
	struct packet p = { .flags = ACK, .seq = US + FWD, .ack = UE, .payload = 64 };
	static uint8_t in[2048];
	struct result r;
	unsigned len;

	need_env();
	splice_put(AF_INET, KVS_ACTIVE, 0, 0, NULL);
	len = packet_build(in, AF_INET, PI, &p);
	in[ETH_HLEN + 6] = 0x20; /* first fragment */
	raw_run(in, len, PI, 0, AF_INET, &r);
	assert_int_equal(r.verdict, TC_ACT_SHOT);
	len = packet_build(in, AF_INET, PE, &p);
	in[ETH_HLEN + 20 + 12] = 0x40; /* a TCP header of 16 bytes */
	raw_run(in, len, PE, 0, AF_INET, &r);
	assert_int_equal(r.verdict, TC_ACT_REDIRECT); /* to nowhere */
	len = packet_build(in, AF_INET, PI, &p);
	in[ETH_HLEN + 7] = 3; /* a later fragment: whose, one cannot know */
	in[ETH_HLEN + 6] = 0;
	raw_run(in, len, PI, 0, AF_INET, &r);
	assert_int_equal(r.verdict, TC_ACT_UNSPEC);
	maps_clear();
	len = packet_build(in, AF_INET, PI, &p);
	in[ETH_HLEN + 6] = 0x20;
	raw_run(in, len, PI, 0, AF_INET, &r);
	assert_int_equal(r.verdict, TC_ACT_UNSPEC); /* nobody's */
}

/* A tag that the device did not strip, or a segment behind more extension headers than are followed: neither is read,
 * so its numbers reach the own socket unmapped, which can confuse the sender's own connection alone. */
static void what_lies_behind_tags_and_long_chains_is_left_alone(void **state)
{
	const struct packet p = { .flags = ACK, .seq = US + FWD, .ack = UE, .win = 500, .payload = 64 };
	uint8_t in[1024], out[1024];
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in, .data_out = out, .data_size_out = sizeof(out));
	unsigned len;

	need_env();
	splice_put(AF_INET6, KVS_ACTIVE, KVS_UNTIL_CLOSE, 0, NULL);
	for (unsigned headers = 4; headers <= 5; headers++) {
		len = packet_build(in, AF_INET6, PI, &p);
		memmove(in + ETH_HLEN + 40 + 8 * headers, in + ETH_HLEN + 40, len - ETH_HLEN - 40);
		memset(in + ETH_HLEN + 40, 0, 8 * headers);
		put16(in + ETH_HLEN + 4, get16(in + ETH_HLEN + 4) + 8 * headers);
		in[ETH_HLEN + 6] = IPPROTO_DSTOPTS;
		for (unsigned i = 0; i < headers; i++) {
			uint8_t *ext = in + ETH_HLEN + 40 + 8 * i;

			ext[0] = i + 1 == headers ? IPPROTO_TCP : IPPROTO_DSTOPTS;
			ext[2] = 1;
			ext[3] = 4;
		}
		o.data_size_in = len + 8 * headers;
		o.data_size_out = sizeof(out);
		assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(skel->progs.kvs_ingress), &o), 0);
		assert_int_equal(o.retval, headers == 4 ? TC_ACT_REDIRECT : (uint32_t)TC_ACT_UNSPEC);
		if (headers == 5)
			assert_memory_equal(in, out, o.data_size_in);
	}
	for (unsigned tags = 1; tags <= 2; tags++) {
		len = packet_build(in, AF_INET6, PI, &p);
		memmove(in + 12 + 4 * tags, in + 12, len - 12);
		for (unsigned i = 0; i < tags; i++) {
			put16(in + 12 + 4 * i, tags == 2 && !i ? ETH_P_8021AD : ETH_P_8021Q);
			put16(in + 14 + 4 * i, 7);
		}
		o.data_size_in = len + 4 * tags;
		o.data_size_out = sizeof(out);
		assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(skel->progs.kvs_ingress), &o), 0);
		assert_int_equal(o.retval, (uint32_t)TC_ACT_UNSPEC);
		assert_memory_equal(in, out, o.data_size_in);
	}
}

/* --- control --- */

static struct kvs_bind_args bind_args(uint32_t id, uint32_t gen)
{
	return (struct kvs_bind_args){ .c = tuple_of(AF_INET, KVS_SIDE_C),
				       .u = tuple_of(AF_INET, KVS_SIDE_U),
				       .splice = id,
				       .gen = gen,
				       .cookie = 5 };
}

static void bind_arm_and_unbind_say_why_not(void **state)
{
	struct kvs_bind_args b = bind_args(3, 9), other;
	struct kvs_arm_args a = {
		.splice = 3, .gen = 9, .u_read = 100, .c_written = 200, .framing = KVS_LENGTH, .left = 50
	};
	struct kvs_unbind_args u = { .splice = 3, .gen = 9 };
	struct kvs_closing_args c = { .splice = 3, .gen = 8 };
	struct packet p = { .flags = ACK | PSH, .payload = 100, .win = 9 };
	struct result r;

	need_env();
	maps_clear();
	assert_int_equal(CALL(kvs_bind, b), -ENOENT);
	splice_put(AF_INET, KVS_FREE, 0, 0, NULL);
	other = b;
	other.u = b.c;
	assert_int_equal(CALL(kvs_bind, other), -EINVAL);
	other = b;
	other.splice = 0;
	assert_int_equal(CALL(kvs_bind, other), -ERANGE);
	other.splice = 1U << 30;
	assert_int_equal(CALL(kvs_bind, other), -ERANGE);
	assert_int_equal(CALL(kvs_arm, a), -ENOENT);
	assert_int_equal(CALL(kvs_bind, b), 0);
	assert_int_equal(CALL(kvs_bind, b), -EBUSY);
	assert_int_equal(splice_get(3).state, KVS_RELAY);

	/* base 0, offsets OFC and OFU: the counts that fit are the watermarks minus those */
	a.left = 0;
	assert_int_equal(CALL(kvs_arm, a), -EINVAL);
	a.left = 50;
	a.u_read = US - OFU;
	a.c_written = CS - OFC;
	a.gen = 8;
	assert_int_equal(CALL(kvs_arm, a), -ENOENT);
	a.gen = 9;
	a.u_read--;
	assert_int_equal(CALL(kvs_arm, a), -EAGAIN);
	assert_int_equal(a.result, KVS_ARM_POD_AHEAD);
	a.u_read += 2;
	assert_int_equal(CALL(kvs_arm, a), -EPROTO);
	a.u_read--;
	a.c_written++;
	assert_int_equal(CALL(kvs_arm, a), -EAGAIN);
	assert_int_equal(a.result, KVS_ARM_CLIENT_BEHIND);
	p.seq = CS - OFC;
	p.payload = 1;
	packet_run(AF_INET, CE, &p, &r); /* the byte leaves */
	assert_int_equal(CALL(kvs_arm, a), 0);
	assert_int_equal(a.state, KVS_ARMED);
	assert_int_equal(splice_get(3).c_split, CS + 1);
	assert_int_equal(CALL(kvs_arm, a), -EBUSY);
	p.seq = US;
	p.payload = 20;
	packet_run(AF_INET, PI, &p, &r);
	assert_int_equal(r.seq, CS + 1);
	assert_int_equal(CALL(kvs_unbind, u), -EBUSY);
	assert_int_equal(CALL(kvs_closing, c), -ENOENT);
	c.gen = 9;
	assert_int_equal(CALL(kvs_closing, c), 0);
	assert_int_equal(c.state, KVS_ACTIVE);
	u.force = KVS_UNBIND_FORCE;
	assert_int_equal(CALL(kvs_unbind, u), 0);
	assert_int_equal(u.bytes, 20);
	assert_int_equal(CALL(kvs_unbind, u), -ENOENT);
}

static void unbinding_moves_the_offsets_on(void **state)
{
	struct kvs_unbind_args u = { .splice = 1, .gen = 7 };
	struct kvs_tuple tc = tuple_of(AF_INET, KVS_SIDE_C), tu = tuple_of(AF_INET, KVS_SIDE_U);
	struct kvs_conn_close_args close_c = { .tuple = tc };
	struct kvs_conn c, p;
	int fd;

	need_env();
	fd = bpf_map__fd(skel->maps.kvs_conns);
	splice_put(AF_INET, KVS_DONE, KVS_LENGTH, KVS_F_END, NULL);
	assert_int_equal(CALL(kvs_conn_close, close_c), -EBUSY);
	assert_int_equal(CALL(kvs_unbind, u), 0);
	bpf_map_lookup_elem(fd, &tc, &c);
	bpf_map_lookup_elem(fd, &tu, &p);
	assert_int_equal(c.half.off, OFC + END);
	assert_int_equal(c.half.snd_end, CS + END);
	assert_int_equal(p.half.off, OFU + END);
	assert_int_equal(p.half.del, US + END);
	assert_int_equal(p.half.rcv_nxt, US + END);
	assert_int_equal(c.splice, 0);
	assert_int_equal(p.splice, 0);
	/* an entry with an offset outlives its socket */
	assert_int_equal(CALL(kvs_conn_close, close_c), -EINPROGRESS);
	bpf_map_lookup_elem(fd, &tc, &c);
	assert_true(c.closed_at > 0);
	close_c.gc = 1;
	assert_int_equal(CALL(kvs_conn_close, close_c), 0);
	assert_int_equal(CALL(kvs_conn_close, close_c), -ENOENT);
}

/* --- streams --- */

static void pod_sends(uint32_t at, const char *data, unsigned n, int verdict)
{
	const struct packet p = { .flags = ACK, .seq = at, .ack = UE, .win = 50, .payload = n, .data = data };
	struct result r;

	packet_run(AF_INET, PI, &p, &r);
	assert_int_equal(r.verdict, verdict);
	ring_buffer__consume(ring);
}

static void at_first_size(struct kvs_splice *sp)
{
	sp->walk = KVS_WALK_SIZE_FIRST;
	sp->left = 0;
	sp->fwd_end = sp->wpos = sp->u_una = US;
	sp->c.snd_una = CS;
	sp->bytes = 0;
}

static void a_chunked_response_ends_in_whatever_order_its_segments_come(void **state)
{
	/* "5\r\nhello\r\n" "a;x\r\n0123456789\r\n" "0\r\n\r\n", cut at awkward places */
	static const char body[] = "5\r\nhello\r\na;x\r\n0123456789\r\n0\r\n\r\n";
	static const uint8_t cuts[] = { 0, 2, 6, 9, 12, 20, 28, 29, sizeof(body) - 1 };
	static const uint8_t orders[][8] = { { 0, 1, 2, 3, 4, 5, 6, 7 },
					     { 7, 6, 5, 4, 3, 2, 1, 0 },
					     { 1, 0, 3, 2, 5, 4, 7, 6 },
					     { 4, 0, 4, 2, 6, 1, 5, 7 },
					     { 2, 5, 7, 3, 1, 6, 4, 0 } };

	need_env();
	for (unsigned o = 0; o < sizeof(orders) / 8; o++) {
		struct kvs_splice sp;

		splice_put(AF_INET, KVS_ACTIVE, KVS_CHUNKED, 0, at_first_size);
		got.types = 0;
		for (unsigned i = 0; i < 8; i++) {
			unsigned k = orders[o][i];

			assert_int_equal(splice_get(1).state, KVS_ACTIVE);
			pod_sends(US + cuts[k], body + cuts[k], cuts[k + 1] - cuts[k], TC_ACT_REDIRECT);
		}
		if (o == 3) /* 3 has not come */
			pod_sends(US + cuts[3], body + cuts[3], cuts[4] - cuts[3], TC_ACT_REDIRECT);
		sp = splice_get(1);
		assert_int_equal(sp.state, KVS_ENDED);
		assert_int_equal(sp.u_end, US + sizeof(body) - 1);
		assert_int_equal(sp.chunks, 2);
		assert_int_equal(sp.ranges_n, 0);
		assert_int_equal(sp.bytes, sizeof(body) - 1);
		assert_int_equal(stores_in_use(), 0);
		assert_int_equal(got.types, 1U << KVS_EV_ENDED);
		assert_int_equal(got.e.len, sizeof(body) - 1);
		for (unsigned i = 0; i < got.e.len; i++)
			assert_int_equal(got.tail[(got.e.tail_at + i) % KVS_TAIL_BYTES], body[i]);
	}
}

static void the_tail_is_the_last_4_kilobytes_of_a_length(void **state)
{
	const unsigned total = 50000;

	need_env();
	for (unsigned reordered = 0; reordered < 2; reordered++) {
		const struct packet last = { .flags = ACK, .seq = CR, .ack = CS + total, .win = 99 };
		struct kvs_splice sp;
		uint32_t id = 1;
		struct result r;

		splice_put(AF_INET, KVS_ACTIVE, KVS_LENGTH, KVS_F_END, at_first_size);
		sp = splice_get(1);
		sp.u_end = US + total;
		sp.left = total;
		bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_splices), &id, &sp, BPF_ANY);
		got.e.len = 0;
		for (unsigned at = 0; at < total; at += 1000)
			if (!reordered || at != total - 2000)
				pod_sends(US + at, NULL, 1000, TC_ACT_REDIRECT);
		assert_int_equal(splice_get(1).state, KVS_ENDED);
		assert_int_equal(got.e.len, reordered ? 0 : KVS_TAIL_BYTES);
		if (reordered)
			pod_sends(US + total - 2000, NULL, 1000, TC_ACT_REDIRECT);
		packet_run(AF_INET, CI, &last, &r);
		ring_buffer__consume(ring);
		assert_int_equal(splice_get(1).state, KVS_DONE);
		assert_int_equal(got.e.type, reordered ? KVS_EV_DONE : KVS_EV_ENDED);
		assert_int_equal(got.e.len, KVS_TAIL_BYTES);
		for (unsigned i = 0; i < KVS_TAIL_BYTES; i++)
			assert_int_equal(got.tail[(got.e.tail_at + i) % KVS_TAIL_BYTES],
					 letter(US + total - KVS_TAIL_BYTES + i));
		assert_int_equal(splice_get(1).users, 0);
	}
}

static void without_a_slot_the_tail_is_the_last_segment(void **state)
{
	struct kvs_conn conn;
	struct kvs_tuple t[2];
	struct kvs_splice sp;
	uint32_t id = KVS_TAILS + 5;

	need_env();
	splice_put(AF_INET, KVS_ACTIVE, KVS_LENGTH, KVS_F_END, NULL);
	sp = splice_get(1);
	bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_splices), &id, &sp, BPF_ANY);
	t[0] = sp.c_tuple;
	t[1] = sp.u_tuple;
	for (unsigned i = 0; i < 2; i++) {
		bpf_map_lookup_elem(bpf_map__fd(skel->maps.kvs_conns), &t[i], &conn);
		conn.splice = id;
		bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_conns), &t[i], &conn, BPF_ANY);
	}
	pod_sends(US + FWD, NULL, END - FWD, TC_ACT_REDIRECT);
	assert_int_equal(got.e.splice, id);
	assert_int_equal(got.e.len, END - FWD);
	for (unsigned i = 0; i < got.e.len; i++)
		assert_int_equal(got.tail[(got.e.tail_at + i) % KVS_TAIL_BYTES], letter(US + FWD + i));
}

static uint64_t times_total(const struct kvs_pod_key *k, bool ttft, uint64_t *ret_sum)
{
	int cpus = libbpf_num_possible_cpus();
	struct kvs_pod_times *v = calloc((size_t)cpus, sizeof(*v));
	uint64_t n = 0;

	*ret_sum = 0;
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(skel->maps.kvs_pod_times), k, v), 0);
	for (int c = 0; c < cpus; c++) {
		const struct kvs_times *t = ttft ? &v[c].ttft : &v[c].gap;

		*ret_sum += t->sum_ns;
		for (unsigned i = 0; i < KVS_TIME_BUCKETS; i++)
			n += t->count[i];
	}
	free(v);
	return n;
}

static void first_byte(struct kvs_splice *sp)
{
	sp->flags |= KVS_F_FIRST;
	sp->bound_at = 1;
	sp->last_at = 0;
}

static void times_of_a_pod_are_counted(void **state)
{
	struct kvs_pod_key k = { .port = ports[3] };
	void *zero = calloc((size_t)libbpf_num_possible_cpus(), sizeof(struct kvs_pod_times));
	uint64_t ttft, gap;

	need_env();
	addr_of(&k.addr, AF_INET, 3);
	bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_pod_times), &k, zero, BPF_ANY);
	free(zero);
	splice_put(AF_INET, KVS_ACTIVE, 0, 0, first_byte);
	pod_sends(US + FWD, NULL, 10, TC_ACT_REDIRECT);
	usleep(3000);
	pod_sends(US + FWD + 10, NULL, 10, TC_ACT_REDIRECT);
	pod_sends(US + FWD + 10, NULL, 10, TC_ACT_REDIRECT); /* again: no gap */
	assert_int_equal(times_total(&k, true, &ttft), 1);
	assert_true(ttft > 1000000);
	assert_int_equal(times_total(&k, false, &gap), 1);
	assert_in_range(gap, 3000000, 3000000000);
	assert_int_equal(splice_get(1).gap_max, gap);
}

static int setup(void **state)
{
	return splice_setup(on_event);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_handshake_makes_an_entry_without_timestamps),
		cmocka_unit_test(only_announced_sockets_are_touched_on_the_way_to_a_pod),
		cmocka_unit_test(options_at_odd_places_and_broken_ones),
		cmocka_unit_test(a_syn_clears_a_dead_entry_and_no_other),
		cmocka_unit_test(what_cannot_be_read_of_a_known_connection_is_dropped),
		cmocka_unit_test(what_lies_behind_tags_and_long_chains_is_left_alone),
		cmocka_unit_test(bind_arm_and_unbind_say_why_not),
		cmocka_unit_test(unbinding_moves_the_offsets_on),
		cmocka_unit_test(a_chunked_response_ends_in_whatever_order_its_segments_come),
		cmocka_unit_test(the_tail_is_the_last_4_kilobytes_of_a_length),
		cmocka_unit_test(without_a_slot_the_tail_is_the_last_segment),
		cmocka_unit_test(times_of_a_pod_are_counted),
	};

	return cmocka_run_group_tests(tests, setup, splice_teardown);
}
