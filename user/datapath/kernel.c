/* SPDX-License-Identifier: Apache-2.0
 *
 * Load, or take over. The maps that are pinned are used if their attributes are this build's; the rest is made and
 * pinned. The programs are then loaded against those maps, and compared with the pinned ones by tag, the kernel's hash
 * of the instructions: equal ones stay where they are. Different ones are replaced in place, so that no packet is
 * missed:
 *
 *   pin new as NAME_next → every link and filter switched to it → rename NAME_next to NAME
 *
 * A crash on the way leaves both pinned, and both count as ours at the next start.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bpf/pod_tc.skel.h"
#include "datapath/datapath_int.h"

static int dup_cloexec(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int maps_reuse(struct bpf_object *obj, char why[DATAPATH_WHY_MAX])
{
	struct bpf_map *m;

	bpf_object__for_each_map(m, obj)
	{
		char path[PIN_MAX];
		int fd, r;

		if (bpf_map__is_internal(m))
			continue;
		snprintf(path, sizeof(path), PIN_DIR "/maps/%s", bpf_map__name(m));
		fd = bpf_obj_get(path);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return why_set(why, -errno, "cannot open the pinned map %s: %s", path, strerror(errno));
		r = pins_map_fits(fd, m, why);
		if (!r) {
			r = bpf_map__reuse_fd(m, fd);
			if (r)
				why_set(why, r, "cannot use the pinned map %s: %s", path, strerror(-r));
		}
		close(fd);
		if (r)
			return r;
	}
	return 0;
}

static int maps_pin(struct bpf_object *obj, char why[DATAPATH_WHY_MAX])
{
	struct bpf_map *m;

	bpf_object__for_each_map(m, obj)
	{
		char path[PIN_MAX];

		if (bpf_map__is_internal(m))
			continue;
		snprintf(path, sizeof(path), PIN_DIR "/maps/%s", bpf_map__name(m));
		if (access(path, F_OK) != 0 && bpf_obj_pin(bpf_map__fd(m), path) < 0)
			return why_set(why, -errno, "cannot pin %s: %s", path, strerror(errno));
	}
	return 0;
}

static int program_info(int fd, struct bpf_prog_info *ret)
{
	uint32_t len = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	return bpf_obj_get_info_by_fd(fd, ret, &len) < 0 ? -errno : 0;
}

/* Put the new programs in the place of <current>. */
static int programs_replace(const struct programs *fresh, const struct programs *current, char why[DATAPATH_WHY_MAX])
{
	struct device *devs = NULL;
	enum datapath_attach how;
	char from[PIN_MAX], to[PIN_MAX];
	unsigned n = 0;

	for (enum hook h = 0; h < HOOKS; h++) {
		snprintf(from, sizeof(from), PIN_DIR "/progs/%s_next", hook_program(h));
		unlink(from);
		if (bpf_obj_pin(fresh->fd[h], from) < 0)
			return why_set(why, -errno, "cannot pin %s: %s", from, strerror(errno));
	}
	if (attached_devices(PIN_DIR, fresh, current, &devs, &n) == 0)
		for (unsigned i = 0; i < n; i++) /* one that fails is seen when the set of devices is made */
			attach_device(fresh, current, devs[i].ifindex, devs[i].how, &how);
	free(devs);
	for (enum hook h = 0; h < HOOKS; h++) {
		snprintf(from, sizeof(from), PIN_DIR "/progs/%s_next", hook_program(h));
		snprintf(to, sizeof(to), PIN_DIR "/progs/%s", hook_program(h));
		if (rename(from, to) < 0)
			return why_set(why, -errno, "cannot rename %s: %s", from, strerror(errno));
	}
	return 0;
}

static int programs_settle(struct datapath *dp, const struct pod_tc *skel)
{
	const struct bpf_program *const ours[HOOKS] = {
		[HOOK_INGRESS] = skel->progs.kvs_pod_ingress, [HOOK_EGRESS] = skel->progs.kvs_pod_egress
	};
	struct programs current, next, fresh = { .fd = { -1, -1 } };
	struct bpf_prog_info a = { 0 }, b;
	bool same = true;
	int r = 0;

	pins_programs(PIN_DIR, &current, &next);
	for (enum hook h = 0; h < HOOKS && !r; h++) {
		fresh.fd[h] = dup_cloexec(bpf_program__fd(ours[h]));
		r = fresh.fd[h] < 0 ? -errno : program_info(fresh.fd[h], &a);
		fresh.id[h] = a.id;
		same = !r && same && current.fd[h] >= 0 && next.fd[h] < 0 && program_info(current.fd[h], &b) == 0 &&
		       memcmp(a.tag, b.tag, sizeof(a.tag)) == 0;
	}
	if (r) {
		why_set(dp->why, r, "cannot look at the loaded programs: %s", strerror(-r));
	} else if (same) {
		dp->progs = current;
		current = (struct programs){ .fd = { -1, -1 } };
	} else {
		/* After a crash in mid-switch attachments may carry either generation. */
		r = programs_replace(&fresh, &current, dp->why);
		if (!r && next.fd[0] >= 0)
			r = programs_replace(&fresh, &next, dp->why);
		if (!r) {
			dp->progs = fresh;
			fresh = (struct programs){ .fd = { -1, -1 } };
		}
	}
	programs_close(&current);
	programs_close(&next);
	programs_close(&fresh);
	return r;
}

static void meta_write(int fd)
{
	struct kvs_meta meta = { .abi = KVS_ABI, .made_at = (uint64_t)time(NULL) };
	uint32_t zero = 0;

	snprintf(meta.version, sizeof(meta.version), "%s", KVS_VERSION);
	bpf_map_update_elem(fd, &zero, &meta, BPF_ANY);
}

int kernel_load(struct datapath *dp)
{
	struct pod_tc *skel;
	int r;

	pins_listen();
	r = pins_prepare(dp->why);
	if (r)
		return r;
	skel = pod_tc__open();
	if (!skel)
		return why_set(dp->why, -errno, "the BPF object cannot be opened: %s", pins_said());
	r = maps_reuse(skel->obj, dp->why);
	if (r)
		goto out;
	r = pod_tc__load(skel);
	if (r) {
		why_set(dp->why, r, "the kernel refuses the BPF programs: %s",
			pins_said()[0] ? pins_said() : strerror(-r));
		goto out;
	}
	r = maps_pin(skel->obj, dp->why);
	if (!r)
		r = programs_settle(dp, skel);
	if (r)
		goto out;
	dp->pods_fd = dup_cloexec(bpf_map__fd(skel->maps.kvs_pods));
	dp->devices_fd = dup_cloexec(bpf_map__fd(skel->maps.kvs_devices));
	meta_write(bpf_map__fd(skel->maps.kvs_meta));
	if (dp->pods_fd < 0 || dp->devices_fd < 0)
		r = why_set(dp->why, -EMFILE, "no descriptors left for the maps");
out:
	pod_tc__destroy(skel);
	return r;
}
