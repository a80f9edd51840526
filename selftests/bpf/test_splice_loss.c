/* SPDX-License-Identifier: Apache-2.0
 * Whole responses as in test_splice.c, over links that lose, double and reorder, on the pod's side and the client's.
 */
#include "nft.h"
#include "splice_run.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include "bpf/impair.skel.h"

/* What enters: the gateway from the pod, the gateway from the client, the client. */
static struct impair *from_pod, *from_client, *to_client;

/* Keeps what comes by the veth pair for a millisecond, with checksum and GSO state, and sends it back. */
static void *delay_run(void *arg)
{
	static __thread uint8_t buf[80000];
	int fd = (int)(intptr_t)arg;

	for (;;) {
		struct sockaddr_ll from;
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len);

		if (n <= 0 || from.sll_pkttype == PACKET_OUTGOING)
			continue;
		usleep(1000);
		if (send(fd, buf, (size_t)n, 0) < 0)
			perror("delay");
	}
	return NULL;
}

/* Impair what enters <dev>. In the namespace of the caller, where the thread that delays has to stay. */
static struct impair *impair_attach(const char *dev, struct impair *m)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	char out[IFNAMSIZ], in[IFNAMSIZ];
	int fd = socket(AF_PACKET, SOCK_RAW, 0), one = 1;

	snprintf(out, sizeof(out), "%.6s-o", dev);
	snprintf(in, sizeof(in), "%.6s-i", dev);
	sh("ip link add %s type veth peer name %s; sysctl -qw net.ipv6.conf.%s.disable_ipv6=1 "
	   "net.ipv6.conf.%s.disable_ipv6=1; "
	   "ip link set %s up; ip link set %s up",
	   out, in, out, in, out, in);
	m->bss->loop_out = if_nametoindex(out);
	m->bss->home = if_nametoindex(dev);
	at.sll_ifindex = (int)if_nametoindex(in);
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	thread_start(delay_run, (void *)(intptr_t)fd);
	attach(dev, BPF_TC_INGRESS, bpf_program__fd(m->progs.impair), 1);
	attach(out, BPF_TC_INGRESS, bpf_program__fd(m->progs.loop), 1);
	return m;
}

static int setup(void **state)
{
	return run_setup();
}

static int teardown(void **state)
{
	impair__destroy(from_pod);
	impair__destroy(from_client);
	impair__destroy(to_client);
	return run_teardown();
}

/* Losses and reordering at all three places at once, of a million. */
static void impair_all(unsigned loss, unsigned dup, unsigned late)
{
	struct impair *m[] = { from_pod, from_client, to_client };

	for (unsigned i = 0; i < 3; i++) {
		m[i]->bss->lost = m[i]->bss->delayed = m[i]->bss->duplicated = 0;
		m[i]->bss->loss = loss;
		m[i]->bss->dup = dup;
		m[i]->bss->late = late;
	}
}

static void impair_setup(void)
{
	char ready = 0;
	int sv[2];

	if (from_pod)
		return;
	from_pod = impair__open_and_load();
	from_client = impair__open_and_load();
	to_client = impair__open_and_load();
	assert_true(from_pod && from_client && to_client);
	impair_attach("kvp0", from_pod);
	impair_attach("kvc0", from_client);
	assert_int_equal(pipe(sv), 0);
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ns_enter(client_ns);
		impair_attach("kvc1", to_client);
		if (write(sv[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(sv[0], &ready, 1), 1);
	close(sv[0]);
	close(sv[1]);
}

static void impaired(int family, unsigned loss, unsigned dup, unsigned late, unsigned gap_us, uint64_t size,
		     unsigned requests, unsigned framings)
{
	const struct job j = { .family = family,
			       .streams = 8,
			       .requests = requests,
			       .framings = framings,
			       .size = size,
			       .chunk = 700,
			       .gap_us = gap_us };

	struct impair *m[3];
	union kvs_row_counts before, after;

	impair_setup();
	m[0] = from_pod;
	m[1] = from_client;
	m[2] = to_client;
	rows_read(skel->maps.kvs_rows, &before);
	impair_all(loss, dup, late);
	exact(&j, 100);
	rows_read(skel->maps.kvs_rows, &after);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(!loss || m[i]->bss->lost > 0);
		assert_true(!dup || m[i]->bss->duplicated > 0);
		assert_true(!late || m[i]->bss->delayed > 0);
	}
	if (getenv("V"))
		fprintf(stderr,
			"lost %llu, %llu, %llu; late %llu; twice %llu; stored %llu, no room %llu, races %llu, late "
			"%llu\n",
			(unsigned long long)m[0]->bss->lost, (unsigned long long)m[1]->bss->lost,
			(unsigned long long)m[2]->bss->lost, (unsigned long long)m[0]->bss->delayed,
			(unsigned long long)m[0]->bss->duplicated,
			(unsigned long long)(after.pod_stored - before.pod_stored),
			(unsigned long long)(after.pod_no_room - before.pod_no_room),
			(unsigned long long)(after.pod_race - before.pod_race),
			(unsigned long long)(after.pod_late - before.pod_late));
	impair_all(0, 0, 0);
	assert_true(!(framings & CHUNKED) || after.pod_stored > before.pod_stored);
}

static void loss_on_both_sides(void **state)
{
	need_env();
	impaired(AF_INET, 10000, 0, 0, 400, 60000, 12, ALL);
}

static void loss_around_the_end_of_short_responses(void **state)
{
	need_env();
	impaired(AF_INET, 40000, 0, 0, 400, 6000, 30, CLOSE);
	impaired(AF_INET6, 40000, 0, 0, 400, 6000, 30, KEPT);
}

static void duplicates_and_reordering_on_both_sides(void **state)
{
	need_env();
	impaired(AF_INET6, 0, 20000, 20000, 50, 120000, 12, ALL);
}

static void loss_and_reordering_of_large_bodies(void **state)
{
	need_env();
	impaired(AF_INET, 5000, 5000, 5000, 0, 1 << 20, 12, ALL);
}

/* Segments that come again when all is over for the kernel: what they are numbered for the socket must be in its
 * window. */
static void conntrack_finds_nothing_invalid(void **state)
{
	need_env();
	if (nft_apply(0, 0)) {
		print_message("SKIP: this kernel has no nf_tables with conntrack\n");
		skip();
	}
	sh("sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=0 net.netfilter.nf_conntrack_tcp_loose=0");
	invalid_assert_none("before");
	impaired(AF_INET, 0, 20000, 20000, 0, 12 << 20, 3, KEPT);
	invalid_assert_none("duplicates and reordering");
	impaired(AF_INET6, 10000, 0, 0, 400, 60000, 12, ALL);
	invalid_assert_none("losses");
	nft_remove();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conntrack_finds_nothing_invalid),
		cmocka_unit_test(loss_on_both_sides),
		cmocka_unit_test(loss_around_the_end_of_short_responses),
		cmocka_unit_test(duplicates_and_reordering_on_both_sides),
		cmocka_unit_test(loss_and_reordering_of_large_bodies),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, setup, teardown);
}
