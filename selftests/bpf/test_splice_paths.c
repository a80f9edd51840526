/* SPDX-License-Identifier: Apache-2.0
 * What lies between gateway and client, or on the gateway itself, and may get into the splice's way: routers with a
 * smaller MTU, conntrack, VLAN tags, checksums that hardware has summed, two CPUs, super-packets beyond 64 KB, long
 * round trips, one device for everything.
 */
#include "splice_run.h"

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
		cmocka_unit_test(a_path_whose_mtu_shrinks_over_ipv4),
		cmocka_unit_test(a_path_whose_mtu_shrinks_over_ipv6),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, setup, teardown);
}
