/* SPDX-License-Identifier: Apache-2.0
 *
 * Load, or take over. The maps that are pinned are used if their attributes are this build's; the rest is made and
 * pinned. The programs are then loaded against those maps. Programs that count stay where they are if those that are
 * pinned are equal by tag, the kernel's hash of the instructions; all others, and those of another set, are replaced in
 * place, so that no packet is missed:
 *
 *   pin new as NAME_next → every link and filter switched to it → rename NAME_next to NAME → unpin those left over
 *
 * A crash on the way leaves both pinned, and both count as ours at the next start. The splice's programs are replaced
 * each time, since their tables are not part of the tag; what they know is in the maps.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/rand.h"
#include "bpf/pod_tc.skel.h"
#include "bpf/splice_tc.skel.h"
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

static bool in_set(enum set set, const char *name)
{
	for (unsigned i = 0; i < PROGRAMS && program_name(set, i); i++)
		if (strcmp(program_name(set, i), name) == 0)
			return true;
	return false;
}

/* Pins of another generation or set, which nothing is attached to any more. */
static void programs_unpin_others(enum set set)
{
	char path[PIN_MAX];
	struct dirent *e;
	DIR *d = opendir(PIN_DIR "/progs");

	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), PIN_DIR "/progs/%.100s", e->d_name);
		if (e->d_name[0] != '.' && !in_set(set, e->d_name))
			unlink(path);
	}
	if (d)
		closedir(d);
}

/* Put the new programs in the place of all that are pinned. */
static int programs_replace(const struct programs *fresh, char why[DATAPATH_WHY_MAX])
{
	struct device *devs = NULL;
	enum datapath_attach how;
	char from[PIN_MAX], to[PIN_MAX];
	struct ours ours;
	unsigned n = 0;
	const char *name;

	for (unsigned i = 0; i < PROGRAMS && (name = program_name(fresh->set, i)); i++) {
		snprintf(from, sizeof(from), PIN_DIR "/progs/%s_next", name);
		/* What a crash has left behind may be attached: it stays ours under another name. */
		snprintf(to, sizeof(to), PIN_DIR "/progs/%s_left", name);
		if (access(from, F_OK) == 0)
			rename(from, to);
		if (bpf_obj_pin(fresh->fd[i], from) < 0)
			return why_set(why, -errno, "cannot pin %s: %s", from, strerror(errno));
	}
	pins_ours(PIN_DIR, &ours);
	if (attached_devices(PIN_DIR, &ours, &devs, &n) == 0)
		for (unsigned i = 0; i < n; i++) /* one that fails is seen when the set of devices is made */
			attach_device(fresh, &ours, devs[i].ifindex, devs[i].how, &how);
	free(devs);
	for (unsigned i = 0; i < PROGRAMS && (name = program_name(fresh->set, i)); i++) {
		snprintf(from, sizeof(from), PIN_DIR "/progs/%s_next", name);
		snprintf(to, sizeof(to), PIN_DIR "/progs/%s", name);
		if (rename(from, to) < 0)
			return why_set(why, -errno, "cannot rename %s: %s", from, strerror(errno));
	}
	programs_unpin_others(fresh->set);
	return 0;
}

static int programs_take(struct bpf_object *obj, struct programs *fresh)
{
	const char *name;

	for (unsigned i = 0; i < PROGRAMS && (name = program_name(fresh->set, i)); i++) {
		struct bpf_program *p = bpf_object__find_program_by_name(obj, name);
		struct bpf_prog_info info;
		int r;

		fresh->fd[i] = p ? dup_cloexec(bpf_program__fd(p)) : -1;
		r = fresh->fd[i] < 0 ? -ENOENT : program_info(fresh->fd[i], &info);
		if (r)
			return r;
		fresh->id[i] = info.id;
	}
	return 0;
}

/* Are the pinned programs those that have been loaded, and the only ones? */
static bool programs_same(const struct programs *a, const struct programs *b)
{
	struct bpf_prog_info x, y;
	struct ours ours;

	if (a->set != SET_COUNT)
		return false;
	pins_ours(PIN_DIR, &ours);
	if (ours.n != HOOKS)
		return false;
	for (unsigned i = 0; i < HOOKS; i++)
		if (program_info(a->fd[i], &x) || program_info(b->fd[i], &y) ||
		    memcmp(x.tag, y.tag, sizeof(x.tag)) != 0)
			return false;
	return true;
}

static int programs_settle(struct datapath *dp, struct bpf_object *obj, enum set set)
{
	struct programs fresh, pinned;
	int r;

	programs_init(&fresh, set);
	r = programs_take(obj, &fresh);
	if (r) {
		programs_close(&fresh);
		return why_set(dp->why, r, "cannot look at the loaded programs: %s", strerror(-r));
	}
	if (pins_programs(PIN_DIR, set, &pinned) == 0 && programs_same(&fresh, &pinned)) {
		programs_close(&fresh);
		fresh = pinned;
		programs_init(&pinned, set);
	} else {
		r = programs_replace(&fresh, dp->why);
	}
	programs_close(&pinned);
	if (r) {
		programs_close(&fresh);
		return r;
	}
	programs_close(&dp->progs);
	dp->progs = fresh;
	pins_ours(PIN_DIR, &dp->ours);
	return 0;
}

static void meta_write(int fd)
{
	struct kvs_meta meta = { .abi = KVS_ABI, .made_at = (uint64_t)time(NULL) };
	uint32_t zero = 0;

	snprintf(meta.version, sizeof(meta.version), "%s", KVS_VERSION);
	bpf_map_update_elem(fd, &zero, &meta, BPF_ANY);
}

/* Of another set, whose programs are gone: memory for nobody. */
static void maps_unpin_others(struct bpf_object *obj)
{
	char path[PIN_MAX];
	struct dirent *e;
	DIR *d = opendir(PIN_DIR "/maps");

	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), PIN_DIR "/maps/%.100s", e->d_name);
		if (e->d_name[0] != '.' && !bpf_object__find_map_by_name(obj, e->d_name))
			unlink(path);
	}
	if (d)
		closedir(d);
}

static const char *const map_names[MAPS] = {
#define X(name) [MAP_##name] = "kvs_" #name,
	MAPS_LIST(X)
#undef X
};

static int map_take(struct bpf_object *obj, const char *name, int *fd)
{
	int found = bpf_object__find_map_fd_by_name(obj, name);

	if (*fd >= 0)
		close(*fd);
	*fd = found < 0 ? -1 : dup_cloexec(found);
	return *fd < 0 ? -ENOENT : 0;
}

static int maps_take(struct datapath *dp, struct bpf_object *obj, enum set set)
{
	int r = map_take(obj, "kvs_pods", &dp->pods_fd), meta = bpf_object__find_map_fd_by_name(obj, "kvs_meta");

	r = r ? r : map_take(obj, "kvs_devices", &dp->devices_fd);
	for (unsigned i = 0; i < MAPS && set == SET_SPLICE && !r; i++)
		r = map_take(obj, map_names[i], &dp->map[i]);
	if (r)
		return why_set(dp->why, r, "no descriptors left for the maps");
	meta_write(meta);
	return 0;
}

#define CONNS_PER_SPLICE (KVS_MAX_CONNS / KVS_MAX_SPLICES)

/* As the configuration says, for maps that are not pinned yet. */
static void maps_size(struct bpf_object *obj, uint32_t splices)
{
	const struct {
		const char *name;
		uint32_t n;
	} sizes[] = {
		{ "kvs_splices", splices + 1 },
		{ "kvs_conns", splices * CONNS_PER_SPLICE },
		{ "kvs_tails", splices + 1 < KVS_TAILS ? splices + 1 : KVS_TAILS },
	};

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct bpf_map *m = bpf_object__find_map_by_name(obj, sizes[i].name);

		if (m)
			bpf_map__set_max_entries(m, sizes[i].n);
	}
}

int kernel_enter(struct datapath *dp)
{
	int lock, fd;

	pins_listen();
	fd = pins_prepare(dp->why);
	if (fd)
		return fd;
	lock = pins_lock(true);
	if (lock < 0)
		return why_set(dp->why, lock, "cannot lock %s: %s", PIN_DIR, strerror(-lock));
	if (dp->owner_fd >= 0)
		return lock;
	dp->away = owner_others(PIN_DIR, 0) & OWNERS_AWAY;
	do
		dp->owner = rand_secret();
	while (!dp->owner);
	fd = dp->away ? -EBUSY : owner_open(dp->owner);
	if (fd >= 0) {
		dp->owner_fd = fd;
		return lock;
	}
	close(lock);
	return why_set(dp->why, fd,
		       dp->away ? "a kvsteerd in another network namespace uses %s: each namespace needs a bpf file "
				  "system of its own at " BPFFS
				: "cannot make a folder in %s/owners: %s",
		       PIN_DIR, strerror(-fd));
}

int kernel_load(struct datapath *dp, enum set set)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "kvsteer");
	struct bpf_object *obj;
	const void *elf;
	size_t size;
	int r;

	pins_listen();
	elf = set == SET_SPLICE ? splice_tc__elf_bytes(&size) : pod_tc__elf_bytes(&size);
	obj = bpf_object__open_mem(elf, size, &opts);
	if (!obj)
		return why_set(dp->why, -errno, "the BPF object cannot be opened: %s", pins_said());
	if (dp->splices)
		maps_size(obj, dp->splices);
	r = maps_reuse(obj, dp->why);
	if (r)
		goto out;
	r = bpf_object__load(obj);
	if (r) {
		why_set(dp->why, r, "the kernel refuses the BPF programs: %s",
			pins_said()[0] ? pins_said() : strerror(-r));
		goto out;
	}
	r = maps_pin(obj, dp->why);
	r = r ? r : programs_settle(dp, obj, set);
	r = r ? r : maps_take(dp, obj, set);
	if (!r)
		maps_unpin_others(obj);
out:
	bpf_object__close(obj);
	return r;
}
