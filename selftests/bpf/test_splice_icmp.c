/* SPDX-License-Identifier: Apache-2.0
 * What routers say of segments that went to the client (bpf/lib/icmp.bpf.h), as a table: who is told, and of which
 * number.
 */
#include "splice_packet.h"
#include "splice_rows.h"

#define ROUTER 100 /* bytes of the segment that it quotes, beside the IP header */

enum { V4_UNREACHABLE = 3, V4_QUENCH = 4, V4_EXPIRED = 11, V6_UNREACHABLE = 1, V6_TOO_BIG, V6_EXPIRED, V6_PING = 128 };

struct row {
	const char *name;
	int family;
	uint8_t type, code;
	enum kvs_state state;
	uint32_t seq; /* quoted */
	enum kvs_row row;
	uint32_t told; /* to socket or pod */
	unsigned quoted;
};

static const struct row rows[] = {
	/* name, family, type, code, state, quoted number, row, told number, quoted bytes (0: many) */
	{ "after a splice", AF_INET6, V6_TOO_BIG, 0, KVS_FREE, CS - 9, KVS_ROW_CI_ERROR, CS - 9 - OFC, 0 },
	{ "after a splice", AF_INET, V4_UNREACHABLE, 4, KVS_FREE, CS - 9, KVS_ROW_CI_ERROR, CS - 9 - OFC, 0 },
	{ "bound", AF_INET6, V6_TOO_BIG, 0, KVS_RELAY, CS - 9, KVS_ROW_CI_ERROR, CS - 9 - OFC, 0 },
	{ "armed", AF_INET, V4_UNREACHABLE, 4, KVS_ARMED, CS - 9, KVS_ROW_CI_ERROR, CS - 9 - OFC, 0 },
	{ "of the head", AF_INET6, V6_TOO_BIG, 0, KVS_ACTIVE, CS - 9, KVS_ROW_CI_ERROR, CS - 9 - OFC, 0 },
	{ "diverted", AF_INET6, V6_TOO_BIG, 0, KVS_ACTIVE, CS + UNA, KVS_ROW_CI_TOO_BIG, US + UNA, 0 },
	{ "ended", AF_INET6, V6_TOO_BIG, 0, KVS_ENDED, CS + END - 1, KVS_ROW_CI_TOO_BIG, US + END - 1, 0 },
	{ "8 bytes quoted", AF_INET6, V6_TOO_BIG, 0, KVS_ACTIVE, CS + 500, KVS_ROW_CI_TOO_BIG, US + 500, 8 },
	{ "acknowledged", AF_INET6, V6_TOO_BIG, 0, KVS_ACTIVE, CS + UNA - 1, KVS_ROW_CI_ERROR_STRAY, 0, 0 },
	{ "never sent", AF_INET6, V6_TOO_BIG, 0, KVS_ACTIVE, CS + FWD, KVS_ROW_CI_ERROR_STRAY, 0, 0 },
	{ "diverted, IPv4", AF_INET, V4_UNREACHABLE, 4, KVS_ACTIVE, CS + 500, KVS_ROW_CI_ERROR, CS - OFC, 0 },
	{ "unreachable", AF_INET6, V6_UNREACHABLE, 0, KVS_ACTIVE, CS + 500, KVS_ROW_CI_ERROR, CS - OFC, 0 },
	{ "expired", AF_INET6, V6_EXPIRED, 0, KVS_ACTIVE, CS + 500, KVS_ROW_CI_ERROR, CS - OFC, 0 },
	{ "expired, late", AF_INET, V4_EXPIRED, 0, KVS_ACTIVE, CS + 1, KVS_ROW_CI_ERROR_STRAY, 0, 0 },
	{ "no error", AF_INET6, V6_PING, 0, KVS_ACTIVE, CS + 500, KVS_ROW_OTHER, 0, 0 },
	{ "no error", AF_INET, V4_QUENCH, 0, KVS_ACTIVE, CS + 500, KVS_ROW_OTHER, 0, 0 },
};

/* The error from fd00::9 or 10.9.9.9 about a segment of ours to the client. */
static unsigned error_build(uint8_t *b, const struct row *r, enum hook_under_test about)
{
	const struct packet p = { .flags = ACK, .seq = r->seq, .ack = CR, .win = 500, .payload = ROUTER };
	unsigned l3 = r->family == AF_INET ? 20 : 40, n = 8 + l3 + (r->quoted ? r->quoted : ROUTER);
	uint8_t segment[512], *ip = b + ETH_HLEN, *icmp = ip + l3, pseudo[40] = { 0 };

	packet_build(segment, r->family, about, &p);
	memset(b, 0, ETH_HLEN + l3 + 8);
	memcpy(b, segment, ETH_HLEN);
	icmp[0] = r->type;
	icmp[1] = r->code;
	put32(icmp + 4, 1300);
	memcpy(icmp + 8, segment + ETH_HLEN, n - 8);
	if (r->family == AF_INET) {
		ip[0] = 0x45;
		put16(ip + 2, 20 + n);
		ip[8] = 63;
		ip[9] = IPPROTO_ICMP;
		memcpy(ip + 12, (const uint8_t[]){ 10, 9, 9, 9 }, 4);
		memcpy(ip + 16, segment + ETH_HLEN + 12, 4);
		put16(ip + 10, ~sum_add(0, ip, 20) & 0xffff);
		put16(icmp + 2, ~sum_add(0, icmp, n) & 0xffff);
	} else {
		ip[0] = 0x60;
		put16(ip + 4, n);
		ip[6] = IPPROTO_ICMPV6;
		ip[7] = 63;
		ip[8] = 0xfd;
		ip[23] = 9;
		memcpy(ip + 24, segment + ETH_HLEN + 8, 16);
		memcpy(pseudo, ip + 8, 32);
		put32(pseudo + 32, n);
		pseudo[39] = IPPROTO_ICMPV6;
		put16(icmp + 2, ~sum_add(sum_add(0, pseudo, 40), icmp, n) & 0xffff);
	}
	return ETH_HLEN + l3 + n;
}

static bool sums_fit(int family, const uint8_t *ip, unsigned len)
{
	uint8_t pseudo[40] = { 0 };

	if (family == AF_INET)
		return sum_add(0, ip, 20) == 0xffff && sum_add(0, ip + 20, len - 20) == 0xffff;
	memcpy(pseudo, ip + 8, 32);
	put32(pseudo + 32, len - 40);
	pseudo[39] = IPPROTO_ICMPV6;
	return sum_add(sum_add(0, pseudo, 40), ip + 40, len - 40) == 0xffff;
}

static bool is_at(const uint8_t *addr, int family, int end)
{
	struct kvs_addr a;

	addr_of(&a, family, end);
	return memcmp(addr, family == AF_INET ? a.b + 12 : a.b, family == AF_INET ? 4 : 16) == 0;
}

static int error_run(uint8_t *in, unsigned len, uint8_t *out, uint32_t *mark)
{
	struct __sk_buff ctx = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in, .data_size_in = len, .data_out = out, .data_size_out = 512,
		    .ctx_in = &ctx, .ctx_size_in = sizeof(ctx), .ctx_out = &ctx, .ctx_size_out = sizeof(ctx));

	assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(skel->progs.kvs_ingress), &o), 0);
	assert_int_equal(o.data_size_out, len);
	*mark = ctx.mark;
	return (int)o.retval;
}

static void row_check(const struct row *r)
{
	unsigned l3 = r->family == AF_INET ? 20 : 40, len, alen = r->family == AF_INET ? 4 : 16;
	uint8_t in[512], out[512], *ip = out + ETH_HLEN, *quoted = ip + l3 + 8, *tcp = quoted + l3;
	union kvs_row_counts before, after;
	uint32_t mark;
	int verdict;

	splice_put(r->family, r->state, KVS_CHUNKED, r->state == KVS_ENDED ? KVS_F_END : 0, NULL);
	len = error_build(in, r, CE);
	rows_read(skel->maps.kvs_rows, &before);
	verdict = error_run(in, len, out, &mark);
	rows_read(skel->maps.kvs_rows, &after);
	if (r->row != KVS_ROW_OTHER && after.row[r->row] - before.row[r->row] != 1)
		fail_msg("%s: not counted as %s", r->name, row_of[r->row].name);
	if (row_of[r->row].goes == KVS_GOES_NOWHERE) {
		assert_int_equal(verdict, TC_ACT_SHOT);
		return;
	}
	if (!sums_fit(r->family, ip, len - ETH_HLEN))
		fail_msg("%s: a checksum is wrong", r->name);
	if (row_of[r->row].goes == KVS_GOES_SOCKET) {
		assert_int_equal(verdict, TC_ACT_UNSPEC);
		if (r->row != KVS_ROW_OTHER) {
			if (get32(tcp + 4) != r->told)
				fail_msg("%s: told of %x, not %x", r->name, get32(tcp + 4), r->told);
			put32(tcp + 4, r->seq);
			memcpy(ip + l3 + 2, in + ETH_HLEN + l3 + 2, 2);
		}
		assert_memory_equal(in, out, len);
		return;
	}
	assert_int_equal(verdict, TC_ACT_REDIRECT);
	assert_int_equal(mark, MARK_TO_POD);
	assert_true(is_at(ip + l3 - 2 * alen, r->family, 2) && is_at(ip + l3 - alen, r->family, 3));
	assert_true(is_at(quoted + l3 - 2 * alen, r->family, 3) && is_at(quoted + l3 - alen, r->family, 2));
	assert_true(get16(tcp) == ports[3] && get16(tcp + 2) == ports[2]);
	if (get32(tcp + 4) != r->told)
		fail_msg("%s: told of %x, not %x", r->name, get32(tcp + 4), r->told);
}

static void each_error_reaches_who_sent_the_segment(void **state)
{
	need_env();
	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		row_check(&rows[i]);
}

static void errors_about_other_segments_are_left_alone(void **state)
{
	struct row r = { .family = AF_INET6, .type = V6_TOO_BIG, .seq = UE };
	uint8_t in[512], out[512];
	uint32_t mark;
	unsigned len;

	need_env();
	for (int k = 0; k < 2; k++) {
		r.family = k ? AF_INET6 : AF_INET;
		r.type = k ? V6_TOO_BIG : V4_UNREACHABLE;
		r.code = k ? 0 : 4;
		splice_put(r.family, KVS_ACTIVE, KVS_CHUNKED, 0, NULL);
		len = error_build(in, &r, PE); /* to the pod: its numbers are the socket's */
		assert_int_equal(error_run(in, len, out, &mark), TC_ACT_UNSPEC);
		assert_memory_equal(in, out, len);
		len = error_build(in, &r, CE);
		in[ETH_HLEN + (k ? 40 : 20) + 8 + (k ? 40 : 20)] ^= 1; /* another port */
		assert_int_equal(error_run(in, len, out, &mark), TC_ACT_UNSPEC);
		assert_memory_equal(in, out, len);
		for (len = ETH_HLEN + (k ? 40 : 20) + 4; len < ETH_HLEN + 2 * (k ? 40U : 20U) + 14;
		     len++) { /* cut off */
			error_build(in, &r, CE);
			assert_int_equal(error_run(in, len, out, &mark), TC_ACT_UNSPEC);
			assert_memory_equal(in, out, len);
		}
	}
}

static int setup(void **state)
{
	return splice_setup(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_error_reaches_who_sent_the_segment),
		cmocka_unit_test(errors_about_other_segments_are_left_alone),
	};

	return cmocka_run_group_tests(tests, setup, splice_teardown);
}
