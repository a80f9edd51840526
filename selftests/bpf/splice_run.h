/* SPDX-License-Identifier: Apache-2.0
 * Jobs through the splice's programs on the network of splice_net.h: the programs are attached to kvc0 and kvp0, each
 * job has a fresh proxy, and what it must leave behind is looked at.
 */
#ifndef KVS_SELFTESTS_SPLICE_RUN_H
#define KVS_SELFTESTS_SPLICE_RUN_H

#include "splice_net.h"
#include "splice_proxy.h"
#include "splice_rows.h"

#include <net/if.h>

#include "bpf/splice_tc.skel.h"

static struct splice_tc *skel;
static pid_t proxy_pid;
static unsigned proxies;

static inline void attach(const char *dev, enum bpf_tc_attach_point where, int prog, unsigned priority)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)if_nametoindex(dev), .attach_point = where);
	LIBBPF_OPTS(bpf_tc_opts, o, .prog_fd = prog, .priority = priority, .handle = 1);
	int r = bpf_tc_hook_create(&hook);

	if (r && r != -EEXIST)
		fail_msg("%s: %s", dev, strerror(-r));
	r = bpf_tc_attach(&hook, &o);
	if (r)
		fail_msg("%s: %s", dev, strerror(-r));
}

/* Programs at both hooks of a device. */
static inline void splice_attach(const char *dev)
{
	attach(dev, BPF_TC_INGRESS, bpf_program__fd(skel->progs.kvs_ingress), 3);
	attach(dev, BPF_TC_EGRESS, bpf_program__fd(skel->progs.kvs_egress), 3);
}

static inline int run_setup(void)
{
	struct kvs_pod_key any = { .port = GW_PORT };
	uint32_t one = 1;

	env_enter();
	if (env_missing)
		return 0;
	net_setup();
	skel = splice_tc__open_and_load();
	if (!skel)
		return -1;
	splice_attach("kvc0");
	splice_attach("kvp0");
	bpf_map_update_elem(bpf_map__fd(skel->maps.kvs_listeners), &any, &one, BPF_ANY);
	fds = (struct fds){
		.conn_add = bpf_program__fd(skel->progs.kvs_conn_add),
		.conn_close = bpf_program__fd(skel->progs.kvs_conn_close),
		.bind = bpf_program__fd(skel->progs.kvs_bind),
		.arm = bpf_program__fd(skel->progs.kvs_arm),
		.closing = bpf_program__fd(skel->progs.kvs_closing),
		.unbind = bpf_program__fd(skel->progs.kvs_unbind),
		.splices = bpf_map__fd(skel->maps.kvs_splices),
		.dials = bpf_map__fd(skel->maps.kvs_dials),
	};
	return 0;
}

static inline int run_teardown(void)
{
	if (env_missing)
		return 0;
	net_teardown();
	splice_tc__destroy(skel);
	return 0;
}

static inline void rows_print(void)
{
	union kvs_row_counts c;

	rows_read(skel->maps.kvs_rows, &c);
	fprintf(stderr, "rows:");
	for (unsigned i = 0; i < KVS_ROWS_N; i++)
		if (c.row[i])
			fprintf(stderr, " %s=%llu", row_of[i].name, (unsigned long long)c.row[i]);
	fprintf(stderr, "\n");
}

static inline void proxy_start(void)
{
	int l;

	memset(report, 0, sizeof(*report));
	l = proxy_listen();
	assert_true(l >= 0);
	proxy_pid = fork();
	if (!proxy_pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		proxy.relay_only = getenv("RELAY") != NULL;
		proxy.next_id = proxies % 30 * 512;
		proxy_run(l);
	}
	proxies++;
	close(l);
}

static inline void proxy_stop(void)
{
	kill(proxy_pid, SIGKILL);
	waitpid(proxy_pid, NULL, 0);
}

static inline void stuck(void)
{
	for (uint32_t id = 1; id < 16384; id++) {
		struct kvs_splice sp;

		splice_look(id, &sp);
		if (sp.state)
			fprintf(stderr,
				"splice %u state %u flags %x framing %u bytes %llu wpos %x fwd_end %x u_end %x u_una "
				"%x una %x c_split %x u_split %x ranges %u left %llu del %x y0 %x walk %u owe %u win "
				"%u\n",
				id, sp.state, sp.flags, sp.framing, (unsigned long long)sp.bytes, sp.wpos, sp.fwd_end,
				sp.u_end, sp.u_una, sp.c.snd_una, sp.c_split, sp.u_split, sp.ranges_n,
				(unsigned long long)sp.left, sp.u.del, sp.y0, sp.walk, sp.c.owe, sp.pod_win);
	}
	rows_print();
	proxy_stop();
}

static inline void job_wait(pid_t pid, unsigned seconds)
{
	job_end(pid, seconds, stuck);
}

static inline unsigned splices_left(void)
{
	unsigned n = 0;

	for (uint32_t id = 1; id < 16384; id++) {
		struct kvs_splice sp;

		splice_look(id, &sp);
		n += sp.state != KVS_FREE || sp.users || sp.store;
	}
	return n;
}

static inline unsigned conns_open(void)
{
	return conns_in_use(bpf_map__fd(skel->maps.kvs_conns));
}

/* What a daemon does with the connections of one that has died, some time after their end. */
static inline void conns_collect(void)
{
	struct kvs_tuple key;
	int fd = bpf_map__fd(skel->maps.kvs_conns);

	while (bpf_map_get_next_key(fd, NULL, &key) == 0) {
		struct kvs_conn_close_args a = { .tuple = key, .gc = 1 };
		struct kvs_conn conn;

		assert_int_equal(bpf_map_lookup_elem(fd, &key, &conn), 0);
		a.born = conn.born + 1;
		assert_int_equal(prog_call(fds.conn_close, &a, sizeof(a)), -ENOENT);
		a.born = conn.born;
		assert_int_equal(prog_call(fds.conn_close, &a, sizeof(a)), 0);
	}
}

/* Run a job through a fresh proxy. Everything must come out exact, and nothing may be left behind. */
static inline void exact(const struct job *j, unsigned seconds)
{
	unsigned want = j->streams * j->requests, left = 1;

	proxy_start();
	job_wait(job_start(j), seconds);
	for (unsigned ms = 0; ms < 3000 && left; ms += 20) {
		usleep(20000);
		left = splices_left() + conns_open();
	}
	proxy_stop();
	if (getenv("V"))
		fprintf(stderr,
			"exact %u wrong %u cut %u reset %u closed %u aborted %u; spliced %u relayed %u, arms %u of %u, "
			"longest %llu ms, pod eof %u reset %u failed %u\n",
			report->exact, report->wrong, report->cut, report->reset, report->closed, report->aborted,
			report->spliced, report->relayed, report->arms, report->arm_tries,
			(unsigned long long)report->longest_us / 1000, report->pod_eof, report->pod_reset,
			report->pod_failed);
	assert_int_equal(report->wrong, 0);
	assert_int_equal(report->exact, want);
	assert_int_equal(report->proxy_bad, 0);
	assert_int_equal(report->aborted, 0);
	if (j->framings == CLOSE)
		assert_int_equal(report->closed, want);
	assert_int_equal(left, 0);
}

static inline void assert_spliced(unsigned percent)
{
	unsigned all = report->spliced + report->relayed;

	if (report->spliced * 100 < all * percent)
		fail_msg("%u of %u responses were spliced", report->spliced, all);
}

/* The proxy is killed under so many streams: each ends exactly, and both peers are closed as they would have been. */
static inline void survived(int family, unsigned streams)
{
	const struct job j = {
		.family = family,
		.streams = streams,
		.requests = 1,
		.framings = ALL,
		.size = 60000,
		.chunk = 250,
		.gap_us = 8000,
	};
	pid_t pid;

	proxy_start();
	pid = job_start(&j);
	for (unsigned ms = 0; ms < 5000 && report->arms < streams; ms++)
		usleep(1000);
	usleep(300000);
	assert_int_equal(report->arms, streams);
	proxy_stop();
	job_wait(pid, 30);
	for (unsigned ms = 0; ms < 3000 && report->pod_open; ms++)
		usleep(1000);
	if (getenv("V"))
		fprintf(stderr, "exact %u wrong %u cut %u reset %u closed %u aborted %u pod eof %u reset %u open %u\n",
			report->exact, report->wrong, report->cut, report->reset, report->closed, report->aborted,
			report->pod_eof, report->pod_reset, report->pod_open);
	assert_int_equal(report->exact, streams);
	assert_int_equal(report->closed, streams);
	assert_int_equal(report->aborted, 0);
	assert_int_equal(report->pod_open, 0);
	assert_int_equal(report->pod_reset, 0);
	for (uint32_t id = 1; id < 16384; id++) {
		struct kvs_unbind_args a = { .splice = id, .force = KVS_UNBIND_FORCE };
		struct kvs_splice sp;

		splice_look(id, &sp);
		a.gen = sp.gen;
		if (sp.state) {
			assert_true(sp.state == KVS_DONE && (sp.flags & KVS_F_ORPHAN));
			assert_int_equal(prog_call(fds.unbind, &a, sizeof(a)), 0);
		}
	}
	conns_collect();
}

/* --- conntrack --- */

/* Packets of this namespace that conntrack could not assign. */
static inline unsigned invalid_packets(void)
{
	FILE *f = fopen("/proc/net/stat/nf_conntrack", "r");
	unsigned n, sum = 0;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) /* the first line has names, which are no numbers */
		if (sscanf(line, "%*x %*x %*x %*x %x", &n) == 1)
			sum += n;
	fclose(f);
	return sum;
}

static inline void invalid_assert_none(const char *after)
{
	unsigned n = invalid_packets();

	if (!n)
		return;
	rows_print();
	fail_msg("conntrack could not assign %u packets; found after: %s", n, after);
}

#endif
