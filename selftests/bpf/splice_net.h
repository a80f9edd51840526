/* SPDX-License-Identifier: Apache-2.0
 * Client, gateway and pod in three network namespaces: kvc0 leads to the client (10.9.1.2), kvp0 to the pods
 * (10.9.2.2). The gateway is the caller's.
 */
#ifndef KVS_SELFTESTS_SPLICE_NET_H
#define KVS_SELFTESTS_SPLICE_NET_H

#include "splice_peers.h"

#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/resource.h>

/* Framings of a job. */
#define LENGTH	(1U << KVS_LENGTH)
#define CHUNKED (1U << KVS_CHUNKED)
#define CLOSE	(1U << KVS_UNTIL_CLOSE)
#define KEPT	(LENGTH | CHUNKED)
#define ALL	(KEPT | CLOSE)

static pid_t client_ns, pod_ns;

static inline void ns_enter(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	fd = open(path, O_RDONLY);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		_exit(1);
	close(fd);
}

/* A tap or tun of the caller's namespace, with super-packets and open checksums. */
static inline int tun_open(const char *name, short kind)
{
	struct ifreq r = { .ifr_flags = (short)(kind | IFF_NO_PI | IFF_VNET_HDR) };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &r) < 0 ||
	    ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0)
		_exit(1);
	return fd;
}

static inline void *pod_thread(void *arg)
{
	pod_run((int)(intptr_t)arg);
	return NULL;
}

/* A namespace behind a veth pair <dev>0, <dev>1, with the pods in it if <pods>. */
static inline pid_t ns_make(const char *dev, const char *net, bool pods)
{
	int sv[2];
	pid_t pid;
	char c;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGPIPE, SIG_IGN);
		if (unshare(CLONE_NEWNET) < 0 || write(sv[1], "n", 1) != 1 || read(sv[1], &c, 1) != 1)
			_exit(1);
		sh("ip link set lo up; ip link set %s1 up; ip addr add 10.9.%s.2/24 dev %s1; "
		   "ip addr add fd00:9:%s::2/64 dev %s1 nodad",
		   dev, net, dev, net, dev);
		for (int i = 0; pods && i < PODS; i++)
			thread_start(pod_thread, (void *)(intptr_t)(POD_PORT + i));
		usleep(50000);
		if (write(sv[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(sv[1]);
	assert_int_equal(read(sv[0], &c, 1), 1);
	sh("ip link add %s0 type veth peer name %s1 netns %d && ip link set %s0 up && ip addr add 10.9.%s.1/24 dev %s0 "
	   "&& ip addr add fd00:9:%s::1/64 dev %s0 nodad",
	   dev, dev, (int)pid, dev, net, dev, net, dev);
	assert_int_equal(write(sv[0], "g", 1), 1);
	assert_int_equal(read(sv[0], &c, 1), 1);
	close(sv[0]);
	return pid;
}

static inline void *shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/* After env_enter. */
static inline void net_setup(void)
{
	struct rlimit files = { 16384, 16384 };

	setrlimit(RLIMIT_NOFILE, &files);
	signal(SIGPIPE, SIG_IGN);
	pattern_make();
	report = shared(sizeof(*report));
	sh("ip link set lo up");
	client_ns = ns_make("kvc", "1", false);
	pod_ns = ns_make("kvp", "2", true);
}

static inline void net_teardown(void)
{
	kill(client_ns, SIGKILL);
	kill(pod_ns, SIGKILL);
	waitpid(client_ns, NULL, 0);
	waitpid(pod_ns, NULL, 0);
}

static inline pid_t job_start(const struct job *j)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ns_enter(client_ns);
		client_run(j);
		_exit(0);
	}
	return pid;
}

/* <stuck> shows what there is when it takes too long. */
static inline void job_end(pid_t pid, unsigned seconds, void (*stuck)(void))
{
	for (unsigned ms = 0; ms < seconds * 1000; ms += 2) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return;
		usleep(2000);
	}
	stuck();
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	fail_msg("not finished after %u s: %u exact, %u wrong, %u cut, %u reset", seconds, report->exact, report->wrong,
		 report->cut, report->reset);
}

/* Entries of connections that have a socket or a splice. */
static inline unsigned conns_in_use(int kvs_conns)
{
	struct kvs_tuple key, *prev = NULL;
	struct kvs_conn conn;
	unsigned n = 0;

	while (bpf_map_get_next_key(kvs_conns, prev, &key) == 0) {
		prev = &key;
		if (bpf_map_lookup_elem(kvs_conns, &key, &conn) == 0)
			n += !conn.closed_at || conn.splice;
	}
	return n;
}

#endif
