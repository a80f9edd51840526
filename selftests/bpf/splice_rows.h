/* SPDX-License-Identifier: Apache-2.0
 * The rows of the splice's rule tables as tests see them: names, where a row's packet goes, how often each was taken.
 */
#ifndef KVS_SELFTESTS_SPLICE_ROWS_H
#define KVS_SELFTESTS_SPLICE_ROWS_H

#include "env.h"

#include "kvsteer/abi_splice.h"

static const struct {
	const char *name;
	uint8_t goes;
} row_of[] = {
#define X(NAME, name, goes) { #name, KVS_GOES_##goes },
	KVS_ROWS(X)
#undef X
};

static inline void rows_read(const struct bpf_map *kvs_rows, union kvs_row_counts *ret)
{
	int cpus = libbpf_num_possible_cpus();
	union kvs_row_counts *v = calloc((size_t)cpus, sizeof(*v));
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(kvs_rows), &zero, v), 0);
	memset(ret, 0, sizeof(*ret));
	for (int c = 0; c < cpus; c++)
		for (unsigned i = 0; i < KVS_ROWS_N; i++)
			ret->row[i] += v[c].row[i];
	free(v);
}

#endif
