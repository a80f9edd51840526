/* SPDX-License-Identifier: Apache-2.0
 * A new version of the maps and programs beside an old one whose streams have not ended: splice_proxy.h with the
 * programs of the old version, which dies, and then a gateway on datapath.h.
 */
#include "carrier_gateway.h"
#include "splice_net.h"
#include "splice_proxy.h"

#include <net/if.h>

#include "bpf/older.skel.h"

#define OLD_PINS "/sys/fs/bpf/kvsteer/v14"

static struct older *old;

/* As a daemon of that version has left it: maps, programs and links pinned, clients expected. */
static void old_version_make(void)
{
	const struct kvs_pod_key any = { .port = GW_PORT };
	const uint32_t one = 1;
	const char *devs[] = { "kvc0", "kvp0" };
	struct bpf_map *m;

	old = older__open_and_load();
	assert_non_null(old);
	sh("mkdir -p " OLD_PINS "/maps " OLD_PINS "/progs " OLD_PINS "/links " OLD_PINS "/owners");
	bpf_object__for_each_map(m, old->obj)
	{
		char path[160];

		snprintf(path, sizeof(path), OLD_PINS "/maps/%s", bpf_map__name(m));
		assert_true(bpf_map__is_internal(m) || bpf_obj_pin(bpf_map__fd(m), path) == 0);
	}
	assert_int_equal(bpf_obj_pin(bpf_program__fd(old->progs.kvs_ingress), OLD_PINS "/progs/kvs_ingress"), 0);
	assert_int_equal(bpf_obj_pin(bpf_program__fd(old->progs.kvs_egress), OLD_PINS "/progs/kvs_egress"), 0);
	for (unsigned i = 0; i < 4; i++) {
		unsigned ifindex = if_nametoindex(devs[i / 2]);
		int prog = bpf_program__fd(i % 2 ? old->progs.kvs_egress : old->progs.kvs_ingress), link;
		char path[256];

		link = bpf_link_create(prog, (int)ifindex, (enum bpf_attach_type)(46 + i % 2), NULL);
		if (link < 0) {
			print_message("SKIP: this kernel has no tcx\n");
			skip();
		}
		snprintf(path, sizeof(path), OLD_PINS "/links/%s",
			 strrchr(link_pin(ifindex, i % 2 ? "egress" : "ingress"), '/') + 1);
		assert_int_equal(bpf_obj_pin(link, path), 0);
		close(link);
	}
	bpf_map_update_elem(bpf_map__fd(old->maps.kvs_listeners), &any, &one, BPF_ANY);
	fds = (struct fds){
		.conn_add = bpf_program__fd(old->progs.kvs_conn_add),
		.conn_close = bpf_program__fd(old->progs.kvs_conn_close),
		.bind = bpf_program__fd(old->progs.kvs_bind),
		.arm = bpf_program__fd(old->progs.kvs_arm),
		.closing = bpf_program__fd(old->progs.kvs_closing),
		.unbind = bpf_program__fd(old->progs.kvs_unbind),
		.splices = bpf_map__fd(old->maps.kvs_splices),
		.dials = bpf_map__fd(old->maps.kvs_dials),
	};
}

static void nothing_to_show(void)
{
}

static void a_new_version_lives_beside_the_old_one_until_its_streams_end(void **state)
{
	static const struct datapath_opts o = { .mode = "tc", .orphan_ns = NS_PER_S };
	const struct job j = { .family = AF_INET,
			       .streams = 12,
			       .requests = 1,
			       .framings = ALL,
			       .size = 100000,
			       .chunk = 250,
			       .gap_us = 4000,
			       .pipeline = 20 };
	const struct job k = { .family = AF_INET,
			       .streams = 4,
			       .requests = 6,
			       .framings = ALL,
			       .size = 20000,
			       .chunk = 250,
			       .gap_us = 300 };
	pid_t proxy_pid, gateway, streams;
	unsigned arms;
	int l;

	need_env();
	old_version_make();
	l = proxy_listen();
	proxy_pid = fork();
	if (!proxy_pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		proxy_run(l);
	}
	close(l);
	streams = job_start(&j);
	for (unsigned ms = 0; ms < 5000 && report->arms < 12; ms++)
		usleep(1000);
	usleep(50000);
	arms = report->arms;
	kill(proxy_pid, SIGKILL);
	waitpid(proxy_pid, NULL, 0);
	assert_int_equal(arms, 12);

	gateway = fork();
	if (!gateway)
		gateway_run(&o);
	for (unsigned ms = 0; !gw->ready && ms < 5000; ms += 5)
		usleep(5000);
	usleep(300000); /* clients' devices come a moment later */
	job_end(job_start(&k), 20, nothing_to_show);
	assert_int_equal(report->exact, 24); /* those of the old version are not through yet */
	assert_true(report->spliced >= 22);
	job_end(streams, 20, nothing_to_show);
	if (report->exact != 36 || report->closed < 12 || report->aborted)
		fail_msg("%u exact of 36, %u wrong, %u cut, %u reset; %u closed, %u aborted", report->exact,
			 report->wrong, report->cut, report->reset, report->closed, report->aborted);
	/* Nothing uses it any more. */
	for (unsigned ms = 0; ms < 8000 && access(OLD_PINS, F_OK) == 0; ms += 50)
		usleep(50000);
	assert_int_not_equal(access(OLD_PINS, F_OK), 0);
	assert_int_equal(access(PINS "/maps/kvs_splices", F_OK), 0);
	kill(gateway, SIGKILL);
	waitpid(gateway, NULL, 0);
}

static int setup(void **state)
{
	env_enter();
	if (env_missing)
		return 0;
	net_setup();
	gw = shared(sizeof(*gw));
	return 0;
}

static int teardown(void **state)
{
	older__destroy(old);
	if (!env_missing)
		net_teardown();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_version_lives_beside_the_old_one_until_its_streams_end),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
