/* SPDX-License-Identifier: Apache-2.0
 *
 *   /sys/fs/bpf/kvsteer/v<ABI>/maps/kvs_pods …
 *                              progs/kvs_pod_ingress …    (…_next while a new generation takes over)
 *                              links/if<ifindex>_ingress …
 *
 * The folder's name is the ABI's version, so pins in it have this build's keys and values or were made by a build that
 * set other sizes or flags. Those are not ours to change: their programs may be at work.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
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

/* The kernel and libbpf round a ring buffer up to a power of two of pages. */
static uint32_t ring_size(uint32_t n)
{
	uint32_t size = (uint32_t)sysconf(_SC_PAGESIZE);

	while (size < n && size < UINT32_C(1) << 31)
		size *= 2;
	return size;
}

int pins_map_fits(int fd, const struct bpf_map *m, char why[DATAPATH_WHY_MAX])
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info), entries = bpf_map__max_entries(m);

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return why_set(why, -errno, "cannot look at the pinned map %s: %s", bpf_map__name(m), strerror(errno));
	if (info.type == BPF_MAP_TYPE_RINGBUF)
		entries = ring_size(entries);
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

static int program_get(const char *dir, enum hook h, const char *suffix, uint32_t *ret_id)
{
	struct bpf_prog_info info = { 0 };
	uint32_t len = sizeof(info);
	char path[PIN_MAX];
	int fd, r;

	snprintf(path, sizeof(path), "%s/progs/%s%s", dir, hook_program(h), suffix);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return -errno;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	*ret_id = info.id;
	return fd;
}

int pins_programs(const char *dir, struct programs *current, struct programs *next)
{
	int found = 0;

	*current = *next = (struct programs){ .fd = { -1, -1 } };
	for (enum hook h = 0; h < HOOKS; h++) {
		current->fd[h] = program_get(dir, h, "", &current->id[h]);
		next->fd[h] = program_get(dir, h, "_next", &next->id[h]);
		found += (current->fd[h] >= 0) + (next->fd[h] >= 0);
	}
	return found;
}

void programs_close(struct programs *p)
{
	for (enum hook h = 0; h < HOOKS; h++) {
		if (p->fd[h] >= 0)
			close(p->fd[h]);
		p->fd[h] = -1;
		p->id[h] = 0;
	}
}

void pins_remove(const char *dir)
{
	static const char *const subdirs[] = { "links", "progs", "maps" };
	char path[PIN_MAX], file[2 * PIN_MAX + 2];

	for (unsigned i = 0; i < sizeof(subdirs) / sizeof(*subdirs); i++) {
		struct dirent *e;
		DIR *d;

		snprintf(path, sizeof(path), "%.200s/%s", dir, subdirs[i]);
		d = opendir(path);
		while (d && (e = readdir(d))) {
			snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
			if (e->d_name[0] != '.')
				unlink(file);
		}
		if (d)
			closedir(d);
		rmdir(path);
	}
	rmdir(dir);
	rmdir(PIN_ROOT);
}
