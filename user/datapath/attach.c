/* SPDX-License-Identifier: Apache-2.0
 *
 * Two ways to a device. tcx: a link, pinned, so that it outlives the process; ours is put at the head of the chain,
 * before programs that end it, and it ends it for nobody. clsact, where the kernel has no tcx: a filter of the qdisc,
 * which outlives the process by itself. What makes a filter ours is that its program is one of our pinned ones; a
 * filter of somebody else at our priority makes us take the next one. The qdisc stays when we go: others may use it.
 *
 * A device name may contain dots, which bpffs refuses in names, so links are named after the interface's index; and
 * after the network namespace, since bpffs may be shared by several, in which the same index is another device. A link
 * whose own index is not the one in its name (0) has lost its device: the index may be another device's by now.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datapath/datapath_int.h"

/* Linux 6.6; the headers of libbpf 1.1 are older. */
#define TCX_INGRESS   46
#define TCX_EGRESS    47
#define F_BEFORE      (1U << 3)
#define LINK_TYPE_TCX 11

#define TC_HANDLE     0x6b7673 /* "kvs" */
#define TC_PRIORITIES 4

static const struct {
	const char *name;
	enum bpf_attach_type tcx;
	enum bpf_tc_attach_point tc;
} hooks[HOOKS] = {
	[HOOK_INGRESS] = { "ingress", (enum bpf_attach_type)TCX_INGRESS, BPF_TC_INGRESS },
	[HOOK_EGRESS] = { "egress", (enum bpf_attach_type)TCX_EGRESS, BPF_TC_EGRESS },
};

const char *hook_name(enum hook h)
{
	return hooks[h].name;
}

const char *attach_name(enum datapath_attach how)
{
	return how == DATAPATH_TCX ? "tcx" : how == DATAPATH_CLSACT ? "clsact" : "none";
}

/* --- tcx --- */

unsigned long netns_id(void)
{
	struct stat st;

	return stat("/proc/thread-self/ns/net", &st) < 0 ? 0 : (unsigned long)st.st_ino;
}

static void link_path(char path[PIN_MAX], const char *dir, uint32_t ifindex, enum hook h)
{
	snprintf(path, PIN_MAX, "%.190s/links/n%lu_if%u_%s", dir, netns_id(), ifindex, hooks[h].name);
}

/* 1: there and ours, 0: no such link, or a stale one that has been removed. */
static int link_adopt(const struct programs *p, uint32_t ifindex, enum hook h)
{
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info);
	char path[PIN_MAX];
	int fd, r = 1;

	link_path(path, PIN_DIR, ifindex, h);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	/* In a tcx link's information the index lies where an XDP link's does. */
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0) {
		r = -errno;
	} else if (info.type != LINK_TYPE_TCX || info.xdp.ifindex != ifindex) {
		r = unlink(path) < 0 ? -errno : 0;
	} else if (info.prog_id != p->id[h] && bpf_link_update(fd, p->fd[h], NULL) < 0) {
		r = -errno;
	}
	close(fd);
	return r;
}

/* 0: it was there, 1: it is new, or an error. */
static int link_make(const struct programs *p, uint32_t ifindex, enum hook h)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = F_BEFORE);
	char path[PIN_MAX];
	int fd, r;

	r = link_adopt(p, ifindex, h);
	if (r)
		return r < 0 ? r : 0;
	fd = bpf_link_create(p->fd[h], (int)ifindex, hooks[h].tcx, &opts);
	if (fd < 0)
		return -errno;
	link_path(path, PIN_DIR, ifindex, h);
	r = bpf_obj_pin(fd, path) < 0 ? -errno : 1;
	close(fd); /* unpinned, it goes with this */
	return r;
}

/* Detach first: without its last pin a link goes only some time later, and attaching again would find it in the way. */
static void link_remove(const char *dir, uint32_t ifindex, enum hook h)
{
	char path[PIN_MAX];
	int fd;

	link_path(path, dir, ifindex, h);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return;
	bpf_link_detach(fd);
	unlink(path);
	close(fd);
}

/* --- clsact --- */

bool filter_find(const struct ours *ours, uint32_t ifindex, enum hook h, struct filter *ret)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = hooks[h].tc);

	for (uint32_t prio = 1; prio <= TC_PRIORITIES; prio++) {
		LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = prio);

		if (bpf_tc_query(&hook, &opts) == 0 && opts.prog_id && is_ours(ours, opts.prog_id)) {
			*ret = (struct filter){ opts.handle, opts.priority, opts.prog_id };
			return true;
		}
	}
	return false;
}

static void filter_remove(const struct ours *ours, uint32_t ifindex, enum hook h)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = hooks[h].tc);
	struct filter f;

	if (filter_find(ours, ifindex, h, &f)) {
		LIBBPF_OPTS(bpf_tc_opts, opts, .handle = f.handle, .priority = f.priority);

		bpf_tc_detach(&hook, &opts);
	}
}

static int filter_make(const struct programs *p, const struct ours *ours, uint32_t ifindex, enum hook h)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = hooks[h].tc);
	struct filter f;
	int r;

	if (filter_find(ours, ifindex, h, &f)) {
		LIBBPF_OPTS(bpf_tc_opts, opts, .handle = f.handle, .priority = f.priority, .prog_fd = p->fd[h],
			    .flags = BPF_TC_F_REPLACE);

		return f.program == p->id[h] ? 0 : bpf_tc_attach(&hook, &opts);
	}
	r = bpf_tc_hook_create(&hook);
	if (r && r != -EEXIST)
		return r;
	for (uint32_t prio = 1; prio <= TC_PRIORITIES; prio++) {
		LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = prio, .prog_fd = p->fd[h]);

		r = bpf_tc_attach(&hook, &opts);
		if (r != -EINVAL && r != -EEXIST)
			break;
	}
	return r;
}

/* --- both --- */

int attach_device(const struct programs *p, const struct ours *ours, uint32_t ifindex, enum datapath_attach want,
		  enum datapath_attach *ret_how)
{
	int r;

	for (enum hook h = 0; h < HOOKS; h++) {
		if (want != DATAPATH_CLSACT) {
			r = link_make(p, ifindex, h);
			if (r >= 0) {
				want = DATAPATH_TCX;
				if (r) /* in the place of clsact: nothing is to count twice */
					filter_remove(ours, ifindex, h);
				continue;
			}
			if (want == DATAPATH_TCX || (r != -EINVAL && r != -EOPNOTSUPP))
				return r;
			want = DATAPATH_CLSACT;
		}
		r = filter_make(p, ours, ifindex, h);
		if (r)
			return r;
		link_remove(PIN_DIR, ifindex, h);
	}
	*ret_how = want;
	return 0;
}

void detach_device(const char *dir, const struct ours *ours, uint32_t ifindex)
{
	for (enum hook h = 0; h < HOOKS; h++) {
		link_remove(dir, ifindex, h);
		filter_remove(ours, ifindex, h);
	}
}

static int device_cmp(const void *a, const void *b)
{
	const struct device *x = a, *y = b;

	return (x->ifindex > y->ifindex) - (x->ifindex < y->ifindex);
}

static int device_add(struct device **v, unsigned *n, uint32_t ifindex, enum datapath_attach how)
{
	struct device *w;

	for (unsigned i = 0; i < *n; i++)
		if ((*v)[i].ifindex == ifindex)
			return 0;
	w = realloc(*v, (*n + 1) * sizeof(*w));
	if (!w)
		return -ENOMEM;
	w[(*n)++] = (struct device){ .ifindex = ifindex, .how = how };
	*v = w;
	return 0;
}

/* The index that the pinned link itself has, 0 if its device is gone. */
static uint32_t link_ifindex(const char *path)
{
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info), ifindex = 0;
	int fd = bpf_obj_get(path);

	if (fd < 0)
		return 0;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0)
		ifindex = info.xdp.ifindex;
	close(fd);
	return ifindex;
}

static int linked_devices(const char *dir, struct device **v, unsigned *n)
{
	unsigned long own = netns_id(), netns;
	char path[PIN_MAX], file[2 * PIN_MAX + 2];
	struct dirent *e;
	uint32_t ifindex;
	int r = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%.200s/links", dir);
	d = opendir(path);
	while (d && !r && (e = readdir(d))) {
		if (sscanf(e->d_name, "n%lu_if%u_", &netns, &ifindex) != 2)
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		if (link_ifindex(file) != ifindex)
			unlink(file);
		else if (netns == own)
			r = device_add(v, n, ifindex, DATAPATH_TCX);
	}
	if (d)
		closedir(d);
	return r;
}

int attached_devices(const char *dir, const struct ours *ours, struct device **ret, unsigned *ret_n)
{
	struct if_nameindex *ifs = if_nameindex();
	struct device *v = NULL;
	struct filter f;
	unsigned n = 0;
	int r = linked_devices(dir, &v, &n);

	for (struct if_nameindex *i = ifs; i && i->if_index && !r; i++)
		for (enum hook h = 0; h < HOOKS && !r; h++)
			if (filter_find(ours, i->if_index, h, &f))
				r = device_add(&v, &n, i->if_index, DATAPATH_CLSACT);
	if_freenameindex(ifs);
	if (r) {
		free(v);
		return r;
	}
	if (n)
		qsort(v, n, sizeof(*v), device_cmp);
	*ret = v;
	*ret_n = n;
	return 0;
}

unsigned version_remove(const char *dir)
{
	struct device *devs = NULL;
	struct ours ours;
	unsigned n = 0;

	pins_ours(dir, &ours);
	attached_devices(dir, &ours, &devs, &n);
	for (unsigned i = 0; i < n; i++)
		detach_device(dir, &ours, devs[i].ifindex);
	free(devs);
	pins_remove(dir);
	return n;
}
