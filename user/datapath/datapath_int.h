/* SPDX-License-Identifier: Apache-2.0
 * Private to datapath/: pins, hooks, attachments. kernel.c and null.c implement kernel_*, one of them is built.
 */
#ifndef KVS_DATAPATH_DATAPATH_INT_H
#define KVS_DATAPATH_DATAPATH_INT_H

#include <net/if.h>
#include <pthread.h>
#include <stdatomic.h>

#include "datapath/datapath.h"
#include "kvsteer/abi_splice.h"

#define TEXT_(x) #x
#define TEXT(x)	 TEXT_(x)

#define BPFFS	 "/sys/fs/bpf"
#define PIN_ROOT BPFFS "/kvsteer"
#define PIN_DIR	 PIN_ROOT "/v" TEXT(KVS_ABI)
#define PIN_MAX	 256

#define DEVICE_WORDS  (sizeof(struct kvs_device_counts) / 8)
#define CPU_VALUE_MAX sizeof(struct kvs_pod_times) /* the largest per-CPU value that is summed up here */

enum hook { HOOK_INGRESS, HOOK_EGRESS, HOOKS };

/* What can be loaded: programs that count, or programs that count and splice, with those that user space calls. */
enum set { SET_COUNT, SET_SPLICE, SETS };

#define CALLS_LIST(X) X(conn_add) X(conn_close) X(bind) X(arm) X(closing) X(unbind)

enum call {
#define X(name) CALL_##name,
	CALLS_LIST(X)
#undef X
		CALLS
};

/* The programs of one generation: descriptors and the kernel's ids for them. Hooks come first, then calls. */
#define PROGRAMS (HOOKS + CALLS)
struct programs {
	enum set set;
	int fd[PROGRAMS]; /* -1: none */
	uint32_t id[PROGRAMS];
};

/* Ids of all our programs, of every generation that is pinned below one folder. */
#define OURS_MAX 64
struct ours {
	uint32_t id[OURS_MAX];
	unsigned n;
};

/* The splice's maps that user space opens. */
#define MAPS_LIST(X) X(conns) X(dials) X(splices) X(tails) X(listeners) X(events) X(pod_times) X(rows)
enum map {
#define X(name) MAP_##name,
	MAPS_LIST(X)
#undef X
		MAPS
};

struct splicer;

/* A device that carries our programs. */
struct device {
	uint32_t ifindex;
	enum datapath_attach how;
	int err;     /* 0, or why attaching failed */
	bool wanted; /* by a route, the configuration, or a client just now */
	bool client; /* once by a client */
	bool served; /* our programs run */
	bool watched[HOOKS];
	uint64_t packets[HOOKS], seen[HOOKS]; /* of the device and of our programs, when the latter last moved */
};

struct datapath {
	bool kernel;
	bool wants_splices; /* the mode that it was told */
	bool away;	    /* another network namespace's daemon has the pins: asked for again at each refresh */
	bool shared;	    /* another daemon lives: what we do not know of may be its */
	bool auto_devices;
	enum datapath_attach attach;
	char why[DATAPATH_WHY_MAX];
	uint64_t owner; /* who we are to others */
	int owner_fd;	/* the lock that says that we live, -1 */
	uint64_t opened_at;
	struct programs progs;
	struct ours ours;
	int map[MAPS];		      /* -1 */
	_Atomic(struct splicer *) sp; /* NULL: the splice's programs are not loaded. Set once */
	_Atomic bool on;	      /* new connections and pairs may have it */
	uint64_t stall, retain, orphan;
	uint32_t splices;
	pthread_mutex_t workers_lock;
	struct carrier_worker *workers;
	int pods_fd, devices_fd;
	uint64_t *cpu_values; /* room for one value of any map on each CPU */
	char (*names)[IF_NAMESIZE];
	unsigned nnames; /* devices that the configuration names */
	struct device *devices;
	unsigned ndevices;
	struct kvs_pod_key *pods;
	unsigned npods; /* sorted */
	struct kvs_pod_key *listeners;
	unsigned nlisteners; /* sorted */
};

/* Write the reason (printf-like) and return <r>. */
int why_set(char why[DATAPATH_WHY_MAX], int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --- kernel.c / null.c --- */

/* Become one of those who use the pins: fills owner, owner_fd. The descriptor of pins_lock, or a negative errno: -EBUSY
 * if a daemon of another network namespace uses them. */
int kernel_enter(struct datapath *dp);
/* With that lock. Load or take over: fills progs, ours, pods_fd, devices_fd; with SET_SPLICE map[] too. Doing it again
 * with another set replaces the programs where they are attached. */
int kernel_load(struct datapath *dp, enum set set);

/* --- pins.c --- */
int pins_prepare(char why[DATAPATH_WHY_MAX]); /* mounts bpffs if need be, makes the folders */
/* Are the attributes of the pinned map <fd> those of the map to be? -EEXIST and a reason that names the difference. The
 * sizes of the splice's maps are a matter of configuration: the pinned one's are taken over. */
struct bpf_map;
int pins_map_fits(int fd, struct bpf_map *m, char why[DATAPATH_WHY_MAX]);
/* For those who change what is attached or pinned: a descriptor that has it until it is closed, -errno (-EWOULDBLOCK).
 */
int pins_lock(bool wait);
void pins_remove(const char *dir);		    /* PIN_ROOT/vN with all that is in it */
const char *program_name(enum set set, unsigned i); /* NULL: the set has none there */
void programs_init(struct programs *p, enum set set);
int pins_programs(const char *dir, enum set set, struct programs *ret); /* -ENOENT: one is missing */
void programs_close(struct programs *p);
/* Another daemon may have put its programs in the place of ours. It came later: its are ours from now on. */
void programs_follow(struct datapath *dp);
void pins_ours(const char *dir, struct ours *ret);
bool is_ours(const struct ours *o, uint32_t id);
int pins_map(const char *dir, const char *name); /* descriptor or -errno */
bool pins_in_use(const char *dir);		 /* are there connections in the splice's maps? */
/* From now on libbpf is silent; the first line that it would have printed since then is kept. */
const char *pins_said(void);
void pins_listen(void);

/* --- owner.c --- */

#define OWNERS_HERE 1U				       /* in this network namespace */
#define OWNERS_AWAY 2U				       /* in another one */
unsigned owner_others(const char *dir, uint64_t self); /* that live; removes the dead ones' entries */
int owner_open(uint64_t owner);			       /* a descriptor that is held as long as we live */
void owner_close(uint64_t owner, int fd);
void owner_remove(const char *path); /* the folder of one */

/* --- attach.c --- */

unsigned long netns_id(void);	    /* of this network namespace, unique among those that live */
const char *hook_name(enum hook h); /* "ingress" */
const char *attach_name(enum datapath_attach how);

/* Idempotent; replaces an older program of ours. */
int attach_device(const struct programs *p, const struct ours *ours, uint32_t ifindex, enum datapath_attach want,
		  enum datapath_attach *ret_how);
void detach_device(const char *dir, const struct ours *ours, uint32_t ifindex);
unsigned version_remove(const char *dir); /* detach and unpin all of it; from how many devices */

/* Devices of this network namespace that carry pinned links below <dir>, or filters with a program of ours: sorted,
 * malloced. Pins of links whose device has gone are removed. */
int attached_devices(const char *dir, const struct ours *ours, struct device **ret, unsigned *ret_n);

struct filter {
	uint32_t handle, priority, program;
};
/* Is there a filter of ours at this hook by clsact? */
bool filter_find(const struct ours *ours, uint32_t ifindex, enum hook h, struct filter *ret);

/* --- devices.c --- */

int devices_adopt(struct datapath *dp); /* those that a former daemon left */
int devices_reconcile(struct datapath *dp);
/* Do our programs run, as far as these counts tell? */
bool device_watch(struct device *d, enum hook h, uint64_t packets, uint64_t seen);
void describe_device(struct datapath *dp, struct jw *w, const struct device *d);

/* --- route.c --- */

/* Interface indices of the routes to <pods>, sorted and unique, malloced. A pod without a route is left out. */
int route_devices(const struct kvs_pod_key *pods, unsigned n, uint32_t **ret, unsigned *ret_n);
/* What the kernel says of a device: ARPHRD_…, packets by direction. -ENODEV */
struct link_state {
	unsigned type;
	uint64_t packets[HOOKS];
};
int link_read(uint32_t ifindex, struct link_state *ret);

/* --- dump.c --- */

struct btf;
/* A key or value as the BTF type says: JSON into <w>, or "a=1 b.c=2" into <text> (one of them is NULL). */
void btf_print(const struct btf *btf, uint32_t type, const void *data, struct jw *w, struct buf *text);

/* --- shared --- */
unsigned cpus_possible(void);
void key_from_addr(struct kvs_pod_key *k, const struct net_addr *a);
void key_format(const struct kvs_pod_key *k, char out[NET_NAME_MAX]);
void addr_format(const struct kvs_addr *a, char out[NET_NAME_MAX]);

/* The sum over all CPUs of a value made of <words> counters. <scratch>: CPUs × words. */
int map_sum(int fd, const void *key, uint64_t *scratch, uint64_t *ret, unsigned words);

#endif
