/* SPDX-License-Identifier: Apache-2.0
 * Private to datapath/: pins, hooks, attachments. kernel.c and null.c implement kernel_*, one of them is built.
 */
#ifndef KVS_DATAPATH_DATAPATH_INT_H
#define KVS_DATAPATH_DATAPATH_INT_H

#include <net/if.h>

#include "datapath/datapath.h"
#include "kvsteer/abi.h"

#define TEXT_(x) #x
#define TEXT(x)	 TEXT_(x)

#define BPFFS	 "/sys/fs/bpf"
#define PIN_ROOT BPFFS "/kvsteer"
#define PIN_DIR	 PIN_ROOT "/v" TEXT(KVS_ABI)
#define PIN_MAX	 256

enum hook { HOOK_INGRESS, HOOK_EGRESS, HOOKS };

/* The programs of one generation: descriptors and the kernel's ids for them. */
struct programs {
	int fd[HOOKS]; /* -1: none */
	uint32_t id[HOOKS];
};

/* A device that carries our programs. */
struct device {
	uint32_t ifindex;
	enum datapath_attach how;
	int err; /* 0, or why attaching failed */
};

struct datapath {
	bool kernel;
	bool auto_devices;
	enum datapath_attach attach;
	char why[DATAPATH_WHY_MAX];
	struct programs progs;
	int pods_fd, devices_fd;
	uint64_t *cpu_values; /* room for one value of any map on each CPU */
	char (*names)[IF_NAMESIZE];
	unsigned nnames; /* devices that the configuration names */
	struct device *devices;
	unsigned ndevices; /* sorted by ifindex */
	struct kvs_pod_key *pods;
	unsigned npods; /* sorted */
};

/* Write the reason (printf-like) and return <r>. */
int why_set(char why[DATAPATH_WHY_MAX], int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --- kernel.c / null.c --- */

/* Load or take over: fills progs, pods_fd, devices_fd. */
int kernel_load(struct datapath *dp);

/* --- pins.c --- */
int pins_prepare(char why[DATAPATH_WHY_MAX]); /* mounts bpffs if need be, makes the folders */
/* Are the attributes of the pinned map <fd> those of the map to be? -EEXIST and a reason that names the difference. */
struct bpf_map;
int pins_map_fits(int fd, const struct bpf_map *m, char why[DATAPATH_WHY_MAX]);
void pins_remove(const char *dir); /* PIN_ROOT/vN with all that is in it */
int pins_programs(const char *dir, struct programs *current, struct programs *next);
void programs_close(struct programs *p);
/* From now on libbpf is silent; the first line that it would have printed since pins_said(NULL) is kept. */
const char *pins_said(void);
void pins_listen(void);

/* --- attach.c --- */

const char *hook_program(enum hook h); /* "kvs_pod_ingress" */
const char *hook_name(enum hook h);    /* "ingress" */
const char *attach_name(enum datapath_attach how);

/* Idempotent; replaces an older program of ours. <old>: programs that count as ours as well, may be NULL. */
int attach_device(const struct programs *p, const struct programs *old, uint32_t ifindex, enum datapath_attach want,
		  enum datapath_attach *ret_how);
void detach_device(const char *dir, const struct programs *p, uint32_t ifindex);

/* Devices that carry pinned links below <dir>, or filters with a program of <p> or <old>: sorted, malloced. */
int attached_devices(const char *dir, const struct programs *p, const struct programs *old, struct device **ret,
		     unsigned *ret_n);

struct filter {
	uint32_t handle, priority, program;
};
/* Is there a filter of ours (program of <p> or <old>) at this hook by clsact? */
bool filter_find(const struct programs *p, const struct programs *old, uint32_t ifindex, enum hook h,
		 struct filter *ret);

/* --- route.c --- */

/* Interface indices of the routes to <pods>, sorted and unique, malloced. A pod without a route is left out. */
int route_devices(const struct kvs_pod_key *pods, unsigned n, uint32_t **ret, unsigned *ret_n);

/* --- dump.c --- */

struct btf;
/* A key or value as the BTF type says: JSON into <w>, or "a=1 b.c=2" into <text> (one of them is NULL). */
void btf_print(const struct btf *btf, uint32_t type, const void *data, struct jw *w, struct buf *text);

/* --- shared --- */
void key_from_addr(struct kvs_pod_key *k, const struct net_addr *a);
void key_format(const struct kvs_pod_key *k, char out[NET_NAME_MAX]);
void addr_format(const struct kvs_addr *a, char out[NET_NAME_MAX]);

/* The sum over all CPUs of a value made of <words> counters. <scratch>: CPUs × words. */
int map_sum(int fd, const void *key, uint64_t *scratch, uint64_t *ret, unsigned words);

#endif
