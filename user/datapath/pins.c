/* SPDX-License-Identifier: Apache-2.0
 *
 *   /sys/fs/bpf/kvsteer/v<ABI>/maps/kvs_pods …
 *                              progs/kvs_ingress …        (…_next while a new generation takes over)
 *                              links/n<namespace>_if<ifindex>_ingress …
 *
 * The folder's name is the ABI's version, so pins in it have this build's keys and values or were made by a build that
 * set other sizes or flags. Those are not ours to change: their programs may be at work.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "datapath/datapath_int.h"

static char said[256];

static int keep_first(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	size_t n;

	if (level != LIBBPF_WARN || said[0])
		return 0;
	vsnprintf(said, sizeof(said), fmt, ap);
	if (strncmp(said, "libbpf: ", 8) == 0)
		memmove(said, said + 8, strlen(said + 8) + 1);
	n = strcspn(said, "\n");
	said[n] = '\0';
	return 0;
}

void pins_listen(void)
{
	said[0] = '\0';
	libbpf_set_print(keep_first);
}

const char *pins_said(void)
{
	return said;
}

int why_set(char why[DATAPATH_WHY_MAX], int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, DATAPATH_WHY_MAX, fmt, ap);
	va_end(ap);
	return r;
}

int pins_prepare(char why[DATAPATH_WHY_MAX])
{
	static const char *const dirs[] = { PIN_ROOT, PIN_DIR, PIN_DIR "/maps", PIN_DIR "/progs", PIN_DIR "/links" };
	struct statfs fs;

	if (statfs(BPFFS, &fs) < 0)
		return why_set(why, -errno, "no %s: %s; this kernel has no BPF, or /sys is not mounted", BPFFS,
			       strerror(errno));
	if ((unsigned long)fs.f_type != BPF_FS_MAGIC && mount("bpf", BPFFS, "bpf", 0, "mode=0700") < 0)
		return why_set(why, -errno,
			       "no bpf file system at %s and mounting one failed: %s; run as root: mount "
			       "-t bpf bpf %s",
			       BPFFS, strerror(errno), BPFFS);
	for (unsigned i = 0; i < sizeof(dirs) / sizeof(*dirs); i++)
		if (mkdir(dirs[i], 0700) < 0 && errno != EEXIST)
			return why_set(why, -errno,
				       "cannot make %s: %s; kvsteerd needs root, or CAP_BPF, "
				       "CAP_NET_ADMIN and the right to write there",
				       dirs[i], strerror(errno));
	return 0;
}

int pins_lock(bool wait)
{
	int fd = open(PIN_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* The kernel and libbpf round a ring buffer up to a power of two of pages. */
static uint32_t ring_size(uint32_t n)
{
	uint32_t size = (uint32_t)sysconf(_SC_PAGESIZE);

	while (size < n && size < UINT32_C(1) << 31)
		size *= 2;
	return size;
}

#define SIZE_TOP (1U << 24)

static bool is_sizable(const char *map)
{
	static const char *const those[] = { "kvs_conns",  "kvs_syns",	 "kvs_splices",	  "kvs_tails",
					     "kvs_stores", "kvs_events", "kvs_store_free" };

	for (unsigned i = 0; i < sizeof(those) / sizeof(*those); i++)
		if (strcmp(map, those[i]) == 0)
			return true;
	return false;
}

int pins_map_fits(int fd, struct bpf_map *m, char why[DATAPATH_WHY_MAX])
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info), entries = bpf_map__max_entries(m);

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return why_set(why, -errno, "cannot look at the pinned map %s: %s", bpf_map__name(m), strerror(errno));
	if (info.type == BPF_MAP_TYPE_RINGBUF)
		entries = ring_size(entries);
	if (is_sizable(bpf_map__name(m)) && info.max_entries && info.max_entries <= SIZE_TOP) {
		entries = info.max_entries;
		bpf_map__set_max_entries(m, entries);
	}
	const struct {
		const char *name;
		uint32_t pinned, wanted;
	} attr[] = {
		{ "type", info.type, bpf_map__type(m) },
		{ "key_size", info.key_size, bpf_map__key_size(m) },
		{ "value_size", info.value_size, bpf_map__value_size(m) },
		{ "max_entries", info.max_entries, entries },
		{ "map_flags", info.map_flags, bpf_map__map_flags(m) },
	};

	for (unsigned i = 0; i < sizeof(attr) / sizeof(*attr); i++)
		if (attr[i].pinned != attr[i].wanted)
			return why_set(why, -EEXIST,
				       "pinned map %s/maps/%s has %s %u, this build needs %u: another build made it "
				       "and its programs may be at work; remove them with: kvsteer bpf unload",
				       PIN_DIR, bpf_map__name(m), attr[i].name, attr[i].pinned, attr[i].wanted);
	return 0;
}

static const char *const names[SETS][PROGRAMS] = {
	[SET_COUNT] = { "kvs_pod_ingress", "kvs_pod_egress" },
	[SET_SPLICE] = { "kvs_ingress", "kvs_egress",
#define X(name) [HOOKS + CALL_##name] = ("kvs_" #name),
			 CALLS_LIST(X)
#undef X
	},
};

const char *program_name(enum set set, unsigned i)
{
	return names[set][i];
}

void programs_init(struct programs *p, enum set set)
{
	*p = (struct programs){ .set = set };
	for (unsigned i = 0; i < PROGRAMS; i++)
		p->fd[i] = -1;
}

static uint32_t program_id(int fd)
{
	struct bpf_prog_info info = { 0 };
	uint32_t len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) < 0 ? 0 : info.id;
}

int pins_programs(const char *dir, enum set set, struct programs *ret)
{
	char path[PIN_MAX];

	programs_init(ret, set);
	for (unsigned i = 0; i < PROGRAMS && names[set][i]; i++) {
		snprintf(path, sizeof(path), "%.200s/progs/%s", dir, names[set][i]);
		ret->fd[i] = bpf_obj_get(path);
		if (ret->fd[i] < 0) {
			programs_close(ret);
			return -ENOENT;
		}
		ret->id[i] = program_id(ret->fd[i]);
	}
	return 0;
}

void programs_close(struct programs *p)
{
	for (unsigned i = 0; i < PROGRAMS; i++)
		if (p->fd[i] >= 0)
			close(p->fd[i]);
	programs_init(p, p->set);
}

void programs_follow(struct datapath *dp)
{
	struct programs p;
	bool there = false, same = true;

	for (enum set set = 0; set < SETS && !there; set++)
		there = pins_programs(PIN_DIR, set, &p) == 0;
	if (!there)
		return;
	for (enum hook h = 0; h < HOOKS; h++) {
		same &= p.id[h] == dp->progs.id[h];
		if (p.id[h] != dp->progs.id[h]) {
			close(dp->progs.fd[h]);
			dp->progs.fd[h] = p.fd[h];
			dp->progs.id[h] = p.id[h];
			p.fd[h] = -1;
		}
	}
	programs_close(&p);
	if (!same) /* what is called stays: its own maps are those of the new ones */
		pins_ours(PIN_DIR, &dp->ours);
}

void pins_ours(const char *dir, struct ours *ret)
{
	char path[PIN_MAX], file[2 * PIN_MAX + 2];
	struct dirent *e;
	DIR *d;

	ret->n = 0;
	snprintf(path, sizeof(path), "%.200s/progs", dir);
	d = opendir(path);
	while (d && (e = readdir(d)) && ret->n < OURS_MAX) {
		int fd;

		snprintf(file, sizeof(file), "%.200s/progs/%.200s", dir, e->d_name);
		fd = e->d_name[0] == '.' ? -1 : bpf_obj_get(file);
		if (fd < 0)
			continue;
		ret->id[ret->n] = program_id(fd);
		ret->n += ret->id[ret->n] != 0;
		close(fd);
	}
	if (d)
		closedir(d);
}

bool is_ours(const struct ours *o, uint32_t id)
{
	for (unsigned i = 0; i < o->n; i++)
		if (o->id[i] == id)
			return true;
	return false;
}

int pins_map(const char *dir, const char *name)
{
	char path[PIN_MAX];
	int fd;

	snprintf(path, sizeof(path), "%.200s/maps/%.40s", dir, name);
	fd = bpf_obj_get(path);
	return fd < 0 ? -errno : fd;
}

bool pins_in_use(const char *dir)
{
	int fd = pins_map(dir, "kvs_conns");
	struct kvs_tuple key;
	bool any;

	if (fd < 0)
		return false;
	any = bpf_map_get_next_key(fd, NULL, &key) == 0;
	close(fd);
	return any;
}

void pins_remove(const char *dir)
{
	static const char *const subdirs[] = { "links", "progs", "maps", "owners", "ring" };
	char path[PIN_MAX], file[2 * PIN_MAX + 2];

	for (unsigned i = 0; i < sizeof(subdirs) / sizeof(*subdirs); i++) {
		struct dirent *e;
		DIR *d;

		snprintf(path, sizeof(path), "%.200s/%s", dir, subdirs[i]);
		d = opendir(path);
		while (d && (e = readdir(d))) {
			snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
			if (e->d_name[0] != '.' && unlink(file) < 0)
				owner_remove(file);
		}
		if (d)
			closedir(d);
		rmdir(path);
	}
	rmdir(dir);
	rmdir(PIN_ROOT);
}
