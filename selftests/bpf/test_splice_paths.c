/* SPDX-License-Identifier: Apache-2.0
 * What lies between gateway and client, or on the gateway itself, and may get into the splice's way: routers with a
 * smaller MTU, conntrack, VLAN tags, checksums that hardware has summed, two CPUs, super-packets beyond 64 KB, long
 * round trips, one device for everything.
 */
#include "nft.h"
#include "splice_run.h"

#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "bpf/spread.skel.h"

static pid_t far_ns;

/* A namespace behind the client's, which becomes a router. */
static void far_make(void)
{
	int sv[2];
	char c;

	if (far_ns)
		return;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	far_ns = fork();
	if (!far_ns) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) < 0 || write(sv[1], "n", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(sv[0], &c, 1), 1);
	close(sv[0]);
	close(sv[1]);
	sh("ip route add 10.9.3.0/24 via 10.9.1.2; ip -6 route add fd00:9:3::/64 via fd00:9:1::2;"
	   "nsenter --net=/proc/%d/ns/net sh -ec '"
	   "sysctl -qw net.ipv6.conf.default.accept_dad=0; ip link add kvf0 type veth peer name kvf1 netns %d; "
	   "ip link set kvf0 up; ip addr add 10.9.3.1/24 dev kvf0;"
	   "ip addr add fd00:9:3::1/64 dev kvf0 nodad; sysctl -qw net.ipv4.ip_forward=1 "
	   "net.ipv6.conf.all.forwarding=1'",
	   (int)client_ns, (int)far_ns);
	sh("nsenter --net=/proc/%d/ns/net sh -ec '"
	   "sysctl -qw net.ipv6.conf.kvf1.accept_dad=0; ip link set lo up; ip link set kvf1 up; ip addr add "
	   "10.9.3.2/24 dev kvf1; "
	   "ip addr add fd00:9:3::2/64 dev kvf1 nodad; ip route add default via 10.9.3.1; "
	   "ip -6 route add default via fd00:9:3::1'",
	   (int)far_ns);
}

/* The client is there. */
static pid_t far_job_start(const struct job *j)
{
	pid_t was = client_ns, pid;

	client_ns = far_ns;
	pid = job_start(j);
	client_ns = was;
	return pid;
}

static void path_mtu(unsigned mtu)
{
	sh("nsenter --net=/proc/%d/ns/net ip link set kvf0 mtu %u; nsenter --net=/proc/%d/ns/net ip link set kvf1 mtu "
	   "%u",
	   (int)client_ns, mtu, (int)far_ns, mtu);
}

/* While streams are under way. */
static void shrinking(int family)
{
	const struct job j = { .family = family,
			       .streams = 3,
			       .requests = 2,
			       .framings = ALL,
			       .size = 400000,
			       .chunk = 6000,
			       .gap_us = 10000 };
	union kvs_row_counts before, after;
	pid_t pid;

	far_make();
	path_mtu(1500);
	rows_read(skel->maps.kvs_rows, &before);
	proxy_start();
	pid = far_job_start(&j);
	for (unsigned ms = 0; ms < 5000 && report->bytes < 60000; ms++)
		usleep(1000);
	path_mtu(1300);
	job_wait(pid, 15);
	proxy_stop();
	rows_read(skel->maps.kvs_rows, &after);
	assert_int_equal(report->exact, 6);
	assert_int_equal(report->spliced, 6);
	/* IPv4's routers cut the packets, those of IPv6 tell the pod. */
	assert_int_equal(after.client_path_too_big > before.client_path_too_big, family == AF_INET6);
}

static void a_path_whose_mtu_shrinks_over_ipv4(void **state)
{
	need_env();
	shrinking(AF_INET);
}

static void a_path_whose_mtu_shrinks_over_ipv6(void **state)
{
	need_env();
	shrinking(AF_INET6);
}

/* --- what carries packets on this host --- */

static void spread_over_cpus(const char *dev, struct spread *m)
{
	unsigned n = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t size = 2048;

	for (uint32_t i = 0; i < n && i < 64; i++)
		assert_int_equal(bpf_map_update_elem(bpf_map__fd(m->maps.cpus), &i, &size, BPF_ANY), 0);
	m->bss->ncpus = n;
	assert_int_equal(
		bpf_xdp_attach((int)if_nametoindex(dev), bpf_program__fd(m->progs.spread), XDP_FLAGS_SKB_MODE, NULL),
		0);
}

/* Each packet of a connection on another CPU than the one before, in both directions. */
static void packets_of_one_connection_on_all_cpus(void **state)
{
	const struct job slow = { .family = AF_INET6,
				  .streams = 8,
				  .requests = 6,
				  .framings = ALL,
				  .size = 40000,
				  .chunk = 250,
				  .gap_us = 100 };
	const struct job fast = {
		.family = AF_INET, .streams = 3, .requests = 6, .framings = ALL, .size = 3 << 20, .chunk = 9000
	};
	union kvs_row_counts before, after;
	struct spread *m;

	need_env();
	rows_read(skel->maps.kvs_rows, &before);
	m = spread__open_and_load();
	assert_non_null(m);
	spread_over_cpus("kvc0", m);
	spread_over_cpus("kvp0", m);
	exact(&slow, 30);
	assert_spliced(80);
	exact(&fast, 30);
	rows_read(skel->maps.kvs_rows, &after);
	if (getenv("V"))
		fprintf(stderr, "%u packets dealt out; stored %llu, no room %llu, races %llu\n", m->bss->turn,
			after.pod_stored - before.pod_stored, after.pod_no_room - before.pod_no_room,
			after.pod_race - before.pod_race);
	assert_true(m->bss->turn > 5000);
	assert_true(after.pod_stored > before.pod_stored);
	bpf_xdp_attach((int)if_nametoindex("kvc0"), -1, XDP_FLAGS_SKB_MODE, NULL);
	bpf_xdp_attach((int)if_nametoindex("kvp0"), -1, XDP_FLAGS_SKB_MODE, NULL);
	spread__destroy(m);
}

static void client_and_pod_behind_one_device(void **state)
{
	struct job j = { .streams = 4, .requests = 6, .framings = ALL, .size = 40000, .chunk = 500, .gap_us = 300 };
	pid_t pods;

	need_env();
	sh("nsenter --net=/proc/%d/ns/net sh -ec 'ip addr add 10.9.2.2/32 dev kvc1; ip addr add fd00:9:2::2/128 dev "
	   "kvc1 "
	   "nodad'; ip route add 10.9.2.2/32 dev kvc0; ip -6 route add fd00:9:2::2/128 dev kvc0 src fd00:9:1::1",
	   (int)client_ns);
	pods = fork();
	if (!pods) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGPIPE, SIG_IGN);
		ns_enter(client_ns);
		for (int i = 1; i < PODS; i++)
			thread_start(pod_thread, (void *)(intptr_t)(POD_PORT + i));
		pod_run(POD_PORT);
	}
	usleep(50000);
	for (int k = 0; k < 2; k++) {
		j.family = k ? AF_INET6 : AF_INET;
		exact(&j, 30);
		assert_spliced(90);
	}
	kill(pods, SIGKILL);
	waitpid(pods, NULL, 0);
	sh("ip route del 10.9.2.2/32; ip -6 route del fd00:9:2::2/128; nsenter --net=/proc/%d/ns/net sh -ec "
	   "'ip addr del 10.9.2.2/32 dev kvc1; ip addr del fd00:9:2::2/128 dev kvc1'",
	   (int)client_ns);
}

#define GSO_IPV4_MAX 63 /* IFLA_GSO_IPV4_MAX_SIZE, GRO behind it: newer than ip(8) may be */

/* Super-packets of up to <max> bytes for IPv4 as well, at a device of the caller's namespace. */
static void super_packets_ipv4(const char *dev, unsigned max)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
		struct {
			struct nlattr a;
			uint32_t v;
		} size[2];
	} q = { .h = { .nlmsg_len = sizeof(q), .nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST },
		.i = { .ifi_index = (int)if_nametoindex(dev) },
		.size = { { { 8, GSO_IPV4_MAX }, max }, { { 8, GSO_IPV4_MAX + 1 }, max } } };
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	if (send(fd, &q, sizeof(q), 0) != sizeof(q))
		abort();
	close(fd);
}

/* At all four ends; beyond 64 KB that is BIG TCP. */
static void super_packets(unsigned max)
{
	const pid_t ns[] = { client_ns, pod_ns };

	for (unsigned i = 0; i < 2; i++) {
		const char *here = i ? "kvp0" : "kvc0", *there = i ? "kvp1" : "kvc1";
		pid_t pid;

		sh("ip link set dev %s gso_max_size %u gro_max_size %u; nsenter --net=/proc/%d/ns/net "
		   "ip link set dev %s gso_max_size %u gro_max_size %u",
		   here, max, max, (int)ns[i], there, max, max);
		super_packets_ipv4(here, max);
		pid = fork();
		if (!pid) {
			ns_enter(ns[i]);
			super_packets_ipv4(there, max);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
}

static void super_packets_beyond_64_kb(void **state)
{
	struct job j = { .streams = 2, .requests = 4, .framings = LENGTH, .size = 64 << 20, .chunk = 60000 };

	need_env();
	super_packets(180000);
	for (int k = 0; k < 2; k++) {
		union kvs_row_counts before, after;

		j.family = k ? AF_INET6 : AF_INET;
		rows_read(skel->maps.kvs_rows, &before);
		exact(&j, 30);
		rows_read(skel->maps.kvs_rows, &after);
		if (getenv("V"))
			fprintf(stderr, "%llu packets for %u bodies\n", after.pod_data - before.pod_data,
				report->spliced);
		assert_true(report->spliced >= 4);
		assert_true((after.pod_data - before.pod_data) * 65536 < report->spliced * j.size);
	}
	super_packets(65536);
}

static unsigned sum_errors(pid_t ns)
{
	char cmd[128], n[16];

	snprintf(cmd, sizeof(cmd),
		 "nsenter --net=/proc/%d/ns/net nstat -asz TcpInCsumErrors | awk '/TcpIn/ { print $2 }'", (int)ns);
	sh_output(n, sizeof(n), cmd);
	assert_true(n[0] >= '0' && n[0] <= '9');
	return (unsigned)atoi(n);
}

/* A VXLAN whose outer UDP checksum this host has to compute: for the packet inside, that sum is CHECKSUM_COMPLETE, as a
 * network card's would be. */
static void checksums_that_hardware_has_summed(void **state)
{
	struct job j = {
		.streams = 4, .requests = 6, .framings = ALL, .size = 60000, .chunk = 500, .gap_us = 300, .pipeline = 20
	};
	struct spread *m;

	need_env();
	m = spread__open_and_load();
	assert_non_null(m);
	sh("ip addr add 10.9.7.1/24 dev kvc0; ip link add kvx0 address 02:00:00:00:07:01 type vxlan id 7 remote "
	   "10.9.7.2 "
	   "dstport 4789 udpcsum; ip link set kvx0 up; ip route add 10.9.1.2/32 dev kvx0 src 10.9.1.1; "
	   "ip -6 route add fd00:9:1::2/128 dev kvx0 src fd00:9:1::1; "
	   "ip neigh add fd00:9:1::2 lladdr 02:00:00:00:07:02 dev kvx0");
	sh("nsenter --net=/proc/%d/ns/net sh -ec 'ethtool -K kvc1 tx off >/dev/null; ip addr add 10.9.7.2/24 dev kvc1; "
	   "ip link add kvx1 address 02:00:00:00:07:02 type vxlan id 7 remote 10.9.7.1 dstport 4789 udpcsum; "
	   "ip link set kvx1 up; ip route add 10.9.1.1/32 dev kvx1 src 10.9.1.2; "
	   "ip -6 route add fd00:9:1::1/128 dev kvx1 src fd00:9:1::2; "
	   "ip neigh add fd00:9:1::1 lladdr 02:00:00:00:07:01 dev kvx1'",
	   (int)client_ns);
	attach("kvx0", BPF_TC_INGRESS, bpf_program__fd(m->progs.summed), 1);
	splice_attach("kvx0");
	for (int k = 0; k < 2; k++) {
		j.family = k ? AF_INET6 : AF_INET;
		j.framings = k ? KEPT : ALL;
		exact(&j, 30);
		assert_spliced(80);
	}
	if (getenv("V"))
		fprintf(stderr, "none %llu, unnecessary %llu, complete %llu, partial %llu\n",
			(unsigned long long)m->bss->sums[0], (unsigned long long)m->bss->sums[1],
			(unsigned long long)m->bss->sums[2], (unsigned long long)m->bss->sums[3]);
	assert_true(m->bss->sums[2] > 1000);
	assert_int_equal(sum_errors(getpid()) + sum_errors(pod_ns), 0);
	sh("ip link del kvx0; ip addr del 10.9.7.1/24 dev kvc0; nsenter --net=/proc/%d/ns/net sh -ec "
	   "'ethtool -K kvc1 tx on >/dev/null; ip link del kvx1; ip addr del 10.9.7.2/24 dev kvc1'",
	   (int)client_ns);
	spread__destroy(m);
}

/* --- conntrack --- */

/* It lies between the programs and the sockets, so it has to find sockets' numbers, whatever is spliced. */
static void conntrack_finds_nothing_invalid(void **state)
{
	struct job j = {
		.streams = 4, .requests = 6, .framings = ALL, .size = 60000, .chunk = 500, .gap_us = 300, .pipeline = 20
	};

	need_env();
	if (nft_apply(0, 0)) {
		print_message("SKIP: this kernel has no nf_tables with conntrack\n");
		skip();
	}
	sh("sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=0 net.netfilter.nf_conntrack_tcp_loose=0");
	for (int k = 0; k < 2; k++) {
		j.family = k ? AF_INET6 : AF_INET;
		j.framings = k ? KEPT : ALL;
		exact(&j, 30);
		assert_spliced(80);
		invalid_assert_none(k ? "IPv6" : "IPv4");
	}
	j = (struct job){ .family = AF_INET,
			  .streams = 3,
			  .requests = 3,
			  .framings = ALL,
			  .size = 8 << 20,
			  .chunk = 8000,
			  .stop_ms = 500 };
	exact(&j, 30);
	invalid_assert_none("stopped readers");
	survived(AF_INET6, 6);
	invalid_assert_none("kill -9");
	nft_remove();
}

/* --- memory --- */

/* Bytes that this namespace's TCP sockets hold: received, sent, queued to be sent. */
static unsigned long held(void)
{
	char n[64];

	sh_output(n, sizeof(n),
		  "ss -tmnH state established | grep -o 'skmem:([^)]*' | tr -c '0-9a-z\\n' ' ' | "
		  "awk '{ for (i = 2; i <= NF; i++) if ($i ~ /^[rtw][0-9]/) s += substr($i, 2) } END { print s + 0 }'");
	return strtoul(n, NULL, 10);
}

static void a_stopped_client_costs_no_memory_here(void **state)
{
	const struct job j = { .family = AF_INET,
			       .streams = 6,
			       .requests = 1,
			       .framings = ALL,
			       .size = 24 << 20,
			       .chunk = 16000,
			       .gap_us = 500,
			       .stop_ms = 2500 };
	unsigned long most = 0;
	uint64_t bytes = 0;
	unsigned still = 0;
	pid_t pid;

	need_env();
	proxy_start();
	pid = job_start(&j);
	/* All have stopped: nothing has come to the client's processes for half a second. */
	for (unsigned ms = 0; ms < 10000 && still < 10; ms += 50) {
		usleep(50000);
		still = report->bytes && report->bytes == bytes ? still + 1 : 0;
		bytes = report->bytes;
	}
	assert_int_equal(still, 10);
	for (unsigned i = 0; i < 5; i++) {
		unsigned long n = held();

		most = n > most ? n : most;
		usleep(100000);
	}
	assert_int_equal(report->bytes, bytes);
	job_wait(pid, 20);
	proxy_stop();
	if (getenv("V"))
		fprintf(stderr, "%lu bytes held\n", most);
	assert_int_equal(report->exact, 6);
	assert_int_equal(report->spliced, 6);
	assert_int_equal(most, 0);
}

/* --- a long way --- */

/* What travels in one direction, each packet for the same time. */
struct wire {
	int from, to;
	uint64_t delay_us;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct parcel {
		struct parcel *next;
		uint64_t at;
		size_t n;
		uint8_t b[];
	} *first, **end;
};

static void *wire_in(void *arg)
{
	static __thread uint8_t b[70000];
	struct wire *w = arg;
	ssize_t n;

	while ((n = read(w->from, b, sizeof(b))) > 0) {
		struct parcel *p = malloc(sizeof(*p) + (size_t)n);

		*p = (struct parcel){ .at = now_us() + w->delay_us, .n = (size_t)n };
		memcpy(p->b, b, (size_t)n);
		pthread_mutex_lock(&w->lock);
		*w->end = p;
		w->end = &p->next;
		pthread_cond_signal(&w->more);
		pthread_mutex_unlock(&w->lock);
	}
	return NULL;
}

static void *wire_out(void *arg)
{
	struct wire *w = arg;

	for (;;) {
		struct parcel *p;
		uint64_t now;

		pthread_mutex_lock(&w->lock);
		while (!w->first)
			pthread_cond_wait(&w->more, &w->lock);
		p = w->first;
		w->first = p->next;
		if (!w->first)
			w->end = &w->first;
		pthread_mutex_unlock(&w->lock);
		now = now_us();
		if (p->at > now)
			usleep((useconds_t)(p->at - now));
		if (write(w->to, p->b, p->n) < 0)
			perror("wire");
		free(p);
	}
	return NULL;
}

static void wire_start(struct wire *w, int from, int to, uint64_t delay_us)
{
	*w = (struct wire){ .from = from, .to = to, .delay_us = delay_us };
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);
	w->end = &w->first;
	thread_start(wire_in, w);
	thread_start(wire_out, w);
}

/* Between the client's namespace, a router, and the one behind it: kvt0 and kvt1, with this delay one way. */
static pid_t wire_make(uint64_t delay_us)
{
	pid_t pid;
	int p[2];
	char c;

	far_make();
	assert_int_equal(pipe(p), 0);
	pid = fork();
	if (!pid) {
		static struct wire w[2];
		int a, b;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ns_enter(client_ns);
		a = tun_open("kvt0", IFF_TAP);
		sh("sysctl -qw net.ipv6.conf.kvt0.accept_dad=0; ip link set kvt0 up; ip addr add 10.9.5.1/24 dev kvt0; "
		   "ip addr add fd00:9:5::1/64 dev kvt0 nodad");
		ns_enter(far_ns);
		b = tun_open("kvt1", IFF_TAP);
		sh("sysctl -qw net.ipv6.conf.kvt1.accept_dad=0; ip link set kvt1 up; ip addr add 10.9.5.2/24 dev kvt1; "
		   "ip addr add fd00:9:5::2/64 dev kvt1 nodad; ip route replace default via 10.9.5.1; "
		   "ip -6 route replace default via fd00:9:5::1");
		wire_start(&w[0], a, b, delay_us);
		wire_start(&w[1], b, a, delay_us);
		if (write(p[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(p[0], &c, 1), 1);
	close(p[0]);
	close(p[1]);
	sh("ip route replace 10.9.5.0/24 via 10.9.1.2; ip -6 route replace fd00:9:5::/64 via fd00:9:1::2");
	return pid;
}

static void round_trips_of_100_ms(void **state)
{
	const struct job jobs[] = {
		{ .family = AF_INET,
		  .streams = 6,
		  .requests = 2,
		  .framings = ALL,
		  .size = 100000,
		  .chunk = 250,
		  .gap_us = 2000 }, /* faster than any model: 0.8 s each */
		{ .family = AF_INET6,
		  .streams = 3,
		  .requests = 1,
		  .framings = ALL,
		  .size = 512 << 10,
		  .chunk = 16000,
		  .gap_us = 1000 },
	};
	pid_t wire, pid;

	need_env();
	wire = wire_make(50000);
	for (unsigned i = 0; i < 2; i++) {
		proxy_start();
		pid = far_job_start(&jobs[i]);
		job_wait(pid, 15);
		proxy_stop();
		assert_int_equal(report->exact, jobs[i].streams * jobs[i].requests);
		assert_spliced(90);
		if (getenv("V"))
			fprintf(stderr, "longest %llu ms\n", (unsigned long long)report->longest_us / 1000);
		/* Tokens are not slower than their pace; the window of 64 KB bounds bodies at full speed. */
		assert_true(report->longest_us < (i ? 6000000 : 2000000));
	}
	kill(wire, SIGKILL);
	waitpid(wire, NULL, 0);
}

/* --- */

static int setup(void **state)
{
	return run_setup();
}

static int teardown(void **state)
{
	if (far_ns)
		kill(far_ns, SIGKILL);
	return run_teardown();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		/* First, while nothing is left of connections that conntrack has not seen. */
		cmocka_unit_test(conntrack_finds_nothing_invalid),
		cmocka_unit_test(a_path_whose_mtu_shrinks_over_ipv4),
		cmocka_unit_test(a_path_whose_mtu_shrinks_over_ipv6),
		cmocka_unit_test(packets_of_one_connection_on_all_cpus),
		cmocka_unit_test(client_and_pod_behind_one_device),
		cmocka_unit_test(super_packets_beyond_64_kb),
		cmocka_unit_test(checksums_that_hardware_has_summed),
		cmocka_unit_test(round_trips_of_100_ms),
		cmocka_unit_test(a_stopped_client_costs_no_memory_here),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, setup, teardown);
}
