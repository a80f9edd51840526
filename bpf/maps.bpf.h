/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * All maps. User space pins each under its name; types of keys and values are in the map's BTF, so dumps are readable.
 */
#ifndef KVS_MAPS_BPF_H
#define KVS_MAPS_BPF_H

/* Only user space adds and removes entries, hence no preallocation: memory is held for the pods that there are. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, KVS_MAX_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct kvs_pod_key);
	__type(value, struct kvs_pod_counts);
} kvs_pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, KVS_MAX_DEVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct kvs_device_counts);
} kvs_devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kvs_meta);
} kvs_meta SEC(".maps");

#endif
