/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * Maps of the splice, beside those of maps.bpf.h. What is in them: kvsteer/abi_splice.h. User space pins each under its
 * name and may set max_entries before it loads.
 */
#ifndef KVS_SPLICE_MAPS_BPF_H
#define KVS_SPLICE_MAPS_BPF_H

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KVS_MAX_CONNS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct kvs_tuple);
	__type(value, struct kvs_conn);
} kvs_conns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, KVS_MAX_SYNS);
	__type(key, struct kvs_tuple);
	__type(value, struct kvs_syn);
} kvs_syns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KVS_MAX_LISTENERS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct kvs_pod_key);
	__type(value, __u32);
} kvs_listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, KVS_MAX_DIALS);
	__type(key, __u64);
	__type(value, __u32);
} kvs_dials SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KVS_MAX_SPLICES + 1);
	__type(key, __u32);
	__type(value, struct kvs_splice);
} kvs_splices SEC(".maps");

/* An image of 64 KB of a connection: byte with number n lies at n mod 64 K. The slack is for the verifier, which does
 * not see that a piece ends where the image does. */
struct store {
	__u8 b[KVS_STORE_BYTES + KVS_STORE_SLACK];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KVS_STORES);
	__type(key, __u32);
	__type(value, struct store);
} kvs_stores SEC(".maps");

/* Slots that were used and are free again; those from kvs_store_new on were never used. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, KVS_STORES);
	__type(value, __u32);
} kvs_store_free SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} kvs_store_new SEC(".maps");

/* By splice id. The event of the end is written in front, so that both go to the ring as one record. */
struct tail {
	struct kvs_event event;
	__u8 b[KVS_TAIL_BYTES + KVS_TAIL_SLACK];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KVS_TAILS);
	__type(key, __u32);
	__type(value, struct tail);
} kvs_tails SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, KVS_RING_BYTES);
} kvs_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, KVS_MAX_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct kvs_pod_key);
	__type(value, struct kvs_pod_times);
} kvs_pod_times SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, union kvs_row_counts);
} kvs_rows SEC(".maps");

#endif
