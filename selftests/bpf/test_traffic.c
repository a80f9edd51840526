/* SPDX-License-Identifier: Apache-2.0
 * Real traffic through a veth pair to a pod in a network namespace: what is counted equals what TCP says it has sent,
 * segments that it sent twice included (a veth drops when its peer's CPU is late).
 */
#include "env.h"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "datapath/datapath.h"

#define REQUEST	    (3 * 1000 * 1000 + 17) /* bytes of a connection to the pod */
#define RESPONSE    (2 * 1000 * 1000 + 5)
#define CONNECTIONS 3

/* Shared with the pod: how many connections it has finished, and bytes that its TCP has sent. */
static struct {
	_Atomic unsigned finished;
	_Atomic uint64_t sent;
} *pod_tcp;
static pid_t pod_pid;

static uint64_t bytes_sent(int fd)
{
	struct tcp_info ti = { 0 };
	socklen_t len = sizeof(ti);

	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len);
	return ti.tcpi_bytes_sent;
}

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

		char eof;

		if (read_all(c, REQUEST) || write_all(c, RESPONSE) || read(c, &eof, 1) != 0)
			_exit(1);
		pod_tcp->sent += bytes_sent(c);
		pod_tcp->finished++;
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
	pod_tcp = mmap(NULL, sizeof(*pod_tcp), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pod_tcp == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0)
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

/* One request and its response; returns the bytes that TCP sent for it. Ends when the pod has done its accounts. */
static uint64_t exchange(const struct net_addr *a)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM, 0);
	unsigned before = pod_tcp->finished;
	uint64_t sent;

	assert_int_equal(connect(fd, &a->sa, a->len), 0);
	assert_int_equal(write_all(fd, REQUEST), 0);
	assert_int_equal(read_all(fd, RESPONSE), 0);
	sent = bytes_sent(fd);
	close(fd);
	for (unsigned ms = 0; pod_tcp->finished == before && ms < 5000; ms++)
		usleep(1000);
	assert_int_equal(pod_tcp->finished, before + 1);
	return sent;
}

static void counted_as_sent(const char *addr, enum datapath_attach attach)
{
	struct datapath_opts o = { .mode = "auto", .attach = attach };
	struct datapath_counts c, other;
	struct datapath_pod pods[2];
	char why[DATAPATH_WHY_MAX];
	uint64_t sent = 0;
	struct datapath *dp = datapath_open(&o, why);

	assert_string_equal(why, "");
	assert_int_equal(net_addr_parse(str_of(addr), &pods[0].addr), 0);
	pods[1] = pods[0];
	net_addr_set_port(&pods[1].addr, 8001);
	if (datapath_set_pods(dp, pods, 2))
		fail_msg("%s", datapath_why(dp));
	pod_tcp->sent = 0;
	for (unsigned i = 0; i < CONNECTIONS; i++)
		sent += exchange(&pods[0].addr);
	assert_int_equal(datapath_counts(dp, &pods[0].addr, &c), 0);
	assert_int_equal(datapath_counts(dp, &pods[1].addr, &other), 0);
	datapath_close(dp, true);

	assert_int_equal(c.to_pod.bytes, sent); /* seen before any drop */
	assert_in_range(c.from_pod.bytes, CONNECTIONS * RESPONSE, pod_tcp->sent);
	assert_int_equal(c.to_pod.connections, CONNECTIONS);
	assert_int_equal(c.from_pod.connections, CONNECTIONS);
	/* Super-packets count as the segments that they stand for. */
	assert_in_range(c.to_pod.packets, CONNECTIONS * REQUEST / 1500, CONNECTIONS * (REQUEST + RESPONSE) / 200);
	assert_in_range(c.from_pod.packets, CONNECTIONS * RESPONSE / 1500, CONNECTIONS * (REQUEST + RESPONSE) / 200);
	assert_int_equal(other.to_pod.packets + other.from_pod.packets, 0);
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
