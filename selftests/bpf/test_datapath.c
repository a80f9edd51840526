/* SPDX-License-Identifier: Apache-2.0
 * The life of the pins and attachments: made, taken over, replaced, refused, removed; and what belongs to others.
 */
#include "env.h"

#include <fcntl.h>
#include <jansson.h>
#include <linux/pkt_cls.h>
#include <net/if.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "datapath/datapath.h"
#include "kvsteer/abi.h"

static char why[DATAPATH_WHY_MAX];

/* A device kvp0 with the pods' networks behind it. */
static int network(void **state)
{
	if (env_missing)
		return 0;
	sh("ip link set lo up && ip link add kvp0 type veth peer name kvp1 && ip link set kvp0 up && ip link set kvp1 "
	   "up && "
	   "ip addr add 10.9.0.1/24 dev kvp0 && ip addr add fd00:9::1/64 dev kvp0 nodad");
	return 0;
}

static int clean(void **state)
{
	struct buf out = { 0 }, err = { 0 };

	if (env_missing)
		return 0;
	bpf_cmd_unload(&out, &err);
	buf_free(&out);
	buf_free(&err);
	sh("ip link del kvp0 2>/dev/null; ip link del kvq.7 2>/dev/null; rm -rf /sys/fs/bpf/other; true");
	return 0;
}

static struct datapath *opened(enum datapath_attach attach)
{
	struct datapath_opts o = { .mode = "relay", .attach = attach };
	struct datapath *dp = datapath_open(&o, why);

	assert_non_null(dp);
	assert_string_equal(why, "");
	assert_true(datapath_kernel(dp));
	return dp;
}

static struct datapath_pod pod(const char *addr)
{
	struct datapath_pod p;

	assert_int_equal(net_addr_parse(str_of(addr), &p.addr), 0);
	return p;
}

static void set_pods(struct datapath *dp, const char *a, const char *b)
{
	struct datapath_pod v[2];
	unsigned n = 0;

	if (a)
		v[n++] = pod(a);
	if (b)
		v[n++] = pod(b);
	if (datapath_set_pods(dp, v, n))
		fail_msg("datapath_set_pods: %s", datapath_why(dp));
}

static uint32_t pinned_id(const char *path, bool map)
{
	struct bpf_map_info m = { 0 };
	struct bpf_prog_info p = { 0 };
	uint32_t len = map ? sizeof(m) : sizeof(p);
	int fd = bpf_obj_get(path);

	if (fd < 0)
		fail_msg("no pin %s", path);
	assert_int_equal(bpf_obj_get_info_by_fd(fd, map ? (void *)&m : (void *)&p, &len), 0);
	close(fd);
	return map ? m.id : p.id;
}

/* The program that a pinned link runs. */
static uint32_t link_program(unsigned ifindex, const char *hook)
{
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = bpf_obj_get(link_pin(ifindex, hook));

	if (fd < 0)
		return 0;
	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	close(fd);
	return info.prog_id;
}

/* A TC program that is not ours and always returns <verdict>. */
static int foreign_program(const char *name, int verdict)
{
	const struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = verdict },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, name, "GPL", code, 2, NULL);

	assert_true(fd >= 0);
	return fd;
}

static void wants_tcx(void)
{
	int fd = foreign_program("probe", TC_ACT_UNSPEC);
	int link = bpf_link_create(fd, (int)if_nametoindex("lo"), (enum bpf_attach_type)46, NULL);

	close(fd);
	if (link < 0) {
		print_message("SKIP: this kernel has no tcx\n");
		skip();
	}
	close(link);
}

/* --- */

static void devices_are_those_of_the_routes_to_the_pods(void **state)
{
	struct datapath *dp;
	unsigned kvp0;

	need_env();
	wants_tcx();
	kvp0 = if_nametoindex("kvp0");
	dp = opened(DATAPATH_ATTACH_AUTO);
	set_pods(dp, NULL, NULL);
	assert_int_equal(link_program(kvp0, "egress"), 0);
	set_pods(dp, "10.9.0.2:8000", "[fd00:9::2]:8000");
	assert_int_equal(link_program(kvp0, "egress"), pinned_id(PINS "/progs/kvs_pod_egress", false));
	assert_int_equal(link_program(kvp0, "ingress"), pinned_id(PINS "/progs/kvs_pod_ingress", false));
	assert_int_equal(link_program(1, "egress"), 0);
	set_pods(dp, "127.0.0.1:8000", NULL);
	assert_int_equal(link_program(kvp0, "egress"), 0);
	assert_int_not_equal(link_program(1, "egress"), 0);
	set_pods(dp, "10.77.0.1:8000", NULL); /* no route: no device, and no error */
	assert_int_equal(link_program(1, "egress"), 0);
	datapath_close(dp, true);
}

static void named_devices_are_used_as_named_dots_included(void **state)
{
	struct datapath_opts o = { .mode = "relay", .devices = "kvq.7, missing0" };
	struct datapath_pod p;
	struct datapath *dp;

	need_env();
	sh("ip link add kvq.7 type veth peer name kvr.7 && ip link set kvq.7 up");
	dp = datapath_open(&o, why);
	assert_string_equal(why, "");
	p = pod("10.9.0.2:8000");
	assert_int_equal(datapath_set_pods(dp, &p, 1), 0);
	assert_non_null(strstr(datapath_why(dp), "missing0"));
	wants_tcx();
	assert_int_not_equal(link_program(if_nametoindex("kvq.7"), "ingress"), 0);
	assert_int_equal(link_program(if_nametoindex("kvp0"), "ingress"), 0);
	datapath_close(dp, true);
}

static void a_restart_takes_over_every_pin_and_the_counts(void **state)
{
	const char *maps[] = { PINS "/maps/kvs_pods", PINS "/maps/kvs_devices", PINS "/maps/kvs_meta" };
	const char *progs[] = { PINS "/progs/kvs_pod_egress", PINS "/progs/kvs_pod_ingress" };
	uint32_t ids[5], prog;
	struct datapath_counts c;
	struct datapath_pod p;
	struct datapath *dp;

	need_env();
	dp = opened(DATAPATH_ATTACH_AUTO);
	set_pods(dp, "127.0.0.1:9", NULL);
	sh("ip route get 127.0.0.1 >/dev/null; timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/9' 2>/dev/null; true");
	p = pod("127.0.0.1:9");
	assert_int_equal(datapath_counts(dp, &p.addr, &c), 0);
	assert_int_equal(c.to_pod.connections, 1);
	for (unsigned i = 0; i < 5; i++)
		ids[i] = i < 3 ? pinned_id(maps[i], true) : pinned_id(progs[i - 3], false);
	prog = link_program(1, "egress");
	datapath_close(dp, false);

	dp = opened(DATAPATH_ATTACH_AUTO);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(ids[i], i < 3 ? pinned_id(maps[i], true) : pinned_id(progs[i - 3], false));
	set_pods(dp, "127.0.0.1:9", NULL);
	assert_int_equal(link_program(1, "egress"), prog);
	assert_int_equal(datapath_counts(dp, &p.addr, &c), 0);
	assert_int_equal(c.to_pod.connections, 1);
	datapath_close(dp, true);
}

static void the_mode_is_a_switch_at_run_time(void **state)
{
	struct datapath_counts c;
	struct datapath_pod p;
	struct datapath *dp;
	uint32_t id;

	need_env();
	wants_tcx();
	p = pod("10.9.0.2:8000");
	dp = opened(DATAPATH_ATTACH_AUTO);
	set_pods(dp, "10.9.0.2:8000", NULL);
	assert_string_equal(datapath_carrier(dp), "relay");
	assert_int_not_equal(access(PINS "/progs/kvs_ingress", F_OK), 0);
	id = pinned_id(PINS "/maps/kvs_pods", true);

	if (datapath_set_mode(dp, "tc"))
		fail_msg("%s", datapath_why(dp));
	assert_string_equal(datapath_carrier(dp), "tc");
	assert_int_equal(link_program(if_nametoindex("kvp0"), "egress"), pinned_id(PINS "/progs/kvs_egress", false));
	assert_int_not_equal(access(PINS "/progs/kvs_pod_ingress", F_OK), 0);
	assert_int_equal(pinned_id(PINS "/maps/kvs_pods", true), id);
	assert_int_equal(datapath_counts(dp, &p.addr, &c), 0);

	assert_int_equal(datapath_set_mode(dp, "relay"), 0);
	assert_string_equal(datapath_carrier(dp), "relay");
	assert_int_equal(datapath_refresh(dp), 0);
	assert_int_equal(access(PINS "/progs/kvs_ingress", F_OK), 0); /* until the next start */
	datapath_close(dp, false);

	dp = opened(DATAPATH_ATTACH_AUTO);
	assert_int_not_equal(access(PINS "/progs/kvs_ingress", F_OK), 0);
	assert_int_not_equal(access(PINS "/maps/kvs_splices", F_OK), 0);
	assert_int_equal(link_program(if_nametoindex("kvp0"), "egress"),
			 pinned_id(PINS "/progs/kvs_pod_egress", false));
	assert_int_equal(pinned_id(PINS "/maps/kvs_pods", true), id);
	datapath_close(dp, true);
}

static void pods_that_leave_lose_their_counts_others_keep_them(void **state)
{
	struct datapath_pod a, b;
	struct datapath_counts c;
	struct datapath *dp;

	need_env();
	a = pod("127.0.0.1:9");
	b = pod("127.0.0.1:10");
	dp = opened(DATAPATH_ATTACH_AUTO);
	set_pods(dp, "127.0.0.1:9", "127.0.0.1:10");
	sh("bash -c 'exec 3<>/dev/tcp/127.0.0.1/9' 2>/dev/null; bash -c 'exec 3<>/dev/tcp/127.0.0.1/10' 2>/dev/null; "
	   "true");
	set_pods(dp, "127.0.0.1:10", "127.0.0.1:10");
	assert_int_equal(datapath_counts(dp, &a.addr, &c), -ENOENT);
	assert_int_equal(datapath_counts(dp, &b.addr, &c), 0);
	assert_int_equal(c.to_pod.connections, 1);
	datapath_close(dp, true);
}

/* The first source to speak after a restart does not know the pods of the others. */
static void a_restart_keeps_the_counts_of_pods_that_are_named_later(void **state)
{
	struct datapath_counts c;
	struct datapath_pod p;
	struct datapath *dp;

	need_env();
	p = pod("127.0.0.1:9");
	dp = opened(DATAPATH_ATTACH_AUTO);
	set_pods(dp, "127.0.0.1:9", "127.0.0.1:10");
	sh("bash -c 'exec 3<>/dev/tcp/127.0.0.1/9' 2>/dev/null; true");
	datapath_close(dp, false);
	dp = opened(DATAPATH_ATTACH_AUTO);
	assert_int_equal(datapath_refresh(dp), 0);
	set_pods(dp, "127.0.0.1:10", NULL);
	set_pods(dp, "127.0.0.1:10", "127.0.0.1:9");
	assert_int_equal(datapath_counts(dp, &p.addr, &c), 0);
	assert_int_equal(c.to_pod.connections, 1);
	datapath_close(dp, true);
}

static unsigned filters(void);

/* As in a rolling upgrade, or for good: each with its own pods, on the same devices; the second with other programs. */
static void two_share(enum datapath_attach attach)
{
	struct datapath_opts o = { .mode = "tc", .attach = attach };
	unsigned kvp0 = if_nametoindex("kvp0");
	struct datapath_counts c;
	struct datapath_pod p;
	struct datapath *a, *b;
	uint32_t id;

	a = opened(attach);
	set_pods(a, "10.9.0.2:8000", "127.0.0.1:9");
	b = datapath_open(&o, why);
	assert_string_equal(why, "");
	set_pods(b, "10.9.0.3:8000", NULL);
	sh("bash -c 'exec 3<>/dev/tcp/127.0.0.1/9' 2>/dev/null; true");
	id = pinned_id(PINS "/progs/kvs_egress", false);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(datapath_refresh(a), 0);
		assert_true(attach == DATAPATH_CLSACT ? filters() == 2 : link_program(kvp0, "egress") == id);
		assert_int_equal(datapath_refresh(b), 0);
		assert_true(attach == DATAPATH_CLSACT ? filters() == 2 : link_program(kvp0, "egress") == id);
	}
	/* Neither the other's pods nor their counts have gone, nor a device that only the other wants. */
	p = pod("127.0.0.1:9");
	assert_int_equal(datapath_counts(b, &p.addr, &c), 0);
	assert_int_equal(c.to_pod.connections, 1);
	set_pods(a, NULL, NULL);
	assert_int_equal(datapath_counts(b, &p.addr, &c), -ENOENT);
	p = pod("10.9.0.3:8000");
	assert_int_equal(datapath_counts(b, &p.addr, &c), 0);
	assert_true(attach == DATAPATH_CLSACT ? filters() == 2 : link_program(kvp0, "egress") == id);
	datapath_close(a, false);
	datapath_close(b, true);
}

static void two_daemons_share_the_pins_with_tcx(void **state)
{
	need_env();
	wants_tcx();
	two_share(DATAPATH_TCX);
}

static void two_daemons_share_the_pins_with_clsact(void **state)
{
	need_env();
	two_share(DATAPATH_CLSACT);
}

/* Their addresses, devices and sockets are not ours. */
static void pins_are_one_network_namespaces_while_its_daemon_lives(void **state)
{
	struct datapath_opts o = { .mode = "tc" };
	struct datapath *a, *b;
	int home;

	need_env();
	a = opened(DATAPATH_ATTACH_AUTO);
	home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_true(home >= 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	b = datapath_open(&o, why);
	assert_non_null(b);
	assert_false(datapath_kernel(b));
	assert_non_null(strstr(why, "another network namespace"));
	assert_int_equal(datapath_refresh(b), 0);
	assert_false(datapath_kernel(b));
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	assert_int_equal(datapath_refresh(a), 0);
	datapath_close(a, false);

	/* When it has gone the other one takes over by itself. */
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(datapath_refresh(b), 0);
	assert_true(datapath_kernel(b));
	assert_string_equal(datapath_carrier(b), "tc");
	datapath_close(b, true);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	close(home);
}

static void more_pods_than_room_is_an_error_that_says_so(void **state)
{
	struct datapath_pod *v = calloc(KVS_MAX_PODS + 1, sizeof(*v));
	struct datapath *dp;

	if (env_missing)
		free(v);
	need_env();
	for (unsigned i = 0; i <= KVS_MAX_PODS; i++) {
		v[i] = pod("127.0.0.1:1");
		net_addr_set_port(&v[i].addr, (uint16_t)(i + 1));
	}
	dp = opened(DATAPATH_ATTACH_AUTO);
	assert_int_equal(datapath_set_pods(dp, v, KVS_MAX_PODS + 1), -E2BIG);
	assert_non_null(strstr(datapath_why(dp), "kvs_pods"));
	assert_int_equal(datapath_set_pods(dp, v, KVS_MAX_PODS), 0);
	assert_int_equal(datapath_set_pods(dp, v + 1, KVS_MAX_PODS), 0); /* one out, one in */
	datapath_close(dp, true);
	free(v);
}

static void a_pinned_map_of_another_build_is_left_alone_and_named(void **state)
{
	LIBBPF_OPTS(bpf_map_create_opts, o, .map_flags = BPF_F_NO_PREALLOC);
	struct datapath_opts opts = { .mode = "relay" };
	struct datapath_pod p;
	struct datapath *dp;
	uint32_t id;
	int fd;

	need_env();
	mkdir("/sys/fs/bpf/kvsteer", 0700);
	mkdir(PINS, 0700);
	mkdir(PINS "/maps", 0700);
	fd = bpf_map_create(BPF_MAP_TYPE_PERCPU_HASH, "kvs_pods", sizeof(struct kvs_pod_key),
			    sizeof(struct kvs_pod_counts), 17, &o);
	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_pin(fd, PINS "/maps/kvs_pods"), 0);
	close(fd);
	id = pinned_id(PINS "/maps/kvs_pods", true);

	dp = datapath_open(&opts, why);
	assert_non_null(dp);
	assert_false(datapath_kernel(dp));
	assert_non_null(strstr(why, "kvs_pods has max_entries 17, this build needs 4096"));
	assert_non_null(strstr(why, "kvsteer bpf unload"));
	p = pod("127.0.0.1:9");
	assert_int_equal(datapath_set_pods(dp, &p, 1), 0);
	datapath_close(dp, true);
	assert_int_equal(pinned_id(PINS "/maps/kvs_pods", true), id);
}

/* Field case B1: the kernel rounds a ring's size up, and another build may have made it smaller; neither stands in the
 * way of the next start. Flags do, and are named. */
static void pins_of_the_splice_are_reused_and_other_flags_are_named(void **state)
{
	struct datapath_opts o = { .mode = "tc" };
	struct datapath *dp;
	uint32_t ring, conns;
	int fd;

	need_env();
	mkdir("/sys/fs/bpf/kvsteer", 0700);
	mkdir(PINS, 0700);
	mkdir(PINS "/maps", 0700);
	fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "kvs_events", 0, 0, 65536, NULL);
	assert_true(fd >= 0 && bpf_obj_pin(fd, PINS "/maps/kvs_events") == 0);
	close(fd);
	ring = pinned_id(PINS "/maps/kvs_events", true);
	for (unsigned i = 0; i < 2; i++) {
		dp = datapath_open(&o, why);
		assert_string_equal(why, "");
		assert_string_equal(datapath_carrier(dp), "tc");
		assert_int_equal(pinned_id(PINS "/maps/kvs_events", true), ring);
		conns = i ? conns : pinned_id(PINS "/maps/kvs_conns", true);
		assert_int_equal(pinned_id(PINS "/maps/kvs_conns", true), conns);
		datapath_close(dp, false);
	}
	unlink(PINS "/maps/kvs_conns");
	fd = bpf_map_create(BPF_MAP_TYPE_HASH, "kvs_conns", sizeof(struct kvs_tuple), sizeof(struct kvs_conn), 64,
			    NULL); /* without BPF_F_NO_PREALLOC */
	assert_true(fd >= 0 && bpf_obj_pin(fd, PINS "/maps/kvs_conns") == 0);
	close(fd);
	dp = datapath_open(&o, why);
	assert_non_null(strstr(why, "kvs_conns has map_flags 0, this build needs 1"));
	assert_string_equal(datapath_carrier(dp), "relay");
	datapath_close(dp, false);
}

static void programs_of_another_generation_are_replaced_in_place(void **state)
{
	struct datapath *dp;
	unsigned kvp0;
	uint32_t old;
	int fd, link;

	need_env();
	wants_tcx();
	kvp0 = if_nametoindex("kvp0");
	dp = opened(DATAPATH_ATTACH_AUTO);
	set_pods(dp, "10.9.0.2:8000", NULL);
	datapath_close(dp, false);
	/* As if the pinned ones had been built from other sources. */
	fd = foreign_program("kvs_pod_egress", TC_ACT_UNSPEC);
	link = bpf_obj_get(link_pin(kvp0, "egress"));
	assert_int_equal(bpf_link_update(link, fd, NULL), 0);
	close(link);
	assert_int_equal(unlink(PINS "/progs/kvs_pod_egress"), 0);
	assert_int_equal(bpf_obj_pin(fd, PINS "/progs/kvs_pod_egress"), 0);
	close(fd);
	old = link_program(kvp0, "egress");

	dp = opened(DATAPATH_ATTACH_AUTO); /* before it knows of any pod */
	assert_int_not_equal(link_program(kvp0, "egress"), old);
	assert_int_equal(link_program(kvp0, "egress"), pinned_id(PINS "/progs/kvs_pod_egress", false));
	assert_int_not_equal(access(PINS "/progs/kvs_pod_egress_next", F_OK), 0);
	datapath_close(dp, true);
}

static void a_device_made_anew_is_attached_again(void **state)
{
	unsigned before, after;
	struct datapath *dp;

	need_env();
	wants_tcx();
	dp = opened(DATAPATH_ATTACH_AUTO);
	set_pods(dp, "10.9.0.2:8000", NULL);
	before = if_nametoindex("kvp0");
	sh("ip link del kvp0");
	assert_int_equal(datapath_refresh(dp), 0);
	network(NULL);
	after = if_nametoindex("kvp0");
	assert_int_equal(datapath_refresh(dp), 0);
	assert_int_not_equal(link_program(after, "egress"), 0);
	assert_true(before == after || link_program(before, "egress") == 0);
	datapath_close(dp, true);
}

/* Another owner's clsact filters of two kinds, tcx link and pins, as text. */
static void foreign_state(char *out, size_t size)
{
	sh_output(out, size,
		  "tc qdisc show dev kvp0 | grep clsact; for h in ingress egress; do tc filter show dev kvp0 $h | "
		  "grep -v -e kvs_pod -e 'pref [2-4] bpf chain 0 $'; done; ls -d /sys/fs/bpf/other/*");
}

static void what_others_own(enum datapath_attach attach)
{
	static char before[8192], during[8192], after[8192];
	LIBBPF_OPTS(bpf_tc_hook, hook, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, o, .handle = 1, .priority = 1);
	struct datapath *dp;
	int fd;

	hook.ifindex = (int)if_nametoindex("kvp0");
	fd = foreign_program("other", TC_ACT_UNSPEC);
	o.prog_fd = fd;
	assert_int_equal(bpf_tc_hook_create(&hook), 0);
	assert_int_equal(bpf_tc_attach(&hook, &o), 0);
	sh("tc filter add dev kvp0 ingress prio 1 u32 match u32 0 0 classid 1:1");
	mkdir("/sys/fs/bpf/other", 0700);
	assert_int_equal(bpf_obj_pin(fd, "/sys/fs/bpf/other/prog"), 0);
	close(fd);
	foreign_state(before, sizeof(before));
	assert_non_null(strstr(before, "u32"));
	assert_non_null(strstr(before, "other"));

	dp = opened(attach);
	set_pods(dp, "10.9.0.2:8000", NULL);
	foreign_state(during, sizeof(during));
	set_pods(dp, NULL, NULL);
	set_pods(dp, "10.9.0.2:8000", NULL);
	datapath_close(dp, true);
	foreign_state(after, sizeof(after));
	assert_string_equal(before, during);
	assert_string_equal(before, after);
	assert_int_not_equal(access("/sys/fs/bpf/kvsteer", F_OK), 0);
}

static void what_others_own_stays_as_it_was_with_tcx(void **state)
{
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd, link;

	need_env();
	wants_tcx();
	fd = foreign_program("other_tcx", TC_ACT_UNSPEC);
	link = bpf_link_create(fd, (int)if_nametoindex("kvp0"), (enum bpf_attach_type)46, NULL);
	close(fd);
	assert_true(link >= 0);
	what_others_own(DATAPATH_TCX);
	assert_int_equal(bpf_obj_get_info_by_fd(link, &info, &len), 0);
	assert_int_equal(info.xdp.ifindex, if_nametoindex("kvp0")); /* still attached: lies at the same place for tcx */
	close(link);
}

static void what_others_own_stays_as_it_was_with_clsact(void **state)
{
	need_env();
	what_others_own(DATAPATH_CLSACT);
}

static void a_tcx_program_that_ends_the_chain_does_not_hide_packets(void **state)
{
	struct datapath_counts c;
	struct datapath_pod p;
	struct datapath *dp;
	int fd, in, out;

	need_env();
	wants_tcx();
	p = pod("127.0.0.1:9");
	fd = foreign_program("ends_it", TC_ACT_OK);
	in = bpf_link_create(fd, 1, (enum bpf_attach_type)46, NULL);
	out = bpf_link_create(fd, 1, (enum bpf_attach_type)47, NULL);
	assert_true(in >= 0 && out >= 0);
	dp = opened(DATAPATH_TCX);
	set_pods(dp, "127.0.0.1:9", NULL);
	sh("bash -c 'exec 3<>/dev/tcp/127.0.0.1/9' 2>/dev/null; true");
	assert_int_equal(datapath_counts(dp, &p.addr, &c), 0);
	assert_int_equal(c.to_pod.connections, 1);
	assert_int_equal(c.from_pod.packets, 1); /* the refusal */
	datapath_close(dp, true);
	close(in);
	close(out);
	close(fd);
}

static unsigned filters(void)
{
	char n[16];

	sh_output(n, sizeof(n), "{ tc filter show dev kvp0 ingress; tc filter show dev kvp0 egress; } | grep -c kvs_");
	return (unsigned)atoi(n);
}

static void clsact_filters_are_found_again_replaced_and_removed(void **state)
{
	struct datapath *dp;

	need_env();
	dp = opened(DATAPATH_CLSACT);
	set_pods(dp, "10.9.0.2:8000", NULL);
	assert_int_equal(filters(), 2);
	datapath_close(dp, false);
	assert_int_equal(filters(), 2);

	dp = opened(DATAPATH_CLSACT);
	set_pods(dp, "10.9.0.2:8000", NULL);
	assert_int_equal(filters(), 2);
	set_pods(dp, NULL, NULL);
	assert_int_equal(filters(), 0);
	set_pods(dp, "10.9.0.2:8000", NULL);
	datapath_close(dp, false);

	/* tcx takes the place of clsact: nothing counts twice. */
	wants_tcx();
	dp = opened(DATAPATH_TCX);
	set_pods(dp, "10.9.0.2:8000", NULL);
	assert_int_equal(filters(), 0);
	assert_int_not_equal(link_program(if_nametoindex("kvp0"), "egress"), 0);
	datapath_close(dp, true);
}

static void without_privileges_there_is_a_reason_and_nothing_else(void **state)
{
	int status;
	pid_t pid;

	need_env();
	pid = fork();
	if (!pid) {
		struct datapath_opts o = { .mode = "auto" };
		struct datapath_pod p;
		struct datapath *dp;
		int r;

		if (setgid(65534) || setuid(65534))
			_exit(9);
		dp = datapath_open(&o, why);
		if (!dp || datapath_kernel(dp) || !why[0] || strcmp(why, datapath_why(dp)) != 0)
			_exit(1);
		p = pod("127.0.0.1:9");
		r = datapath_set_pods(dp, &p, 1) || datapath_refresh(dp);
		datapath_close(dp, true);
		_exit(r ? 2 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void show_dump_and_unload_work_from_the_pins_alone(void **state)
{
	struct buf out = { 0 }, err = { 0 };
	json_t *v, *entry;
	struct datapath *dp;
	char text[4096];

	need_env();
	assert_int_equal(bpf_cmd_show(true, &out, &err), -ENOENT);
	assert_int_equal(buf_len(&out), 0);
	dp = opened(DATAPATH_ATTACH_AUTO);
	set_pods(dp, "10.9.0.2:8000", "[fd00:9::2]:8001");
	datapath_close(dp, false);

	assert_int_equal(bpf_cmd_show(true, &out, &err), 0);
	v = json_loadb(buf_data(&out), buf_len(&out), 0, NULL);
	entry = json_array_get(v, 0);
	assert_int_equal(json_array_size(json_object_get(entry, "programs")), 2);
	assert_int_equal(json_array_size(json_object_get(entry, "links")), 2);
	assert_int_equal(json_array_size(json_object_get(entry, "maps")), 3);
	assert_true(json_integer_value(json_object_get(json_array_get(json_object_get(entry, "programs"), 0),
						       "verified_instructions")) > 0);
	json_decref(v);
	buf_consume(&out, buf_len(&out));

	assert_int_equal(bpf_cmd_dump("pods", true, &out, &err), 0);
	v = json_loadb(buf_data(&out), buf_len(&out), 0, NULL);
	assert_int_equal(json_array_size(v), 2);
	json_decref(v);
	buf_consume(&out, buf_len(&out));
	assert_int_equal(bpf_cmd_dump("kvs_pods", false, &out, &err), 0);
	buf_put(&out, "", 1);
	assert_non_null(strstr(buf_data(&out), "addr=10.9.0.2 port=8000 to_pod.bytes=0"));
	assert_non_null(strstr(buf_data(&out), "addr=fd00:9::2 port=8001"));
	assert_int_equal(bpf_cmd_dump("nothing", false, &out, &err), -ENOENT);
	assert_int_equal(bpf_cmd_dump("../progs/kvs_pod_egress", false, &out, &err), -ENOENT);

	sh_output(text, sizeof(text), "bpftool map dump pinned " PINS "/maps/kvs_pods 2>&1");
	if (strstr(text, "key")) /* readable for bpftool as well, where it is there */
		assert_true(strstr(text, "to_pod") && strstr(text, "connections") && strstr(text, "\"port\": 8000"));

	buf_consume(&out, buf_len(&out));
	assert_int_equal(bpf_cmd_unload(&out, &err), 0);
	assert_int_not_equal(access("/sys/fs/bpf/kvsteer", F_OK), 0);
	assert_int_equal(bpf_cmd_unload(&out, &err), -ENOENT);
	buf_free(&out);
	buf_free(&err);
}

static int enter(void **state)
{
	env_enter();
	return 0;
}

#define story(f) cmocka_unit_test_setup_teardown(f, network, clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		story(devices_are_those_of_the_routes_to_the_pods),
		story(named_devices_are_used_as_named_dots_included),
		story(a_restart_takes_over_every_pin_and_the_counts),
		story(the_mode_is_a_switch_at_run_time),
		story(pods_that_leave_lose_their_counts_others_keep_them),
		story(a_restart_keeps_the_counts_of_pods_that_are_named_later),
		story(two_daemons_share_the_pins_with_tcx),
		story(two_daemons_share_the_pins_with_clsact),
		story(pins_are_one_network_namespaces_while_its_daemon_lives),
		story(more_pods_than_room_is_an_error_that_says_so),
		story(a_pinned_map_of_another_build_is_left_alone_and_named),
		story(pins_of_the_splice_are_reused_and_other_flags_are_named),
		story(programs_of_another_generation_are_replaced_in_place),
		story(a_device_made_anew_is_attached_again),
		story(what_others_own_stays_as_it_was_with_tcx),
		story(what_others_own_stays_as_it_was_with_clsact),
		story(a_tcx_program_that_ends_the_chain_does_not_hide_packets),
		story(clsact_filters_are_found_again_replaced_and_removed),
		story(without_privileges_there_is_a_reason_and_nothing_else),
		story(show_dump_and_unload_work_from_the_pins_alone),
	};

	return cmocka_run_group_tests(tests, enter, NULL);
}
