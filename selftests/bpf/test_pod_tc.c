/* SPDX-License-Identifier: Apache-2.0
 * The counting programs, one packet at a time: what goes in, what is counted, under which verdict. A row is run through
 * the egress program with the pod as its destination and, turned round, through the ingress program as its source.
 */
#include "env.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <netinet/in.h>

#include "bpf/pod_tc.skel.h"
#include "kvsteer/abi.h"

#define POD_PORT  8000
#define PEER_PORT 40000
#define SYN	  0x02
#define ACK	  0x10
#define FIN	  0x01

#define MAX_VERIFIED 5000 /* instructions that the verifier may have to look at, per program */

struct row {
	const char *name;
	/* the packet */
	int family;		     /* AF_INET, AF_INET6; 0: ARP */
	uint8_t proto;		     /* 0: TCP */
	uint8_t flags;		     /* TCP */
	unsigned payload;	     /* bytes behind the TCP header */
	unsigned tcp_options;	     /* bytes, a multiple of 4 */
	unsigned ip_options;	     /* bytes, a multiple of 4: IPv4 options, or a destination options header (8) */
	unsigned padding;	     /* bytes behind the IP packet */
	unsigned cut;		     /* bytes missing at the end */
	uint16_t frag;		     /* IPv4 frag_off; IPv6: nonzero adds a fragment header */
	uint16_t port;		     /* pod's port if not POD_PORT */
	uint32_t gso_segs, gso_size; /* of a super-packet */
	bool jumbo;		     /* IPv6: payload length in a jumbo option */
	bool bad_doff, bad_version;
	/* what is to be counted */
	enum kvs_verdict verdict;
	unsigned packets; /* 0: one */
	bool connection;
};

static const struct row rows[] = {
	{ .name = "IPv4 data", .family = AF_INET, .flags = ACK, .payload = 100 },
	{ .name = "IPv6 data", .family = AF_INET6, .flags = ACK, .payload = 100 },
	{ .name = "IPv4 SYN", .family = AF_INET, .flags = SYN, .tcp_options = 20, .connection = true },
	{ .name = "IPv6 SYN", .family = AF_INET6, .flags = SYN, .tcp_options = 20, .connection = true },
	{ .name = "SYN with data", .family = AF_INET, .flags = SYN, .payload = 10, .connection = true },
	{ .name = "pure ACK", .family = AF_INET, .flags = ACK },
	{ .name = "FIN", .family = AF_INET6, .flags = ACK | FIN },
	{ .name = "IPv4 options", .family = AF_INET, .flags = ACK, .payload = 7, .ip_options = 8 },
	{ .name = "TCP options", .family = AF_INET6, .flags = ACK, .payload = 7, .tcp_options = 12 },
	{ .name = "padded to the least Ethernet frame", .family = AF_INET, .flags = ACK, .padding = 6 },
	{ .name = "IPv6 extension header", .family = AF_INET6, .flags = ACK, .payload = 9, .ip_options = 8 },
	{ .name = "IPv6 jumbo option", .family = AF_INET6, .flags = ACK, .payload = 1200, .jumbo = true },
	{ .name = "IPv4 super-packet",
	  .family = AF_INET,
	  .flags = ACK,
	  .payload = 3000,
	  .gso_segs = 3,
	  .gso_size = 1000,
	  .packets = 3 },
	{ .name = "IPv6 super-packet",
	  .family = AF_INET6,
	  .flags = ACK,
	  .payload = 2500,
	  .gso_segs = 3,
	  .gso_size = 1000,
	  .packets = 3 },
	{ .name = "another port of the pod",
	  .family = AF_INET,
	  .flags = ACK,
	  .payload = 5,
	  .port = 8001,
	  .verdict = KVS_NOT_POD },
	{ .name = "UDP", .family = AF_INET, .proto = IPPROTO_UDP, .payload = 5, .verdict = KVS_NOT_TCP },
	{ .name = "UDP over IPv6", .family = AF_INET6, .proto = IPPROTO_UDP, .payload = 5, .verdict = KVS_NOT_TCP },
	{ .name = "ARP", .verdict = KVS_NOT_IP },
	{ .name = "first IPv4 fragment", .family = AF_INET, .frag = 0x2000, .payload = 40, .verdict = KVS_FRAGMENT },
	{ .name = "later IPv4 fragment", .family = AF_INET, .frag = 0x0010, .payload = 40, .verdict = KVS_FRAGMENT },
	{ .name = "do not fragment", .family = AF_INET, .frag = 0x4000, .flags = ACK, .payload = 40 },
	{ .name = "IPv6 fragment", .family = AF_INET6, .frag = 1, .payload = 40, .verdict = KVS_FRAGMENT },
	{ .name = "cut within the TCP header", .family = AF_INET, .cut = 4, .verdict = KVS_MALFORMED },
	{ .name = "cut within the TCP header over IPv6", .family = AF_INET6, .cut = 4, .verdict = KVS_MALFORMED },
	{ .name = "TCP header of 16 bytes", .family = AF_INET, .bad_doff = true, .verdict = KVS_MALFORMED },
	{ .name = "IPv6 in an IPv4 frame", .family = AF_INET, .bad_version = true, .verdict = KVS_MALFORMED },
};

static struct pod_tc *skel;
static const uint8_t pod4[4] = { 10, 9, 0, 2 }, peer4[4] = { 10, 9, 0, 1 };
static const uint8_t pod6[16] = { 0xfd, 0, [15] = 2 }, peer6[16] = { 0xfd, 0, [15] = 1 };

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static unsigned tcp_build(uint8_t *p, const struct row *r, bool from_pod)
{
	unsigned port = r->port ? r->port : POD_PORT, doff = 20 + r->tcp_options;

	put16(p, from_pod ? port : PEER_PORT);
	put16(p + 2, from_pod ? PEER_PORT : port);
	p[12] = (uint8_t)((r->bad_doff ? 4 : doff / 4) << 4);
	p[13] = r->flags;
	return doff + r->payload;
}

static unsigned ipv4_build(uint8_t *p, const struct row *r, bool from_pod)
{
	unsigned ihl = 20 + r->ip_options, len = ihl + tcp_build(p + ihl, r, from_pod);

	p[0] = (uint8_t)((r->bad_version ? 6 : 4) << 4 | ihl / 4);
	put16(p + 2, len);
	put16(p + 6, r->frag);
	p[8] = 64;
	p[9] = r->proto ? r->proto : IPPROTO_TCP;
	memcpy(p + 12, from_pod ? pod4 : peer4, 4);
	memcpy(p + 16, from_pod ? peer4 : pod4, 4);
	return len;
}

static unsigned ipv6_build(uint8_t *p, const struct row *r, bool from_pod)
{
	uint8_t proto = r->proto ? r->proto : IPPROTO_TCP, *next = &p[6];
	unsigned len = 40;

	p[0] = 0x60;
	memcpy(p + 8, from_pod ? pod6 : peer6, 16);
	memcpy(p + 24, from_pod ? peer6 : pod6, 16);
	if (r->jumbo) {
		*next = IPPROTO_HOPOPTS;
		next = p + len;
		p[len + 2] = 0xc2;
		p[len + 3] = 4;
		len += 8;
	}
	if (r->ip_options) {
		*next = IPPROTO_DSTOPTS;
		next = p + len;
		p[len + 2] = 1; /* PadN */
		p[len + 3] = 4;
		len += 8;
	}
	if (r->frag) {
		*next = IPPROTO_FRAGMENT;
		next = p + len;
		len += 8;
	}
	*next = proto;
	len += tcp_build(p + len, r, from_pod);
	if (r->jumbo)
		put16(p + 46, len - 40);
	else
		put16(p + 4, len - 40);
	return len;
}

static unsigned packet_build(uint8_t *p, const struct row *r, bool from_pod)
{
	unsigned len;

	memset(p, 0, 8192);
	put16(p + 12, r->family == AF_INET ? ETH_P_IP : r->family == AF_INET6 ? ETH_P_IPV6 : ETH_P_ARP);
	len = r->family == AF_INET    ? ipv4_build(p + ETH_HLEN, r, from_pod)
	      : r->family == AF_INET6 ? ipv6_build(p + ETH_HLEN, r, from_pod)
				      : 46;
	return ETH_HLEN + len + r->padding - r->cut;
}

static void sum(int fd, const void *key, uint64_t *ret, unsigned words)
{
	int cpus = libbpf_num_possible_cpus();
	uint64_t *v = calloc((size_t)cpus * words, 8);

	assert_int_equal(bpf_map_lookup_elem(fd, key, v), 0);
	memset(ret, 0, words * 8);
	for (unsigned i = 0; i < (unsigned)cpus * words; i++)
		ret[i % words] += v[i];
	free(v);
}

static struct kvs_pod_key key_of(int family)
{
	struct kvs_pod_key k = { .port = POD_PORT };

	if (family == AF_INET) {
		k.addr.b[10] = k.addr.b[11] = 0xff;
		memcpy(k.addr.b + 12, pod4, 4);
	} else {
		memcpy(k.addr.b, pod6, 16);
	}
	return k;
}

/* Empty counters for both pods and for lo, which is the device of a test run. */
static void counters_reset(void)
{
	int cpus = libbpf_num_possible_cpus();
	void *zero = calloc((size_t)cpus, sizeof(struct kvs_device_counts));
	struct kvs_pod_key k4 = key_of(AF_INET), k6 = key_of(AF_INET6);
	uint32_t lo = 1;

	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_pods), &k4, zero, BPF_ANY), 0);
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_pods), &k6, zero, BPF_ANY), 0);
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_devices), &lo, zero, BPF_ANY), 0);
	free(zero);
}

static void row_check(const struct row *r, bool from_pod)
{
	static uint8_t in[8192], out[8192];
	struct __sk_buff ctx = { .gso_segs = r->gso_segs, .gso_size = r->gso_size };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in, .data_out = out, .data_size_out = sizeof(out));
	uint64_t verdicts[2 * KVS_VERDICTS_N], flows[6], *flow;
	struct kvs_pod_key key = key_of(r->family);
	bool counted = r->verdict == KVS_COUNTED;
	uint32_t lo = 1;
	int prog;

	counters_reset();
	o.data_size_in = packet_build(in, r, from_pod);
	if (r->gso_segs) {
		o.ctx_in = &ctx;
		o.ctx_size_in = sizeof(ctx);
	}
	prog = bpf_program__fd(from_pod ? skel->progs.kvs_pod_ingress : skel->progs.kvs_pod_egress);
	if (bpf_prog_test_run_opts(prog, &o) < 0)
		fail_msg("%s: the test run is refused: %s", r->name, strerror(errno));
	if ((int)o.retval != TC_ACT_UNSPEC)
		fail_msg("%s: verdict %d, not TC_ACT_UNSPEC", r->name, (int)o.retval);
	if (o.data_size_out != o.data_size_in || memcmp(in, out, o.data_size_in) != 0)
		fail_msg("%s: the packet was changed", r->name);
	sum(bpf_map__fd(skel->maps.kvs_devices), &lo, verdicts, 2 * KVS_VERDICTS_N);
	for (unsigned v = 0; v < 2 * KVS_VERDICTS_N; v++) {
		bool expected = v == r->verdict + (from_pod ? 0U : KVS_VERDICTS_N);

		if (verdicts[v] != expected)
			fail_msg("%s: %s verdict %u is %llu", r->name, from_pod ? "from pod," : "to pod,", v,
				 (unsigned long long)verdicts[v]);
	}
	if (!r->family)
		return;
	sum(bpf_map__fd(skel->maps.kvs_pods), &key, flows, 6);
	flow = flows + (from_pod ? 3 : 0);
	if (flow[0] != (counted ? r->payload : 0) || flow[1] != (counted ? r->packets ? r->packets : 1 : 0) ||
	    flow[2] != (r->connection ? 1U : 0))
		fail_msg("%s: %llu bytes, %llu packets, %llu connections", r->name, (unsigned long long)flow[0],
			 (unsigned long long)flow[1], (unsigned long long)flow[2]);
	flow = flows + (from_pod ? 0 : 3);
	assert_int_equal(flow[0] + flow[1] + flow[2], 0);
}

static void each_packet_to_a_pod_is_counted_once_under_its_verdict(void **state)
{
	need_env();
	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		row_check(&rows[i], false);
}

static void each_packet_from_a_pod_is_counted_once_under_its_verdict(void **state)
{
	need_env();
	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		row_check(&rows[i], true);
}

static void a_device_without_an_entry_still_counts_pods(void **state)
{
	const struct row r = { .name = "data", .family = AF_INET, .flags = ACK, .payload = 3 };
	static uint8_t in[8192];
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in);
	struct kvs_pod_key key = key_of(AF_INET);
	uint32_t lo = 1;
	uint64_t flows[6];

	need_env();
	counters_reset();
	bpf_map_delete_elem(bpf_map__fd(skel->maps.kvs_devices), &lo);
	o.data_size_in = packet_build(in, &r, false);
	assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(skel->progs.kvs_pod_egress), &o), 0);
	sum(bpf_map__fd(skel->maps.kvs_pods), &key, flows, 6);
	assert_int_equal(flows[0], 3);
}

static void the_verifier_stays_within_its_budget(void **state)
{
	struct bpf_program *p;

	need_env();
	bpf_object__for_each_program(p, skel->obj)
	{
		struct bpf_prog_info info = { 0 };
		uint32_t len = sizeof(info);

		assert_int_equal(bpf_obj_get_info_by_fd(bpf_program__fd(p), &info, &len), 0);
		print_message("NOTE: %s: %u instructions, %u verified, at most %u\n", bpf_program__name(p),
			      info.xlated_prog_len / 8, info.verified_insns, MAX_VERIFIED);
		assert_in_range(info.verified_insns, 1, MAX_VERIFIED);
	}
}

static int setup(void **state)
{
	env_enter();
	if (env_missing)
		return 0;
	skel = pod_tc__open_and_load();
	return skel ? 0 : -1;
}

static int teardown(void **state)
{
	pod_tc__destroy(skel);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_packet_to_a_pod_is_counted_once_under_its_verdict),
		cmocka_unit_test(each_packet_from_a_pod_is_counted_once_under_its_verdict),
		cmocka_unit_test(a_device_without_an_entry_still_counts_pods),
		cmocka_unit_test(the_verifier_stays_within_its_budget),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
