/* SPDX-License-Identifier: Apache-2.0
 * The kernel's part of the gateway: loads the BPF programs, pins them with their maps, attaches them to the devices by
 * which pods are reached, keeps the maps equal to the set of pods, reads the counts back.
 *
 * Where there is no BPF (no privileges, a kernel without it, a build without clang) a datapath is still made: one that
 * does nothing and says why. The relay needs nothing of it.
 *
 * Pins outlive the process: programs go on counting while no daemon runs, and the next one takes them over.
 * Ownership: what carries our pins or our programs is ours; filters, qdiscs and pins of others are never changed.
 * Threads: one, the control thread; calls may wait for netlink.
 * Errors: 0 or a negative errno; the text to show is datapath_why.
 */
#ifndef KVS_DATAPATH_DATAPATH_H
#define KVS_DATAPATH_DATAPATH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/jw.h"
#include "net/net.h"

#define DATAPATH_WHY_MAX 512

struct datapath;

enum datapath_attach { DATAPATH_ATTACH_AUTO, DATAPATH_TCX, DATAPATH_CLSACT };

struct datapath_opts {
	const char *mode;    /* "auto", "tc", "skmsg", "relay": load; "off": do not. NULL is "auto" */
	const char *devices; /* "auto" (NULL): those that routes to the pods use; or names, separated by commas */
	enum datapath_attach attach; /* auto: tcx where the kernel has it, else clsact */
};

struct datapath_pod {
	struct net_addr addr;
};

struct datapath_flow {
	uint64_t bytes, packets, connections;
};

struct datapath_counts {
	struct datapath_flow to_pod, from_pod;
};

/* NULL (ENOMEM) or a datapath; <why> is "" if the kernel takes part, else the reason. */
struct datapath *datapath_open(const struct datapath_opts *o, char why[DATAPATH_WHY_MAX]);

/* <unpin>: nothing of it stays behind in the kernel (but a clsact qdisc, which others may use by now). */
void datapath_close(struct datapath *dp, bool unpin);

bool datapath_kernel(const struct datapath *dp);

/* The last reason, from opening or a later call: "" when all is well. */
const char *datapath_why(const struct datapath *dp);

/* Make the kernel's set equal to <pods> and attach to the devices that they need (duplicates are fine; the counts of a
 * pod that stays go on, those of one that left are gone). What can be done is done; the first error is returned. A
 * configured device that does not exist (yet) is no error, but datapath_why tells of it. */
int datapath_set_pods(struct datapath *dp, const struct datapath_pod *pods, unsigned n);

/* The same set again: follows routes that moved and devices that came or went. Call it every few seconds. */
int datapath_refresh(struct datapath *dp);

/* -ENOENT: not in the set, or no kernel part. */
int datapath_counts(struct datapath *dp, const struct net_addr *pod, struct datapath_counts *ret);

/* One JSON object: carrier, kernel, why, devices with what their programs saw, pods with counts. */
void datapath_describe(struct datapath *dp, struct jw *w);

/* --- for the CLI: straight from the pins, no daemon needed. Text or JSON goes to <out>, a line to <err>. ---
 * 0; -ENOENT: nothing is pinned, or no such map; -EPERM, … */
int bpf_cmd_show(bool json, struct buf *out, struct buf *err);
int bpf_cmd_dump(const char *map, bool json, struct buf *out, struct buf *err);
int bpf_cmd_unload(struct buf *out, struct buf *err); /* detach and unpin all versions */

#endif
