/* SPDX-License-Identifier: Apache-2.0
 * The datapath from the outside: responses through a gateway on datapath.h, with client and pod in network namespaces
 * of their own; what happens when the gateway dies, when it is upgraded, when events are lost, when its programs do not
 * run any more; and that nothing is left behind. carrier_gateway.h is the gateway.
 */
#include "carrier_gateway.h"
#include "nft.h"
#include "splice_net.h"

#include <linux/pkt_cls.h>
#include <net/if.h>
#include <sys/file.h>

static pid_t gateways[2];

static int setup(void **state)
{
	env_enter();
	if (env_missing)
		return 0;
	gw = shared(sizeof(*gw));
	net_setup();
	return 0;
}

static int teardown(void **state)
{
	if (!env_missing)
		net_teardown();
	return 0;
}

/* --- steps --- */

static void gateway_start(unsigned which, const struct datapath_opts *o)
{
	unsigned ready = gw->ready;

	gateways[which] = fork();
	if (!gateways[which]) {
		gateway_run(o);
		_exit(0);
	}
	for (unsigned ms = 0; gw->ready == ready && ms < 5000; ms += 5)
		usleep(5000);
	if (gw->ready == ready)
		fail_msg("the gateway does not start");
}

static void gateway_kill(unsigned which)
{
	if (!gateways[which])
		return;
	kill(gateways[which], SIGKILL);
	waitpid(gateways[which], NULL, 0);
	gateways[which] = 0;
}

static int clean(void **state)
{
	struct buf out = { 0 }, err = { 0 };

	if (env_missing)
		return 0;
	for (unsigned i = 0; i < 2; i++)
		gateway_kill(i);
	bpf_cmd_unload(&out, &err);
	buf_free(&out);
	buf_free(&err);
	sh("for d in kvc0 kvp0; do tc qdisc del dev $d clsact 2>/dev/null; done; true");
	memset(report, 0, sizeof(*report));
	memset(gw, 0, sizeof(*gw));
	return 0;
}

static void dump(void)
{
	sh(".output/bin/kvsteer bpf dump splices | grep -v state=0 >&2; .output/bin/kvsteer bpf dump rows >&2; true");
}

static void job_wait(pid_t pid, unsigned seconds)
{
	job_end(pid, seconds, dump);
}

static int map_open(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), PINS "/maps/%s", name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		fail_msg("no map %s", name);
	return fd;
}

static unsigned splices(uint8_t at_least, uint8_t at_most)
{
	int fd = map_open("kvs_splices");
	unsigned n = 0;

	for (uint32_t id = 1; id < KVS_MAX_SPLICES; id++) {
		struct kvs_splice s;

		if (bpf_map_lookup_elem_flags(fd, &id, &s, BPF_F_LOCK) == 0)
			n += s.state >= at_least && s.state <= at_most;
	}
	close(fd);
	return n;
}

static unsigned conns(void)
{
	int fd = map_open("kvs_conns");
	unsigned n = conns_in_use(fd);

	close(fd);
	return n;
}

#define wait_for(condition, ms)                                               \
	do {                                                                  \
		for (unsigned at_ = 0; !(condition) && at_ < (ms); at_ += 10) \
			usleep(10000);                                        \
		assert_true(condition);                                       \
	} while (0)

/* How often this row of the rules has applied. */
static uint64_t row(const char *name)
{
	char cmd[160], n[32];

	snprintf(cmd, sizeof(cmd), ".output/bin/kvsteer bpf dump rows | grep -o ' %s=[0-9]*' | cut -d= -f2", name);
	sh_output(n, sizeof(n), cmd);
	return strtoull(n, NULL, 10);
}

static void all_exact(const struct job *j)
{
	unsigned want = j->streams * j->requests;

	if (report->exact != want || report->wrong || report->cut || report->reset)
		fail_msg("%u exact of %u, %u wrong, %u cut, %u reset; spliced %u, relayed %u", report->exact, want,
			 report->wrong, report->cut, report->reset, report->spliced, report->relayed);
}

static const struct datapath_opts tc = { .mode = "tc" };

static bool attached(const char *dev)
{
	uint64_t *v = calloc((size_t)libbpf_num_possible_cpus(), sizeof(struct kvs_device_counts));
	uint32_t ifindex = if_nametoindex(dev);
	int fd = map_open("kvs_devices");
	bool is = bpf_map_lookup_elem(fd, &ifindex, v) == 0;

	close(fd);
	free(v);
	return is;
}

/* A client has come by its device, so that the next gateway finds the programs there. */
static void warm(const struct datapath_opts *o)
{
	struct job j = {
		.family = AF_INET, .streams = 1, .requests = 1, .framings = LENGTH, .size = 100, .chunk = 100
	};

	gateway_start(1, o);
	job_wait(job_start(&j), 10);
	wait_for(attached("kvc0"), 2000);
	usleep(300000); /* the entry comes first, the programs next */
	gateway_kill(1);
	memset(report, 0, sizeof(*report));
	memset(gw, 0, sizeof(*gw));
}

/* --- */

static void through_the_splice(int family, const struct datapath_opts *o)
{
	struct job j = { .family = family,
			 .streams = 8,
			 .requests = 6,
			 .framings = ALL,
			 .size = 20000,
			 .chunk = 250,
			 .gap_us = 300 };

	warm(o);
	gateway_start(0, o);
	job_wait(job_start(&j), 30);
	all_exact(&j);
	wait_for(!gw->open, 3000);
	assert_int_equal(gw->whys[CARRIER_WHY_OK], gw->bound);
	assert_int_equal(gw->bound, 48);
	assert_true(report->spliced >= 40);
	assert_int_equal(gw->events[CARRIER_ENDED], report->spliced);
	assert_true(gw->tails >= report->spliced);
	assert_int_equal(gw->bad_tails, 0);
	assert_int_equal(gw->unbound_busy, 0);
	assert_int_equal(splices(KVS_RELAY, KVS_DONE), 0);
	assert_int_equal(conns(), 0);
}

static void every_framing_is_spliced_ipv4(void **state)
{
	need_env();
	through_the_splice(AF_INET, &tc);
}

static void every_framing_is_spliced_ipv6(void **state)
{
	need_env();
	through_the_splice(AF_INET6, &tc);
}

static void clsact_does_as_well(void **state)
{
	static const struct datapath_opts o = { .mode = "tc", .attach = DATAPATH_CLSACT };

	need_env();
	through_the_splice(AF_INET, &o);
}

/* The lock is ours, so the gateway has to find everything by looking. */
static void events_that_nobody_reads_hang_nothing(void **state)
{
	struct job j = { .family = AF_INET,
			 .streams = 8,
			 .requests = 6,
			 .framings = ALL,
			 .size = 20000,
			 .chunk = 250,
			 .gap_us = 300 };
	int lock;

	need_env();
	warm(&tc);
	lock = open(PINS "/ring", O_RDONLY | O_DIRECTORY);
	assert_true(lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0);
	gateway_start(0, &tc);
	job_wait(job_start(&j), 30);
	all_exact(&j);
	wait_for(!gw->open, 3000);
	close(lock);
	assert_true(report->spliced >= 40);
	assert_int_equal(gw->events[CARRIER_STALLED] + gw->events[CARRIER_GONE], 0);
	assert_true(gw->tails >= 40);
	assert_int_equal(gw->bad_tails, 0);
}

static void in_relay_mode_no_splice_program_is_loaded(void **state)
{
	static const struct datapath_opts o = { .mode = "relay" };
	struct job j = { .family = AF_INET, .streams = 2, .requests = 3, .framings = ALL, .size = 5000, .chunk = 250 };

	need_env();
	gateway_start(0, &o);
	job_wait(job_start(&j), 20);
	all_exact(&j);
	assert_int_equal(gw->whys[CARRIER_WHY_OFF], 6);
	assert_int_not_equal(access(PINS "/progs/kvs_ingress", F_OK), 0);
	assert_int_equal(access(PINS "/progs/kvs_pod_ingress", F_OK), 0);
	assert_int_not_equal(access(PINS "/maps/kvs_splices", F_OK), 0);
}

static void a_client_s_device_is_found_when_a_client_comes_by_it(void **state)
{
	struct job j = { .family = AF_INET,
			 .net = "9",
			 .streams = 1,
			 .requests = 2,
			 .framings = CHUNKED,
			 .size = 5000,
			 .chunk = 250,
			 .gap_us = 300 };

	need_env();
	/* An address on lo, and no default route: kvc0 is nobody's yet. */
	sh("ip addr add 10.9.9.1/32 dev lo; nsenter --net=/proc/%d/ns/net ip route add 10.9.9.1 via 10.9.1.1",
	   (int)client_ns);
	gateway_listen = "10.9.9.1:8080";
	gateway_start(0, &tc);
	gateway_listen = ":8080";
	usleep(300000); /* some refreshes */
	assert_int_not_equal(access(link_pin(if_nametoindex("kvc0"), "ingress"), F_OK), 0);
	job_wait(job_start(&j), 20);
	all_exact(&j);
	assert_int_equal(gw->whys[CARRIER_WHY_NO_HANDSHAKE], 2);
	wait_for(access(link_pin(if_nametoindex("kvc0"), "egress"), F_OK) == 0, 2000);
	j.requests = 3;
	memset(report, 0, sizeof(*report));
	job_wait(job_start(&j), 20);
	all_exact(&j);
	assert_int_equal(gw->whys[CARRIER_WHY_OK], 3);
	assert_int_equal(report->spliced, 3);
}

/* Streams that are under way when the gateway dies. */
static void killed(unsigned framings, unsigned streams)
{
	struct job j = { .family = AF_INET,
			 .streams = streams,
			 .requests = 1,
			 .framings = framings,
			 .size = 250 * 1000,
			 .chunk = 250,
			 .gap_us = 5000 };
	pid_t job;

	gateway_start(0, &tc);
	job = job_start(&j);
	wait_for(splices(KVS_ACTIVE, KVS_ACTIVE) == streams, 10000);
	gateway_kill(0);
	gateway_start(0, &tc);
	wait_for(splices(KVS_ACTIVE, KVS_ACTIVE) == streams, 1); /* they go on */
	job_wait(job, 30);
	all_exact(&j);
	assert_int_equal(report->closed, streams);
	/* The new one has collected what the old one had. */
	wait_for(splices(KVS_RELAY, KVS_DONE) == 0, 5000);
	wait_for(conns() == 0, 10000);
}

static void streams_survive_the_daemon_and_the_next_one_collects_them(void **state)
{
	need_env();
	warm(&tc);
	killed(ALL, 24);
}

static void a_daemon_in_relay_mode_lets_orphans_end(void **state)
{
	static const struct datapath_opts o = { .mode = "relay" };
	struct job j = { .family = AF_INET,
			 .streams = 4,
			 .requests = 1,
			 .framings = CHUNKED,
			 .size = 50000,
			 .chunk = 250,
			 .gap_us = 5000 };
	pid_t job;

	need_env();
	warm(&tc);
	gateway_start(0, &tc);
	job = job_start(&j);
	wait_for(splices(KVS_ACTIVE, KVS_ACTIVE) == 4, 10000);
	gateway_kill(0);
	gateway_start(0, &o);
	job_wait(job, 30);
	all_exact(&j);
	wait_for(splices(KVS_RELAY, KVS_DONE) == 0, 5000);
}

static void two_daemons_share_the_pins_while_one_drains(void **state)
{
	struct job j = { .family = AF_INET,
			 .streams = 12,
			 .requests = 1,
			 .framings = ALL,
			 .size = 50000,
			 .chunk = 250,
			 .gap_us = 4000 };
	struct job k = { .family = AF_INET,
			 .streams = 12,
			 .requests = 4,
			 .framings = ALL,
			 .size = 20000,
			 .chunk = 250,
			 .gap_us = 300 };
	pid_t a, b;

	need_env();
	warm(&tc);
	gateway_start(0, &tc);
	a = job_start(&j);
	wait_for(splices(KVS_ACTIVE, KVS_ACTIVE) == 12, 10000);
	gateway_start(1, &tc); /* listens beside it, without the ring: it has to look */
	b = job_start(&k);
	job_wait(b, 30);
	job_wait(a, 30);
	if (report->exact != 60 || report->wrong + report->cut + report->reset)
		fail_msg("%u exact of 60, %u wrong, %u cut, %u reset", report->exact, report->wrong, report->cut,
			 report->reset);
	wait_for(!gw->open, 3000);
	assert_int_equal(gw->bad_tails, 0);
	if (gw->events[CARRIER_ENDED] != report->spliced)
		fail_msg("%u ended, %u done, %u stalled, %u gone, of %u spliced, %u relayed", gw->events[CARRIER_ENDED],
			 gw->events[CARRIER_DONE], gw->events[CARRIER_STALLED], gw->events[CARRIER_GONE],
			 report->spliced, report->relayed);
	assert_true(report->spliced >= 50);
	assert_int_equal(splices(KVS_RELAY, KVS_DONE), 0);
}

static void an_orphan_can_be_killed_without_a_daemon(void **state)
{
	struct job j = { .family = AF_INET,
			 .streams = 2,
			 .requests = 1,
			 .framings = CHUNKED,
			 .size = 1000000,
			 .chunk = 250,
			 .gap_us = 5000 };
	struct buf err = { 0 };
	pid_t job;

	need_env();
	warm(&tc);
	gateway_start(0, &tc);
	job = job_start(&j);
	wait_for(splices(KVS_ACTIVE, KVS_ACTIVE) == 2, 10000);
	gateway_kill(0);
	for (uint32_t id = 1; id < KVS_MAX_SPLICES; id++)
		flow_kill(NULL, id, &err);
	buf_free(&err);
	assert_int_equal(splices(KVS_RELAY, KVS_DONE), 0);
	job_wait(job, 10);
	assert_int_equal(report->reset, 2);
	wait_for(!report->pod_open, 5000);
}

/* Another owner's program, which ends the chain before ours, put on by clsact and by tcx alike. */
static void programs_that_stop_running_break_the_splice_visibly(void **state)
{
	LIBBPF_OPTS(bpf_link_create_opts, first, .flags = 1U << 3);
	const struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = TC_ACT_OK },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	struct job j = { .family = AF_INET,
			 .streams = 2,
			 .requests = 1,
			 .framings = CHUNKED,
			 .size = 1000000,
			 .chunk = 250,
			 .gap_us = 2000 };
	int fd, link;
	pid_t job;

	need_env();
	warm(&tc);
	gateway_start(0, &tc);
	job = job_start(&j);
	wait_for(splices(KVS_ACTIVE, KVS_ACTIVE) == 2, 10000);
	fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "ends_it", "GPL", code, 2, NULL);
	link = bpf_link_create(fd, (int)if_nametoindex("kvp0"), (enum bpf_attach_type)46, &first);
	assert_true(link >= 0);
	wait_for(gw->events[CARRIER_NOT_SERVED] == 2, 10000);
	job_wait(job, 10);
	assert_int_equal(report->reset, 2);
	assert_int_equal(splices(KVS_RELAY, KVS_DONE), 0);
	close(link);
	close(fd);
}

static void a_stopped_client_is_told_as_stalled(void **state)
{
	static const struct datapath_opts o = { .mode = "tc", .stall_ns = 2 * NS_PER_S };
	struct job j = { .family = AF_INET,
			 .streams = 1,
			 .requests = 1,
			 .framings = LENGTH,
			 .size = 64 << 20,
			 .chunk = 60000,
			 .gap_us = 2000, /* at full speed a pod may never let itself be spliced */
			 .stop_ms = 20000 };
	pid_t job;

	need_env();
	warm(&o);
	gateway_start(0, &o);
	job = job_start(&j);
	wait_for(gw->events[CARRIER_STALLED] == 1 || report->relayed, 15000);
	kill(job, SIGKILL);
	waitpid(job, NULL, 0);
	assert_int_equal(gw->events[CARRIER_STALLED], 1);
}

static void nothing_is_left_of_a_thousand_connections(void **state)
{
	struct job j = { .family = AF_INET,
			 .streams = 250,
			 .requests = 1,
			 .framings = CLOSE,
			 .size = 600,
			 .chunk = 200,
			 .gap_us = 500 };

	need_env();
	warm(&tc);
	gateway_start(0, &tc);
	for (unsigned i = 0; i < 4; i++)
		job_wait(job_start(&j), 30);
	assert_int_equal(report->exact, 1000);
	wait_for(!gw->open, 3000);
	assert_int_equal(splices(KVS_RELAY, KVS_DONE), 0);
	assert_int_equal(conns(), 0);
}

/* --- what is not carried, and why --- */

static void a_redirected_client_is_relayed(void **state)
{
	struct job j = {
		.port = 9090, .streams = 2, .requests = 3, .framings = ALL, .size = 20000, .chunk = 250, .gap_us = 300
	};

	need_env();
	if (nft_apply(9090, GW_PORT)) {
		print_message("SKIP: this kernel has no nf_tables with NAT\n");
		skip();
	}
	warm(&tc);
	gateway_start(0, &tc);
	for (unsigned k = 0; k < 2; k++) {
		memset(report, 0, sizeof(*report));
		j.family = k ? AF_INET6 : AF_INET;
		job_wait(job_start(&j), 20);
		all_exact(&j);
		assert_int_equal(gw->whys[CARRIER_WHY_DNAT], 6 * (k + 1));
		assert_int_equal(report->spliced, 0);
	}
	nft_remove();
}

struct hose {
	int from, to;
};

static void *hose_run(void *arg)
{
	static __thread uint8_t b[70000];
	const struct hose *h = arg;
	ssize_t n;

	while ((n = read(h->from, b, sizeof(b))) > 0)
		if (write(h->to, b, (size_t)n) < 0)
			perror("hose");
	return NULL;
}

/* The client's way leads through a device without Ethernet headers. */
static pid_t tunnel_make(void)
{
	pid_t pid;
	int p[2];
	char c;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	if (!pid) {
		static struct hose h[2];
		int here, there;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		here = tun_open("kvt0", IFF_TUN);
		sh("ip link set kvt0 up; ip route add 10.9.1.2/32 dev kvt0 src 10.9.1.1");
		ns_enter(client_ns);
		there = tun_open("kvt1", IFF_TUN);
		sh("ip link set kvt1 up; ip route add 10.9.1.1/32 dev kvt1 src 10.9.1.2");
		h[0] = (struct hose){ here, there };
		h[1] = (struct hose){ there, here };
		thread_start(hose_run, &h[0]);
		thread_start(hose_run, &h[1]);
		if (write(p[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(p[0], &c, 1), 1);
	close(p[0]);
	close(p[1]);
	return pid;
}

static void a_client_by_a_tunnel_is_relayed(void **state)
{
	struct job j = { .family = AF_INET,
			 .streams = 2,
			 .requests = 3,
			 .framings = ALL,
			 .size = 20000,
			 .chunk = 250,
			 .gap_us = 300 };
	pid_t tunnel;

	need_env();
	tunnel = tunnel_make();
	gateway_start(0, &tc);
	job_wait(job_start(&j), 20);
	all_exact(&j);
	wait_for(attached("kvt0"), 2000);
	usleep(300000);
	memset(report, 0, sizeof(*report));
	memset(gw->whys, 0, sizeof(gw->whys));
	job_wait(job_start(&j), 20);
	all_exact(&j);
	assert_int_equal(gw->whys[CARRIER_WHY_NO_ETHERNET], 6);
	kill(tunnel, SIGKILL);
	waitpid(tunnel, NULL, 0);
}

/* Another owner's program ends the chain before ours: by tcx, while ours are filters. (A filter of theirs would not do:
 * ours comes first at the same priority.) */
static void where_our_programs_never_run_everything_is_relayed(void **state)
{
	static const struct datapath_opts o = { .mode = "tc", .attach = DATAPATH_CLSACT };
	const struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = TC_ACT_OK },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info);
	struct job j = { .family = AF_INET,
			 .streams = 4,
			 .requests = 4,
			 .framings = ALL,
			 .size = 50000,
			 .chunk = 250,
			 .gap_us = 300 };
	int fd, link;

	need_env();
	fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "ends_it", "GPL", code, 2, NULL);
	link = bpf_link_create(fd, (int)if_nametoindex("kvp0"), (enum bpf_attach_type)46, NULL);
	close(fd);
	if (link < 0) {
		print_message("SKIP: this kernel has no tcx\n");
		skip();
	}
	gateway_start(0, &o);
	for (unsigned i = 0; i < 2; i++) {
		memset(report, 0, sizeof(*report));
		job_wait(job_start(&j), 20);
		all_exact(&j);
		assert_int_equal(report->spliced, 0);
	}
	assert_int_equal(gw->whys[CARRIER_WHY_OK], 0);
	assert_int_equal(gw->whys[CARRIER_WHY_NO_HANDSHAKE] + gw->whys[CARRIER_WHY_NOT_SERVED], 32);
	assert_int_equal(bpf_obj_get_info_by_fd(link, &info, &len), 0);
	assert_int_equal(info.xdp.ifindex, if_nametoindex("kvp0")); /* theirs is left as it was */
	close(link);
}

/* A ring of one page does not even hold a tail. */
static void a_full_ring_hangs_nothing(void **state)
{
	struct job j = { .family = AF_INET,
			 .streams = 8,
			 .requests = 6,
			 .framings = ALL,
			 .size = 20000,
			 .chunk = 250,
			 .gap_us = 300 };
	int ring;

	need_env();
	sh("mkdir -p " PINS "/maps");
	ring = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "kvs_events", 0, 0, 4096, NULL);
	assert_true(ring >= 0 && bpf_obj_pin(ring, PINS "/maps/kvs_events") == 0);
	close(ring);
	warm(&tc);
	gateway_start(0, &tc);
	job_wait(job_start(&j), 30);
	all_exact(&j);
	wait_for(!gw->open, 3000);
	assert_true(report->spliced >= 40);
	assert_true(row("ring_full") > 0);
	assert_int_equal(gw->events[CARRIER_ENDED], report->spliced);
	assert_int_equal(gw->events[CARRIER_STALLED] + gw->events[CARRIER_GONE] + gw->bad_tails, 0);
	if (gw->tails < 40)
		fail_msg("%u tails of %u", gw->tails, report->spliced);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(a_client_s_device_is_found_when_a_client_comes_by_it, clean),
		cmocka_unit_test_teardown(every_framing_is_spliced_ipv4, clean),
		cmocka_unit_test_teardown(every_framing_is_spliced_ipv6, clean),
		cmocka_unit_test_teardown(clsact_does_as_well, clean),
		cmocka_unit_test_teardown(events_that_nobody_reads_hang_nothing, clean),
		cmocka_unit_test_teardown(in_relay_mode_no_splice_program_is_loaded, clean),
		cmocka_unit_test_teardown(streams_survive_the_daemon_and_the_next_one_collects_them, clean),
		cmocka_unit_test_teardown(a_daemon_in_relay_mode_lets_orphans_end, clean),
		cmocka_unit_test_teardown(two_daemons_share_the_pins_while_one_drains, clean),
		cmocka_unit_test_teardown(an_orphan_can_be_killed_without_a_daemon, clean),
		cmocka_unit_test_teardown(programs_that_stop_running_break_the_splice_visibly, clean),
		cmocka_unit_test_teardown(a_stopped_client_is_told_as_stalled, clean),
		cmocka_unit_test_teardown(a_redirected_client_is_relayed, clean),
		cmocka_unit_test_teardown(a_client_by_a_tunnel_is_relayed, clean),
		cmocka_unit_test_teardown(where_our_programs_never_run_everything_is_relayed, clean),
		cmocka_unit_test_teardown(a_full_ring_hangs_nothing, clean),
		cmocka_unit_test_teardown(nothing_is_left_of_a_thousand_connections, clean),
	};

	if (getenv("KVS_CASES"))
		cmocka_set_test_filter(getenv("KVS_CASES"));
	return cmocka_run_group_tests(tests, setup, teardown);
}
