/* SPDX-License-Identifier: Apache-2.0
 * Real traffic through a veth pair to a pod in a network namespace: what is counted equals what was sent.
 */
#include "env.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "datapath/datapath.h"

#define REQUEST	    (3 * 1000 * 1000 + 17) /* bytes of a connection to the pod */
#define RESPONSE    (2 * 1000 * 1000 + 5)
#define CONNECTIONS 3

static pid_t pod_pid;

static int read_all(int fd, size_t n)
{
	static char junk[65536];

	while (n) {
		ssize_t r = read(fd, junk, n < sizeof(junk) ? n : sizeof(junk));

		if (r <= 0)
			return -1;
		n -= (size_t)r;
	}
	return 0;
}

static int write_all(int fd, size_t n)
{
	static const char zeros[65536];

	while (n) {
		ssize_t r = write(fd, zeros, n < sizeof(zeros) ? n : sizeof(zeros));

		if (r <= 0)
			return -1;
		n -= (size_t)r;
	}
	return 0;
}

/* The pod: takes REQUEST bytes, gives RESPONSE bytes, for ever. Dual stack. */
static void pod_run(int ready)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(8000) };
	int one = 1, l;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWNET) < 0 || write(ready, "n", 1) != 1 || read(ready, &one, 1) != 1)
		_exit(1);
	if (system("ip link set lo up; ip link set kvt1 up; ip addr add 10.9.1.2/24 dev kvt1; "
		   "ip addr add fd00:9:1::2/64 dev kvt1 nodad") != 0)
		_exit(1);
	l = socket(AF_INET6, SOCK_STREAM, 0);
	if (bind(l, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(l, 8) < 0 || write(ready, "r", 1) != 1)
		_exit(1);
	for (;;) {
		int c = accept(l, NULL, NULL);

		if (read_all(c, REQUEST) || write_all(c, RESPONSE))
			_exit(1);
		close(c);
	}
}

static int setup(void **state)
{
	char c;
	int sv[2];

	env_enter();
	if (env_missing)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0)
		return -1;
	pod_pid = fork();
	if (!pod_pid)
		pod_run(sv[1]);
	close(sv[1]);
	if (read(sv[0], &c, 1) != 1)
		return -1;
	sh("ip link set lo up && ip link add kvt0 type veth peer name kvt1 netns %d && ip link set kvt0 up && "
	   "ip addr add 10.9.1.1/24 dev kvt0 && ip addr add fd00:9:1::1/64 dev kvt0 nodad",
	   (int)pod_pid);
	return write(sv[0], "g", 1) == 1 && read(sv[0], &c, 1) == 1 ? 0 : -1;
}

static int teardown(void **state)
{
	struct buf out = { 0 }, err = { 0 };

	if (env_missing)
		return 0;
	kill(pod_pid, SIGKILL);
	waitpid(pod_pid, NULL, 0);
	bpf_cmd_unload(&out, &err);
	buf_free(&out);
	buf_free(&err);
	return 0;
}

/* One request and its response. */
static void exchange(const struct net_addr *a)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, &a->sa, a->len), 0);
	assert_int_equal(write_all(fd, REQUEST), 0);
	assert_int_equal(read_all(fd, RESPONSE), 0);
	close(fd);
}

static bool exact(const struct datapath_counts *c)
{
	return c->to_pod.bytes == CONNECTIONS * REQUEST && c->from_pod.bytes == CONNECTIONS * RESPONSE &&
	       c->to_pod.connections == CONNECTIONS && c->from_pod.connections == CONNECTIONS;
}

/* TCP may send a segment twice when the machine is busy, and that counts twice: so one run of three must be exact. */
static void counted_as_sent(const char *addr, enum datapath_attach attach)
{
	struct datapath_opts o = { .mode = "auto", .attach = attach };
	struct datapath_counts c, other;
	struct datapath_pod pods[2];
	char why[DATAPATH_WHY_MAX];

	assert_int_equal(net_addr_parse(str_of(addr), &pods[0].addr), 0);
	pods[1] = pods[0];
	net_addr_set_port(&pods[1].addr, 8001);
	for (int try = 0; try < 3; try++) {
		struct datapath *dp = datapath_open(&o, why);

		assert_string_equal(why, "");
		if (datapath_set_pods(dp, pods, 2))
			fail_msg("%s", datapath_why(dp));
		for (unsigned i = 0; i < CONNECTIONS; i++)
			exchange(&pods[0].addr);
		assert_int_equal(datapath_counts(dp, &pods[0].addr, &c), 0);
		assert_int_equal(datapath_counts(dp, &pods[1].addr, &other), 0);
		datapath_close(dp, true);
		assert_int_equal(other.to_pod.packets + other.from_pod.packets, 0);
		/* Super-packets count as the segments that they stand for. */
		assert_in_range(c.to_pod.packets, CONNECTIONS * REQUEST / 1500,
				CONNECTIONS * (REQUEST + RESPONSE) / 200);
		assert_in_range(c.from_pod.packets, CONNECTIONS * RESPONSE / 1500,
				CONNECTIONS * (REQUEST + RESPONSE) / 200);
		if (exact(&c))
			return;
	}
	fail_msg("to pod %llu bytes, %llu connections; from pod %llu, %llu", (unsigned long long)c.to_pod.bytes,
		 (unsigned long long)c.to_pod.connections, (unsigned long long)c.from_pod.bytes,
		 (unsigned long long)c.from_pod.connections);
}

static void ipv4_by_tcx_or_what_the_kernel_has(void **state)
{
	need_env();
	counted_as_sent("10.9.1.2:8000", DATAPATH_ATTACH_AUTO);
}

static void ipv6_by_tcx_or_what_the_kernel_has(void **state)
{
	need_env();
	counted_as_sent("[fd00:9:1::2]:8000", DATAPATH_ATTACH_AUTO);
}

static void ipv4_by_clsact(void **state)
{
	need_env();
	counted_as_sent("10.9.1.2:8000", DATAPATH_CLSACT);
}

static void ipv6_by_clsact(void **state)
{
	need_env();
	counted_as_sent("[fd00:9:1::2]:8000", DATAPATH_CLSACT);
}

static void segments_without_offload(void **state)
{
	need_env();
	sh("ip link set kvt0 gso_max_segs 1");
	counted_as_sent("10.9.1.2:8000", DATAPATH_ATTACH_AUTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ipv4_by_tcx_or_what_the_kernel_has),
		cmocka_unit_test(ipv6_by_tcx_or_what_the_kernel_has),
		cmocka_unit_test(ipv4_by_clsact),
		cmocka_unit_test(ipv6_by_clsact),
		cmocka_unit_test(segments_without_offload),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
